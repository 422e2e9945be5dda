//! Selection of a source's files by patterns of names and by a list.
//!
//! A pattern without a leading slash holds at any depth, with one it begins at the top of the source; `*` and `?` pass no
//! slash, `**` passes any number, and a slash at the end means a directory with all in it. A file is taken if a pattern
//! includes it, where any is given, and none excludes it or a directory above it. Ignore files have the syntax of git
//! (gitignore(5)), and their patterns begin at the top of each source.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::advice::Setting;
use crate::files::input::{self, Pipes};
use crate::limits::INPUT_FILE_MAX;
use crate::problem::{Kind, Problem, Problems};
use crate::text;

/// Names of the list that are not found and are named.
const MISSED_LISTED_MAX: usize = 100;

/// Selection of the sources' files, as requested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patterns of what is taken; all, when there are none.
    pub include: Vec<String>,
    /// Patterns of what is not.
    pub exclude: Vec<String>,
    /// Files with patterns of what is not, in the syntax of git; of two that match the later counts.
    pub ignore_files: Vec<PathBuf>,
    /// File with the paths of what is taken, a line each.
    pub files_from: Option<PathBuf>,
    /// Follow symbolic links that lead to a place within the same source.
    pub follow_inside: bool,
    /// Leave out, and name, files that Azure cannot name.
    pub skip_unnameable: bool,
}

impl Selection {
    /// Whether every file is meant.
    pub fn is_all(&self) -> bool {
        let has_patterns = !self.include.is_empty() || !self.exclude.is_empty() || !self.ignore_files.is_empty();
        !has_patterns && self.files_from.is_none()
    }
}

/// A selection, made ready.
#[derive(Debug)]
pub struct Selector {
    include: Option<GlobSet>,
    exclude: GlobSet,
    ignored: Gitignore,
    /// By path: whether it was met.
    listed: Option<BTreeMap<PathBuf, bool>>,
    list: PathBuf,
}

impl Selector {
    /// Reads patterns and list.
    ///
    /// # Errors
    /// All patterns that are none, and a list that cannot be read.
    pub fn new(selection: &Selection) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let include = set(&selection.include, Setting::Include, &mut problems);
        let exclude = set(&selection.exclude, Setting::Exclude, &mut problems);
        let ignored = ignored(&selection.ignore_files, &mut problems);
        let list = selection.files_from.clone().unwrap_or_default();
        let listed = selection.files_from.as_ref().and_then(|path| {
            let bytes = input::read(path, INPUT_FILE_MAX, Pipes::Taken).and_then(|bytes| text::decode_text(&bytes));
            match bytes {
                Ok(text) => {
                    let lines = text.lines().map(|line| line.strip_suffix('\r').unwrap_or(line));
                    let lines = lines.filter(|line| !line.is_empty());
                    Some(lines.map(|line| (Path::new(line).components().collect(), false)).collect())
                }
                Err(error) => {
                    let problem = Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path);
                    problems.push(problem.setting(Setting::FilesFrom).advice("a text file with one path a line"));
                    None
                }
            }
        });
        problems.into_result()?;
        Ok(Self { include: (!selection.include.is_empty()).then_some(include), exclude, ignored, listed, list })
    }

    /// Whether nothing below the directory is meant; `below` is its path in the source.
    pub fn prunes(&self, below: &Path) -> bool {
        let is_excluded = self.exclude.is_match(below) || self.exclude.is_match(below.join(""));
        is_excluded || self.ignored.matched(below, true).is_ignore()
    }

    /// Whether a file is meant; `below` is its path in the source, `path` the whole.
    pub fn takes(&mut self, below: &Path, path: &Path) -> bool {
        if self.exclude.is_match(below) || self.include.as_ref().is_some_and(|include| !include.is_match(below)) {
            return false;
        }
        if self.ignored.matched(below, false).is_ignore() {
            return false;
        }
        let Some(listed) = &mut self.listed else { return true };
        let mut is_listed = false;
        for name in [below, path] {
            if let Some(met) = listed.get_mut(name) {
                (*met, is_listed) = (true, true);
            }
        }
        is_listed
    }

    /// Names of the list that no source has.
    pub fn missed(&self) -> Problems {
        let missed: Vec<&PathBuf> =
            self.listed.iter().flatten().filter(|(_, met)| !**met).map(|(path, _)| path).collect();
        let name = |path: &&PathBuf| {
            Problem::new(Kind::Usage, "lists a file that no source has")
                .path(&self.list)
                .value(path.display().to_string())
                .advice("write the path of a file, whole or from the directory of its row on, or take it out")
        };
        let mut problems: Vec<Problem> =
            missed.iter().copied().take(MISSED_LISTED_MAX).map(|path| name(&path)).collect();
        let more = missed.len() - problems.len();
        if more > 0 {
            problems
                .push(Problem::new(Kind::Usage, format!("and {more} more files that no source has")).path(&self.list));
        }
        Problems(problems)
    }
}

/// The patterns of ignore files, one after the other.
fn ignored(files: &[PathBuf], problems: &mut Problems) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for path in files {
        let bytes = input::read(path, INPUT_FILE_MAX, Pipes::Taken).and_then(|bytes| text::decode_text(&bytes));
        let text = bytes.unwrap_or_else(|error| {
            let problem = Problem::new(Kind::Usage, format!("cannot be read: {error}")).path(path);
            problems.push(problem.setting(Setting::IgnoreFile).advice("a text file with patterns as in .gitignore"));
            String::new().into()
        });
        for (number, line) in (1..).zip(text.lines()) {
            if let Err(error) = builder.add_line(None, line) {
                let problem = Problem::new(Kind::Usage, format!("is no pattern: {error}")).path(path).line(number);
                problems.push(problem.value(line.to_owned()).advice("the syntax is that of .gitignore (gitignore(5))"));
            }
        }
    }
    builder.build().unwrap_or_else(|error| {
        problems.push(
            Problem::new(Kind::Usage, format!("the patterns are too many: {error}")).setting(Setting::IgnoreFile),
        );
        Gitignore::empty()
    })
}

fn set(patterns: &[String], setting: Setting, problems: &mut Problems) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        match glob(pattern) {
            Ok(globs) => globs.into_iter().for_each(|glob| {
                builder.add(glob);
            }),
            Err(error) => {
                let problem = Problem::new(Kind::Usage, format!("is no pattern: {error}")).setting(setting);
                problems.push(problem.value(pattern.clone()).advice("for example '*.tmp', '/cache/' or '**/thumbs/*'"));
            }
        }
    }
    builder.build().unwrap_or_else(|error| {
        problems.push(Problem::new(Kind::Usage, format!("the patterns are too many: {error}")).setting(setting));
        GlobSet::empty()
    })
}

/// The reason why a text is no pattern.
#[derive(Debug)]
enum PatternError {
    Empty,
    Glob(globset::Error),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Glob(error) => error.kind().fmt(f),
        }
    }
}

fn glob(pattern: &str) -> Result<Vec<globset::Glob>, PatternError> {
    let anchored = pattern.strip_prefix('/');
    let text = anchored.unwrap_or(pattern);
    if text.trim_matches('/').is_empty() {
        return Err(PatternError::Empty);
    }
    let text = if anchored.is_some() || text.starts_with("**/") { text.to_owned() } else { format!("**/{text}") };
    let build = |text: &str| GlobBuilder::new(text).literal_separator(true).build().map_err(PatternError::Glob);
    match text.strip_suffix('/') {
        Some(dir) => Ok(vec![build(&format!("{dir}/**"))?]),
        None => Ok(vec![build(&text)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(include: &[&str], exclude: &[&str]) -> Selector {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Selector::new(&Selection { include: owned(include), exclude: owned(exclude), ..Selection::default() })
            .expect("patterns")
    }

    fn takes(selector: &mut Selector, below: &str) -> bool {
        let below = Path::new(below);
        let pruned =
            below.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).any(|dir| selector.prunes(dir));
        !pruned && selector.takes(below, &Path::new("/source").join(below))
    }

    #[test]
    fn patterns_hold_at_any_depth_or_from_the_top() {
        let mut one = selector(&[], &["*.tmp", "/cache/", "thumbs", "a/**/z?.bin"]);
        for (path, taken) in [
            ("x.txt", true),
            ("x.tmp", false),
            ("deep/er/x.tmp", false),
            ("cache/a", false),
            ("cache/b/c", false),
            ("deep/cache/a", true),
            ("thumbs/a", false),
            ("deep/thumbs/b/c", false),
            ("a/z1.bin", false),
            ("q/a/b/c/z2.bin", false),
            ("a/z11.bin", true),
        ] {
            assert_eq!(takes(&mut one, path), taken, "{path}");
        }
        let mut two = selector(&["*.jpg", "/docs/"], &["draft*"]);
        for (path, taken) in [
            ("a.jpg", true),
            ("b/a.jpg", true),
            ("docs/x", true),
            ("b/docs/x", false),
            ("draft.jpg", false),
            ("x", false),
        ] {
            assert_eq!(takes(&mut two, path), taken, "{path}");
        }
    }

    #[test]
    fn ignore_files_have_the_syntax_of_git() {
        let file = std::env::temp_dir().join(format!("dray-ignore-{}", std::process::id()));
        std::fs::write(&file, "# not these\n*.o\n/build/\n!keep.o\nlogs/**/*.txt\r\n\\#odd\n").expect("a file");
        let selection = Selection { ignore_files: vec![file.clone()], ..Selection::default() };
        assert!(!selection.is_all());
        let mut selector = Selector::new(&selection).expect("patterns");
        for (path, taken) in [
            ("a.c", true),
            ("a.o", false),
            ("deep/a.o", false),
            ("deep/keep.o", true),
            ("build/a.c", false),
            ("build/keep.o", false),
            ("deep/build/a.c", true),
            ("logs/a/b.txt", false),
            ("#odd", false),
            ("# not these", true),
        ] {
            assert_eq!(takes(&mut selector, path), taken, "{path}");
        }
        std::fs::write(&file, "fine\na[z-b]\n").expect("a file");
        let wrong = Selector::new(&selection).expect_err("no pattern");
        assert_eq!((wrong.0.len(), wrong.0[0].place.line), (1, Some(2)), "{wrong:?}");
        std::fs::remove_file(&file).expect("removed");
        assert!(Selector::new(&selection).is_err());
    }

    #[test]
    fn a_list_names_files_by_either_path_and_tells_what_it_misses() {
        let list = std::env::temp_dir().join(format!("dray-files-from-{}", std::process::id()));
        std::fs::write(&list, "a/b\r\n/source/c\n\nnowhere\n").expect("a list");
        let selection = Selection { files_from: Some(list.clone()), ..Selection::default() };
        let mut selector = Selector::new(&selection).expect("a list");
        assert!(takes(&mut selector, "a/b") && takes(&mut selector, "c") && !takes(&mut selector, "a"));
        let missed = selector.missed();
        assert_eq!(missed.0.len(), 1);
        assert_eq!(missed.0[0].value.as_deref(), Some("nowhere"));
        std::fs::remove_file(&list).expect("removed");
    }

    #[test]
    fn what_is_no_pattern_is_told_with_its_option() {
        let wrong =
            Selection { include: vec!["a[".into(), "/".into()], exclude: vec!["{".into()], ..Selection::default() };
        let problems = Selector::new(&wrong).expect_err("no patterns");
        let settings: Vec<_> = problems.0.iter().filter_map(|problem| problem.place.setting).collect();
        assert_eq!(settings, [Setting::Include, Setting::Include, Setting::Exclude]);
    }
}
