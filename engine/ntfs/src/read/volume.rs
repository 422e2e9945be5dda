//! Opens a volume, and reads its streams.

use super::error::{ErrorKind, NtfsError, ReadAt, VolumePlace};
use super::file::{self, Content, FileRecord, Stream};
use super::index;
use super::limits;
use super::lznt1;
use super::raw::{self, RawRun, Record, types, view};
use super::upcase::Upcase;
pub(crate) use crate::format::I30;
use crate::format::{BootSector, VolumeInformation, attr_flag};
use crate::units::{ByteLen, ClusterSize, Clusters, DiskShape, Lcn, VolumeOffset};

/// Numbers of the metafiles, as wide as those that a volume holds.
pub(crate) mod records {
    use crate::format::metafile;

    pub(crate) const MFT: u64 = metafile::MFT as u64;
    pub(crate) const MFT_MIRROR: u64 = metafile::MFT_MIRR as u64;
    pub(crate) const LOG_FILE: u64 = metafile::LOG_FILE as u64;
    pub(crate) const VOLUME: u64 = metafile::VOLUME as u64;
    pub(crate) const ATTR_DEF: u64 = metafile::ATTR_DEF as u64;
    pub(crate) const ROOT: u64 = metafile::ROOT as u64;
    pub(crate) const BITMAP: u64 = metafile::BITMAP as u64;
    pub(crate) const BOOT: u64 = metafile::BOOT as u64;
    pub(crate) const BAD_CLUSTERS: u64 = metafile::BAD_CLUS as u64;
    pub(crate) const SECURE: u64 = metafile::SECURE as u64;
    pub(crate) const UPCASE: u64 = metafile::UP_CASE as u64;
    pub(crate) const EXTEND: u64 = metafile::EXTEND as u64;
    pub(crate) const FIRST_FREE: u64 = metafile::FIRST_FREE as u64;
}

/// Numbers of the boot sector, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per sector: 512, 1024, 2048 or 4096.
    pub sector_bytes: u32,
    /// Cluster size, 512 bytes to 2 MiB.
    pub cluster: ClusterSize,
    /// Number of sectors, without the backup boot sector.
    pub sectors: u64,
    /// Whole clusters of the volume.
    pub clusters: u64,
    /// Bytes per `$MFT` record: 1024, 2048 or 4096.
    pub record_bytes: u32,
    /// Bytes per index block.
    pub index_block_bytes: u32,
    /// Start of `$MFT`.
    pub mft: Lcn,
    /// Start of `$MFTMirr`.
    pub mirror: Lcn,
    /// Serial number; Windows shows the low half.
    pub serial: u64,
    /// Disk geometry in the boot sector.
    pub disk: DiskShape,
}

/// State of the copy of the boot sector after the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupBoot {
    /// Equal to the first sector.
    Equal,
    /// Readable, but not equal.
    Different,
    /// Not readable, or outside the partition.
    Missing,
    /// The first sector was damaged and the copy is in use.
    InUse,
}

/// State of `$LogFile` (docs/spec/ntfs.md#log-file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// Filled with FF: nothing to replay.
    Empty,
    /// Cleanly closed: nothing to replay.
    Clean,
    /// Open transactions, or mounted at the last write.
    Dirty,
    /// Written by chkdsk.
    Chkdsk,
    /// An unknown form.
    Unknown,
}

/// Facts about a volume, for display and for appending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Volume label in UTF-16 units, at most 32; empty if none.
    pub label: Vec<u16>,
    /// NTFS version, 3.1 since Windows XP.
    pub version: (u8, u8),
    /// `$Volume` flags (docs/spec/ntfs.md#volume-information); bit 0 is dirty.
    pub flags: u16,
    /// The copy of the boot sector.
    pub backup_boot: BackupBoot,
    /// `$LogFile`.
    pub log: LogState,
    /// `\hiberfil.sys` holds a hibernated system: its memory is newer than the disk.
    pub hibernated: bool,
    /// Record 0 was unreadable and its mirror is in use.
    pub mft_from_mirror: bool,
    /// The volume does not fit the given length.
    pub truncated: bool,
    /// Structures that could not be read while opening, none of them vital.
    pub damage: Vec<NtfsError>,
}

impl Facts {
    /// Whether the dirty bit is set, or chkdsk is at work (docs/spec/ntfs.md#appending, point 1).
    pub fn is_dirty(&self) -> bool {
        self.flags & 0x4001 != 0
    }
}

/// An opened volume. It keeps no reader: every call that reads takes one.
#[derive(Debug)]
pub struct Volume {
    geometry: Geometry,
    /// Length of the reader's data in bytes: claims of the volume beyond it are ignored.
    len: u64,
    mft: Stream,
    upcase: Upcase,
    facts: Facts,
}

/// Location of a piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPlace {
    /// Stored plainly from this cluster on.
    Lcn(Lcn),
    /// Reads as zeros: a hole, or after the valid length.
    Hole,
    /// Inside the `$MFT` record.
    Resident {
        /// Number of the record in `$MFT`.
        record: u64,
    },
    /// One compression unit; read it through [`Volume::read_range`].
    Compressed {
        /// Its first cluster.
        first: Lcn,
        /// Clusters it takes.
        stored: Clusters,
    },
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRun {
    /// First byte, in the stream.
    pub offset: u64,
    /// Bytes; the last piece ends with the stream, not with its cluster.
    pub len: u64,
    /// Location of its bytes.
    pub place: RunPlace,
}

/// Pieces of a stream; those that continue each other are one.
struct DataRuns {
    out: Vec<DataRun>,
    cluster: u64,
}

impl DataRuns {
    fn push(&mut self, offset: u64, len: u64, place: RunPlace) {
        if let Some(last) = self.out.last_mut()
            && match (last.place, place) {
                (RunPlace::Hole, RunPlace::Hole) => true,
                (RunPlace::Lcn(a), RunPlace::Lcn(b)) => a.0 * self.cluster + last.len == b.0 * self.cluster,
                _ => false,
            }
        {
            last.len += len;
        } else if len > 0 {
            self.out.push(DataRun { offset, len, place });
        }
    }
}

impl Volume {
    /// Opens the volume in `reader`, `len` bytes long (the whole partition, including the backup boot sector).
    ///
    /// # Errors
    /// Neither boot sector is good, or `$MFT` cannot be found. All other damage is recorded in the facts.
    pub fn open<R: ReadAt>(reader: &mut R, len: ByteLen) -> Result<Self, NtfsError> {
        let (geometry, backup_boot) = read_geometry(reader, len)?;
        let bytes = geometry.sectors.saturating_mul(u64::from(geometry.sector_bytes));
        let facts = Facts {
            label: Vec::new(),
            version: (0, 0),
            flags: 0,
            backup_boot,
            log: LogState::Unknown,
            hibernated: false,
            mft_from_mirror: false,
            truncated: bytes > len.0,
            damage: Vec::new(),
        };
        // Enough of `$MFT` to read record 0 and, if it has a list, the records that the list names.
        let mft = Stream {
            record: records::MFT,
            ty: types::DATA,
            name: Vec::new(),
            flags: 0,
            unit: 0,
            size: 0,
            valid: 0,
            allocated: 0,
            total: None,
            content: Content::Runs(Vec::new()),
        };
        let mut volume = Self { geometry, len: len.0, mft, upcase: Upcase::ascii(), facts };
        volume.find_mft(reader)?;
        volume.read_facts(reader);
        Ok(volume)
    }

    /// Checked numbers of the boot sector.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Bytes of the volume that are available.
    pub(super) fn bytes(&self) -> u64 {
        self.len
    }

    /// State of the volume.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The volume's own upcase table.
    pub fn upcase(&self) -> &Upcase {
        &self.upcase
    }

    /// Records that `$MFT` has room for.
    pub fn record_count(&self) -> u64 {
        (self.mft.valid.min(self.len) / u64::from(self.geometry.record_bytes)).min(limits::RECORDS_MAX)
    }

    /// The `$MFT` itself, as a stream.
    pub fn mft(&self) -> &Stream {
        &self.mft
    }

    /// First byte of a record on the volume, for reading in disk order.
    pub fn record_at(&self, number: u64) -> Option<VolumeOffset> {
        let offset = number.checked_mul(u64::from(self.geometry.record_bytes))?;
        let cluster = self.geometry.cluster.bytes();
        let run = find_run(self.mft.runs(), offset / cluster)?;
        (!run.is_hole()).then(|| {
            VolumeOffset((u64::from(run.lcn) + offset / cluster - u64::from(run.vcn)) * cluster + offset % cluster)
        })
    }

    /// A record, fixups undone.
    pub(crate) fn read_record<R: ReadAt>(&self, reader: &mut R, number: u64) -> Result<Vec<u8>, NtfsError> {
        let place = VolumePlace::record(number);
        let mut bytes = self.read_raw_record(reader, number)?;
        raw::undo_fixups(&mut bytes, *b"FILE", 0x2A)
            .map_err(|fault| NtfsError::corrupt(VolumePlace { offset: Some(fault.at as u64), ..place }, fault.what))?;
        Ok(bytes)
    }

    /// A record as stored.
    pub(crate) fn read_raw_record<R: ReadAt>(&self, reader: &mut R, number: u64) -> Result<Vec<u8>, NtfsError> {
        let place = VolumePlace::record(number);
        if number >= self.record_count() {
            return Err(NtfsError::not_found(place));
        }
        let size = self.geometry.record_bytes as usize;
        let mut bytes = vec![0; size];
        let got = self.read_range(reader, &self.mft, number * size as u64, &mut bytes)?;
        if got == size { Ok(bytes) } else { Err(NtfsError::not_found(place)) }
    }

    /// The file of a base record.
    ///
    /// # Errors
    /// The record cannot be read, is not in use, or belongs to another one. Damage to parts of the file is in
    /// [`FileRecord::damage`].
    pub fn open_file<R: ReadAt>(&self, reader: &mut R, number: u64) -> Result<FileRecord, NtfsError> {
        let bytes = self.read_record(reader, number)?;
        let place = VolumePlace::record(number);
        let record = Record::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
        if !record.in_use() {
            return Err(NtfsError::not_found(place));
        }
        if record.header.base_record.get() != 0 {
            return Err(NtfsError::corrupt(place, "an extension record, not a file"));
        }
        file::gather(self, reader, number, &record, None)
    }

    /// Reads from byte `offset` of a stream into `buf`; returns the number of bytes that the stream had there.
    ///
    /// Compressed streams are read by whole units: aligned buffers of 64 KiB multiples decompress nothing twice.
    ///
    /// # Errors
    /// A device error, damage, or an encrypted stream.
    pub fn read_range<R: ReadAt>(
        &self,
        reader: &mut R,
        stream: &Stream,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, NtfsError> {
        let len = stream.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..len];
        match &stream.content {
            Content::Resident(value) => {
                let found = usize::try_from(offset).ok().and_then(|at| value.get(at..)?.get(..len));
                buf.copy_from_slice(found.unwrap_or_default());
            }
            Content::Runs(_) if stream.is_encrypted() => {
                return Err(NtfsError::unsupported(stream.place(offset), "encrypted by EFS"));
            }
            Content::Runs(runs) if stream.is_compressed() && stream.unit > 0 => {
                self.read_compressed(reader, stream, runs, offset, buf)?;
            }
            Content::Runs(runs) => {
                let written = stream.valid.saturating_sub(offset).min(len as u64) as usize;
                self.read_runs(reader, stream, runs, offset, &mut buf[..written])?;
                buf[written..].fill(0);
            }
        }
        Ok(len)
    }

    /// The whole stream, if it is no longer than `max`.
    ///
    /// # Errors
    /// As [`Volume::read_range`]; also when it is longer.
    pub fn read_whole<R: ReadAt>(&self, reader: &mut R, stream: &Stream, max: u64) -> Result<Vec<u8>, NtfsError> {
        if stream.size > max {
            return Err(NtfsError::limit(stream.place(0), "stream is too long to be held"));
        }
        let mut bytes = vec![0; stream.size as usize];
        self.read_range(reader, stream, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn read_runs<R: ReadAt>(
        &self,
        reader: &mut R,
        stream: &Stream,
        runs: &[RawRun],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), NtfsError> {
        let cluster = self.geometry.cluster.bytes();
        let mut done = 0;
        let mut next = runs.partition_point(|run| run.end() * cluster <= offset);
        while done < buf.len() {
            let at = offset + done as u64;
            let run = runs.get(next).copied().filter(|run| u64::from(run.vcn) * cluster <= at);
            let run = run.ok_or(NtfsError::corrupt(stream.place(at), "nothing is mapped here"))?;
            let len = (run.end() * cluster - at).min((buf.len() - done) as u64) as usize;
            let part = &mut buf[done..done + len];
            if run.is_hole() {
                part.fill(0);
            } else {
                let start = VolumeOffset(u64::from(run.lcn) * cluster + (at - u64::from(run.vcn) * cluster));
                reader.read_at(start, part).map_err(|error| NtfsError::read(stream.place(at), error))?;
            }
            done += len;
            next += 1;
        }
        Ok(())
    }

    fn unit_bytes(&self, stream: &Stream) -> Result<u64, NtfsError> {
        let bytes = self.geometry.cluster.bytes() << stream.unit;
        if bytes > limits::COMPRESSION_UNIT_BYTES_MAX {
            return Err(NtfsError::unsupported(stream.place(0), "compression unit larger than any Windows writes"));
        }
        Ok(bytes)
    }

    /// Clusters allocated at the front of a unit, and whether these are all of it.
    fn unit_stored(&self, stream: &Stream, runs: &[RawRun], unit: u64) -> Result<(u64, Option<u32>), NtfsError> {
        let (start, end) = (unit << stream.unit, (unit + 1) << stream.unit);
        let (mut stored, mut first, mut hole) = (0, None, false);
        for run in &runs[runs.partition_point(|run| run.end() <= start)..] {
            if u64::from(run.vcn) >= end {
                break;
            }
            let from = u64::from(run.vcn).max(start);
            let len = run.end().min(end) - from;
            if run.is_hole() {
                hole = true;
            } else if hole {
                let at = from.saturating_mul(self.geometry.cluster.bytes());
                return Err(NtfsError::corrupt(stream.place(at), "data behind a hole in a compression unit"));
            } else {
                stored += len;
                first = first.or(Some(run.lcn + (from - u64::from(run.vcn)) as u32));
            }
        }
        Ok((stored, first))
    }

    fn read_compressed<R: ReadAt>(
        &self,
        reader: &mut R,
        stream: &Stream,
        runs: &[RawRun],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), NtfsError> {
        let (cluster, unit_bytes) = (self.geometry.cluster.bytes(), self.unit_bytes(stream)?);
        let mut packed = Vec::new();
        let mut plain = Vec::new();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let unit = at / unit_bytes;
            let start = unit * unit_bytes;
            let skip = (at - start) as usize;
            let len = (unit_bytes as usize - skip).min(buf.len() - done);
            let part = &mut buf[done..done + len];
            let (stored, _) = self.unit_stored(stream, runs, unit)?;
            if at >= stream.valid || stored == 0 {
                part.fill(0);
            } else if stored == 1 << stream.unit {
                self.read_runs(reader, stream, runs, at, part)?;
            } else {
                packed.resize((stored * cluster) as usize, 0);
                plain.resize(unit_bytes as usize, 0);
                self.read_runs(reader, stream, runs, start, &mut packed)?;
                lznt1::decompress(&packed, &mut plain)
                    .map_err(|inner| NtfsError::corrupt(stream.place(start + inner as u64), "bad LZNT1 data"))?;
                part.copy_from_slice(&plain[skip..skip + len]);
            }
            if at + len as u64 > stream.valid {
                let written = stream.valid.saturating_sub(at) as usize;
                buf[done + written.min(len)..done + len].fill(0);
            }
            done += len;
        }
        Ok(())
    }

    /// The pieces of a stream in its own order, for reading many files in disk order.
    ///
    /// # Errors
    /// The runs end before the stream does, or a compression unit is impossible.
    pub fn extents(&self, stream: &Stream) -> Result<Vec<DataRun>, NtfsError> {
        let runs = match &stream.content {
            Content::Resident(_) => {
                let place = RunPlace::Resident { record: stream.record };
                return Ok(vec![DataRun { offset: 0, len: stream.size, place }]);
            }
            Content::Runs(runs) => runs,
        };
        let cluster = self.geometry.cluster.bytes();
        let mut out = DataRuns { out: Vec::new(), cluster };
        let mut at = 0;
        if stream.is_compressed() && stream.unit > 0 {
            at = self.compressed_extents(stream, runs, &mut out)?;
        } else {
            for run in runs {
                if at >= stream.valid {
                    break;
                }
                let len = (run.end() * cluster).min(stream.valid) - at;
                out.push(at, len, if run.is_hole() { RunPlace::Hole } else { RunPlace::Lcn(Lcn(u64::from(run.lcn))) });
                at += len;
            }
            if at < stream.valid {
                return Err(NtfsError::corrupt(stream.place(at), "nothing is mapped here"));
            }
        }
        out.push(at, stream.size - at.min(stream.size), RunPlace::Hole);
        Ok(out.out)
    }

    /// The valid part of a compressed stream; returns its end.
    fn compressed_extents(&self, stream: &Stream, runs: &[RawRun], out: &mut DataRuns) -> Result<u64, NtfsError> {
        let cluster = out.cluster;
        let unit_bytes = self.unit_bytes(stream)?;
        let mut at = 0;
        while at < stream.valid {
            let unit = at / unit_bytes;
            let mut len = (stream.valid - at).min(unit_bytes);
            let (stored, first) = self.unit_stored(stream, runs, unit)?;
            match first {
                None => {
                    // One step over a long hole, or a sparse giant would take for ever.
                    let next = runs.get(runs.partition_point(|run| run.end() <= unit << stream.unit));
                    let end = next.map_or(u64::MAX, |run| (run.end() >> stream.unit).saturating_mul(unit_bytes));
                    let end = end.clamp(at + len, stream.valid);
                    out.push(at, end - at, RunPlace::Hole);
                    at = end;
                    continue;
                }
                Some(_) if stored == 1 << stream.unit => {
                    // All whole units of a run at once, as with holes.
                    let rest = find_run(runs, unit << stream.unit).map_or(0, |run| run.end() - (unit << stream.unit));
                    len = ((rest >> stream.unit) * unit_bytes).min(stream.valid - at).max(len);
                    let (start, end) = (at / cluster, (at + len).div_ceil(cluster));
                    for run in &runs[runs.partition_point(|run| run.end() <= start)..] {
                        if u64::from(run.vcn) >= end {
                            break;
                        }
                        let from = u64::from(run.vcn).max(start);
                        let bytes = (run.end() * cluster).min(at + len) - from * cluster;
                        let lcn = Lcn(u64::from(run.lcn) + from - u64::from(run.vcn));
                        out.push(from * cluster, bytes, RunPlace::Lcn(lcn));
                    }
                }
                Some(first) => {
                    let place = RunPlace::Compressed { first: Lcn(u64::from(first)), stored: Clusters(stored) };
                    out.push(at, len, place);
                }
            }
            at += len;
        }
        Ok(at)
    }

    fn find_mft<R: ReadAt>(&mut self, reader: &mut R) -> Result<(), NtfsError> {
        let bytes = self.read_mft_record(reader)?;
        let place = VolumePlace::record(records::MFT);
        let record = Record::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
        // The part of `$MFT` mapped by record 0 itself; a list's records must be in it (docs/spec/ntfs.md#appending,
        // point 3), or in the part mapped by earlier records in the list.
        let (runs, size, valid) = self.mft_head(&record)?;
        if valid > size || attribute_flags_odd(&record) {
            return Err(NtfsError::corrupt(place, "$MFT has impossible sizes or is compressed"));
        }
        self.map_mft(runs, size, valid)?;
        if file::has_list(&record) {
            let list = file::read_list(self, reader, records::MFT, &record)?;
            let fail = |fault: raw::RecordFault| {
                NtfsError::corrupt(
                    VolumePlace::stream(records::MFT, types::ATTRIBUTE_LIST, fault.at as u64),
                    fault.what,
                )
            };
            for entry in file::list_entries(&list).map_err(fail)? {
                if entry.ty != types::DATA || !entry.name.is_empty() || entry.lowest == 0 {
                    continue;
                }
                let list = self.longer_mft(reader, &entry)?;
                self.map_mft(list, size, valid)?;
            }
        }
        if self.mft.size < size {
            // Partly readable: report it, and continue with the mapped part.
            self.facts.damage.push(NtfsError::corrupt(
                VolumePlace::stream(0, types::DATA, self.mft.size),
                "$MFT is not mapped to its end",
            ));
        }
        if self.record_count() <= records::UPCASE {
            return Err(NtfsError::corrupt(place, "$MFT is too short"));
        }
        Ok(())
    }

    /// Record 0 of `$MFT`, or that of its mirror.
    fn read_mft_record<R: ReadAt>(&mut self, reader: &mut R) -> Result<Vec<u8>, NtfsError> {
        let size = self.geometry.record_bytes as usize;
        let cluster = self.geometry.cluster;
        let mut read = |lcn: Lcn| {
            let mut bytes = vec![0; size];
            let at = cluster.offset_of(lcn);
            let place = VolumePlace { record: Some(records::MFT), attribute: None, offset: None };
            reader.read_at(at, &mut bytes).map_err(|error| NtfsError::read(place, error))?;
            raw::undo_fixups(&mut bytes, *b"FILE", 0x2A).map_err(|fault| {
                NtfsError::corrupt(VolumePlace { offset: Some(fault.at as u64), ..place }, fault.what)
            })?;
            Record::new(&bytes).map_err(|fault| NtfsError::corrupt(place, fault.what))?;
            Ok(bytes)
        };
        read(self.geometry.mft).or_else(|error| match read(self.geometry.mirror) {
            Ok(bytes) => {
                self.facts.mft_from_mirror = true;
                self.facts.damage.push(error);
                Ok(bytes)
            }
            Err(_) => Err(error),
        })
    }

    /// The runs of `$MFT` in its base record, its size and its valid length.
    fn mft_head(&self, record: &Record<'_>) -> Result<(Vec<RawRun>, u64, u64), NtfsError> {
        let place = VolumePlace::record(records::MFT);
        let mut head = None;
        for attribute in record.attributes() {
            let attribute = attribute.map_err(|fault| NtfsError::corrupt(place, fault.what))?;
            if let raw::Body::NonResident(body) = attribute.body
                && attribute.ty == types::DATA
                && attribute.name.is_empty()
                && body.lowest == 0
            {
                let mut runs = Vec::new();
                raw::decode_runs(body.pairs, 0, body.highest, self.geometry.clusters, &mut runs).map_err(|fault| {
                    NtfsError::corrupt(VolumePlace::stream(records::MFT, types::DATA, 0), fault.what)
                })?;
                head = Some((runs, body.size, body.valid));
            }
        }
        head.ok_or(NtfsError::corrupt(place, "$MFT has no data"))
    }

    /// Takes the runs of `$MFT` so far, with those of a further piece from its attribute list.
    fn longer_mft<R: ReadAt>(&mut self, reader: &mut R, entry: &file::Listed) -> Result<Vec<RawRun>, NtfsError> {
        let bytes = self.read_record(reader, entry.holder.record)?;
        let holder = VolumePlace::record(entry.holder.record);
        let piece = Record::new(&bytes).map_err(|fault| NtfsError::corrupt(holder, fault.what))?;
        let base = piece.header.base_record.get();
        if !piece.in_use()
            || piece.header.sequence.get() != entry.holder.sequence
            || entry.holder.record != records::MFT && (base == 0 || raw::reference_number(base) != records::MFT)
        {
            return Err(NtfsError::corrupt(holder, "not a piece of $MFT"));
        }
        let Content::Runs(mut runs) = std::mem::take(&mut self.mft.content) else {
            return Err(NtfsError::not_found(VolumePlace::record(records::MFT)));
        };
        let found = piece.attributes().map_while(Result::ok).find_map(|attribute| match attribute.body {
            raw::Body::NonResident(body)
                if attribute.ty == types::DATA && attribute.id == entry.id && body.lowest == entry.lowest =>
            {
                Some(body)
            }
            _ => None,
        });
        let body = found.ok_or(NtfsError::corrupt(holder, "listed attribute does not exist"))?;
        if runs.last().map_or(0, |run| run.end()) != body.lowest {
            return Err(NtfsError::corrupt(holder, "pieces of $MFT do not join"));
        }
        raw::decode_runs(body.pairs, body.lowest, body.highest, self.geometry.clusters, &mut runs)
            .map_err(|fault| NtfsError::corrupt(holder, fault.what))?;
        Ok(runs)
    }

    fn map_mft(&mut self, runs: Vec<RawRun>, size: u64, valid: u64) -> Result<(), NtfsError> {
        let total: u64 = runs.iter().map(|run| u64::from(run.len)).sum();
        if total > self.geometry.clusters || runs.iter().any(|run| run.is_hole()) {
            return Err(NtfsError::corrupt(
                VolumePlace::stream(0, types::DATA, 0),
                "$MFT is larger than the volume or has holes",
            ));
        }
        let mapped = total * self.geometry.cluster.bytes();
        self.mft.size = size.min(mapped);
        self.mft.valid = valid.min(mapped);
        self.mft.allocated = mapped;
        self.mft.content = Content::Runs(runs);
        Ok(())
    }

    /// Reads additional facts; none of them is vital for reading files.
    fn read_facts<R: ReadAt>(&mut self, reader: &mut R) {
        let mut damage = std::mem::take(&mut self.facts.damage);
        if let Err(error) = self.read_upcase(reader) {
            damage.push(error);
        }
        match self.open_file(reader, records::VOLUME) {
            Ok(file) => {
                if let Some(label) = file.stream(types::VOLUME_NAME, &[]).and_then(Stream::resident) {
                    self.facts.label =
                        label.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
                }
                let facts = file.stream(types::VOLUME_INFORMATION, &[]).and_then(Stream::resident);
                match facts.and_then(|value| view::<VolumeInformation>(value, 0, "").ok()) {
                    Some(head) => {
                        self.facts.version = (head.major, head.minor);
                        self.facts.flags = head.flags.get();
                    }
                    None => damage.push(NtfsError::corrupt(
                        VolumePlace::stream(records::VOLUME, types::VOLUME_INFORMATION, 0),
                        "no volume information",
                    )),
                }
            }
            Err(error) => damage.push(error),
        }
        match self.read_log_state(reader) {
            Ok(state) => self.facts.log = state,
            Err(error) => damage.push(error),
        }
        match self.is_hibernated(reader) {
            Ok(hibernated) => self.facts.hibernated = hibernated,
            Err(error) => damage.push(error),
        }
        self.facts.damage = damage;
    }

    fn read_upcase<R: ReadAt>(&mut self, reader: &mut R) -> Result<(), NtfsError> {
        let place = VolumePlace::record(records::UPCASE);
        let file = self.open_file(reader, records::UPCASE)?;
        let stream = file.data(&[]).ok_or(NtfsError::corrupt(place, "no data"))?;
        let bytes = self.read_whole(reader, stream, Upcase::UNITS as u64 * 2)?;
        self.upcase = Upcase::from_le_bytes(&bytes).ok_or(NtfsError::corrupt(place, "not 128 KiB long"))?;
        Ok(())
    }

    fn read_log_state<R: ReadAt>(&self, reader: &mut R) -> Result<LogState, NtfsError> {
        /// Restart pages are the first two; both are 4 KiB on every known volume.
        const PAGE: usize = 4096;
        /// Offsets in a restart page and in its restart area (docs/spec/ntfs.md#log-file).
        const AREA_AT: usize = 0x18;
        const AREA_LSN: usize = 0x00;
        const AREA_IN_USE: usize = 0x0C;
        const AREA_FLAGS: usize = 0x0E;
        const NO_CLIENT: u16 = 0xFFFF;
        const FLAG_CLEAN: u16 = 2;
        let file = self.open_file(reader, records::LOG_FILE)?;
        let stream = file.data(&[]).ok_or(NtfsError::corrupt(VolumePlace::record(records::LOG_FILE), "no data"))?;
        let mut pages = vec![0; 2 * PAGE];
        let got = self.read_range(reader, stream, 0, &mut pages)?;
        let pages = &mut pages[..got];
        if pages.iter().all(|byte| *byte == 0xFF) {
            return Ok(LogState::Empty);
        }
        let mut best: Option<(u64, LogState)> = None;
        for page in pages.chunks_exact_mut(PAGE) {
            if page.starts_with(b"CHKD") {
                return Ok(LogState::Chkdsk);
            }
            if raw::undo_fixups(page, *b"RSTR", 0x1E).is_err() {
                continue;
            }
            let number = |at: usize| view::<zerocopy::little_endian::U16>(page, at, "").map(|value| value.get());
            let Ok(area) = number(AREA_AT).map(usize::from) else { continue };
            let lsn = view::<zerocopy::little_endian::U64>(page, area + AREA_LSN, "").map(|value| value.get());
            let (Ok(lsn), Ok(in_use), Ok(flags)) = (lsn, number(area + AREA_IN_USE), number(area + AREA_FLAGS)) else {
                continue;
            };
            let clean = in_use == NO_CLIENT || flags & FLAG_CLEAN != 0;
            let state = if clean { LogState::Clean } else { LogState::Dirty };
            if best.is_none_or(|(other, _)| lsn > other) {
                best = Some((lsn, state));
            }
        }
        Ok(best.map_or(LogState::Unknown, |(_, state)| state))
    }

    fn is_hibernated<R: ReadAt>(&self, reader: &mut R) -> Result<bool, NtfsError> {
        let name: Vec<u16> = "hiberfil.sys".encode_utf16().collect();
        let Some(entry) = index::lookup(self, reader, records::ROOT, &name)? else { return Ok(false) };
        let file = self.open_file(reader, entry.record)?;
        let Some(stream) = file.data(&[]) else { return Ok(false) };
        let mut magic = [0; 4];
        self.read_range(reader, stream, 0, &mut magic)?;
        Ok(magic.eq_ignore_ascii_case(b"hibr") || magic.eq_ignore_ascii_case(b"rstr"))
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Runs(Vec::new())
    }
}

fn attribute_flags_odd(record: &Record<'_>) -> bool {
    record.attributes().map_while(Result::ok).any(|attribute| {
        attribute.ty == types::DATA
            && attribute.name.is_empty()
            && attribute.flags & (attr_flag::COMPRESSED | attr_flag::ENCRYPTED) != 0
    })
}

pub(crate) fn find_run(runs: &[RawRun], vcn: u64) -> Option<RawRun> {
    runs.get(runs.partition_point(|run| run.end() <= vcn)).copied().filter(|run| u64::from(run.vcn) <= vcn)
}

fn read_geometry<R: ReadAt>(reader: &mut R, len: ByteLen) -> Result<(Geometry, BackupBoot), NtfsError> {
    const BOOT_BYTES: usize = size_of::<BootSector>();
    let mut first = [0; BOOT_BYTES];
    let primary = match reader.read_at(VolumeOffset(0), &mut first) {
        Ok(()) => parse_boot(&first),
        Err(error) => Err(NtfsError::read(VolumePlace::volume(0), error)),
    };
    let mut copy = [0; BOOT_BYTES];
    match primary {
        Ok(geometry) => {
            let at = geometry.sectors.checked_mul(u64::from(geometry.sector_bytes)).map(VolumeOffset);
            let state = match at.map(|at| reader.read_at(at, &mut copy)) {
                Some(Ok(())) if copy == first => BackupBoot::Equal,
                Some(Ok(())) => BackupBoot::Different,
                Some(Err(_)) | None => BackupBoot::Missing,
            };
            Ok((geometry, state))
        }
        Err(error) => {
            for sector in [512, 4096, 1024, 2048] {
                let Some(at) = len.0.checked_sub(sector) else { continue };
                if reader.read_at(VolumeOffset(at), &mut copy).is_ok()
                    && let Ok(geometry) = parse_boot(&copy)
                    && u64::from(geometry.sector_bytes) == sector
                {
                    return Ok((geometry, BackupBoot::InUse));
                }
            }
            Err(error)
        }
    }
}

/// Parses the boot sector (docs/spec/ntfs.md#boot-sector).
pub(crate) fn parse_boot(bytes: &[u8]) -> Result<Geometry, NtfsError> {
    let not = |what| NtfsError { place: VolumePlace::volume(0), kind: ErrorKind::NotNtfs(what) };
    let boot: &BootSector = view(bytes, 0, "").map_err(|_| not("shorter than a sector"))?;
    if boot.oem != *b"NTFS    " {
        return Err(not("no NTFS signature"));
    }
    let sector = u64::from(boot.sector_bytes.get());
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return Err(not("impossible sector size"));
    }
    let per_cluster = match boot.sectors_per_cluster {
        small @ 1..=128 => u64::from(small),
        large @ 0xE0..=0xFF => 1 << (256 - u32::from(large)),
        _ => return Err(not("impossible sectors per cluster")),
    };
    let cluster = ClusterSize::from_bytes(sector.saturating_mul(per_cluster)).ok_or(not("impossible cluster size"))?;
    let sectors = boot.sectors.get();
    if sectors == 0 || sectors.checked_mul(sector).is_none_or(|bytes| bytes > i64::MAX as u64) {
        return Err(not("impossible number of sectors"));
    }
    let clusters = sectors / per_cluster;
    if clusters == 0 || clusters > limits::CLUSTERS_MAX {
        return Err(not("impossible number of clusters"));
    }
    let (mft, mirror) = (boot.mft.get(), boot.mft_mirror.get());
    if mft == 0 || mft >= clusters || mirror == 0 || mirror >= clusters {
        return Err(not("$MFT outside the volume"));
    }
    let coded = |code: i8| match code {
        1..=127 => u64::try_from(code).ok().and_then(|count| count.checked_mul(cluster.bytes())),
        -31..=-9 => Some(1 << -i32::from(code)),
        _ => None,
    };
    let record = coded(boot.record_size).filter(|bytes| bytes.is_power_of_two() && (1024..=4096).contains(bytes));
    let block = coded(boot.block_size).filter(|bytes| bytes.is_power_of_two() && (512..=65536).contains(bytes));
    Ok(Geometry {
        sector_bytes: sector as u32,
        cluster,
        sectors,
        clusters,
        record_bytes: record.ok_or(not("impossible record size"))? as u32,
        index_block_bytes: block.ok_or(not("impossible index block size"))? as u32,
        mft: Lcn(mft),
        mirror: Lcn(mirror),
        serial: boot.serial.get(),
        disk: DiskShape {
            sectors_per_track: boot.sectors_per_track.get(),
            heads: boot.heads.get(),
            hidden_sectors: boot.hidden_sectors.get(),
        },
    })
}
