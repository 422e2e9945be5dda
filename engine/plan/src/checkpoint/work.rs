//! Progress of each kind of work: the part of a [`Checkpoint`](super::Checkpoint) that is not common to all of them.

use super::code::{Decoder, Encoder};
use super::{CheckpointFault, Prefix};
use crate::azure::journal::Work;
use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
use crate::bitlocker::regions::Regions;
use crate::units::{BatchNo, ByteLen, ClusterSize, DeviceOffset, DeviceRange, FileNo, SectorSize};

/// Progress of the work on a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkState {
    /// The drive is formatted and filled.
    Format(FormatState),
    /// Files are added to a volume that is kept.
    Append(AppendState),
    /// Files that are on a volume already are listed in a manifest.
    Index(AppendState),
    /// A plain volume is encrypted in place, and files are added to it.
    Encrypt(ConvertState, AppendState),
}

/// Progress of a drive that is formatted and filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatState {
    /// Seed of the drive's public randomness.
    pub seed: u64,
    /// Whether old signatures and all areas that are written last have been overwritten with zeros.
    pub is_wiped: bool,
    /// The first batch of the plan that is not durable.
    pub next: BatchNo,
    /// Device offset of the end of the last durable batch.
    pub end: DeviceOffset,
    /// Valid part of the outcome log.
    pub outcome: Prefix,
    /// The new volume's secrets, sealed under its recovery password.
    pub secrets: Vec<u8>,
}

/// Progress of a drive whose volume is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendState {
    /// The first batch of file data that is not durable.
    pub next: BatchNo,
    /// The first file of the drive's tree that is not completely durable.
    pub next_file: FileNo,
    /// Valid part of the outcome log.
    pub outcome: Prefix,
    /// Facts of the drive record from before the session; `None` if there was none.
    pub record: Option<RecordBefore>,
    /// Set once all data are copied: from then on the volume's metadata may be half changed, and the images complete or
    /// undo the change.
    pub copied: Option<Copied>,
}

/// Fields of a drive record that a session replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordBefore {
    /// MD5 of the manifest.
    pub manifest_md5: Option<[u8; 16]>,
    /// Whether it has a hash of the drive's first bytes.
    pub has_header_hash: bool,
}

/// Data copied to a volume whose metadata do not list them yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// MD5 of the manifest.
    pub manifest_md5: [u8; 16],
    /// Files of the dataset on the volume.
    pub files: u64,
    /// Bytes of those files.
    pub data: ByteLen,
    /// Bytes written in all.
    pub written: ByteLen,
    /// The undo and redo images, as written.
    pub images: Prefix,
}

/// Step of an encryption in place that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EncryptStep {
    /// Only free clusters have been written.
    Begun,
    /// The images are complete: the hidden files are being created, or removed.
    Ready,
    /// The hidden files exist.
    Hidden,
    /// The front is stored in the relocated area.
    Relocated,
    /// Encrypted up to the border.
    Passing,
    /// The whole volume is encrypted.
    Done,
}

impl EncryptStep {
    const ALL: [Self; 6] = [Self::Begun, Self::Ready, Self::Hidden, Self::Relocated, Self::Passing, Self::Done];
}

/// State for resuming and for undoing an encryption in place, except the key, which is in the drive record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertState {
    /// Step that has been reached.
    pub step: EncryptStep,
    /// Border of [`EncryptStep::Passing`], in bytes of the volume.
    pub border: u64,
    /// The volume on the drive.
    pub volume: DeviceRange,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Places of BitLocker's areas, in bytes of the volume.
    pub places: [u64; 5],
    /// Whether free clusters are encrypted too.
    pub all: bool,
    /// The images of the changes for the hidden files, as written; valid from [`EncryptStep::Ready`] on.
    pub images: Prefix,
    /// BitLocker's final metadata region.
    pub region: Vec<u8>,
    /// The volume's final front.
    pub front: Vec<u8>,
}

impl WorkState {
    /// The kind of work, as the journal has it.
    pub const fn work(&self) -> Work {
        match self {
            Self::Format(_) => Work::Format,
            Self::Append(_) => Work::Append,
            Self::Index(_) => Work::Index,
            Self::Encrypt(..) => Work::Encrypt,
        }
    }

    /// State of the files that are added to a volume that is kept.
    pub const fn append(&self) -> Option<&AppendState> {
        match self {
            Self::Format(_) => None,
            Self::Append(state) | Self::Index(state) | Self::Encrypt(_, state) => Some(state),
        }
    }

    /// Mutable access to the same.
    pub const fn append_mut(&mut self) -> Option<&mut AppendState> {
        match self {
            Self::Format(_) => None,
            Self::Append(state) | Self::Index(state) | Self::Encrypt(_, state) => Some(state),
        }
    }

    /// State of the encryption of a volume in place.
    pub const fn convert(&self) -> Option<&ConvertState> {
        match self {
            Self::Encrypt(state, _) => Some(state),
            Self::Format(_) | Self::Append(_) | Self::Index(_) => None,
        }
    }

    /// Mutable access to the same.
    pub const fn convert_mut(&mut self) -> Option<&mut ConvertState> {
        match self {
            Self::Encrypt(state, _) => Some(state),
            Self::Format(_) | Self::Append(_) | Self::Index(_) => None,
        }
    }

    /// Code in a checkpoint; never reused for another kind.
    const fn code(&self) -> u8 {
        match self {
            Self::Format(_) => 1,
            Self::Append(_) => 2,
            Self::Index(_) => 3,
            Self::Encrypt(..) => 4,
        }
    }

    pub(super) fn write(&self, to: &mut Encoder<'_>) {
        to.u8(self.code());
        match self {
            Self::Format(state) => state.write(to),
            Self::Append(state) | Self::Index(state) => state.write(to),
            Self::Encrypt(convert, state) => {
                convert.write(to);
                state.write(to);
            }
        }
    }

    pub(super) fn read(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        Ok(match from.u8()? {
            1 => Self::Format(FormatState::read(from)?),
            2 => Self::Append(AppendState::read(from)?),
            3 => Self::Index(AppendState::read(from)?),
            4 => Self::Encrypt(ConvertState::read(from)?, AppendState::read(from)?),
            _ => return Err(CheckpointFault("names an unknown kind of work")),
        })
    }
}

fn flag(from: &mut Decoder<'_>) -> Result<bool, CheckpointFault> {
    from.option(|_| Ok(())).map(|set| set.is_some())
}

impl FormatState {
    fn write(&self, to: &mut Encoder<'_>) {
        to.u64(self.seed);
        to.u8(u8::from(self.is_wiped));
        to.u64(self.next.0);
        to.u64(self.end.0);
        self.outcome.write(to);
        to.list(&self.secrets);
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        Ok(Self {
            seed: from.u64()?,
            is_wiped: flag(from)?,
            next: BatchNo(from.u64()?),
            end: DeviceOffset(from.u64()?),
            outcome: Prefix::read(from)?,
            secrets: from.list()?.to_vec(),
        })
    }
}

impl AppendState {
    /// The state at the start, with an empty outcome log.
    pub fn begun(record: Option<RecordBefore>) -> Self {
        let (next, next_file) = (BatchNo(0), FileNo(0));
        Self { next, next_file, outcome: Prefix::of_nothing(), record, copied: None }
    }

    fn write(&self, to: &mut Encoder<'_>) {
        to.u64(self.next.0);
        to.u32(self.next_file.0);
        self.outcome.write(to);
        to.option(self.record.as_ref(), |to, record| {
            to.option(record.manifest_md5, |to, md5| to.bytes(&md5));
            to.u8(u8::from(record.has_header_hash));
        });
        to.option(self.copied.as_ref(), |to, copied| {
            to.bytes(&copied.manifest_md5);
            to.u64(copied.files);
            to.u64(copied.data.0);
            to.u64(copied.written.0);
            copied.images.write(to);
        });
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        Ok(Self {
            next: BatchNo(from.u64()?),
            next_file: FileNo(from.u32()?),
            outcome: Prefix::read(from)?,
            record: from.option(|from| {
                Ok(RecordBefore { manifest_md5: from.option(Decoder::bytes)?, has_header_hash: flag(from)? })
            })?,
            copied: from.option(|from| {
                Ok(Copied {
                    manifest_md5: from.bytes()?,
                    files: from.u64()?,
                    data: ByteLen(from.u64()?),
                    written: ByteLen(from.u64()?),
                    images: Prefix::read(from)?,
                })
            })?,
        })
    }
}

impl ConvertState {
    /// BitLocker's areas.
    ///
    /// # Errors
    /// They are implausible.
    pub fn regions(&self, sector: SectorSize) -> Result<Regions, CheckpointFault> {
        let cluster = ClusterSize::from_bytes(self.cluster);
        let regions = cluster.and_then(|cluster| Regions::restore(self.volume.len, cluster, sector, self.places));
        regions.ok_or(CheckpointFault("names places that no volume has"))
    }

    /// Region and front in one piece, from which the volume's keys are restored.
    pub fn sealed_keys(&self) -> Vec<u8> {
        [&self.region[..], &self.front[..]].concat()
    }

    fn write(&self, to: &mut Encoder<'_>) {
        to.u8(self.step as u8);
        to.u64(self.border);
        to.u64(self.volume.start.0);
        to.u64(self.volume.len.0);
        to.u64(self.cluster);
        for place in self.places {
            to.u64(place);
        }
        to.u8(u8::from(self.all));
        self.images.write(to);
        let used = self.region.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        to.list(&self.region[..used]);
        to.list(&self.front);
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        let step =
            EncryptStep::ALL.get(usize::from(from.u8()?)).copied().ok_or(CheckpointFault("names an unknown step"))?;
        let border = from.u64()?;
        let volume = DeviceRange::new(from.u64()?, from.u64()?);
        let cluster = from.u64()?;
        let mut places = [0; 5];
        for place in &mut places {
            *place = from.u64()?;
        }
        let all = flag(from)?;
        let images = Prefix::read(from)?;
        let (mut region, front) = (from.list()?.to_vec(), from.list()?.to_vec());
        region.resize(REGION_LEN, 0);
        if front.len() != FRONT_LEN {
            return Err(CheckpointFault("holds no front of a volume"));
        }
        Ok(Self { step, border, volume, cluster, places, all, images, region, front })
    }
}
