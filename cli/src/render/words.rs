//! The program's words for what the libraries advise: options and commands.

use dray_engine::report::{Advice, Command as Subcommand, Problem, Setting};

/// The option by which something is set.
pub const fn option(setting: Setting) -> &'static str {
    match setting {
        Setting::Abort => "--abort",
        Setting::AccountKeyFile => "--account-key-file",
        Setting::AdditionalDriveset => "--additional-driveset",
        Setting::Anew => "--anew",
        Setting::CaFile => "--ca-file",
        Setting::BlobList => "--blob-list",
        Setting::Checkpoints => "--checkpoints",
        Setting::ClusterSize => "--cluster-size",
        Setting::ContentMd5 => "--content-md5",
        Setting::ContentType => "--content-type",
        Setting::CopyLog => "--copy-log",
        Setting::Dataset => "--dataset",
        Setting::Discard => "--discard",
        Setting::Disposition => "--disposition",
        Setting::DriveId => "--drive-id PATH=SERIAL",
        Setting::Endpoint => "--endpoint",
        Setting::Driveset => "--driveset",
        Setting::Engine => "--engine",
        Setting::EvenUnconfirmed => "--even-unconfirmed",
        Setting::Exclude => "--exclude",
        Setting::ExternalKey => "--external-key",
        Setting::FilesFrom => "--files-from",
        Setting::For => "--for",
        Setting::From => "--from",
        Setting::Id => "--id",
        Setting::IgnoreFile => "--ignore-file",
        Setting::Include => "--include",
        Setting::InitialDriveset => "--initial-driveset",
        Setting::Journal => "--journal",
        Setting::KeyFd => "--key-fd",
        Setting::KeyFile => "--key-file",
        Setting::Keys => "--keys",
        Setting::KeysTo => "--keys",
        Setting::List => "--list",
        Setting::ListCopySessions => "--list-copy-sessions",
        Setting::ListDrives => "--list-drives",
        Setting::Logdir => "--logdir",
        Setting::Manifest => "--manifest",
        Setting::ManifestHash => "--manifest-hash",
        Setting::Map => "--map",
        Setting::MetadataFrom => "--metadata-from",
        Setting::NotForShipping => "--not-for-shipping",
        Setting::OnlyUsed => "--only-used",
        Setting::Overwrite => "--overwrite",
        Setting::Partition => "--partition",
        Setting::PasswordFile => "--password-file",
        Setting::Replan => "--replan",
        Setting::Resume => "--resume",
        Setting::RetryFor => "--retry-for",
        Setting::SasFile => "--sas-file",
        Setting::SignIn => "--sign-in",
        Setting::StateDir => "--state-dir",
        Setting::Table => "--table",
        Setting::TokenFile => "--token-file",
        Setting::WhatFits => "--what-fits",
        Setting::Yes => "--yes SERIAL",
    }
}

/// The command, as it is typed.
const fn command(command: Subcommand) -> &'static str {
    match command {
        Subcommand::Acquire => "`dray acquire`",
        Subcommand::Devices => "`dray devices`",
        Subcommand::DevicesAll => "`dray devices --all`",
        Subcommand::Export => "`dray export`",
        Subcommand::Inspect => "`dray inspect`",
        Subcommand::Ls => "`dray ls`",
        Subcommand::PrepImport => "`dray prep-import`",
        Subcommand::Rehearse => "`dray rehearse`",
        Subcommand::Template => "`dray template`",
        Subcommand::Unlock => "`dray unlock`",
        Subcommand::Verify => "`dray verify`",
    }
}

/// A remedy in the words of the command line.
pub fn advice(advice: &Advice) -> String {
    advice.render(|setting| option(setting).to_owned(), |one| command(one).to_owned())
}

/// What a problem is about, if that is no place in a file: the option without its value.
pub fn column(problem: &Problem) -> Option<String> {
    let place = &problem.place;
    let of_setting = || Some(option(place.setting?).split(' ').next()?.to_owned());
    place.column.clone().or_else(of_setting)
}

/// A problem as a line, without its advice.
pub fn line(problem: &Problem) -> String {
    let mut named = problem.clone();
    named.place.column = column(problem);
    named.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn options_of(command: &clap::Command, into: &mut BTreeSet<String>) {
        into.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}")));
        command.get_subcommands().for_each(|one| options_of(one, into));
    }

    #[test]
    fn advice_names_options_and_commands_that_exist() {
        let program = Cli::command();
        let mut options = BTreeSet::new();
        options_of(&program, &mut options);
        for setting in Setting::ALL {
            let word = option(*setting).split(' ').next().expect("a word");
            assert!(options.contains(word), "{word}, for {setting:?}");
        }
        for one in Subcommand::ALL {
            let words: Vec<&str> = command(*one).trim_matches('`').split(' ').collect();
            let found = program.find_subcommand(words[1]).expect(words[1]);
            let mut own = BTreeSet::new();
            options_of(found, &mut own);
            assert!(words[2..].iter().all(|option| own.contains(*option)), "{words:?}");
        }
    }
}
