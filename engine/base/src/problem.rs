//! Problems: what is wrong, where, the value met, and advice.

use std::fmt;
use std::path::PathBuf;

use crate::advice::{Advice, Setting};
use crate::units::DeviceOffset;

/// Kind of a failure, which decides exit code and advice. One table in the CLI maps kinds to codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line or an input file is wrong; nothing was written.
    Usage,
    /// A safety check refused before anything was destroyed; nothing was written.
    Refused,
    /// A source could not be read, or changed while it was read.
    Source,
    /// A drive failed.
    Drive,
    /// Kernel, permissions or limits are in the way.
    Environment,
    /// The run was interrupted and can be resumed.
    Interrupted,
    /// Read-back or verification found differences.
    Different,
    /// A bug in dray.
    Internal,
}

/// Location of a problem: a place in an input file, a path, or a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Input file or source path.
    pub path: Option<PathBuf>,
    /// Line in that file, from 1.
    pub line: Option<u64>,
    /// Name of the CSV column or XML element.
    pub column: Option<String>,
    /// What the caller set, if that is wrong.
    pub setting: Option<Setting>,
    /// The drive, by serial or path.
    pub drive: Option<String>,
    /// Offset on the drive.
    pub at: Option<DeviceOffset>,
}

/// One problem: location, description, the value met, and advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Kind of failure, which decides the exit code.
    pub kind: Kind,
    /// Place that the problem is about.
    pub place: Place,
    /// The problem, as a sentence without full stop.
    pub what: String,
    /// The value met, verbatim; never a secret.
    pub value: Option<String>,
    /// The remedy, as a sentence without full stop.
    pub advice: Option<Advice>,
}

impl Problem {
    /// A problem without location or advice; the methods below add them.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, place: Place::default(), what: what.into(), value: None, advice: None }
    }

    /// Names the input file or source.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.place.path = Some(path.into());
        self
    }

    /// Names the line of the input file.
    pub fn line(mut self, line: u64) -> Self {
        self.place.line = Some(line);
        self
    }

    /// Names the CSV column or XML element.
    pub fn column(mut self, column: impl Into<String>) -> Self {
        self.place.column = Some(column.into());
        self
    }

    /// Names what the caller set.
    pub fn setting(mut self, setting: Setting) -> Self {
        self.place.setting = Some(setting);
        self
    }

    /// Names the drive.
    pub fn drive(mut self, drive: impl Into<String>) -> Self {
        self.place.drive = Some(drive.into());
        self
    }

    /// Names the byte on the drive.
    pub fn at(mut self, at: DeviceOffset) -> Self {
        self.place.at = Some(at);
        self
    }

    /// Shows the value met.
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds the remedy.
    pub fn advice(mut self, advice: impl Into<Advice>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(drive) = &self.place.drive {
            write!(f, "drive {drive}: ")?;
        }
        if let Some(path) = &self.place.path {
            write!(f, "{}", path.display())?;
            if let Some(line) = self.place.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(column) = &self.place.column {
            write!(f, "{column}: ")?;
        } else if let Some(setting) = self.place.setting {
            write!(f, "{}: ", setting.name())?;
        }
        f.write_str(&self.what)?;
        if let Some(at) = self.place.at {
            write!(f, " at byte {at}")?;
        }
        if let Some(value) = &self.value {
            write!(f, " (found: {value})")?;
        }
        Ok(())
    }
}

/// All problems that could be found beforehand, reported together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Appends a problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// `Err(self)` if there is any.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
