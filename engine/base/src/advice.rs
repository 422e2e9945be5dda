//! Advice: a remedy in words, with what the caller can set or call as values between them.
//!
//! Libraries say *that* a session can be rolled back; which option or button does it is known to the program that is in
//! front of the user. So options and commands travel as [`Setting`] and [`Command`], and [`Advice::render`] puts the
//! program's own names in.

use std::fmt;
use std::ops::Add;

/// Gives each variant its neutral name, which [`Display`](fmt::Display) shows where no program gave its own.
macro_rules! names {
    ($(#[$doc:meta])* $kind:ident { $($(#[$one:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($(#[$one])* $variant,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// A neutral name, for those who have none of their own.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

names! {
    /// Something that the caller of a library sets.
    Setting {
        /// Roll a session back.
        Abort = "abort",
        /// Shared key of a storage account, from a file.
        AccountKeyFile = "account key",
        /// Driveset of the drives that join a session.
        AdditionalDriveset = "additional driveset",
        /// Forget an earlier run.
        Anew = "anew",
        /// Certificates to believe.
        CaFile = "certificate authorities",
        /// The list of an account's blobs.
        BlobList = "blob list",
        /// Directory of the checkpoints of an image.
        Checkpoints = "checkpoints",
        /// Size of a cluster.
        ClusterSize = "cluster size",
        /// Content-MD5 of each blob.
        ContentMd5 = "Content-MD5",
        /// Content-Type of each blob.
        ContentType = "Content-Type",
        /// Log of the service.
        CopyLog = "copy log",
        /// The dataset of a session.
        Dataset = "dataset",
        /// Erasing by discard.
        Discard = "discard",
        /// What happens to blobs that exist.
        Disposition = "disposition",
        /// Serial of a drive, given by hand.
        DriveId = "drive id",
        /// Address of a storage account.
        Endpoint = "endpoint",
        /// The drives that an export fills.
        Driveset = "driveset",
        /// The I/O engine.
        Engine = "I/O engine",
        /// Erase what no copy log confirmed.
        EvenUnconfirmed = "even unconfirmed",
        /// Names that are left out.
        Exclude = "exclude",
        /// Directory of external keys.
        ExternalKey = "external key",
        /// A list of the files to take.
        FilesFrom = "list of files",
        /// Size of a drive that is not attached.
        For = "absent drive",
        /// Where contents are copied from.
        From = "from",
        /// Id of a session.
        Id = "session id",
        /// File of names that are left out.
        IgnoreFile = "ignore file",
        /// Names that are taken.
        Include = "include",
        /// The driveset of the first session.
        InitialDriveset = "initial driveset",
        /// The journal.
        Journal = "journal",
        /// Descriptor from which a key is read.
        KeyFd = "key descriptor",
        /// File of keys.
        KeyFile = "key file",
        /// Erasing by keys.
        Keys = "keys",
        /// Directory for keys.
        KeysTo = "directory of keys",
        /// A list of files as written.
        List = "list",
        /// The sessions of a journal, listed.
        ListCopySessions = "list of sessions",
        /// The drives of a session, listed.
        ListDrives = "list of drives",
        /// Directory of the logs.
        Logdir = "log directory",
        /// A manifest.
        Manifest = "manifest",
        /// Hash of a manifest.
        ManifestHash = "manifest hash",
        /// Map of a rescue.
        Map = "map",
        /// Metadata of each blob from its source.
        MetadataFrom = "metadata from sources",
        /// A drive that is not sent.
        NotForShipping = "not for shipping",
        /// Only what a volume uses.
        OnlyUsed = "only used",
        /// Erasing by overwriting.
        Overwrite = "overwrite",
        /// Number of a partition.
        Partition = "partition",
        /// The user password of a volume.
        PasswordFile = "password",
        /// Give the files of a lost drive to others.
        Replan = "replan",
        /// Continue a session.
        Resume = "resume",
        /// How long an outage is waited for.
        RetryFor = "retry for",
        /// Shared access signature, from a file.
        SasFile = "shared access signature",
        /// Way of signing in.
        SignIn = "sign-in",
        /// Directory of the state of a transfer.
        StateDir = "state directory",
        /// The partition table.
        Table = "partition table",
        /// File of a token.
        TokenFile = "token",
        /// Write what fits, the rest later.
        WhatFits = "what fits",
        /// Consent for one drive.
        Yes = "consent",
    }
}

names! {
    /// Something that can be called for.
    Command {
        /// Copies a drive to an image.
        Acquire = "acquire",
        /// Lists drives.
        Devices = "devices",
        /// Lists all disks, with what stands on them.
        DevicesAll = "devices, all",
        /// Fills drives from an account.
        Export = "export",
        /// Shows tables, volumes and keys of a drive.
        Inspect = "inspect",
        /// Lists the files of a volume.
        Ls = "ls",
        /// Prepares drives.
        PrepImport = "prep-import",
        /// Asks the service's questions.
        Rehearse = "rehearse",
        /// Writes a template of an input file.
        Template = "template",
        /// Opens a volume for others.
        Unlock = "unlock",
        /// Verifies drives.
        Verify = "verify",
    }
}

/// A part of an advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words as they are.
    Words(String),
    /// Something to set, by the name that the program has for it.
    Setting(Setting),
    /// Something to call for.
    Command(Command),
}

/// A remedy, as a sentence without full stop.
///
/// ```
/// use dray_base::advice::{Advice, Setting};
///
/// let advice = Advice::from("mend the source and continue with ") + Setting::Resume;
/// assert_eq!(advice.to_string(), "mend the source and continue with `resume`");
/// let option = |setting: Setting| format!("--{}", setting.name());
/// assert_eq!(advice.render(option, |command| command.name().into()), "mend the source and continue with --resume");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice(pub Vec<Part>);

impl Advice {
    /// The sentence, with the program's own names for settings and commands.
    pub fn render(&self, setting: impl Fn(Setting) -> String, command: impl Fn(Command) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Words(words) => words.clone(),
            Part::Setting(one) => setting(*one),
            Part::Command(one) => command(*one),
        };
        self.0.iter().map(part).collect()
    }

    /// Whether it asks for this setting.
    pub fn asks_for(&self, setting: Setting) -> bool {
        self.0.contains(&Part::Setting(setting))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(|one| format!("`{}`", one.name()), |one| format!("`{}`", one.name())))
    }
}

impl From<&str> for Part {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}

impl From<String> for Part {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl From<Setting> for Part {
    fn from(setting: Setting) -> Self {
        Self::Setting(setting)
    }
}

impl From<Command> for Part {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

impl<P: Into<Part>> From<P> for Advice {
    fn from(part: P) -> Self {
        Self(vec![part.into()])
    }
}

impl<A: Into<Self>> Add<A> for Advice {
    type Output = Self;

    fn add(mut self, more: A) -> Self {
        self.0.extend(more.into().0);
        self
    }
}
