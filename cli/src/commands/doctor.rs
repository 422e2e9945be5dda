//! `dray doctor`: obstacles of the machine, each with a one-line remedy.

use clap::Args;
use dray_engine::api;
use dray_engine::api::measure::{CheckState as State, MachineCheck};
use dray_engine::report::{Kind, Problem, Problems};
use serde_json::json;

use crate::exit::Exit;
use crate::render::Output;

/// Arguments of `dray doctor`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit code 8 when something is in the way, 0 otherwise.\n\nExamples:\n  dray doctor\n  sudo dray doctor --json"
)]
pub struct Doctor {}

impl Doctor {
    /// Examines the machine and prints the results.
    pub fn run(self, output: &Output) -> Exit {
        let checks = api::measure::examine(&api::host::Roots::default());
        for check in &checks {
            if output.is_json() {
                output.object(
                    "condition",
                    json!({
                        "what": check.what,
                        "state": word(check.state),
                        "found": check.found,
                        "remedy": check.remedy,
                    }),
                );
            } else {
                output.say(&line(check, output));
            }
        }
        let bad = checks.iter().filter(|check| check.state == State::Bad).map(|check| {
            let problem = Problem::new(Kind::Environment, check.what).value(&check.found);
            check.remedy.iter().fold(problem, |problem, remedy| problem.advice(remedy.clone()))
        });
        let bad = Problems(bad.collect());
        output.remember(&bad);
        if bad.0.is_empty() { Exit::Done } else { Exit::Environment }
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Good => "good",
        State::Worse => "worse",
        State::Bad => "bad",
    }
}

fn line(check: &MachineCheck, output: &Output) -> String {
    let style = output.style();
    let mark = match check.state {
        State::Good => style.green("ok   "),
        State::Worse => style.yellow("worse"),
        State::Bad => style.red("bad  "),
    };
    let mut text = format!("{mark}  {:<14} {}\n", check.what, check.found);
    if let Some(remedy) = &check.remedy {
        text.push_str(&format!("{:22}{remedy}\n", ""));
    }
    text
}
