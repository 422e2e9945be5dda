//! Jobs of the service: their descriptions, request bodies, local state and papers.
//!
//! Names and limits are those of the published API descriptions: `Microsoft.ImportExport` 2021-01-01 and
//! `Microsoft.DataBox` 2021-08-01-preview with customer disks.

pub mod body;
pub mod description;
pub mod export;
pub mod extras;
pub mod held;
pub mod papers;
pub mod placeholders;
pub mod send;
pub mod state;
pub mod verified;
pub mod words;

use clap::ValueEnum;

/// API of the service through which a job is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// Microsoft.ImportExport 2021-01-01
    #[default]
    ImportExport,
    /// Microsoft.DataBox 2021-08-01-preview, with your own disks
    DataBox,
}

impl Api {
    /// The name in options and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImportExport => "import-export",
            Self::DataBox => "data-box",
        }
    }

    /// API version of the published description.
    pub const fn version(self) -> &'static str {
        match self {
            Self::ImportExport => "2021-01-01",
            Self::DataBox => "2021-08-01-preview",
        }
    }

    const fn provider(self) -> &'static str {
        match self {
            Self::ImportExport => "Microsoft.ImportExport",
            Self::DataBox => "Microsoft.DataBox",
        }
    }

    /// From [`Api::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ImportExport, Self::DataBox].into_iter().find(|api| api.as_str() == text)
    }

    /// Path of a job below the endpoint.
    pub fn resource(self, subscription: &str, group: &str, name: &str) -> String {
        format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{}/jobs/{name}", self.provider())
    }
}
