//! A few checks of the source itself. This test fails on four things: a floor that uses a higher one, unsafe outside
//! its rooms, unsafe without its reason, and a citation or link that leads nowhere. The rest is taste, and taste is
//! reading.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms of the engine and the floor each stands on. `lib.rs` and `job` are the façade: the command line may use them
/// and the values of floor 0.
const ROOMS: &[(&str, u8)] = &[
    ("units", 0),
    ("limits", 0),
    ("entropy", 0),
    ("report", 0),
    ("text", 0),
    ("watchdog", 0),
    ("judges", 0),
    ("hash", 1),
    ("crypt", 1),
    ("gpt", 1),
    ("ntfs", 1),
    ("bitlocker", 1),
    ("azure", 1),
    ("checkpoint", 2),
    ("plan", 2),
    ("io", 3),
    ("pool", 3),
    ("device", 3),
    ("source", 3),
    ("files", 3),
    ("surroundings", 3),
    ("prep", 4),
    ("verify", 4),
    ("image", 4),
    ("bench", 4),
    ("survey", 4),
    ("job", 5),
];

/// The kernels of floor 1: they stand on floor 0 alone (and `crypt` on `hash`); formats may use them, not each other.
const KERNELS: &[&str] = &["hash", "crypt"];

/// Files and folders below `engine/src` in which unsafe is allowed.
const UNSAFE_ROOMS: &[&str] = &["io/uring", "pool", "device/ioctl", "hash/md5_lanes"];

fn floor(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Whether code in room `from` may name room `to`.
fn may_use(from: &str, to: &str) -> bool {
    let (Some(low), Some(high)) = (floor(from), floor(to)) else {
        return false;
    };
    if from == to || high < low {
        return true;
    }
    // On the same floor: values may use each other, formats only the kernels, upper floors may.
    high == low && (low != 1 || KERNELS.contains(&to) && from != "hash")
}

/// Rust source with comments and the insides of literals blanked, line by line, and separately the comments of each
/// line.
struct Source {
    code: Vec<String>,
    comments: Vec<String>,
}

impl Source {
    fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
        let (mut code, mut comments) = (vec![String::new()], vec![String::new()]);
        let mut i = 0;
        let mut put = |c: char, comment: bool| {
            if c == '\n' {
                code.push(String::new());
                comments.push(String::new());
            } else if comment {
                comments.last_mut().expect("a line").push(c);
            } else {
                code.last_mut().expect("a line").push(c);
            }
        };
        while i < chars.len() {
            let before = if i > 0 { at(i - 1) } else { '\0' };
            if at(i) == '/' && at(i + 1) == '/' {
                while i < chars.len() && at(i) != '\n' {
                    put(at(i), true);
                    i += 1;
                }
            } else if at(i) == '/' && at(i + 1) == '*' {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        (c, _) => {
                            put(c, true);
                            i += 1;
                        }
                    }
                    if depth == 0 {
                        break;
                    }
                }
            } else if at(i) == 'r' && !is_ident(before) | (before == 'b') && raw_hashes(&chars[i + 1..]).is_some() {
                let hashes = raw_hashes(&chars[i + 1..]).expect("just seen");
                i += hashes + 2;
                while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                    if at(i) == '\n' {
                        put('\n', false);
                    }
                    i += 1;
                }
                i += hashes + 1;
                put('"', false);
            } else if at(i) == '"' {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    if at(i) == '\n' {
                        put('\n', false);
                    }
                    i += if at(i) == '\\' && at(i + 1) != '\n' { 2 } else { 1 };
                }
                i += 1;
                put('"', false);
            } else if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
                // A character, not a lifetime: '\…' or one character between quotes.
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
                put('"', false);
            } else {
                put(at(i), false);
                i += 1;
            }
        }
        Self { code, comments }
    }

    /// Words, `::` and single signs, with the line (from 0) each stands on.
    fn tokens(&self) -> Vec<(usize, String)> {
        let mut tokens = Vec::new();
        for (line, text) in self.code.iter().enumerate() {
            let mut rest = text.as_str();
            while let Some(first) = rest.chars().next() {
                let len = if is_ident(first) {
                    rest.find(|c| !is_ident(c)).unwrap_or(rest.len())
                } else if rest.starts_with("::") {
                    2
                } else {
                    first.len_utf8()
                };
                if !first.is_whitespace() {
                    tokens.push((line, rest[..len].to_owned()));
                }
                rest = &rest[len..];
            }
        }
        tokens
    }

    /// Whether the statement around `line` carries its reason: on that line, or in the comment above the statement.
    fn has_reason(&self, line: usize) -> bool {
        let says_why =
            |line: usize| self.comments[line].contains("SAFETY:") || self.comments[line].contains("# Safety");
        if says_why(line) {
            return true;
        }
        let mut commented = false;
        for above in (0..line).rev() {
            let code = self.code[above].trim();
            if code.is_empty() {
                if self.comments[above].is_empty() {
                    return false;
                }
                commented = true;
                if says_why(above) {
                    return true;
                }
            } else if commented || code.ends_with([';', '{', '}', ',']) {
                return false;
            }
        }
        false
    }
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The number of `#` between `r` and the quote of a raw string; `None` when it is none.
fn raw_hashes(after_r: &[char]) -> Option<usize> {
    let hashes = after_r.iter().take_while(|c| **c == '#').count();
    (after_r.get(hashes) == Some(&'"')).then_some(hashes)
}

/// Rooms named by one file: by `crate::…`, by enough `super::…`, or (from outside) by `dray_engine::…`.
/// `depth` is how many modules the file is below the crate root; `None` for a file of another crate.
fn rooms_named(source: &Source, depth: Option<usize>) -> Vec<(usize, String)> {
    let tokens = source.tokens();
    let word = |i: usize| tokens.get(i).map_or("", |(_, word)| word.as_str());
    let mut named = Vec::new();
    // For every open brace, whether it opened an inline module: `super` climbs out of those first.
    let mut braces: Vec<bool> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match word(i) {
            "{" => braces.push(i >= 2 && word(i - 2) == "mod"),
            "}" => {
                braces.pop();
            }
            _ => {}
        }
        let starts_path =
            i == 0 || word(i - 1) != "::" || i >= 2 && !is_ident(word(i - 2).chars().next().unwrap_or(' '));
        let root = match (word(i), depth) {
            ("crate", Some(_)) | ("dray_engine", None) if starts_path => Some(i + 1),
            ("super", Some(depth)) if starts_path => {
                let supers = (0..).take_while(|n| word(i + 2 * n) == "super" && word(i + 2 * n + 1) == "::").count();
                let end = i + 2 * supers;
                let inline = braces.iter().filter(|inline| **inline).count();
                // At the root the next word is the room; short of it, the path stays inside the room.
                let at_root = supers == depth + inline;
                if supers > 0 {
                    i = end - 2;
                }
                at_root.then_some(end.saturating_sub(1))
            }
            _ => None,
        };
        if let Some(root) = root.filter(|root| word(*root) == "::") {
            if word(root + 1) == "{" {
                let mut open = 0;
                let mut j = root + 1;
                loop {
                    match word(j) {
                        "{" => open += 1,
                        "}" => open -= 1,
                        "" => break,
                        name if open == 1 && matches!(word(j - 1), "{" | ",") => {
                            named.push((tokens[j].0, name.to_owned()))
                        }
                        _ => {}
                    }
                    if open == 0 {
                        break;
                    }
                    j += 1;
                }
            } else if root + 1 < tokens.len() {
                named.push((tokens[root + 1].0, word(root + 1).to_owned()));
            }
        }
        i += 1;
    }
    named
}

/// Complaints about one file. `path` is relative to the project, with slashes.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let source = Source::new(text);
    let mut found = Vec::new();
    let inside = path.strip_prefix("engine/src/");

    if let Some(inside) = inside.filter(|inside| *inside != "lib.rs") {
        let modules: Vec<&str> = inside.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
        let room = modules[0];
        if floor(room).is_none() {
            found.push(format!("{path}: room `{room}` stands on no floor; give it one in engine/tests/tidy.rs"));
        }
        for (line, named) in rooms_named(&source, Some(modules.len())) {
            if floor(room).is_some() && floor(&named).is_some() && !may_use(room, &named) {
                found.push(format!("{path}:{}: `{room}` must not use `{named}`", line + 1));
            }
        }
    }
    if path.starts_with("cli/src/") {
        for (line, named) in rooms_named(&source, None) {
            if floor(&named).is_some_and(|floor| (1..=4).contains(&floor)) {
                found.push(format!("{path}:{}: the command line uses the façade, not `{named}`", line + 1));
            }
        }
    }

    let allowed = inside.is_some_and(|inside| {
        UNSAFE_ROOMS.iter().any(|room| inside.strip_prefix(room).is_some_and(|rest| rest.starts_with(['.', '/'])))
    });
    let tokens = source.tokens();
    for (i, (line, word)) in tokens.iter().enumerate() {
        if word != "unsafe" {
            continue;
        }
        if !allowed {
            found.push(format!("{path}:{}: unsafe outside its rooms ({})", line + 1, UNSAFE_ROOMS.join(", ")));
        }
        // Blocks, impls, attributes and foreign blocks claim that a duty is met, and owe the reason; `unsafe fn` and
        // `unsafe trait` state a duty, which their documentation does (clippy's `missing_safety_doc`).
        let next: Vec<&str> = tokens[i + 1..].iter().take(4).map(|(_, word)| word.as_str()).collect();
        let claims = matches!(next[..], ["{" | "impl" | "(", ..] | ["extern", "{", ..] | ["extern", "\"", "{", ..]);
        if claims && !source.has_reason(*line) {
            found.push(format!("{path}:{}: unsafe without a SAFETY comment", line + 1));
        }
    }
    found
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `dir` that `wanted` selects, without build output and hidden directories.
fn files_below(dir: &Path, wanted: &dyn Fn(&Path) -> bool, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the project is readable").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files_below(&path, wanted, out);
            }
        } else if wanted(&path) {
            out.push(path);
        }
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
}

/// Anchors of a Markdown file's headings, by GitHub's rule: lower case, punctuation dropped, blanks to hyphens, a number
/// after each repetition.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut repeated: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
        let anchor: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        match repeated.iter().filter(|other| **other == anchor).count() {
            0 => found.push(anchor.clone()),
            times => found.push(format!("{anchor}-{times}")),
        }
        repeated.push(anchor);
    }
    found
}

/// The fault of a reference to `path#anchor` below `root`; `None` when its target exists.
fn dead(root: &Path, path: &str, anchor: Option<&str>) -> Option<String> {
    let file = root.join(path);
    if !file.exists() {
        return Some(format!("{path} does not exist"));
    }
    let anchor = anchor?;
    let known = anchors(&fs::read_to_string(&file).unwrap_or_default());
    (!known.iter().any(|known| known == anchor)).then(|| format!("{path} has no heading for #{anchor}"))
}

/// Citations in `line` without a target, and those that are not in the one form: `docs/spec/ntfs.md#attribute-lists`.
/// Sections of other people's documents (RFC, [MS-XCA]) keep their numbers.
fn bad_citations(root: &Path, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("docs/") {
        let end = line[at..].find(|c: char| !(is_ident(c) || "/.-#".contains(c))).unwrap_or(line.len() - at);
        let cited = line[at..at + end].trim_end_matches(['.', '-']);
        let (path, anchor) = cited.split_once('#').map_or((cited, None), |(path, anchor)| (path, Some(anchor)));
        let whole_word = !line[..at].ends_with(|c: char| is_ident(c) || "/.-".contains(c));
        if !whole_word || !path.ends_with(".md") {
            continue;
        }
        found.extend(dead(root, path, anchor));
        if starts_with_number(&line[at + end..]) {
            found.push(format!("{cited} is cited by number, not by anchor"));
        }
    }
    for name in ["ntfs.md", "bitlocker.md", "import-export.md"] {
        for (at, _) in line.match_indices(name).filter(|(at, _)| !line[..*at].ends_with("docs/spec/")) {
            if !line[..at].ends_with(is_ident) {
                found.push(format!("{name} is cited without docs/spec/"));
            }
        }
    }
    if !line.contains("RFC ") && !line.contains("[MS-") {
        for word in ["section", "sections", "spec", "Spec"] {
            for (at, _) in line.match_indices(word) {
                if !line[..at].ends_with(is_ident) && starts_with_number(&line[at + word.len()..]) {
                    found.push(format!("`{word}` is cited by number, not as docs/spec/FILE.md#ANCHOR"));
                }
            }
        }
    }
    found
}

/// Whether a blank and a digit follow, with closing quotation marks before them or not.
fn starts_with_number(rest: &str) -> bool {
    let rest = rest.trim_start_matches(['`', ',']);
    rest.starts_with(' ') && rest.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

/// Links of one Markdown file without a target. `dir` is the file's directory.
fn dead_links(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let inline = text.match_indices("](").map(|(at, _)| text[at + 2..].split(')').next().unwrap_or_default());
    let definitions = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
    for target in inline.chain(definitions.map(|(_, target)| target)) {
        if target.contains("://") || target.starts_with("mailto:") || target.contains(char::is_whitespace) {
            continue;
        }
        let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
        if !path.is_empty() {
            found.extend(dead(dir, path, anchor));
        } else if let Some(anchor) = anchor.filter(|anchor| !anchors(text).iter().any(|known| known == anchor)) {
            found.push(format!("no heading for #{anchor}"));
        }
    }
    found
}

#[test]
fn the_house_is_tidy() {
    let root = project();
    let mut files = Vec::new();
    files_below(&root, &|path| has_extension(path, &["rs"]), &mut files);
    files.sort();
    assert!(files.len() > 10, "found only {} Rust files: is the project where it was?", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("below the project").to_string_lossy().replace('\\', "/");
        found.extend(complaints(&path, &fs::read_to_string(&file).expect("readable source")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn citations_in_code_lead_to_a_heading() {
    let root = project();
    let mut files = Vec::new();
    let is_code = |path: &Path| {
        has_extension(path, &["rs", "py", "sh"]) || path.parent().is_some_and(|parent| parent.ends_with("scripts"))
    };
    files_below(&root, &is_code, &mut files);
    let mut found = Vec::new();
    // This file holds citations that are wrong on purpose.
    for file in files.iter().filter(|file| !file.ends_with("engine/tests/tidy.rs")) {
        let text = fs::read_to_string(file).expect("readable source");
        for (number, line) in text.lines().enumerate() {
            let path = file.strip_prefix(&root).expect("below the project").display();
            let here = |what| format!("{path}:{}: {what}", number + 1);
            found.extend(bad_citations(&root, line).into_iter().map(here));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn links_in_documents_lead_somewhere() {
    let root = project();
    let mut files = Vec::new();
    files_below(&root, &|path| has_extension(path, &["md"]), &mut files);
    assert!(files.len() > 10, "found only {} documents: is the project where it was?", files.len());
    let mut found = Vec::new();
    for file in &files {
        let dir = file.parent().expect("a directory");
        let path = file.strip_prefix(&root).expect("below the project").display();
        let text = fs::read_to_string(file).expect("readable text");
        found.extend(dead_links(dir, &text).into_iter().map(|what| format!("{path}: {what}")));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Names of the program's commands, from the variants of `enum Command`.
fn commands(code: &str) -> Vec<String> {
    let body = code.split("pub enum Command {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let variants = body.lines().filter_map(|line| line.trim().split_once('(')).map(|(name, _)| name);
    let kebab = |name: &str| {
        name.chars().fold(String::new(), |mut out, c| {
            if c.is_uppercase() && !out.is_empty() {
                out.push('-');
            }
            out.extend(c.to_lowercase());
            out
        })
    };
    variants.filter(|name| name.chars().all(char::is_alphanumeric) && !name.is_empty()).map(kebab).collect()
}

#[test]
fn every_command_has_its_place_in_the_guide() {
    let root = project();
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("readable");
    let commands = commands(&read("cli/src/commands/mod.rs"));
    assert!(commands.len() > 15 && commands.iter().any(|name| name == "prep-import"), "{commands:?}");
    let page = read("docs/guide/commands.md");
    let has = |name: &String| page.contains(&format!("`dray {name}")) || page.contains(&format!("`{name}`"));
    let missing: Vec<_> = commands.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "not in docs/guide/commands.md: {missing:?}");
}

/// First cells of the table whose head begins with `claim`.
fn claims(page: &str) -> Vec<&str> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| claim |")).skip(2);
    rows.map_while(|line| line.strip_prefix("| ")?.split(" |").next()).collect()
}

#[test]
fn the_suite_knows_every_claim_of_the_evidence() {
    let root = project();
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("readable");
    let (page, script) = (read("docs/evidence.md"), read("scripts/test"));
    let claims = claims(&page);
    assert!(claims.len() > 5, "{claims:?}");
    let missing: Vec<_> = claims.iter().filter(|claim| !script.contains(&format!("\"{claim}: "))).collect();
    assert!(missing.is_empty(), "no judge of scripts/test stands for: {missing:?}");
}

/// Messages that `page` explains: the texts in backquotes in the first column of its tables.
fn explained(page: &str) -> Vec<&str> {
    let cells = page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The code as one text, with strings that continue after a `
///
/// ` at the end of a line joined.
fn unbroken(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split("\\\n");
    out.extend(pieces.next());
    pieces.for_each(|piece| out.push_str(piece.trim_start()));
    out
}

#[test]
fn messages_that_the_guide_explains_exist() {
    let root = project();
    let mut files = Vec::new();
    files_below(&root.join("engine/src"), &|path| has_extension(path, &["rs"]), &mut files);
    files_below(&root.join("cli/src"), &|path| has_extension(path, &["rs"]), &mut files);
    let read = |file: &PathBuf| unbroken(&fs::read_to_string(file).expect("readable source"));
    let code: Vec<String> = files.iter().map(read).collect();
    let page = fs::read_to_string(root.join("docs/guide/troubleshooting.md")).expect("the page");
    let messages = explained(&page);
    assert!(messages.len() > 20, "{messages:?}");
    let gone: Vec<_> = messages.iter().filter(|message| !code.iter().any(|text| text.contains(**message))).collect();
    assert!(gone.is_empty(), "docs/guide/troubleshooting.md explains what no code says: {gone:?}");
    assert_eq!(explained("| `a b`, `c` | `d` |\n| message | x |"), ["a b", "c"]);
    assert_eq!(unbroken("\"one \\\n    two\""), "\"one two\"");
}

#[test]
fn dead_citations_and_old_forms_are_found() {
    let root = project();
    for line in [
        "/// One (docs/spec/ntfs.md#no-such-heading).",
        "/// One (docs/spec/fat.md).",
        "/// One (docs/spec/ntfs.md 5.2).",
        "/// One (docs/spec/ntfs.md section 5).",
        "/// One (`spec/ntfs.md`).",
        "/// One (import-export.md#sessions).",
        "/// One (spec section 5).",
        "/// One (spec 3.1).",
        "/// Sections: (section 5)",
        "# see sections 5 and 6",
    ] {
        assert_eq!(bad_citations(&root, line).len(), 1, "{line}: {:?}", bad_citations(&root, line));
    }
    for line in [
        "/// One (docs/spec/ntfs.md#attribute-lists, docs/spec/bitlocker.md#fvek-datum), point 3.",
        "/// All of docs/spec/ntfs.md.",
        "/// RFC 4648 section 4 and [MS-XCA] section 2.5",
        "let spec = 1; let sections = 2; inspect 3, section A",
        "[JSON](../../cli/docs/events.schema.json)",
    ] {
        assert_eq!(bad_citations(&root, line), Vec::<String>::new(), "{line}");
    }
    let docs = root.join("docs");
    let links = "# A b\n[a](#a-b) [c](spec/ntfs.md#limits) [w](https://example.com/#x)\n\
        [d](#c) [e](spec/f.md) [f](spec/ntfs.md#f)\n[g]: spec/g.md\n";
    assert_eq!(dead_links(&docs, links).len(), 4, "{:?}", dead_links(&docs, links));
    assert_eq!(anchors("# A (b), `$C`: d\n```\n# not\n```\n## E-f\n## E-f"), ["a-b-c-d", "e-f", "e-f-1"]);
}

#[test]
fn every_room_of_the_engine_has_a_floor() {
    let lib = fs::read_to_string(project().join("engine/src/lib.rs")).expect("lib.rs");
    let tokens = Source::new(&lib).tokens();
    for pair in tokens.windows(3).filter(|three| three[0].1 == "mod" && three[2].1 == ";") {
        assert!(floor(&pair[1].1).is_some(), "room `{}` stands on no floor", pair[1].1);
    }
}

#[test]
fn a_higher_floor_is_found_in_every_spelling() {
    for text in [
        "use crate::io::Ring;",
        "use crate::{units::Lba, io::{Ring, Op}};",
        "fn f() { crate::plan::make() }",
        "use crate::units::Lba;\npub(crate) use crate::prep;",
        "mod tests {\n    use crate::verify::*;\n}",
        "let s = \"// \"; crate::io::f();",
        "let c = '\"'; crate::io::f();",
        "use ::std::fs;\nuse crate::bitlocker::Region;",
        "fn f() -> Vec<crate::io::Op> {}",
    ] {
        assert_eq!(complaints("engine/src/ntfs/build/mod.rs", text).len(), 1, "{text}");
    }
    // `super` that climbs to the root, from a file two modules down and from a module inside it.
    assert_eq!(complaints("engine/src/ntfs/build/mod.rs", "use super::super::io::Op;").len(), 1);
    assert_eq!(complaints("engine/src/ntfs/mft.rs", "mod tests { use super::super::super::io::Op; }").len(), 1);
    assert_eq!(complaints("engine/src/hash/mod.rs", "use super::crypt::Key;").len(), 1);
    assert_eq!(complaints("engine/src/units.rs", "use crate::hash::crc32;").len(), 1);
    assert_eq!(complaints("engine/src/cellar/mod.rs", "").len(), 1);
}

#[test]
fn what_is_allowed_stays_allowed() {
    for (path, text) in [
        ("engine/src/ntfs/build/mod.rs", "use crate::hash::crc32;\nuse crate::units::Lba;\nuse super::read::io::Op;"),
        (
            "engine/src/ntfs/build/mod.rs",
            "// crate::io is above us\nlet s = \"crate::io::x\"; let r = r#\"crate::io::\"#;",
        ),
        ("engine/src/ntfs/mft.rs", "mod tests { use super::super::io; use super::*; }"),
        ("engine/src/crypt/mod.rs", "use crate::hash::sha256;"),
        ("engine/src/plan/mod.rs", "use crate::{bitlocker, gpt, ntfs};"),
        ("engine/src/prep/mod.rs", "use crate::{io::Op, plan, verify};"),
        ("engine/src/lib.rs", "pub use crate::prep::PrepJob;"),
        ("cli/src/main.rs", "use dray_engine::{PrepJob, job::Action, report::Event};"),
        ("engine/src/pool.rs", "// SAFETY: ours\nlet x =\n    unsafe { f() };"),
        (
            "engine/src/pool.rs",
            "/// # Safety\n/// `p` is valid.\n#[inline]\npub unsafe fn g(p: *const u8) {}\ntype F = unsafe fn(u8);\ntrait T { unsafe fn t(); }",
        ),
        ("engine/src/io/uring/ring.rs", "unsafe { f() } // SAFETY: ours"),
        ("engine/src/gpt/mod.rs", "#![forbid(unsafe_code)]\n// unsafe is a word\nlet s = \"unsafe\";"),
    ] {
        assert_eq!(complaints(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn the_command_line_is_kept_to_the_facade() {
    assert_eq!(complaints("cli/src/main.rs", "use dray_engine::prep::run;").len(), 1);
    assert_eq!(complaints("cli/src/main.rs", "use dray_engine::{PrepJob, plan::Plan};").len(), 1);
    assert_eq!(complaints("cli/src/main.rs", "dray_engine::io::open();").len(), 1);
}

#[test]
fn unsafe_out_of_place_or_without_reason_is_found() {
    assert_eq!(complaints("engine/src/gpt/mod.rs", "// SAFETY: no\nunsafe { f() }").len(), 1);
    assert_eq!(complaints("cli/src/main.rs", "// SAFETY: no\nunsafe { f() }").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "unsafe { f() }").len(), 1);
    assert_eq!(complaints("engine/src/pool_room.rs", "// SAFETY: no\nunsafe { f() }").len(), 2);
    assert_eq!(complaints("engine/src/pool.rs", "// SAFETY: of another\nlet a = 1;\nunsafe { f() }").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "// SAFETY: far away\n\nunsafe { f() }").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "// SAFETY: f\nunsafe { f() }\nunsafe { g() }").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "unsafe impl Send for X {}").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "unsafe extern \"C\" { fn f(); }").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "#[unsafe(no_mangle)]\nfn f() {}").len(), 1);
    assert_eq!(complaints("engine/src/pool.rs", "let s = \"SAFETY: \"; unsafe { f() }").len(), 1);
}
