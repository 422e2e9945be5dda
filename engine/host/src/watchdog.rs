//! A watchdog over tasks that may wait for a device that never answers: opening, discarding, a checkpoint on a full or dead
//! journal disk, reading back. It stops nothing; it reports a stall, and for how long it has lasted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A stall of this length is reported, and again each time it has doubled.
pub const STALL: Duration = Duration::from_secs(20);

/// Time of each task's last heartbeat. Tasks are numbered from 0.
#[derive(Debug)]
pub struct Watchdog {
    state: Mutex<Heartbeats>,
    wake: Condvar,
    stall: Duration,
}

#[derive(Debug)]
struct Heartbeats {
    tasks: Vec<Task>,
    is_over: bool,
}

#[derive(Clone, Copy, Debug)]
struct Task {
    heartbeat: Instant,
    report_at: Duration,
    is_running: bool,
}

impl Watchdog {
    /// A watchdog over `tasks` tasks; stalls of at least `stall` are reported.
    pub fn new(tasks: usize, stall: Duration) -> Self {
        let task = Task { heartbeat: Instant::now(), report_at: stall, is_running: true };
        Self { state: Mutex::new(Heartbeats { tasks: vec![task; tasks], is_over: false }), wake: Condvar::new(), stall }
    }

    fn lock(&self) -> MutexGuard<'_, Heartbeats> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heartbeat of a task; one that is unknown or has finished is ignored.
    pub fn beat(&self, task: usize) {
        if let Some(task) = self.lock().tasks.get_mut(task) {
            (task.heartbeat, task.report_at) = (Instant::now(), self.stall);
        }
    }

    /// A task has finished: it is watched no longer.
    pub fn finish(&self, task: usize) {
        if let Some(task) = self.lock().tasks.get_mut(task) {
            task.is_running = false;
        }
    }

    /// Ends [`Self::watch`].
    pub fn end(&self) {
        self.lock().is_over = true;
        self.wake.notify_all();
    }

    /// Reports each stalled task and the length of its stall, counted from this call on; returns after [`Self::end`].
    pub fn watch(&self, report: impl Fn(usize, Duration)) {
        let pause = (self.stall / 8).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let mut state = self.lock();
        state.tasks.iter_mut().for_each(|task| task.heartbeat = Instant::now());
        while !state.is_over {
            let mut stalled = Vec::new();
            for (number, task) in state.tasks.iter_mut().enumerate().filter(|(_, task)| task.is_running) {
                let quiet = task.heartbeat.elapsed();
                if quiet >= task.report_at {
                    task.report_at = quiet * 2;
                    stalled.push((number, quiet));
                }
            }
            // The report may be a heartbeat of another task.
            drop(state);
            stalled.into_iter().for_each(|(number, quiet)| report(number, quiet));
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

    #[test]
    fn a_stall_is_reported_at_doubling_times_and_a_finished_task_never() {
        let watchdog = Watchdog::new(3, Duration::from_millis(40));
        watchdog.finish(2);
        let reports = Mutex::new(Vec::new());
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| watchdog.watch(|task, quiet| reports.lock().expect("reports").push((task, quiet))));
            while began.elapsed() < Duration::from_millis(600) {
                watchdog.beat(0);
                std::thread::sleep(Duration::from_millis(2));
            }
            watchdog.end();
        });
        let reports = reports.into_inner().expect("reports");
        let of = |task: usize| reports.iter().filter(move |(which, _)| *which == task).map(|(_, quiet)| *quiet);
        let second: Vec<Duration> = of(1).collect();
        assert!((2..=4).contains(&second.len()), "40, 80, 160, 320 ms: {reports:?}");
        assert!(second.windows(2).all(|pair| pair[1] >= pair[0] * 2), "{reports:?}");
        assert_eq!(of(2).count(), 0, "{reports:?}");
    }

    #[test]
    fn a_heartbeat_begins_the_count_anew() {
        let watchdog = Watchdog::new(1, Duration::from_millis(50));
        let reports = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| watchdog.watch(|_, quiet| reports.lock().expect("reports").push(quiet)));
            let wait = |count: usize| {
                while reports.lock().expect("reports").len() < count {
                    std::thread::sleep(Duration::from_millis(2));
                }
            };
            wait(2);
            watchdog.beat(0);
            wait(3);
            watchdog.end();
        });
        let reports = reports.into_inner().expect("reports");
        assert!(reports[2] < reports[1], "the first report of the second stall: {reports:?}");
    }
}
