//! Drives that nothing is heard of: whatever their thread waits in (opening, discarding, a checkpoint on a full or dead
//! journal disk, reading back), somebody is told, and for how long it has been.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::report::Event;

/// When each drive was last heard of.
#[derive(Debug)]
pub struct Silence {
    state: Mutex<State>,
    wake: Condvar,
    /// After this a drive gets a word, and again each time it has doubled.
    slow: Duration,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Lane>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    heard: Instant,
    tell_at: Duration,
    is_running: bool,
}

impl Silence {
    /// So many drives.
    pub fn new(drives: usize, slow: Duration) -> Self {
        let lane = Lane { heard: Instant::now(), tell_at: slow, is_running: true };
        Self { state: Mutex::new(State { lanes: vec![lane; drives], is_over: false }), wake: Condvar::new(), slow }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was heard.
    pub fn heard(&self, event: &Event) {
        let (drive, is_end) = match event {
            Event::Stage { drive, stage } => (*drive, stage.is_end()),
            Event::DriveFailed { drive, .. } => (*drive, true),
            Event::Progress { drive, .. } | Event::LeftOut { drive, .. } => (*drive, false),
            Event::Scanning { .. } | Event::Note(_) | Event::Warning(_) => return,
        };
        let mut state = self.lock();
        if let Some(lane) = state.lanes.get_mut(drive) {
            *lane = Lane { heard: Instant::now(), tell_at: self.slow, is_running: lane.is_running && !is_end };
        }
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.wake.notify_all();
    }

    /// Tells of drives that are silent from now on, until [`Self::end`]: index and for how long.
    pub fn watch(&self, tell: impl Fn(usize, Duration)) {
        let pause = (self.slow / 8).max(Duration::from_millis(1));
        let mut state = self.lock();
        state.lanes.iter_mut().for_each(|lane| lane.heard = Instant::now());
        while !state.is_over {
            let mut silent = Vec::new();
            for (drive, lane) in state.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_running) {
                let quiet = lane.heard.elapsed();
                if quiet >= lane.tell_at {
                    lane.tell_at = quiet * 2;
                    silent.push((drive, quiet));
                }
            }
            // Whoever is told may make events of it.
            drop(state);
            silent.into_iter().for_each(|(drive, quiet)| tell(drive, quiet));
            state = self.lock();
            if !state.is_over {
                state = self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Stage;

    #[test]
    fn a_silent_drive_is_told_of_at_doubling_times_and_a_finished_one_never() {
        let silence = Silence::new(3, Duration::from_millis(40));
        silence.heard(&Event::Stage { drive: 2, stage: Stage::Done });
        let told = Mutex::new(Vec::new());
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| silence.watch(|drive, quiet| told.lock().expect("told").push((drive, quiet))));
            while began.elapsed() < Duration::from_millis(600) {
                silence.heard(&Event::Stage { drive: 0, stage: Stage::Data });
                std::thread::sleep(Duration::from_millis(2));
            }
            silence.end();
        });
        let told = told.into_inner().expect("told");
        let of = |drive: usize| told.iter().filter(move |(who, _)| *who == drive).map(|(_, quiet)| *quiet);
        let second: Vec<Duration> = of(1).collect();
        assert!((2..=4).contains(&second.len()), "40, 80, 160, 320 ms: {told:?}");
        assert!(second.windows(2).all(|pair| pair[1] >= pair[0] * 2), "{told:?}");
        assert_eq!(of(2).count(), 0, "{told:?}");
    }
}
