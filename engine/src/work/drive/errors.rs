//! Failures of a drive as problems for the user.

use super::Drive;
use crate::io;
use crate::plan::batches::Phase;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::stream::timeouts::{Timeouts, no_room, pulled};

impl Drive<'_, '_> {
    /// State of the drive as long as it is not finished.
    pub(super) fn meanwhile(&self) -> &'static str {
        match self.formatting {
            Some(_) => "the drive holds no finished volume",
            None => "the volume is what it was before",
        }
    }

    /// The alternative to resuming, as advice.
    fn instead(&self) -> Advice {
        match self.formatting {
            Some(_) => "replace the drive".into(),
            None => Advice::from("roll the session back with ") + Setting::Abort,
        }
    }

    pub(super) fn stopped(&self) -> Problem {
        let advice = Advice::from(self.meanwhile())
            + "; continue with "
            + Setting::Resume
            + ", or roll back with "
            + Setting::Abort;
        Problem::new(Kind::Interrupted, "stopped on request").drive(&self.s.name).advice(advice)
    }

    /// The failure of a whole source, or of a shortage that prevents reading any source.
    pub(super) fn source_gone(&self, problem: Problem) -> Problem {
        let problem = problem.drive(&self.s.name);
        match problem.kind {
            Kind::Source => problem
                .advice(Advice::from("attach it again and continue with ") + Setting::Resume + "; " + self.meanwhile()),
            _ => problem,
        }
    }

    pub(super) fn write_failed(&self, error: &io::WriteError, what: &str) -> Problem {
        if let Some(problem) = self.pulled(&error.source) {
            return problem.at(error.at);
        }
        if let Some(problem) = no_room(&error.source) {
            return problem.drive(&self.s.name).at(error.at);
        }
        let (meanwhile, instead) = (self.meanwhile(), self.instead());
        Problem::new(Kind::Drive, format!("writing failed ({what}): {}", error.source))
            .drive(&self.s.name)
            .at(error.at)
            .advice(
                Advice::from(format!("{meanwhile}; check cable and drive (smartctl -a), then continue with "))
                    + Setting::Resume
                    + ", or "
                    + instead,
            )
    }

    fn pulled(&self, error: &std::io::Error) -> Option<Problem> {
        let problem = pulled(error, self.s.node.as_deref())?;
        let advice = Advice::from("check cable, power and dock, then continue with ")
            + Setting::Resume
            + "; "
            + self.meanwhile();
        Some(problem.drive(&self.s.name).advice(advice))
    }

    pub(super) fn hung(&self, age: std::time::Duration) -> Problem {
        let meanwhile = self.meanwhile();
        Timeouts::timed_out(age).drive(&self.s.name).advice(
            Advice::from("check cable, power and dock, and the kernel's messages with `dmesg`, then continue with ")
                + Setting::Resume
                + format!("; {meanwhile}"),
        )
    }

    pub(super) fn flush_failed(&self, error: &std::io::Error) -> Problem {
        if let Some(problem) = self.pulled(error) {
            return problem;
        }
        if let Some(problem) = no_room(error) {
            return problem.drive(&self.s.name);
        }
        let (meanwhile, instead) = (self.meanwhile(), self.instead());
        Problem::new(Kind::Drive, format!("the drive did not make its data durable: {error}"))
            .drive(&self.s.name)
            .advice(
                Advice::from(format!("nothing since the last flush can be trusted, and {meanwhile}; continue with "))
                    + Setting::Resume
                    + ", or "
                    + instead,
            )
    }

    pub(super) fn broken(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}"))
            .drive(&self.s.name)
            .advice(Advice::from("try again with ") + Setting::Engine + " sync")
    }

    pub(super) fn sidecar(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
            .drive(&self.s.name)
            .path(&self.s.beside)
            .advice(Advice::from("make room on the journal's disk, then continue with ") + Setting::Resume)
    }
}

pub(super) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Data => "file data",
        Phase::Metadata => "file system metadata",
        Phase::FreeSpace => "free space",
        Phase::Last => "system records",
        Phase::Front => "first sector of the volume",
        Phase::Tables => "partition tables",
    }
}
