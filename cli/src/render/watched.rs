//! Work that may wait for a device that does not answer: its stalls are reported.

use std::time::Duration;

use dray_engine::watchdog::{STALL, Watchdog};

/// Does `work`, which gives heartbeats to the watchdog's task 0; reports when none comes for [`STALL`].
pub fn watched<T>(doing: &str, report: impl Fn(String) + Send + Sync, work: impl FnOnce(&(dyn Fn() + Sync)) -> T) -> T {
    watched_for(STALL, doing, report, work)
}

fn watched_for<T>(
    stall: Duration,
    doing: &str,
    report: impl Fn(String) + Send + Sync,
    work: impl FnOnce(&(dyn Fn() + Sync)) -> T,
) -> T {
    /// Ends the watch also when the work panics.
    struct End<'a>(&'a Watchdog);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.end();
        }
    }
    let watchdog = Watchdog::new(1, stall);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            watchdog.watch(|_, quiet| {
                report(format!(
                    "{doing}: nothing has happened for {} s; a drive or a source hangs or is very slow: see the kernel's \
                     messages with `dmesg`",
                    quiet.as_secs()
                ));
            });
        });
        let _end = End(&watchdog);
        work(&|| watchdog.beat(0))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_stall_is_reported_and_the_result_comes_back() {
        let reports = Mutex::new(Vec::new());
        let report = |text| reports.lock().expect("reports").push(text);
        let result = watched_for(Duration::from_millis(5), "waiting", report, |beat| {
            beat();
            while reports.lock().expect("reports").is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            7
        });
        assert_eq!(result, 7);
        assert!(reports.into_inner().expect("reports")[0].starts_with("waiting: nothing has happened for"));
    }
}
