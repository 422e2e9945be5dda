//! The commands. A new one is one file here, one variant and one arm below.

mod abort;
pub mod about;
mod audit;
mod bench;
mod cat;
mod check;
mod config;
mod decrypt;
mod demo;
mod devices;
mod doctor;
pub mod export;
mod format;
mod generate;
mod images;
mod ingest;
mod inspect;
mod job;
mod listing;
mod ls;
mod pages;
pub mod prep;
mod preview;
mod rehearse;
mod repair;
mod repair_export;
mod session;
pub mod shard;
pub mod template;
mod unlock;
mod verify;

use clap::Subcommand;

use crate::args::OutputArgs;
use crate::exit::Exit;
use crate::render::Output;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare drives: partition table, encrypted volume, data, manifest
    PrepImport(prep::PrepImport),
    /// Show what prep-import would do; write nothing
    Plan(prep::Plan),
    /// Make a drive that Windows opens: BitLocker and NTFS, empty or filled
    Format(Box<format::Format>),
    /// Run a complete session on a disk image, with no privilege and no hardware
    Demo(demo::Demo),
    /// Show every disk: whether it can be used, and why not
    Devices(devices::Devices),
    /// Check kernel, permissions and limits, and name remedies
    Doctor(doctor::Doctor),
    /// Measure a drive: raw, across its surface, and through hash and cipher
    Bench(bench::BenchArgs),
    /// Show partitions, BitLocker and NTFS of a drive; needs no key
    Inspect(inspect::Inspect),
    /// List the files of a drive
    Ls(ls::Ls),
    /// Print a file of a drive
    Cat(cat::Cat),
    /// Write the unlocked volume as a plain image, for other tools
    Decrypt(decrypt::Decrypt),
    /// Keep a drive as an image, with hashes and a map of what could not be read
    Acquire(images::acquire::Acquire),
    /// Write an image onto drives, and read it back
    Write(Box<images::write::Write>),
    /// Copy a drive onto others
    Clone(Box<images::write::Clone>),
    /// Compare two drives or images: places and files that differ
    Compare(images::compare::Compare),
    /// Erase drives whose job is over, with a certificate
    Erase(images::erase::Erase),
    /// Compare drives with their manifests, and extract blobs
    Verify(Box<verify::Verify>),
    /// Rehearse the import of drives: the service's status and copy logs
    Rehearse(Box<rehearse::Rehearse>),
    /// Put right what is wrong on an exported drive, in place
    RepairExport(Box<repair_export::RepairExport>),
    /// Test a key on a drive, and print how to mount it
    Unlock(unlock::Unlock),
    /// May the sources go: is all that was sent in the account
    Audit(Box<audit::AuditArgs>),
    /// Import drives into an account, as the service does it
    Ingest(Box<ingest::IngestArgs>),
    /// Send again what a copy log says failed, from the original directories
    RepairImport(Box<repair::RepairImportArgs>),
    /// Export blobs of an account onto drives, as the service does
    Export(Box<export::Export>),
    /// Count the drives that an export needs: list, count, pack; nothing is sent
    PreviewExport(Box<preview::Preview>),
    /// Check input files: CSV, properties, metadata, drive records
    Check(check::CheckArgs),
    /// Print a valid input file to start from
    Template(template::Template),
    /// Create, ship and follow the job at the service; print its papers
    Job(job::JobArgs),
    /// Prepare many drives on many hosts: run, watch and gather the shards of a plan
    Shard(shard::ShardArgs),
    /// List sessions: state, drives, bytes, what to do next
    Session(session::SessionsArgs),
    /// Show what options are set to, and where each value comes from
    Config(config::Config),
    /// Print the completion script of a shell
    Completions(generate::Completions),
    /// Write the man pages into a directory
    Man(generate::Man),
}

impl Command {
    /// Runs the command; problems and results go to `output`.
    pub fn run(self, output: &Output, common: &OutputArgs) -> Exit {
        match self {
            Self::PrepImport(command) => command.run(output),
            Self::Plan(command) => command.run(output),
            Self::Format(command) => command.run(output),
            Self::Demo(command) => command.run(output),
            Self::Devices(command) => command.run(output),
            Self::Doctor(command) => command.run(output),
            Self::Bench(command) => command.run(output),
            Self::Inspect(command) => command.run(output),
            Self::Acquire(command) => command.run(output),
            Self::Write(command) => command.run(output),
            Self::Clone(command) => command.run(output),
            Self::Compare(command) => command.run(output),
            Self::Erase(command) => command.run(output),
            Self::Decrypt(command) => command.run(output),
            Self::Ls(command) => command.run(output),
            Self::Cat(command) => command.run(output),
            Self::Unlock(command) => command.run(output),
            Self::Verify(command) => command.run(output),
            Self::Rehearse(command) => command.run(output),
            Self::RepairExport(command) => command.run(output),
            Self::Audit(command) => command.run(output),
            Self::Export(command) => command.run(output),
            Self::Ingest(command) => command.run(output),
            Self::RepairImport(command) => command.run(output),
            Self::PreviewExport(command) => command.run(output),
            Self::Check(command) => command.run(output),
            Self::Template(command) => command.run(output),
            Self::Job(command) => command.run(output),
            Self::Shard(command) => command.run(output),
            Self::Session(command) => command.run(output),
            Self::Config(command) => command.run(output, common.config.clone()),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(output),
        }
    }
}
