//! Selection of the sources' files: options that commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dray_engine::api::prepare::SourceSelection;

/// Selection of files.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Take only files whose path matches: '*.jpg', '/docs/', 'a/**/b?'
    #[arg(long, value_name = "GLOB")]
    #[arg(
        long_help = "Take only files whose path matches. A pattern without a leading slash holds at any depth, with one it \
                       begins at the top of each source; * and ? match within a name, ** over any number of \
                       directories, and a slash at the end means a directory with all in it. May be given several times; \
                       what --exclude names is left out in any case"
    )]
    pub include: Vec<String>,
    /// Leave out files and directories whose path matches
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Leave out what the patterns of this file match, which are those of .gitignore
    #[arg(long, value_name = "FILE")]
    #[arg(
        long_help = "Leave out what the patterns of this file match. Its syntax is that of .gitignore (gitignore(5)): # begins \
                       a comment, ! takes back, a slash at the front begins at the top of each source. May be given \
                       several times; of two patterns that match the later counts"
    )]
    pub ignore_file: Vec<PathBuf>,
    /// Take only the files that are listed here, one path a line
    #[arg(long, value_name = "FILE")]
    pub files_from: Option<PathBuf>,
    /// Symbolic links: none, or inside (those that lead to a place in the same source)
    #[arg(long, value_name = "WHICH", default_value = "none", hide_possible_values = true)]
    pub follow_symlinks: Links,
}

/// Treatment of symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Links {
    /// None
    None,
    /// Those that lead to a place in the same source
    Inside,
}

impl SelectionArgs {
    /// The selection as the engine takes it.
    pub fn selection(&self, skip_unnameable: bool) -> SourceSelection {
        SourceSelection {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            ignore_files: self.ignore_file.clone(),
            files_from: self.files_from.clone(),
            follow_inside: self.follow_symlinks == Links::Inside,
            skip_unnameable,
        }
    }
}
