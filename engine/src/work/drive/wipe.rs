//! The first step: wipes old signatures, and every range that is written last.

use super::Drive;
use crate::report::{Problem, Stage};
use crate::stream::zeros::{self, OnError};

impl<'a: 'o, 'o> Drive<'a, 'o> {
    /// Overwrites old signatures, and every range that is written last, so that an unfinished drive shows no volume.
    pub(super) fn wipe(&mut self) -> Result<(), Problem> {
        if self.s.wipe.is_empty() {
            return Ok(());
        }
        self.stage(Stage::Wiping);
        let mut ranges = std::mem::take(&mut self.s.wipe);
        ranges.sort();
        zeros::overwrite(self.s.io, &ranges, OnError::Fail, &mut |_| (), self.s.events).map(drop)
    }
}
