//! Key input: a file, an open descriptor or a prompt; never the command line.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use dray_engine::api::host::{Pipes, read_input};
use dray_engine::api::inspect::{Found, KEY_FILE_LEN_MAX, Key, Opened, find};
use dray_engine::report::{Kind, Problem};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use zeroize::Zeroizing;

use crate::render::Output;

/// Attempts allowed at the key prompt.
const TRIES: usize = 3;

/// Longest line that is read from a terminal: four times the longest password.
const LINE_MAX: usize = 1024;

/// Options that name the source of the key.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyArgs {
    /// File with the key: drive record, JSON of listBitLockerKeys, .BEK, or text
    #[arg(long, value_name = "FILE", help_heading = "Key")]
    #[arg(
        long_help = "File with the key: a drive record (<DriveId>.xml), the JSON of listBitLockerKeys, a .BEK file, \
                       or text: 48-digit numerical passwords wherever they stand in it (the file that Windows saves, \
                       `az ... -o table`, a log), an external key in base64, or a user password. UTF-8 or UTF-16. May be \
                       given several times: what names the drive is tried first. Without it, and without --key-fd, the \
                       key is asked for. A key is never taken from the command line, which others can read"
    )]
    pub key_file: Vec<PathBuf>,
    /// Read the key from this open descriptor instead
    #[arg(long, value_name = "N", help_heading = "Key")]
    pub key_fd: Option<u32>,
}

/// A drive to look into, and its key.
#[derive(Args, Clone, Debug)]
pub struct DriveArgs {
    /// Drive or image file; never written to
    #[arg(value_name = "DRIVE")]
    pub drive: PathBuf,
    /// Number of the partition; else a bare volume, or the first data partition
    #[arg(long, value_name = "N")]
    pub partition: Option<u32>,
    /// Source of the key.
    #[command(flatten)]
    pub key: KeyArgs,
}

impl DriveArgs {
    /// Opens the volume, asking for a key where one is needed and none was given.
    ///
    /// # Errors
    /// As [`KeyArgs::read`] and [`GivenKeys::open`].
    pub fn open(&self, output: &Output) -> Result<Opened, Problem> {
        self.key.read()?.open(&self.drive, self.partition, output)
    }
}

/// Keys that were given, read once for all drives of a run.
#[derive(Debug)]
pub struct GivenKeys {
    given: Option<Key>,
}

impl KeyArgs {
    /// Paths the key is read from; a descriptor is `/dev/fd/N`.
    pub fn files(&self) -> Vec<PathBuf> {
        let descriptor = self.key_fd.map(|fd| PathBuf::from(format!("/dev/fd/{fd}")));
        self.key_file.iter().cloned().chain(descriptor).collect()
    }

    /// Reads the key files that were named.
    ///
    /// # Errors
    /// A file cannot be read or holds no key; a mistyped group of a recovery password is named.
    pub fn read(&self) -> Result<GivenKeys, Problem> {
        let mut given: Option<Key> = None;
        for path in &self.files() {
            let key = Key::read(&contents(path)?).map_err(|problem| problem.path(path))?;
            match &mut given {
                Some(keys) => keys.join(key),
                None => given = Some(key),
            }
        }
        Ok(GivenKeys { given })
    }
}

/// A key file's bytes, wiped on drop.
fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let failed =
        |error: std::io::Error| Problem::new(Kind::Usage, format!("the key file cannot be read: {error}")).path(path);
    read_input(path, KEY_FILE_LEN_MAX as u64, Pipes::Taken).map_err(failed)
}

impl GivenKeys {
    /// No keys: [`GivenKeys::open`] prompts where one is needed.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { given: None }
    }

    /// Finds the volume on a drive and opens it with the given key, or with one typed at the prompt. Warns of what is
    /// unusual about the volume.
    ///
    /// # Errors
    /// The drive holds no volume, or no key opens it.
    pub fn open(&self, drive: &Path, partition: Option<u32>, output: &Output) -> Result<Opened, Problem> {
        let opened = self.open_found(find::open(drive, partition)?, drive, partition, output)?;
        for warning in opened.warnings() {
            output.warning(&format!("{}: {warning}", opened.found.drive.name));
        }
        Ok(opened)
    }

    /// As [`GivenKeys::open`], for a volume that has been found already; issues no warnings.
    ///
    /// # Errors
    /// No key opens it.
    pub fn open_found(
        &self,
        found: Found,
        drive: &Path,
        partition: Option<u32>,
        output: &Output,
    ) -> Result<Opened, Problem> {
        match &self.given {
            Some(key) => unlock(found, key, output),
            None if !found.needs_key() => unlock(found, &Key::none(), output),
            None => ask(found, drive, partition, output),
        }
    }

    /// The keys that were given.
    pub const fn given(&self) -> Option<&Key> {
        self.given.as_ref()
    }

    /// Whether a file or descriptor was named.
    pub fn are_given(&self) -> bool {
        self.given.is_some()
    }
}

/// Opens the volume; shows that the key is being stretched.
fn unlock(found: Found, key: &Key, output: &Output) -> Result<Opened, Problem> {
    let working = output.working();
    let name = found.drive.name.clone();
    found.unlock(key, &mut |done, total| {
        let percent = 100 * done / total.max(1);
        working.show(
            || format!("{name}: stretching the key, {percent} %"),
            "stretching",
            || json!({ "drive": name, "rounds": done, "of": total }),
        );
    })
}

fn ask(mut found: Found, drive: &Path, partition: Option<u32>, output: &Output) -> Result<Opened, Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(answer) = Prompt::ask(&format!("Key of {}: ", question(&found)))? else {
            // Reports that no key is given, and how to give one.
            return unlock(found, &Key::none(), output);
        };
        let outcome = Key::read(answer.as_bytes()).and_then(|key| unlock(found, &key, output));
        match outcome {
            Ok(opened) => return Ok(opened),
            Err(problem) if problem.kind != Kind::Usage || tries == TRIES => return Err(problem),
            Err(problem) => {
                output.problems(&problem.into());
                found = find::open(drive, partition)?;
            }
        }
    }
}

/// Text of the key prompt: the drive and the kinds of key that open it.
fn question(found: &Found) -> String {
    let mut text = found.drive.name.clone();
    if let Some(serial) = &found.serial {
        text.push_str(&format!(", serial {serial}"));
    }
    let kinds = found.protectors();
    if kinds.is_empty() { text } else { format!("{text} ({})", kinds.join(", ")) }
}

/// Asks a person and reads the answer without showing it. `None`: this is no terminal, or no answer came.
///
/// # Errors
/// When the terminal fails.
pub fn asked(question: &str) -> Result<Option<Zeroizing<String>>, Problem> {
    Prompt::ask(question)
}

/// A terminal with echo switched off while a secret is typed.
struct Prompt {
    before: Termios,
}

impl Prompt {
    /// `None`: standard input is no terminal, or no answer was given.
    fn ask(question: &str) -> Result<Option<Zeroizing<String>>, Problem> {
        let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |error: std::io::Error| Problem::new(Kind::Environment, format!("the terminal fails: {error}"));
        let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
        let mut quiet = before.clone();
        // Byte by byte and without signals: ^C in the middle must not leave a terminal that shows nothing.
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|error| failed(error.into()))?;
        let prompt = Self { before };
        stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
        let answer = line(&mut stdin.lock());
        drop(prompt);
        let _ = stderr.write_all(b"\n");
        answer.map_err(failed)
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// A line from a terminal that edits nothing itself. `None`: interrupted, or ended before anything was typed.
fn line(input: &mut impl Read) -> std::io::Result<Option<Zeroizing<String>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL: u8 = 21;
    const DELETE: u8 = 127;
    let mut typed = Zeroizing::new(Vec::with_capacity(LINE_MAX));
    let mut byte = Zeroizing::new([0]);
    loop {
        if input.read(&mut byte[..])? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            INTERRUPT => return Ok(None),
            END => break,
            BACKSPACE | DELETE => {
                // A whole character: its last byte, and those that only continue one.
                while typed.pop().is_some_and(|last| last & 0xC0 == 0x80) {}
            }
            KILL => typed.clear(),
            other if typed.len() < LINE_MAX => typed.push(other),
            _ => {}
        }
    }
    if typed.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(&typed).map_err(|_| std::io::Error::other("what was typed is not UTF-8"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &str) -> Option<String> {
        line(&mut bytes.as_bytes()).expect("readable").map(|line| line.to_string())
    }

    #[test]
    fn a_line_is_edited_as_on_any_terminal() {
        assert_eq!(typed("secret\rrest").as_deref(), Some("secret"));
        assert_eq!(typed("secres\x7ft\n").as_deref(), Some("secret"));
        assert_eq!(typed("a£\x08b\n").as_deref(), Some("ab"));
        assert_eq!(typed("\x7f\x7fwrong\x15right\n").as_deref(), Some("right"));
        assert_eq!(typed("half\x04").as_deref(), Some("half"));
        assert_eq!(typed("half\x03"), None);
        assert_eq!(typed("\n"), None);
        assert_eq!(typed(""), None);
        assert_eq!(typed(&"x".repeat(5000)).map(|line| line.len()), Some(LINE_MAX));
    }

    #[test]
    fn without_a_terminal_nobody_is_asked() {
        if !std::io::stdin().is_terminal() {
            assert!(Prompt::ask("? ").expect("no failure").is_none());
        }
        assert!(GivenKeys::none().given.is_none());
    }
}
