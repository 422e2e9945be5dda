//! What went wrong, for people.

use super::Drive;
use crate::device;
use crate::io;
use crate::plan::batches::Phase;
use crate::prep::timeouts::{Timeouts, no_room};
use crate::report::{Kind, Problem};

impl Drive<'_, '_> {
    pub(super) fn write_failed(&self, error: &io::WriteError, what: &str) -> Problem {
        if let Some(problem) = self.vanished(&error.source) {
            return problem.at(error.at);
        }
        if let Some(problem) = no_room(&error.source) {
            return problem.drive(&self.s.name).at(error.at);
        }
        Problem::new(Kind::Drive, format!("writing failed ({what}): {}", error.source))
            .drive(&self.s.name)
            .at(error.at)
            .advice("the drive holds no finished volume; check cable and drive (smartctl -a), then continue with --resume, or \
             replace it")
    }

    /// A drive that was pulled: its size becomes zero, so that a write lies past the end, and the kernel calls that no
    /// space.
    fn vanished(&self, error: &std::io::Error) -> Option<Problem> {
        let gone = matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
        // A device that is there and has its size is one without room beneath it.
        let lost = || self.s.node.as_deref().is_some_and(device::is_gone);
        let past_the_end = error.raw_os_error() == Some(libc::ENOSPC) && lost();
        // What is in flight when it is pulled, and a flush above all, ends like that too.
        let fails = error.raw_os_error() == Some(libc::EIO);
        let is_going = || self.s.node.as_deref().is_some_and(device::is_going);
        (gone || past_the_end || fails && is_going()).then(|| {
            Problem::new(Kind::Drive, format!("the drive went away while it was written ({error})"))
                .drive(&self.s.name)
                .advice("check cable, power and dock, then continue with --resume; it holds no finished volume")
        })
    }

    pub(super) fn hung(&self, age: std::time::Duration) -> Problem {
        Timeouts::timed_out(age)
            .drive(&self.s.name)
            .advice("check cable, power and dock, and the kernel's messages with `dmesg`, then continue with --resume; it holds \
             no finished volume")
    }

    pub(super) fn flush_failed(&self, error: &std::io::Error) -> Problem {
        if let Some(problem) = self.vanished(error) {
            return problem;
        }
        if let Some(problem) = no_room(error) {
            return problem.drive(&self.s.name);
        }
        Problem::new(Kind::Drive, format!("the drive did not make its data durable: {error}"))
            .drive(&self.s.name)
            .advice("nothing since the last flush can be trusted; continue with --resume, or replace the drive")
    }

    pub(super) fn broken(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the I/O engine stopped working: {error}"))
            .drive(&self.s.name)
            .advice("try again with --engine sync")
    }

    pub(super) fn sidecar(&self, error: &std::io::Error) -> Problem {
        Problem::new(Kind::Environment, format!("the files next to the journal cannot be written: {error}"))
            .drive(&self.s.name)
            .path(&self.s.beside)
            .advice("make room on the journal's disk, then continue with --resume")
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
