//! A few checks of the source itself. This test fails on a crate or a room of the engine that uses one of a higher floor,
//! on unsafe outside its rooms, on a function that is too long, on an error that is a bare string, and on a citation or
//! link that leads nowhere. The compiler holds the rest: circles
//! of crates are refused by Cargo, the rooms of the engine are private, and clippy asks for the reason of each unsafe
//! block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates below `engine/`, from the ground up, and those of them that each may use besides `base`. Formats do not know
/// each other; what is pure does not know the machine.
const CRATES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("hash", &[]),
    ("crypt", &["hash"]),
    ("gpt", &[]),
    ("ntfs", &[]),
    ("bitlocker", &["crypt", "hash"]),
    ("azure", &["crypt", "hash"]),
    ("plan", &["azure", "bitlocker", "crypt", "gpt", "hash", "ntfs"]),
    ("host", &[]),
];

/// Rooms of `engine/src`, from the ground up: each may use those before it.
const ROOMS: &[&str] = &[
    "report", "request", "stream", "volume", "journal", "dataset", "verify", "work", "session", "image", "survey",
    "bench", "api",
];

/// Crates that touch no file, clock, thread or random source.
const PURE: &[&str] = &["base", "hash", "crypt", "gpt", "ntfs", "bitlocker", "azure", "plan"];

/// Names by which a file, a clock, a thread or chance would come in.
const IMPURE: &[&str] = &["std::fs", "std::env", "std::net", "std::process", "std::thread", "Instant::", "SystemTime"];

/// Files where unsafe may live: they alone allow what the workspace denies. Vector instructions, the kernel's
/// interfaces, memory that it shares, and the C libraries that ours is measured against.
const UNSAFE_ROOMS: &[&str] = &[
    "benches/src/peers.rs",
    "engine/crypt/src/vaes.rs",
    "engine/hash/src/lanes/mod.rs",
    "engine/host/src/device/ioctl.rs",
    "engine/host/src/io/uring/mod.rs",
    "engine/host/src/pool.rs",
];

/// Crates of this project in a section of a manifest, by the names of their directories.
fn own_dependencies(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != format!("[{section}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.strip_prefix("dray-")?.split(['.', ' ', '=']).next());
    names.map(str::to_owned).collect()
}

/// Dependencies of a manifest that its crate may not use.
fn wrong_dependencies(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, may)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!("engine/{name} stands on no floor; give it one in engine/tests/tidy.rs")];
    };
    let used = own_dependencies(manifest, "dependencies").into_iter();
    let wrong = used.filter(|used| used != "base" && !may.contains(&used.as_str()));
    wrong.map(|used| format!("engine/{name} must not use dray-{used}")).collect()
}

/// Uses of the machine in a pure crate's source file, outside of tests.
fn impurities(text: &str) -> Vec<&'static str> {
    let code: Vec<&str> = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect();
    let code = code.iter().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.flat_map(|line| [line, "\n"]).collect();
    IMPURE.iter().copied().filter(|word| code.contains(word)).collect()
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
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
/// Sections of other people's documents (RFC, NIST, [MS-XCA]) keep their numbers.
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
    if !["RFC ", "[MS-", "NIST "].iter().any(|other| line.contains(other)) {
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
fn crates_use_lower_floors_only() {
    let mut found = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(project().join("engine")).expect("readable").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
        found.extend(wrong_dependencies(&name, &manifest));
        count += 1;
    }
    assert_eq!(count, CRATES.len(), "crates below engine/");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    let manifest = "[dependencies]\ndray-base.workspace = true\ndray-bitlocker = { path = \"x\" }\nlibc = \"1\"\n\n\
        [dev-dependencies]\ndray-host.workspace = true\n";
    assert_eq!(wrong_dependencies("ntfs", manifest), ["engine/ntfs must not use dray-bitlocker"]);
    assert_eq!(wrong_dependencies("plan", manifest), Vec::<String>::new());
    assert_eq!(wrong_dependencies("cellar", manifest).len(), 1);
}

/// Longest function, in lines; tests may be longer.
const FN_LINES_MAX: usize = 100;

/// Lines of each function of `text`, by name, outside of tests. Code is as rustfmt leaves it: a function ends with the first
/// line that closes a brace at its own depth.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let words = code.split_whitespace().take_while(|word| *word != "fn").count();
        let is_head = code.split_whitespace().take(words).all(|word| {
            word.starts_with("pub") || matches!(word, "const" | "async" | "unsafe" | "extern" | "super)" | "crate)")
        });
        let name = code.split_whitespace().nth(words + 1);
        let Some(name) = name.filter(|_| is_head && !code.ends_with(';')) else { continue };
        let end = format!("{indent}}}");
        let len = lines[at..].iter().position(|line| *line == end).map_or(0, |len| len + 1);
        found.push((name.split(['(', '<']).next().unwrap_or_default().to_owned(), len));
    }
    found
}

/// Whether a line has a `Result` whose error is a `String`.
fn has_bare_error(line: &str) -> bool {
    line.match_indices("Result<").any(|(at, start)| {
        let mut depth = 1;
        let rest = &line[at + start.len()..];
        let end = rest.char_indices().find(|(at, c)| {
            match c {
                '<' | '(' => depth += 1,
                '>' if !rest[..*at].ends_with('-') => depth -= 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        end.is_some_and(|(end, _)| rest[..end].ends_with(", String"))
    })
}

#[test]
fn functions_are_short_and_errors_have_types() {
    let mut files = Vec::new();
    for dir in ["engine", "account", "service", "cli/src", "testdisks/src", "benches"] {
        files_below(&project().join(dir), &|path| has_extension(path, &["rs"]), &mut files);
    }
    let is_test =
        |path: &Path| path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
    let (mut bad, mut count) = (Vec::new(), 0);
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(file).expect("readable");
        let functions = functions(&text);
        count += functions.len();
        let long = functions.into_iter().filter(|(_, len)| *len > FN_LINES_MAX);
        bad.extend(long.map(|(name, len)| format!("{}: {name} has {len} lines", file.display())));
        // What clap parses may say so in words.
        let is_library = !file.starts_with(project().join("cli")) && !file.starts_with(project().join("testdisks"));
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").filter(|_| is_library);
        let bare = code.filter(|line| has_bare_error(line));
        bad.extend(bare.map(|line| format!("{}: an error that is a bare string: {}", file.display(), line.trim())));
    }
    assert!(count > 3000, "{count} functions");
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
    let text = "pub(super) fn a(\n    x: u8,\n) -> u8 {\n    x\n}\n\nimpl B {\n    const fn b() {\n    }\n}\n\
        #[cfg(test)]\nfn c() {\n}\n";
    assert_eq!(functions(text), [("a".to_owned(), 5), ("b".to_owned(), 2)]);
    for (line, is) in [
        ("fn a() -> Result<(), String> {", true),
        ("parse: impl Fn(&[u8]) -> Result<Option<T>, String>,", true),
        ("fn a() -> Result<HashMap<String, String>, Problem> {", false),
        ("fn a(text: String) -> Result<(), Problem> {", false),
    ] {
        assert_eq!(has_bare_error(line), is, "{line}");
    }
}

/// Options of other programs, which libraries may name: smartctl, mdadm, docker, blockdev, az.
const OPTIONS_OF_OTHERS: &[&str] = &[
    "--all",
    "--device",
    "--getsize",
    "--json",
    "--nocheck",
    "--output",
    "--query",
    "--resource",
    "--security-opt",
    "--stop",
    "--version",
];

/// Options and commands of the program in the strings of a line.
fn names_of_the_program(line: &str) -> Vec<String> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return Vec::new();
    }
    let strings = code.split('"').skip(1).step_by(2);
    let options = strings.clone().flat_map(|text| {
        text.match_indices("--").map(|(at, _)| {
            let word = text[at + 2..].split(|c: char| !c.is_ascii_lowercase() && c != '-').next();
            format!("--{}", word.unwrap_or_default())
        })
    });
    let options = options.filter(|option| option.len() > 2 && !OPTIONS_OF_OTHERS.contains(&option.as_str()));
    let commands = strings.filter(|text| text.contains("`dray ")).map(str::to_owned);
    options.chain(commands).collect()
}

#[test]
fn libraries_leave_options_and_commands_to_the_program() {
    let mut files = Vec::new();
    for dir in ["engine", "account", "service"] {
        files_below(&project().join(dir), &|path| has_extension(path, &["rs"]), &mut files);
    }
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.components().any(|part| part.as_os_str() == "src")) {
        let is_test = file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        // Measurements of the engine that are run by hand.
        let is_figure =
            matches!(file.file_name().and_then(|name| name.to_str()), Some("ten_million.rs" | "thousand_drives.rs"));
        if is_test || is_figure {
            continue;
        }
        let text = fs::read_to_string(file).expect("readable");
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        found.extend(code.flat_map(names_of_the_program).map(|name| format!("{}: {name}", file.display())));
    }
    assert!(found.is_empty(), "a Setting or a Command of dray-base::advice says it:\n{}", found.join("\n"));
    for (line, count) in [
        (r#".advice("continue with --resume, or --abort")"#, 2),
        (r#"let text = "see `dray ls`";"#, 1),
        (r#".args(["--json", "a--b"]);"#, 1),
        (r#"// "--resume""#, 0),
        (r#"name.contains("--")"#, 0),
    ] {
        assert_eq!(names_of_the_program(line).len(), count, "{line}");
    }
}

/// Modules of the engine that `text` names, as `room::module`; `room` is that of the file itself, for `super`.
fn named_modules(text: &str, room: &str) -> Vec<String> {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let code: Vec<&str> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for (start, here) in [("crate::", None), ("super::", Some(room))] {
        for (at, _) in code.match_indices(start) {
            let rest = &code[at + start.len()..];
            let mut words = rest.split("::").map(|word| word.split(|c| !is_ident(c)).next().unwrap_or_default());
            let room = here.or_else(|| words.next()).unwrap_or_default();
            let listed = rest.strip_prefix(&format!("{room}::{{")).and_then(|list| list.split('}').next());
            match listed {
                Some(list) => {
                    found.extend(list.split(',').map(|word| {
                        format!("{room}::{}", word.trim().split(|c| !is_ident(c)).next().unwrap_or_default())
                    }))
                }
                None => found.push(format!("{room}::{}", words.next().unwrap_or_default())),
            }
        }
    }
    found
}

/// A way through `arrows` that ends where it began; empty if there is none.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    fn walk(
        at: &str,
        arrows: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        if way.iter().any(|before| before == at) {
            way.push(at.to_owned());
            return true;
        }
        if done.contains(at) {
            return false;
        }
        way.push(at.to_owned());
        if arrows.get(at).into_iter().flatten().any(|next| walk(next, arrows, way, done)) {
            return true;
        }
        way.pop();
        done.insert(at.to_owned());
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    arrows.keys().find(|at| walk(at, arrows, &mut way, &mut done));
    way
}

#[test]
fn rooms_of_the_engine_use_lower_ones_and_have_no_circles() {
    let root = project().join("engine/src");
    let mut files = Vec::new();
    files_below(&root, &|path| has_extension(path, &["rs"]), &mut files);
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut up = Vec::new();
    for file in &files {
        let path = file.strip_prefix(&root).expect("below").with_extension("");
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().expect("a name")).collect();
        let room = parts[0];
        if room == "lib" || parts.contains(&"tests") {
            continue;
        }
        let floor = ROOMS.iter().position(|known| *known == room);
        let floor = floor.unwrap_or_else(|| panic!("{room} stands on no floor; give it one in engine/tests/tidy.rs"));
        let own = parts.get(1).map_or(room.to_owned(), |module| format!("{room}::{module}"));
        // What `super` is: the room itself for its own modules.
        let above = if parts.len() == 2 && parts[1] != "mod" { room } else { "" };
        for named in named_modules(&fs::read_to_string(file).expect("readable"), above) {
            let (other, _) = named.split_once("::").unwrap_or((&named, ""));
            match ROOMS.iter().position(|known| *known == other) {
                Some(other) if other > floor => up.push(format!("{own} uses {named}, which stands higher")),
                Some(_) if named != own && (other == room || parts[1..] != ["mod"]) => {
                    arrows.entry(own.clone()).or_default().insert(named);
                }
                _ => {}
            }
        }
    }
    assert!(up.is_empty(), "\n{}", up.join("\n"));
    assert!(arrows.len() > 40, "{} modules", arrows.len());
    assert_eq!(circle(&arrows), Vec::<String>::new(), "modules that use each other");
    let text = "use crate::work::{self, claim, list::Part};\nuse super::x::Y;\n// crate::bench::a\n#[cfg(test)]\nuse crate::api::b;";
    assert_eq!(named_modules(text, "verify"), ["work::self", "work::claim", "work::list", "verify::x"]);
    let arrow = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    assert_eq!(circle(&BTreeMap::from([arrow("a", "b"), arrow("b", "c"), arrow("c", "b")])), ["a", "b", "c", "b"]);
    assert!(circle(&BTreeMap::from([arrow("a", "b"), arrow("b", "c")])).is_empty());
}

/// What an I/O engine returns is taken in one place, so that no second loop with time limits of its own comes about.
#[test]
fn one_loop_takes_what_the_io_engines_return() {
    let mut files = Vec::new();
    for dir in ["engine/src", "account/src", "service/src", "cli/src"] {
        files_below(&project().join(dir), &|path| has_extension(path, &["rs"]), &mut files);
    }
    let takes = |file: &&PathBuf| fs::read_to_string(file).expect("readable").contains("Completion::");
    let takers: Vec<_> = files.iter().filter(takes).collect();
    assert_eq!(takers, [&project().join("engine/src/stream/event_loop.rs")]);
}

#[test]
fn pure_crates_do_not_touch_the_machine() {
    let mut found = Vec::new();
    for name in PURE {
        let mut files = Vec::new();
        files_below(&project().join("engine").join(name).join("src"), &|path| has_extension(path, &["rs"]), &mut files);
        assert!(!files.is_empty(), "engine/{name}");
        let is_test =
            |path: &Path| path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        for file in files.iter().filter(|file| !is_test(file)) {
            let text = fs::read_to_string(file).expect("readable source");
            found.extend(impurities(&text).into_iter().map(|word| format!("{}: {word}", file.display())));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    assert_eq!(impurities("// std::fs\nuse std::fs::File;\n#[cfg(test)]\nuse std::thread;"), ["std::fs"]);
}

#[test]
fn unsafe_lives_in_its_rooms() {
    let root = project();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace");
    assert!(
        manifest.contains("\nunsafe_code = \"deny\"\n") && manifest.contains("undocumented_unsafe_blocks = \"deny\"")
    );
    let mut files = Vec::new();
    files_below(&root, &|path| has_extension(path, &["rs"]), &mut files);
    assert!(files.len() > 10, "found only {} Rust files: is the project where it was?", files.len());
    let allows = |file: &&PathBuf| {
        let text = fs::read_to_string(file).expect("readable source");
        text.lines().any(|line| line.starts_with("#") && line.contains("(unsafe_code"))
            && !text.contains("#![forbid(unsafe_code)]")
            && !text.contains("#![deny(unsafe_code)]")
    };
    let mut rooms: Vec<_> = files.iter().filter(allows).collect();
    rooms.sort();
    let known: Vec<_> = UNSAFE_ROOMS.iter().map(|room| root.join(room)).collect();
    assert_eq!(rooms, known.iter().collect::<Vec<_>>());
    // A crate without such a room forbids it.
    for (name, _) in CRATES {
        let has_room = UNSAFE_ROOMS.iter().any(|room| room.starts_with(&format!("engine/{name}/")));
        let lib = fs::read_to_string(root.join("engine").join(name).join("src/lib.rs")).expect("a crate");
        assert!(has_room || lib.contains("#![forbid(unsafe_code)]"), "engine/{name}");
    }
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
    for room in ["engine", "account", "service", "cli/src"] {
        files_below(&root.join(room), &|path| has_extension(path, &["rs"]), &mut files);
    }
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
