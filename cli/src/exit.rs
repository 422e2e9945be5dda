//! The one table of exit codes.

use dray_engine::report::{Kind, Problem, Problems, SessionReport};

/// Exit codes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything requested is done.
    Done = 0,
    /// The command line or an input file is wrong.
    Usage = 1,
    /// Refused by a safety check before anything was destroyed.
    Refused = 2,
    /// Finished, some files left out.
    LeftOut = 3,
    /// A drive failed; the others are fine.
    DriveFailed = 4,
    /// Read-back or verification found differences.
    Different = 5,
    /// Incomplete; the session continues with more drives.
    Resumable = 6,
    /// A source could not be read.
    Source = 7,
    /// Kernel, permissions or limits.
    Environment = 8,
    /// A bug; a panic gives the same code.
    Bug = 101,
    /// Interrupted by a signal.
    Interrupted = 130,
}

/// Code and meaning, as the long help and the man page print them.
pub const TABLE: &[(Exit, &str)] = &[
    (Exit::Done, "done"),
    (Exit::Usage, "usage: the command line or an input file is wrong; nothing was written"),
    (Exit::Refused, "refused for safety; nothing was written"),
    (Exit::LeftOut, "finished, but some files were left out"),
    (Exit::DriveFailed, "a drive failed; the others are fine"),
    (Exit::Different, "read-back or verification found differences"),
    (Exit::Resumable, "files wait for more drives; the session can be resumed"),
    (Exit::Source, "a source could not be read"),
    (Exit::Environment, "the environment is in the way (kernel, permission, limits)"),
    (Exit::Bug, "a bug in dray"),
    (Exit::Interrupted, "interrupted by a signal; a session continues with --resume"),
];

impl Exit {
    /// The number the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Meaning of the code, as in [`TABLE`].
    pub fn meaning(self) -> &'static str {
        TABLE.iter().find(|(exit, _)| *exit == self).map_or("unknown", |(_, meaning)| meaning)
    }

    fn of_kind(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::Refused => Self::Refused,
            Kind::Source => Self::Source,
            Kind::Drive => Self::DriveFailed,
            Kind::Environment => Self::Environment,
            Kind::Interrupted => Self::Interrupted,
            Kind::Different => Self::Different,
            Kind::Internal => Self::Bug,
        }
    }

    /// The kind of problem that a command ends with so.
    pub fn kind(self) -> Kind {
        match self {
            Self::Done | Self::Usage => Kind::Usage,
            Self::Refused | Self::Resumable => Kind::Refused,
            Self::LeftOut | Self::Source => Kind::Source,
            Self::DriveFailed => Kind::Drive,
            Self::Different => Kind::Different,
            Self::Environment => Kind::Environment,
            Self::Bug => Kind::Internal,
            Self::Interrupted => Kind::Interrupted,
        }
    }

    /// The code of several problems: that of the most serious kind.
    pub fn of_problems(problems: &Problems) -> Self {
        const ORDER: [Kind; 8] = [
            Kind::Internal,
            Kind::Refused,
            Kind::Usage,
            Kind::Environment,
            Kind::Source,
            Kind::Drive,
            Kind::Different,
            Kind::Interrupted,
        ];
        let found = ORDER.into_iter().find(|kind| problems.0.iter().any(|problem| problem.kind == *kind));
        // No problem at all in an error is a bug by itself.
        found.map_or(Self::Bug, Self::of_kind)
    }

    /// The code of a session that ran.
    pub fn of_report(report: &SessionReport) -> Self {
        let failures: Vec<&Problem> = report.drives.iter().filter_map(|drive| drive.failure.as_ref()).collect();
        if report.interrupted {
            return Self::Interrupted;
        }
        if let Some(first) = failures.first() {
            // A drive that stopped because of the sources or the machine is not a bad drive.
            let same = failures.iter().all(|problem| problem.kind == first.kind);
            return if same { Self::of_kind(first.kind) } else { Self::DriveFailed };
        }
        if report.waiting > 0 {
            return Self::Resumable;
        }
        if report.drives.iter().any(|drive| !drive.left_out.is_empty()) { Self::LeftOut } else { Self::Done }
    }

    /// The table as text for the long help.
    pub fn help() -> String {
        Self::help_of(&TABLE.iter().map(|(exit, _)| *exit).collect::<Vec<_>>())
    }

    /// The same of those that a command can end with.
    pub fn help_of(codes: &[Self]) -> String {
        let mut text = String::from("Exit codes:\n");
        for (exit, meaning) in TABLE.iter().filter(|(exit, _)| codes.contains(exit)) {
            text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
        }
        text
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_engine::report::{DriveFacts, DriveResult};
    use dray_engine::units::ByteLen;
    use std::time::Duration;

    fn result(failure: Option<Problem>, left_out: usize) -> DriveResult {
        DriveResult {
            drive: DriveFacts::default(),
            files: 0,
            data: ByteLen(0),
            written: ByteLen(0),
            manifest_hash: None,
            record: None,
            keys: Default::default(),
            left_out: vec![("f".into(), "vanished".into()); left_out],
            failure,
            free_space_untouched: true,
            outside_untouched: ByteLen(0),
            timing: dray_engine::report::Timing::default(),
            elapsed: Duration::ZERO,
        }
    }

    fn report(drives: Vec<DriveResult>, interrupted: bool) -> SessionReport {
        SessionReport { drives, interrupted, ..SessionReport::default() }
    }

    #[test]
    fn the_table_names_every_code_once_in_order() {
        let codes: Vec<u8> = TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 101, 130]);
        assert!(Exit::help().lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn safety_speaks_before_everything_but_a_bug() {
        let both = Problems(vec![Problem::new(Kind::Source, "s"), Problem::new(Kind::Refused, "r")]);
        assert_eq!(Exit::of_problems(&both), Exit::Refused);
        assert_eq!(Exit::of_problems(&Problems::default()), Exit::Bug);
    }

    #[test]
    fn a_report_gives_the_code_of_its_worst_drive() {
        let bad = |kind| Some(Problem::new(kind, "x"));
        assert_eq!(Exit::of_report(&report(vec![result(None, 0)], false)), Exit::Done);
        assert_eq!(Exit::of_report(&report(vec![result(None, 1)], false)), Exit::LeftOut);
        assert_eq!(
            Exit::of_report(&report(vec![result(None, 1), result(bad(Kind::Drive), 0)], false)),
            Exit::DriveFailed
        );
        assert_eq!(Exit::of_report(&report(vec![result(bad(Kind::Different), 0)], false)), Exit::Different);
        let mixed = vec![result(bad(Kind::Different), 0), result(bad(Kind::Source), 0)];
        assert_eq!(Exit::of_report(&report(mixed, false)), Exit::DriveFailed);
        assert_eq!(Exit::of_report(&report(vec![result(None, 0)], true)), Exit::Interrupted);
        assert_eq!(Exit::of_report(&report(vec![result(bad(Kind::Interrupted), 0)], true)), Exit::Interrupted);
    }
}
