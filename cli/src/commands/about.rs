//! Facts of the run itself for the log: program, command line, machine and user. Never a secret.

use std::fs;

use crate::args::VERSION;

/// Options of either syntax whose value is a secret or may contain one.
const SECRET: &[&str] = &["sk", "csas", "bk", "sas", "token", "key", "driveset-row", "on-finish"];
/// Printed in place of a secret value.
const HIDDEN: &str = "<not shown>";

/// The facts, one line each.
pub fn lines() -> Vec<String> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_else(|_| "?".into());
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "?".into());
    let behind = std::env::var("SUDO_USER").map(|user| format!(", by sudo for {user}")).unwrap_or_default();
    let dir = std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_else(|_| "?".into());
    vec![
        format!("dray {VERSION}"),
        format!("command line: {}", shown(&words).join(" ")),
        format!(
            "host {}, Linux {}, user {user} (uid {}){behind}, directory {dir}",
            read("/proc/sys/kernel/hostname"),
            read("/proc/sys/kernel/osrelease"),
            rustix::process::getuid().as_raw()
        ),
    ]
}

/// The words with secrets replaced, quoted where they hold blanks.
fn shown(words: &[String]) -> Vec<String> {
    let mut is_next = false;
    let mut out = Vec::new();
    for word in words {
        if std::mem::take(&mut is_next) {
            out.push(HIDDEN.to_owned());
            continue;
        }
        let name = word.trim_start_matches(['-', '/']);
        let end = name.find([':', '=']).unwrap_or(name.len());
        let is_secret = SECRET.iter().any(|secret| name[..end].eq_ignore_ascii_case(secret));
        if is_secret && end < name.len() {
            let kept = word.len() - name.len() + end + 1;
            out.push(format!("{}{HIDDEN}", &word[..kept]));
            continue;
        }
        is_next = is_secret && name.len() < word.len();
        out.push(if looks_like_key(word) { HIDDEN.to_owned() } else { quoted(word) });
    }
    out
}

/// Forty-eight digits, however they are grouped.
fn looks_like_key(word: &str) -> bool {
    word.bytes().filter(u8::is_ascii_digit).count() >= 48
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+,:@=#".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_the_command_line_and_no_secret() {
        let shown = |line: &[&str]| shown(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).join(" ");
        assert_eq!(
            shown(&[
                "dray",
                "PrepImport",
                "/j:a b.jrn",
                "/id:session#1",
                "/sk:c2VjcmV0==",
                "/BK:238810-662376",
                "/silentmode"
            ]),
            "dray PrepImport '/j:a b.jrn' /id:session#1 /sk:<not shown> /BK:<not shown> /silentmode"
        );
        assert_eq!(
            shown(&[
                "dray",
                "prep-import",
                "--on-finish",
                "curl -H secret",
                "--driveset-row=x,238810",
                "--key-file",
                "k"
            ]),
            "dray prep-import --on-finish <not shown> --driveset-row=<not shown> --key-file k"
        );
        let key = "238810-662376-448998-450120-652806-203390-606320-483076";
        assert_eq!(shown(&["dray", key, "key", "bench"]), "dray <not shown> key bench");
        assert!(lines().iter().any(|line| line.starts_with("host ")));
    }
}
