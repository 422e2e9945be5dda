//! Selection of blobs by prefixes of their paths, with suggestions for a mistyped one.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

/// Most prefixes remembered.
const KEPT_MAX: usize = 2000;

/// Most path segments below the container in a remembered prefix.
const DEPTH_MAX: usize = 4;

/// Most prefixes suggested.
const OFFERED: usize = 3;

/// Prefixes of blob paths, and whether any blob matched.
#[derive(Debug, Default)]
pub(super) struct Only {
    prefixes: Vec<(String, bool)>,
    beginnings: BTreeSet<String>,
}

impl Only {
    /// An empty list selects every blob.
    pub fn new(prefixes: &[String]) -> Self {
        Self { prefixes: prefixes.iter().map(|prefix| (prefix.clone(), false)).collect(), ..Self::default() }
    }

    /// Whether a blob is selected; the match is remembered.
    pub fn takes(&mut self, blob: &str) -> bool {
        if self.prefixes.is_empty() {
            return true;
        }
        let mut is_taken = false;
        for (prefix, met) in &mut self.prefixes {
            if blob.starts_with(prefix.trim_start_matches('/')) {
                (is_taken, *met) = (true, true);
            }
        }
        if self.beginnings.len() < KEPT_MAX {
            for (at, _) in blob.match_indices('/').take(DEPTH_MAX) {
                if !self.beginnings.contains(&blob[..=at]) {
                    self.beginnings.insert(blob[..=at].to_owned());
                }
            }
        }
        is_taken
    }

    /// As [`Only::takes`], without remembering.
    pub fn would_take(&self, blob: &str) -> bool {
        self.prefixes.is_empty()
            || self.prefixes.iter().any(|(prefix, _)| blob.starts_with(prefix.trim_start_matches('/')))
    }

    /// Prefixes that no blob matched.
    pub fn unmatched(&self) -> Vec<String> {
        self.prefixes.iter().filter(|(_, met)| !met).map(|(prefix, _)| prefix.clone()).collect()
    }

    /// Existing prefixes, those nearest to the unmatched ones first.
    pub fn nearest(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for wanted in self.unmatched() {
            let wanted = wanted.trim_start_matches('/').trim_end_matches('*').to_lowercase();
            let mut all: Vec<(usize, &String)> =
                self.beginnings.iter().map(|one| (distance(&wanted, &one.to_lowercase()), one)).collect();
            all.sort();
            for (_, one) in all.into_iter().take(OFFERED) {
                if !out.contains(one) {
                    out.push(one.clone());
                }
            }
        }
        out.truncate(OFFERED);
        out
    }
}

/// Letters to insert, remove or replace between two words.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = before + usize::from(a != *b);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_prefix_is_told_with_what_there_is() {
        for (slip, nearest) in [
            ("Box/", "box/"),
            ("box/*", "box/"),
            ("/bix/", "box/"),
            ("others", "other/"),
            ("box/2O19/", "box/2019/"),
            ("Box/2019/Sommer/", "box/2019/summer/"),
        ] {
            let mut only = Only::new(&[slip.to_owned()]);
            for blob in ["box/a", "box/2019/summer/1.jpg", "other/x/y"] {
                assert!(!only.takes(blob), "{slip} takes {blob}");
            }
            assert_eq!(only.unmatched(), [slip]);
            assert_eq!(only.nearest().first().map(String::as_str), Some(nearest), "{slip}: {:?}", only.nearest());
        }
    }

    #[test]
    fn each_prefix_must_have_its_blob() {
        let mut only = Only::new(&["box/a".to_owned(), "box/q".to_owned(), "/box/".to_owned()]);
        assert!(only.takes("box/a") && only.takes("box/other") && !only.takes("x/box/a"));
        assert_eq!(only.unmatched(), ["box/q"]);
        let mut all = Only::new(&[]);
        assert!(all.takes("anything") && all.would_take("anything") && all.unmatched().is_empty());
    }
}
