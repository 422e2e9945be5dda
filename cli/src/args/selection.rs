//! Selection of the sources' files: options that commands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dray_engine::job::SourceSelection;

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
            files_from: self.files_from.clone(),
            follow_inside: self.follow_symlinks == Links::Inside,
            skip_unnameable,
        }
    }
}
