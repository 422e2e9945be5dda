//! Failures of a drive as problems for the user: what happened, what it leaves, and the ways on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::timeouts::{Timeouts, no_room, pulled};
use crate::io::WriteError;
use crate::report::{Advice, Kind, Notice, Problem, Setting};

/// What there is after a failure.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// State of the drive until the session is finished.
    pub meanwhile: &'static str,
    /// The alternative to resuming.
    pub instead: Advice,
}

impl Outlook {
    /// Resuming, and its alternative.
    fn onward(&self) -> Advice {
        Advice::from("continue with ") + Setting::Resume + ", or " + self.instead.clone()
    }

    /// The same, and the state until then.
    fn ways_on(&self) -> Advice {
        self.onward() + "; " + self.meanwhile
    }

    /// The session can be rolled back.
    pub fn with_rollback(meanwhile: &'static str) -> Self {
        Self { meanwhile, instead: Advice::from("roll the session back with ") + Setting::Abort }
    }
}

/// Describes the failures of one drive.
#[derive(Clone, Debug)]
pub struct Failures {
    /// Name of the drive in messages; `None` where the caller adds it.
    pub name: Option<String>,
    /// Its node under `/dev`, which disappears when it is unplugged; `None` for an image file, where ENOSPC means a
    /// full file system.
    pub node: Option<PathBuf>,
    /// What a session has to offer; `None` outside of sessions.
    pub outlook: Option<Outlook>,
}

impl Failures {
    /// Of a drive that no session holds.
    pub fn of(name: &str, node: Option<PathBuf>) -> Self {
        Self { name: Some(name.to_owned()), node, outlook: None }
    }

    /// Of a drive that the caller names.
    pub fn unnamed() -> Self {
        Self { name: None, node: None, outlook: None }
    }

    /// Of a drive of a session.
    pub fn within(self, outlook: Outlook) -> Self {
        Self { outlook: Some(outlook), ..self }
    }

    /// A write that failed; `what` was being written.
    pub fn write(&self, error: &WriteError, what: Option<&str>) -> Problem {
        if let Some(problem) = self.lost(&error.source) {
            return problem.at(error.at);
        }
        let what = what.map(|what| format!(" ({what})")).unwrap_or_default();
        let problem = Problem::new(Kind::Drive, format!("writing failed{what}: {}", error.source));
        let advice = match &self.outlook {
            Some(outlook) => {
                Advice::from(format!("{}; check cable and drive (smartctl -a), then ", outlook.meanwhile))
                    + outlook.onward()
            }
            None => "check cable and drive (smartctl -a)".into(),
        };
        self.named(problem.at(error.at).advice(advice))
    }

    /// A flush that failed.
    pub fn flush(&self, error: &io::Error) -> Problem {
        if let Some(problem) = self.lost(error) {
            return problem;
        }
        let problem = Problem::new(Kind::Drive, format!("the drive did not make its data durable: {error}"));
        let advice = match &self.outlook {
            Some(outlook) => {
                Advice::from(format!("nothing since the last flush can be trusted, and {}; ", outlook.meanwhile))
                    + outlook.onward()
            }
            None => "nothing since the last flush can be trusted; check cable and drive (smartctl -a)".into(),
        };
        self.named(problem.advice(advice))
    }

    /// A device that held an operation for `age`.
    pub fn hung(&self, age: Duration) -> Problem {
        let problem = self.named(Timeouts::timed_out(age));
        match &self.outlook {
            Some(outlook) => problem.advice(
                Advice::from("check cable, power and dock, and the kernel's messages with `dmesg`, then ")
                    + outlook.ways_on(),
            ),
            None => problem,
        }
    }

    /// An engine that stopped working.
    pub fn broken(&self, error: &io::Error) -> Problem {
        let what = format!("the I/O engine stopped working: {error}");
        let problem = self.named(Problem::new(Kind::Environment, what));
        match &self.outlook {
            Some(_) => problem.advice(Advice::from("try again with ") + Setting::Engine + " sync"),
            None => problem,
        }
    }

    /// A stop on request.
    pub fn stopped(&self) -> Problem {
        let problem = self.named(Problem::new(Kind::Interrupted, "stopped on request"));
        match &self.outlook {
            Some(outlook) => problem.advice(
                Advice::from(outlook.meanwhile)
                    + "; continue with "
                    + Setting::Resume
                    + ", or roll back with "
                    + Setting::Abort,
            ),
            None => problem,
        }
    }

    /// A notice about the drive.
    pub fn notice(&self, what: String) -> Notice {
        Notice { drive: self.name.clone(), what }
    }

    /// The problem with the drive's name.
    pub fn named(&self, problem: Problem) -> Problem {
        match &self.name {
            Some(name) => problem.drive(name),
            None => problem,
        }
    }

    /// A drive that is gone, or without room beneath it.
    fn lost(&self, error: &io::Error) -> Option<Problem> {
        let gone = pulled(error, self.node.as_deref()).map(|problem| match &self.outlook {
            Some(outlook) => problem.advice(Advice::from("check cable, power and dock, then ") + outlook.ways_on()),
            None => problem.advice("check cable, power and dock"),
        });
        gone.or_else(|| no_room(error)).map(|problem| self.named(problem))
    }
}
