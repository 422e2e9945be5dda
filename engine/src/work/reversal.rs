//! Rolling the work on one drive back.

use crate::checkpoint::Checkpoint;
use crate::report::{Event, Notice, Problem};
use crate::request::PrepRequest;
use crate::work::append;
use crate::work::target::TargetDrive;
use crate::work::way_back::WayBack;

/// The way back from the work on a drive.
#[derive(Debug)]
pub enum Reversal {
    /// The structures that make it a volume are erased: for a finished drive that destroys it.
    Erase(Box<WayBack>),
    /// The additions are removed, and the volume is as it was.
    Undo(Box<Checkpoint>),
}

impl Reversal {
    /// Whether no volume is on the drive afterwards.
    pub const fn destroys_volume(&self) -> bool {
        matches!(self, Self::Erase(_))
    }

    /// Rolls back. May be repeated.
    ///
    /// # Errors
    /// Something uses the drive, or it cannot be read or written.
    pub fn run(
        &self,
        target: &TargetDrive,
        request: &PrepRequest,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<(), Problem> {
        match self {
            Self::Erase(way_back) => way_back.erase(target, request),
            Self::Undo(checkpoint) => {
                if append::run::will_decrypt(checkpoint) {
                    events(Event::Note(Notice::of(
                        &target.facts.name,
                        "its volume is decrypted again, which takes about as long as encrypting did",
                    )));
                }
                append::run::roll_back(target, checkpoint, request, events)
            }
        }
    }
}
