//! What a session does to one drive, whatever kind of work it is.

use std::fmt;

use crate::bitlocker::build::VolumeSecrets;
use crate::bitlocker::regions::Regions;
use crate::plan::tree::DriveTree;
use crate::report::{DrivePlan, Problem};
use crate::request::PrepRequest;
use crate::units::{ByteLen, DiskShape};
use crate::work::recipe::SavedDrive;
use crate::work::shared::{Done, Shared};
use crate::work::target::TargetDrive;

/// Draws the secrets of a new volume: its BitLocker areas, the disk's geometry, the drive id.
pub type Draw<'a> = &'a mut dyn FnMut(&Regions, DiskShape, &str) -> VolumeSecrets;

/// The work on one drive of a session: planned, perhaps begun by an earlier run, ready to run.
pub trait DriveWork: fmt::Debug + Send + Sync {
    /// The drive.
    fn target(&self) -> &TargetDrive;

    /// Its files.
    fn tree(&self) -> &DriveTree;

    /// The plan, for reports.
    fn summary(&self) -> DrivePlan;

    /// The drive as the session's plan file keeps it.
    fn saved(&self) -> SavedDrive;

    /// Bytes that the work needs next to the journal, besides checkpoint and logs.
    fn room_beside(&self) -> ByteLen {
        ByteLen(0)
    }

    /// Length of the manifest that the drive holds already.
    fn earlier_manifest(&self) -> Option<u64> {
        None
    }

    /// Whether the secrets of its volume are still to be drawn, so that a user's password is needed.
    fn draws_secrets(&self) -> bool;

    /// Draws the secrets of a new volume; those kept by an earlier run are restored instead.
    ///
    /// # Errors
    /// The kernel's ciphers refuse the keys.
    fn draw_secrets(&mut self, draw: Draw<'_>) -> Result<(), Problem>;

    /// First file that is not completely on the drive.
    fn first_open_file(&self) -> u32;

    /// Where the work continues, for the user.
    fn position(&self) -> String;

    /// Reason for refusing the work without consent.
    fn without_consent(&self) -> &'static str {
        "no consent was given to erase it"
    }

    /// Does the work, from the claim of the drive to its record; `index` is the drive's in the session.
    ///
    /// # Errors
    /// The first problem of the drive.
    fn run(&self, index: usize, shared: &Shared<'_>) -> Result<Done, Problem>;

    /// Removes what is not needed once the journal lists the drive as finished, while its session continues.
    fn clean_up(&self, _: &PrepRequest) {}

    /// The drive that is formatted, for tests of its loop.
    #[cfg(test)]
    fn into_format(self: Box<Self>) -> Option<crate::work::planner::FormatDrive> {
        None
    }
}
