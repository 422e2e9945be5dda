//! One line that shows progress.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Output, err};

/// Between two redraws of a line.
const REDRAW: Duration = Duration::from_millis(150);

/// Progress of something that takes a while.
#[derive(Debug)]
pub struct Working<'a> {
    output: &'a Output,
    last: RefCell<Option<Instant>>,
    drawn: Cell<bool>,
}

impl<'a> Working<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        // Where lines cannot be redrawn, short work prints none.
        let last = (!output.live && !output.json).then(Instant::now);
        Self { output, last: RefCell::new(last), drawn: Cell::new(false) }
    }

    /// Shows progress, as a line for people and an object for programs; rate-limited to a readable pace.
    pub fn show(&self, line: impl FnOnce() -> String, kind: &str, object: impl FnOnce() -> Value) {
        let output = self.output;
        let pause = match (output.json, output.live) {
            (true, _) => output.object_interval(),
            (false, true) => REDRAW,
            (false, false) => output.line_interval(),
        };
        if self.last.borrow().is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        *self.last.borrow_mut() = Some(Instant::now());
        if output.json {
            output.object(kind, object());
        } else if output.live {
            err(&format!("\r\x1b[K{}", line()));
            self.drawn.set(true);
        } else if !output.quiet {
            err(&format!("dray: {}\n", line()));
        }
    }

    /// Clears the line.
    pub fn end(&self) {
        if self.drawn.replace(false) {
            err("\r\x1b[K");
        }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
