//! Finds the volume on a device: partition, BitLocker, and the unlocked bytes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bitlocker::map::{Mapping, Source};
use crate::bitlocker::read::{self, Integrity, State};
use crate::crypt::{Cipher, SectorCipher};
use crate::device::{self, Access, Device, DeviceKind, Roots, guard};
use crate::gpt;
use crate::ntfs::read::{ReadAt, ReadError};
use crate::report::{Advice, Command, DriveFacts, Kind, Problem, Setting};
use crate::stream::block_reader::Load;
use crate::stream::medium::Medium;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, Guid, SectorSize, VolumeOffset, VolumeRange};
use crate::volume::key::{Key, Record};
use crate::volume::same::Backing;

/// OEM name of an NTFS boot sector, from byte 3 on.
const NTFS_OEM: &[u8] = b"NTFS    ";

/// Kind of the volume.
#[derive(Debug)]
pub enum Inside {
    /// BitLocker's, locked.
    BitLocker(Box<read::Volume>),
    /// NTFS, unencrypted.
    Ntfs,
    /// BitLocker's by its first sector, but damaged beyond use; the text names the damage.
    Damaged(String),
    /// No partition can be examined, for this reason.
    Missing(Problem),
    /// Neither; its first sector has no known form.
    Unknown,
}

/// A device with its volume found.
#[derive(Debug)]
pub struct Found {
    medium: Box<dyn Medium>,
    /// Identity of the device.
    pub drive: DriveFacts,
    /// Serial reported by the hardware; an image file has none.
    pub serial: Option<String>,
    /// Location of its bytes by the kernel's numbers; `None` for media that are no files.
    pub place: Option<Backing>,
    /// Partition tables; `None` for a bare volume.
    pub table: Option<gpt::read::FoundTables>,
    /// The partition in use; `None` for a bare volume.
    pub partition: Option<gpt::read::PartitionEntry>,
    /// The volume on the device.
    pub volume: DeviceRange,
    /// Kind of the volume.
    pub inside: Inside,
    is_first: Option<bool>,
    /// It holds neither a partition table nor a volume.
    is_blank: bool,
    /// The opened device is a partition, or an image without a table.
    is_part: bool,
}

/// Opens a device or image file for reading, and finds the volume on it: partition `number`, or a bare volume, or the
/// first data partition.
///
/// # Errors
/// The reason: missing, not readable, no volume, BitLocker metadata beyond use.
pub fn open(path: &Path, number: Option<u32>) -> Result<Found, Problem> {
    open_any(path, number).and_then(Found::not_blank)
}

/// As [`open`], but a drive without partition table and volume is [`Inside::Missing`], no error.
///
/// # Errors
/// Missing, or not readable.
pub fn open_any(path: &Path, number: Option<u32>) -> Result<Found, Problem> {
    let name = path.display().to_string();
    let resolved = device::resolve(&name, &Roots::default())?;
    device::refuse_packed(path)?;
    let look = |sector| {
        let device = Device::open_with(&resolved, Access::Read, sector, &Roots::default())?;
        let identity = device.identity();
        let stem = resolved.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let drive = DriveFacts {
            name: name.clone(),
            path: resolved.clone(),
            drive_id: identity.serial.clone().unwrap_or(stem),
            serial: identity.known_serial().map(str::to_owned),
            for_shipping: guard::shipping(identity).is_empty(),
            model: identity.model.clone(),
            size: device.geometry().size,
            sector: device.geometry().sector.bytes(),
            contents: None,
            is_image: device.is_image(),
            rotational: device.geometry().rotational,
        };
        let serial = identity.serial.clone();
        let is_part = matches!(device.kind(), DeviceKind::Block { partition_of: Some(_), .. });
        let place = Backing::of(&device.target().file);
        let found = Found::look_any(Box::new(device), drive, serial, number)?;
        Ok(Found { is_part: found.is_part || is_part, place, ..found })
    };
    let first = look(SectorSize::S512);
    let is_volume = |found: &Result<Found, Problem>| matches!(found, Ok(found) if matches!(found.inside, Inside::BitLocker(_) | Inside::Ntfs | Inside::Damaged(_)));
    // An image file has no sector size of its own: it is the table's, and where 512 bytes make no sense that of a 4Kn
    // drive.
    let counts_others = matches!(&first, Ok(found) if found.table.as_ref().is_some_and(|table| table.sector == Some(SectorSize::S4096)));
    if (!is_volume(&first) || counts_others) && resolved.is_file() {
        let second = look(SectorSize::S4096);
        if is_volume(&second) {
            return second;
        }
    }
    first
}

/// The one disk of this machine with a locked BitLocker volume.
///
/// # Errors
/// None or several; the message names them.
pub fn only_bitlocker() -> Result<PathBuf, Problem> {
    let mut locked: Vec<PathBuf> = Vec::new();
    let mut unread = 0;
    for disk in device::list(&Roots::default()) {
        match open(&disk.path, None) {
            Ok(found) if found.bitlocker().is_some() => locked.push(disk.path),
            Ok(_) => {}
            Err(problem) if problem.kind == Kind::Drive => {}
            Err(_) => unread += 1,
        }
    }
    let names: Vec<String> = locked.iter().map(|path| path.display().to_string()).collect();
    let problem = Problem::new(
        Kind::Usage,
        match names.len() {
            1 => return Ok(locked.remove(0)),
            0 if unread > 0 => format!("no drive with a BitLocker volume is to be seen; {unread} could not be opened"),
            0 => "no attached drive holds a BitLocker volume".to_owned(),
            _ => format!("several drives hold a BitLocker volume: {}", names.join(", ")),
        },
    );
    Err(problem.advice(
        Advice::from("name the drive, as root if need be, with ") + Command::Unlock + ", or /driveLetter:DRIVE",
    ))
}

impl Found {
    /// As [`open`], on any medium.
    ///
    /// # Errors
    /// As [`open`].
    pub fn look(
        medium: Box<dyn Medium>,
        drive: DriveFacts,
        serial: Option<String>,
        number: Option<u32>,
    ) -> Result<Self, Problem> {
        Self::look_any(medium, drive, serial, number).and_then(Self::not_blank)
    }

    /// An error for a drive on which there is nothing at all.
    fn not_blank(self) -> Result<Self, Problem> {
        match &self.inside {
            Inside::Missing(problem) if self.is_blank => Err(problem.clone()),
            _ => Ok(self),
        }
    }

    fn look_any(
        medium: Box<dyn Medium>,
        drive: DriveFacts,
        serial: Option<String>,
        number: Option<u32>,
    ) -> Result<Self, Problem> {
        let size = medium.size();
        let failed = |error: io::Error, at: u64| {
            Problem::new(Kind::Drive, format!("cannot be read: {error}")).drive(&drive.name).at(DeviceOffset(at))
        };
        let mut first = vec![0; read::RECOGNISE_LEN.min(size.0 as usize)];
        medium.read_exact_at(&mut first, DeviceOffset(0)).map_err(|error| failed(error, 0))?;
        let bare = number.is_none() && (is_ntfs(&first) || !matches!(read::Boot::recognise(&first), Ok(None)));
        if bare {
            let volume = DeviceRange::new(0, size.0);
            let inside = look_into(medium.as_ref(), volume).map_err(|error| failed(error, 0))?;
            return Ok(Self { inside, ..Self::whole(medium, drive, serial) });
        }
        let mut table = gpt::read::read(size, medium.sector(), |at, into| medium.read_exact_at(into, at))
            .map_err(|error| failed(error, 0))?;
        let (mut partition, mut inside) = choose(medium.as_ref(), &table, number);
        if table.from_mbr && !matches!(inside, Ok(Inside::BitLocker(_) | Inside::Ntfs | Inside::Damaged(_))) {
            // An MBR does not record its sector size; the volumes do.
            let read_at = |at, into: &mut [u8]| medium.read_exact_at(into, at);
            let other = gpt::read::read_as_other(size, medium.sector(), read_at);
            let other = other.ok().map(|other| (choose(medium.as_ref(), &other, number), other));
            if let Some((chosen, other)) = other
                && matches!(chosen.1, Ok(Inside::BitLocker(_) | Inside::Ntfs))
            {
                (table, (partition, inside)) = (other, chosen);
            }
        }
        let Some(partition) = partition else {
            let is_blank = table.is_blank() && number.is_none();
            let what = match number {
                Some(number) => format!("has no partition {number} that lies on it"),
                None if table.is_blank() => "holds neither a partition table nor a volume".to_owned(),
                None => "has no data partition".to_owned(),
            };
            let advice = Advice::from("see what is on it with ")
                + Command::Inspect
                + ", or name another partition with "
                + Setting::Partition;
            let problem = Problem::new(Kind::Drive, what).drive(&drive.name).advice(advice);
            let inside = Inside::Missing(problem);
            let table = Some(table).filter(|_| !is_blank);
            return Ok(Self { table, inside, is_blank, ..Self::whole(medium, drive, serial) });
        };
        let volume = there(&partition);
        let inside = inside.map_err(|error| failed(error, volume.start.0))?;
        let is_first = Some(is_first_data(medium.as_ref(), &table, &partition));
        let (table, partition) = (Some(table), Some(partition));
        Ok(Self { table, partition, volume, inside, is_first, ..Self::whole(medium, drive, serial) })
    }

    /// A medium before examination.
    fn whole(medium: Box<dyn Medium>, drive: DriveFacts, serial: Option<String>) -> Self {
        Self {
            place: None,
            table: None,
            partition: None,
            volume: DeviceRange::new(0, medium.size().0),
            inside: Inside::Unknown,
            is_first: None,
            is_blank: false,
            is_part: drive.is_image,
            medium,
            drive,
            serial,
        }
    }

    /// Whether the volume in use is the one that the service would read: the first, in disk order, in a partition that
    /// Windows examines. A partition before it without a file system does not count. `None` for a bare volume.
    pub const fn is_first_data(&self) -> Option<bool> {
        self.is_first
    }

    /// Whether the opened device is a partition, or an image of a volume alone: its table cannot be seen.
    pub const fn is_part(&self) -> bool {
        self.table.is_none() && self.is_part && !self.is_blank
    }

    /// Whether there is neither a partition table nor a volume.
    pub const fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// Faults of the partition table that was read.
    pub fn table_flaws(&self) -> &[gpt::Flaw] {
        self.table.as_ref().map_or(&[], |table| &table.flaws)
    }

    /// The volume, if it is BitLocker's and can be unlocked.
    pub fn bitlocker(&self) -> Option<&read::Volume> {
        match &self.inside {
            Inside::BitLocker(volume) => Some(volume),
            Inside::Ntfs | Inside::Damaged(_) | Inside::Missing(_) | Inside::Unknown => None,
        }
    }

    /// Kinds of its protectors in words, without repetition: for a question.
    pub fn protectors(&self) -> Vec<String> {
        let mut kinds: Vec<_> =
            self.bitlocker().into_iter().flat_map(|v| &v.metadata.protectors).map(|p| p.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.iter().map(ToString::to_string).collect()
    }

    /// Warnings about the drive and its volume, in sentences without full stop.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.table_flaws().iter().map(ToString::to_string).collect();
        let Some(volume) = self.bitlocker() else { return warnings };
        let damaged = volume.copies.iter().filter_map(|copy| Some((copy.at, copy.fault.as_ref()?)));
        let damaged: Vec<String> = damaged.map(|(at, fault)| format!("at byte {at} {fault}")).collect();
        if !damaged.is_empty() {
            warnings.push(format!(
                "{} of the 3 copies of the BitLocker metadata {} damaged: {}",
                damaged.len(),
                if damaged.len() == 1 { "is" } else { "are" },
                damaged.join("; ")
            ));
        } else if !volume.copies_are_equal() {
            warnings.push("the 3 copies of the BitLocker metadata differ, although each is sound".to_owned());
        }
        match volume.state() {
            State::Encrypted => {}
            State::Decrypted => warnings.push(
                "BitLocker was turned off on this volume: it is not encrypted, and is read without a key".to_owned(),
            ),
            State::Partial { plain_from } => warnings.push(format!(
                "the volume is only partly encrypted: a conversion stopped on its way; from byte {plain_from} on it is \
                 plain and is read as such"
            )),
            State::Converting { progress_known: true } => warnings.push(
                "the volume is only partly encrypted: a conversion was not finished; which parts are encrypted is known, \
                 and each is read as it is"
                    .to_owned(),
            ),
            State::Converting { progress_known: false } => warnings.push(
                "the volume is only partly encrypted: a conversion was not finished, and its progress cannot be read; all \
                 is taken to be encrypted, and what is not will read as noise"
                    .to_owned(),
            ),
        }
        if volume.is_suspended() && volume.state() != State::Decrypted {
            warnings.push(
                "protection is suspended (or was never completed): the key is stored in the clear, so anybody can read the volume"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Whether a file with this metadata is this drive, a partition of it, or stored on one: nothing may be written to
    /// it.
    pub fn would_overwrite(&self, file: &Metadata) -> bool {
        let Ok(mine) = fs::metadata(&self.drive.path) else { return false };
        if file.is_file() && mine.is_file() {
            return (file.dev(), file.ino()) == (mine.dev(), mine.ino());
        }
        // The directory of a partition lies in that of its disk.
        let place = |number: u64| {
            let (major, minor) = (libc::major(number), libc::minor(number));
            fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
        };
        let number = if file.file_type().is_block_device() { file.rdev() } else { file.dev() };
        if !mine.file_type().is_block_device() {
            return false;
        }
        match (place(mine.rdev()), place(number)) {
            (Some(mine), Some(other)) => mine.starts_with(&other) || other.starts_with(&mine),
            _ => false,
        }
    }

    /// Whether a key is needed to read the volume.
    pub fn needs_key(&self) -> bool {
        match &self.inside {
            Inside::BitLocker(volume) => volume.state() != State::Decrypted && !volume.is_suspended(),
            Inside::Ntfs | Inside::Damaged(_) | Inside::Missing(_) | Inside::Unknown => false,
        }
    }

    /// The volume's bytes as stored, without decryption.
    pub fn as_it_is(self) -> Opened {
        let unit = self.medium.sector().bytes();
        self.with(None, None, unit)
    }

    /// The volume with a map and a cipher known from elsewhere, whatever its first sectors contain.
    pub fn mapped(self, mapping: Mapping, cipher: Arc<SectorCipher>) -> Opened {
        let unit = self.medium.sector().bytes().max(mapping.sector().bytes());
        self.with(Some(mapping), Some(cipher), unit)
    }

    fn with(self, mapping: Option<Mapping>, cipher: Option<Arc<SectorCipher>>, unit: u64) -> Opened {
        let len = ByteLen(self.volume.len.0 / unit * unit);
        Opened { len, found: self, mapping, cipher, unit, unlocked: None }
    }

    /// Opens the volume. `progress` receives the rounds of key stretching done, and their largest possible number.
    ///
    /// # Errors
    /// The key does not open the volume, no key was given, or no volume was found.
    pub fn unlock(self, key: &Key, progress: &mut dyn FnMut(u64, u64)) -> Result<Opened, Problem> {
        let unit = self.medium.sector().bytes();
        let volume = match &self.inside {
            Inside::Ntfs => return Ok(self.as_it_is()),
            Inside::Missing(problem) => return Err(problem.clone()),
            Inside::Damaged(what) => {
                return Err(Problem::new(Kind::Drive, what.clone())
                    .drive(&self.drive.name)
                    .at(self.volume.start)
                    .advice(
                        Advice::from("its metadata is damaged, or it was never closed as a BitLocker volume; ")
                            + Command::Inspect
                            + " shows the rest",
                    ));
            }
            Inside::Unknown => {
                return Err(Problem::new(Kind::Drive, "the volume is neither BitLocker's nor NTFS")
                    .drive(&self.drive.name)
                    .at(self.volume.start));
            }
            Inside::BitLocker(volume) => volume,
        };
        let unit = unit.max(volume.boot.sector.bytes());
        if volume.state() == State::Decrypted {
            let mapping = volume.mapping().clone();
            return Ok(self.with(Some(mapping), None, unit));
        }
        let mut ids: Vec<&str> = self.serial.as_deref().into_iter().collect();
        if self.serial.is_none() && !self.drive.drive_id.is_empty() {
            ids.push(&self.drive.drive_id);
        }
        let (unlocked, opener) = key.open(volume, &ids, progress).map_err(|problem| problem.drive(&self.drive.name))?;
        let cipher = SectorCipher::new(unlocked.cipher, unlocked.fvek.expose(), volume.boot.sector)
            .map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        let facts = Unlocked {
            protector: unlocked.protector,
            integrity: unlocked.integrity,
            cipher: unlocked.cipher,
            by: opener.by,
            record: opener.record,
        };
        Ok(Opened {
            len: ByteLen(self.volume.len.0 / unit * unit),
            mapping: Some(unlocked.mapping),
            cipher: Some(Arc::new(cipher)),
            unit,
            unlocked: Some(facts),
            found: self,
        })
    }
}

/// The partition to examine, with its contents: the one with this number; or the first in disk order with a readable
/// volume, whatever its type; or the first of a type that should have one.
fn choose(
    medium: &dyn Medium,
    table: &gpt::read::FoundTables,
    number: Option<u32>,
) -> (Option<gpt::read::PartitionEntry>, io::Result<Inside>) {
    let mut entries: Vec<&gpt::read::PartitionEntry> =
        table.partitions.iter().filter(|entry| entry.there.0 > 0).collect();
    if let Some(number) = number {
        let entry = entries.into_iter().find(|entry| entry.number == number);
        let inside = entry.map_or(Ok(Inside::Unknown), |entry| look_into(medium, there(entry)));
        return (entry.cloned(), inside);
    }
    // Data partitions come before all others.
    entries.sort_by_key(|entry| (!entry.may_hold_volume(), entry.range.start));
    for entry in &entries {
        let inside = look_into(medium, there(entry));
        if matches!(inside, Ok(Inside::BitLocker(_) | Inside::Ntfs | Inside::Damaged(_))) {
            return (Some((*entry).clone()), inside);
        }
    }
    let first = table.first_data();
    let inside = first.map_or(Ok(Inside::Unknown), |entry| look_into(medium, there(entry)));
    (first.cloned(), inside)
}

/// Whether Windows finds the volume of this partition first.
fn is_first_data(medium: &dyn Medium, table: &gpt::read::FoundTables, used: &gpt::read::PartitionEntry) -> bool {
    let before = |entry: &&gpt::read::PartitionEntry| entry.may_hold_volume() && entry.range.start < used.range.start;
    used.may_hold_volume() && !table.partitions.iter().filter(before).any(|entry| holds_volume(medium, there(entry)))
}

/// Whether the range holds a file system known to Windows, or cannot be read.
fn holds_volume(medium: &dyn Medium, volume: DeviceRange) -> bool {
    const REFS: &[u8] = b"ReFS\0\0\0\0";
    let mut boot = [0; 512];
    match read_inside(medium, volume, VolumeOffset(0), &mut boot) {
        Ok(()) => boot[510..] == [0x55, 0xAA] || boot[3..].starts_with(REFS),
        Err(_) => true,
    }
}

/// The part of a partition that is on the drive.
fn there(entry: &gpt::read::PartitionEntry) -> DeviceRange {
    DeviceRange { start: entry.range.start, len: entry.there }
}

/// The kind of a volume by its first sectors.
fn look_into(medium: &dyn Medium, volume: DeviceRange) -> io::Result<Inside> {
    let mut reader = |at: VolumeOffset, into: &mut [u8]| read_inside(medium, volume, at, into);
    Ok(match read::Volume::open(&mut reader) {
        Ok(Some(bitlocker)) => Inside::BitLocker(Box::new(bitlocker)),
        Ok(None) => {
            let mut boot = vec![0; read::RECOGNISE_LEN.min(volume.len.0 as usize)];
            medium.read_exact_at(&mut boot, volume.start)?;
            if is_ntfs(&boot) { Inside::Ntfs } else { Inside::Unknown }
        }
        Err(error) => Inside::Damaged(error.to_string()),
    })
}

fn is_ntfs(boot: &[u8]) -> bool {
    boot.get(3..3 + NTFS_OEM.len()) == Some(NTFS_OEM)
}

fn read_inside(medium: &dyn Medium, volume: DeviceRange, at: VolumeOffset, into: &mut [u8]) -> io::Result<()> {
    let end = at.0.checked_add(into.len() as u64);
    if end.is_none_or(|end| end > volume.len.0) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    medium.read_exact_at(into, at.on_device(volume.start))
}

/// Result of unlocking a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlocked {
    /// The protector that opened it.
    pub protector: Guid,
    /// Result of checking the metadata against its hash.
    pub integrity: Integrity,
    /// Cipher of the sectors.
    pub cipher: Cipher,
    /// Kind of the key, in words.
    pub by: &'static str,
    /// The drive record that contained the key.
    pub record: Option<Record>,
}

/// A volume that can be read.
#[derive(Debug)]
pub struct Opened {
    /// Device and volume.
    pub found: Found,
    /// Result of unlocking; `None` for a volume that is not encrypted.
    pub unlocked: Option<Unlocked>,
    mapping: Option<Mapping>,
    cipher: Option<Arc<SectorCipher>>,
    /// Unit of reads in bytes.
    unit: u64,
    len: ByteLen,
}

/// A run of the volume as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Offset on the device.
    pub at: DeviceOffset,
    /// Length in bytes.
    pub len: u64,
    /// Offset for the cipher; `None` where nothing is encrypted.
    pub sealed: Option<VolumeOffset>,
}

impl Opened {
    /// Bytes of the unlocked volume that are on the medium; whole sectors.
    pub const fn len(&self) -> ByteLen {
        self.len
    }

    /// Whether the length is 0.
    pub const fn is_empty(&self) -> bool {
        self.len.0 == 0
    }

    /// The drive record that the key came from.
    pub fn record(&self) -> Option<&Record> {
        self.unlocked.as_ref()?.record.as_ref()
    }

    /// Unit of reads in bytes.
    pub const fn unit(&self) -> u64 {
        self.unit
    }

    /// As [`Found::warnings`], with those that only unlocking reveals.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.found.warnings();
        warnings.extend(match self.unlocked.as_ref().map(|unlocked| unlocked.integrity) {
            Some(Integrity::Different) => {
                Some("the BitLocker metadata was changed without the key; Windows refuses such a volume".to_owned())
            }
            Some(Integrity::Unreadable) => {
                Some("the hash that proves the BitLocker metadata cannot be opened with the volume's key".to_owned())
            }
            Some(Integrity::Proven | Integrity::NoHash) | None => None,
        });
        if let Some(record) = self.record()
            && record.is_incomplete
        {
            warnings.push("the drive record says that preparing this drive was not finished".to_owned());
        }
        warnings
    }

    /// The medium of the drive.
    pub fn medium(&self) -> &dyn Medium {
        self.found.medium.as_ref()
    }

    /// The cipher, for a block reader.
    pub fn cipher(&self) -> Option<Arc<SectorCipher>> {
        self.cipher.clone()
    }

    /// Sector size of BitLocker; `None` for other volumes.
    pub fn sector(&self) -> Option<SectorSize> {
        self.mapping.as_ref().map(Mapping::sector)
    }

    /// Fills `into` with the volume's bytes from `at`, aligned or not.
    ///
    /// # Errors
    /// Errors of the device; `UnexpectedEof` past the end.
    pub fn read(&self, at: VolumeOffset, into: &mut [u8]) -> io::Result<()> {
        let end = at.0.checked_add(into.len() as u64).filter(|end| *end <= self.len.0);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if at.is_aligned(self.unit) && end.is_multiple_of(self.unit) {
            return self.read_whole(at, into);
        }
        let start = at.0 / self.unit * self.unit;
        let mut whole = vec![0; (end.next_multiple_of(self.unit) - start) as usize];
        self.read_whole(VolumeOffset(start), &mut whole)?;
        into.copy_from_slice(&whole[(at.0 - start) as usize..][..into.len()]);
        Ok(())
    }

    fn read_whole(&self, at: VolumeOffset, into: &mut [u8]) -> io::Result<()> {
        let (medium, volume) = (self.medium(), self.found.volume);
        let mut reader = |at: VolumeOffset, into: &mut [u8]| read_inside(medium, volume, at, into);
        match &self.mapping {
            Some(mapping) => mapping.read(at, into, self.cipher.as_deref(), &mut reader),
            None => reader(at, into),
        }
    }

    /// The reason why the volume cannot be written to; `None` when it can.
    pub fn unwritable(&self) -> Option<&'static str> {
        match &self.found.inside {
            Inside::BitLocker(volume) if volume.state() != State::Encrypted => {
                Some("BitLocker is not done encrypting or decrypting the volume")
            }
            // Its front is plain and kept apart: nothing of it is written here.
            Inside::BitLocker(_) if self.cipher.is_none() => Some("the volume is locked"),
            Inside::BitLocker(_) | Inside::Ntfs => None,
            Inside::Damaged(_) | Inside::Missing(_) | Inside::Unknown => Some("the volume is damaged"),
        }
    }

    /// Ranges that must not be written to, in bytes of the volume: BitLocker's own.
    pub fn hidden(&self) -> Vec<VolumeRange> {
        self.mapping.iter().flat_map(Mapping::hidden).collect()
    }

    /// Places of `len` bytes from `at` on the device.
    ///
    /// # Errors
    /// `InvalidInput` unless both are whole sectors of the volume, and where the range includes bytes that are not the
    /// volume's own.
    pub fn stored(&self, at: VolumeOffset, len: ByteLen) -> io::Result<Vec<Stored>> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let inside = at.0.checked_add(len.0).is_some_and(|end| end <= self.len.0);
        if !inside || !at.is_aligned(self.unit) || !len.0.is_multiple_of(self.unit) {
            return Err(invalid("not whole sectors of the volume"));
        }
        let base = self.found.volume.start;
        let Some(mapping) = &self.mapping else {
            return Ok(vec![Stored { at: at.on_device(base), len: len.0, sealed: None }]);
        };
        let segments = mapping.map(at, len).map(|segment| match segment.source {
            Source::Sealed(stored) if stored.is_aligned(self.unit) && segment.range.len.0.is_multiple_of(self.unit) => {
                Ok(Stored { at: stored.on_device(base), len: segment.range.len.0, sealed: Some(stored) })
            }
            _ => Err(invalid("not encrypted bytes of the volume")),
        });
        segments.collect()
    }

    /// The bytes to store on the device for `bytes` at `at` in the volume, in pieces with their places.
    ///
    /// # Errors
    /// As [`Opened::stored`].
    pub fn seal(&self, at: VolumeOffset, bytes: &[u8]) -> io::Result<Vec<(DeviceOffset, Vec<u8>)>> {
        let mut rest = bytes;
        let mut out = Vec::new();
        for stored in self.stored(at, ByteLen(bytes.len() as u64))? {
            let (part, behind) = rest.split_at(stored.len as usize);
            rest = behind;
            let mut part = part.to_vec();
            if let (Some(at), Some(cipher)) = (stored.sealed, &self.cipher) {
                cipher.seal(at, &mut part);
            }
            out.push((stored.at, part));
        }
        Ok(out)
    }

    /// Adds `len` bytes from `at` to a load, into its slot from byte `into` on. `false`, and nothing added, where that
    /// takes more than reading and decrypting whole sectors.
    pub fn map_extents<T>(&self, at: VolumeOffset, len: usize, into: usize, load: &mut Load<T>) -> bool {
        let end = at.0.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len.0)
            || !at.is_aligned(self.unit)
            || !(len as u64).is_multiple_of(self.unit)
        {
            return false;
        }
        let base = self.found.volume.start;
        let Some(mapping) = &self.mapping else {
            load.parts.push((into..into + len, at.on_device(base)));
            return true;
        };
        let before = (load.parts.len(), load.zeros.len(), load.crypt.len());
        for segment in mapping.map(at, ByteLen(len as u64)) {
            let from = into + (segment.range.start.0 - at.0) as usize;
            let range = from..from + segment.range.len.0 as usize;
            let stored = match segment.source {
                Source::Zeros => {
                    load.zeros.push(range);
                    continue;
                }
                Source::Plain(stored) | Source::Sealed(stored) => stored,
            };
            let inside = stored.0.checked_add(range.len() as u64).is_some_and(|end| end <= self.found.volume.len.0);
            // Vista's first sector is put right by reading it singly.
            let restored = matches!(segment.source, Source::Plain(_)) && segment.range.start.0 == 0;
            let whole = stored.is_aligned(self.unit) && (range.len() as u64).is_multiple_of(self.unit);
            if !inside || restored || !whole {
                load.parts.truncate(before.0);
                load.zeros.truncate(before.1);
                load.crypt.truncate(before.2);
                return false;
            }
            load.parts.push((range.clone(), stored.on_device(base)));
            if matches!(segment.source, Source::Sealed(_)) {
                load.crypt.push((range, stored));
            }
        }
        true
    }

    /// Offset on the device of byte `at` of the unlocked volume; for bytes stored nowhere, the same offset in the
    /// volume.
    pub fn device_offset(&self, at: VolumeOffset) -> DeviceOffset {
        let stored = self.mapping.as_ref().and_then(|mapping| mapping.map(at, ByteLen(1)).next());
        let at = match stored.map(|segment| segment.source) {
            Some(Source::Sealed(stored) | Source::Plain(stored)) => stored,
            Some(Source::Zeros) | None => at,
        };
        DeviceOffset(self.found.volume.start.0.saturating_add(at.0))
    }
}

/// The unlocked volume as input of the NTFS readers.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a Opened);

impl ReadAt for View<'_> {
    fn read_at(&mut self, at: VolumeOffset, buf: &mut [u8]) -> Result<(), ReadError> {
        self.0.read(at, buf).map_err(|error| ReadError { at, message: error.to_string() })
    }
}
