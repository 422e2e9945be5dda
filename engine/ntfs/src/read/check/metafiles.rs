//! Checks of the metafiles: that each has its required form, and that bitmaps, mirror and security agree with the rest.

use super::*;

/// Header of a descriptor in `$SDS`: hash, id, offset, length.
type SdsHeader = [u8; 20];

fn word(header: &SdsHeader, at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The entries of a view index of `$Secure`: place, key, and data if they have any.
fn view_entries<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    index: &Index<'_>,
) -> Vec<(VolumePlace, Vec<u8>, Option<SdsHeader>)> {
    let mut found = Vec::new();
    index::walk(volume, reader, index, |step| {
        if let IndexStep::Entry { node, entry } = step {
            // In view indexes the reference is: u16 offset of the data, u16 its length.
            let (at, len) = (entry.reference as u16 as usize, (entry.reference >> 16) as u16 as usize);
            let bytes = node.entry_bytes(entry);
            let data = bytes.get(at..).and_then(|tail| tail.get(..len)).and_then(|data| data.try_into().ok());
            found.push((index.place(node, entry.at), node.key(entry).to_vec(), data));
        }
    });
    found
}

impl Checker<'_> {
    pub(super) fn open<R: ReadAt>(&mut self, reader: &mut R, number: u64) -> Option<FileRecord> {
        match self.volume.open_file(reader, number) {
            Ok(file) => Some(file),
            Err(error) => {
                self.report.damage(&error);
                None
            }
        }
    }

    pub(super) fn metafiles<R: ReadAt>(&mut self, reader: &mut R) {
        const NAMES: [&str; 12] = [
            "$MFT", "$MFTMirr", "$LogFile", "$Volume", "$AttrDef", ".", "$Bitmap", "$Boot", "$BadClus", "$Secure",
            "$UpCase", "$Extend",
        ];
        let geometry = *self.volume.geometry();
        for (number, name) in NAMES.iter().enumerate() {
            let number = number as u64;
            let Some(file) = self.open(reader, number) else { continue };
            let name: Vec<u16> = name.encode_utf16().collect();
            if !file.names.iter().any(|found| found.name == name && found.parent == FileRef { record: 5, sequence: 5 })
            {
                self.report.error(VolumePlace::record(number), "metafile without its name");
            }
            let data = file.data(&[]);
            let first = data.and_then(|stream| stream.runs().first()).map(|run| u64::from(run.lcn));
            let size = data.map(Stream::size);
            let place = VolumePlace::stream(number, types::DATA, 0);
            let fine = match number {
                records::MFT => first == Some(geometry.mft.0),
                records::MFT_MIRROR => {
                    first == Some(geometry.mirror.0)
                        && data.is_some_and(|stream| stream.runs().len() == 1)
                        && size.is_some_and(|size| size >= 4 * u64::from(geometry.record_bytes))
                }
                records::LOG_FILE => file.extensions.is_empty() && size.is_some_and(|size| size < 1 << 32),
                records::ATTR_DEF => self.attr_def(reader, data),
                records::BITMAP => size.is_some_and(|size| size >= geometry.clusters.div_ceil(8)) && first.is_some(),
                records::BOOT => first == Some(0),
                records::BAD_CLUSTERS => {
                    let name: Vec<u16> = "$Bad".encode_utf16().collect();
                    let bad = file.data(&name).map(Stream::size);
                    // Windows leaves it as long as it was when the volume is extended (seen on one of Server 2019).
                    bad.is_some_and(|bad| bad > 0 && bad.is_multiple_of(geometry.cluster.bytes()))
                }
                records::EXTEND => file.is_directory(),
                _ => true,
            };
            if !fine {
                self.report.error(place, "metafile is not as it must be");
            }
        }
        for number in 12..16 {
            if self.in_use[0] >> number & 1 == 0 {
                self.report.warning(VolumePlace::record(number), "reserved record is not in use");
            }
        }
    }

    fn attr_def<R: ReadAt>(&mut self, reader: &mut R, data: Option<&Stream>) -> bool {
        /// Name before the type code (docs/spec/ntfs.md#metafiles).
        const NAME_BYTES: usize = 128;
        let mut first = [0; NAME_BYTES + 4];
        data.is_some_and(|stream| {
            self.volume.read_range(reader, stream, 0, &mut first).is_ok()
                && view::<U32>(&first, NAME_BYTES, "").is_ok_and(|ty| ty.get() == types::STANDARD_INFORMATION)
        })
    }

    /// `$Secure` (docs/spec/ntfs.md#security): every id in use is described, and the two indexes and two copies agree.
    pub(super) fn security_ids<R: ReadAt>(&mut self, reader: &mut R) {
        let Some(file) = self.open(reader, records::SECURE) else { return };
        let units = |name: &str| -> Vec<u16> { name.encode_utf16().collect() };
        let place = VolumePlace::record(records::SECURE);
        let Some(sds) = file.data(&units("$SDS")) else {
            return self.report.error(place, "no $SDS");
        };
        let sds = match self.volume.read_whole(reader, sds, limits::METADATA_STREAM_BYTES_MAX) {
            Ok(sds) => sds,
            Err(error) => return self.report.damage(&error),
        };
        let mut entries: HashMap<u32, SdsHeader> = HashMap::new();
        for (name, by_hash) in [("$SII", false), ("$SDH", true)] {
            let index = match Index::open(self.volume, &file, &units(name)) {
                Ok(index) => index,
                Err(error) => return self.report.damage(&error),
            };
            let found = view_entries(self.volume, reader, &index);
            let count = found.len();
            for (place, key, data) in found {
                let Some(data) = data else {
                    self.report.error(place, "security index entry without data");
                    continue;
                };
                let id = word(&data, 4);
                let wanted: Vec<u8> = if by_hash { data[..8].to_vec() } else { data[4..8].to_vec() };
                if key != wanted {
                    self.report.error(place, format!("key of security id {id:#x} differs from its data"));
                }
                if by_hash {
                    if entries.get(&id) != Some(&data) {
                        self.report.error(place, format!("security id {id:#x} differs between $SII and $SDH"));
                    }
                    continue;
                }
                entries.insert(id, data);
                self.descriptor(place, &data, &sds);
            }
            if by_hash && count != entries.len() {
                self.report.error(place, "$SII and $SDH have different lengths");
            }
        }
        for (id, number) in std::mem::take(&mut self.security) {
            if !entries.contains_key(&id) {
                self.report.error(VolumePlace::record(number), format!("security id {id:#x} does not exist"));
            }
        }
    }

    /// Checks a descriptor in `$SDS` and its copy. `data`: its header by the index.
    fn descriptor(&mut self, place: VolumePlace, data: &SdsHeader, sds: &[u8]) {
        const REGION: u64 = 256 << 10;
        let (hash, id, len) = (word(data, 0), word(data, 4), word(data, 16) as usize);
        let offset = u64::from(word(data, 8)) | u64::from(word(data, 12)) << 32;
        let at = |offset: u64| {
            let start = usize::try_from(offset).ok()?;
            sds.get(start..start.checked_add(len)?).filter(|bytes| bytes.len() >= data.len())
        };
        let copy = offset.checked_add(REGION).and_then(at);
        let Some(bytes) = at(offset).filter(|bytes| bytes.starts_with(data)) else {
            return self.report.error(place, format!("security id {id:#x} is not in $SDS where it should be"));
        };
        let words = bytes[data.len()..].chunks(4).map(|part| {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            u32::from_le_bytes(word)
        });
        if words.fold(0u32, |hash, word| word.wrapping_add(hash.rotate_left(3))) != hash {
            self.report.error(place, format!("hash of security id {id:#x} is wrong"));
        }
        if copy != Some(bytes) {
            self.report.error(place, format!("copy of security id {id:#x} in $SDS differs"));
        }
        if !offset.is_multiple_of(16) || offset % (2 * REGION) + len as u64 > REGION {
            self.report.error(place, format!("security id {id:#x} lies wrongly in $SDS"));
        }
    }

    pub(super) fn record_bitmap<R: ReadAt>(&mut self, reader: &mut R) {
        let Some(file) = self.open(reader, records::MFT) else { return };
        let place = VolumePlace::stream(records::MFT, types::BITMAP, 0);
        let Some(stream) = file.stream(types::BITMAP, &[]) else {
            return self.report.error(place, "$MFT has no bitmap");
        };
        if stream.is_resident() {
            self.report.error(place, "bitmap of $MFT is resident");
        }
        let bits = match self.volume.read_whole(reader, stream, limits::METADATA_STREAM_BYTES_MAX) {
            Ok(bits) => bits,
            Err(error) => return self.report.damage(&error),
        };
        if !bits.len().is_multiple_of(8) || (bits.len() as u64) * 8 < self.volume.record_count() {
            self.report.error(place, "bitmap of $MFT has the wrong length");
        }
        let byte_of = |set: &[u64], at: usize| set.get(at / 8).map_or(0, |word| word.to_le_bytes()[at % 8]);
        for at in 0..(self.in_use.len() * 8).max(bits.len()) {
            let (reported, real) = (bits.get(at).copied().unwrap_or(0), byte_of(&self.in_use, at));
            let wrong = (reported ^ real) & !byte_of(&self.unreadable, at);
            for bit in (0..8).filter(|bit| wrong >> bit & 1 != 0) {
                let used = real >> bit & 1 != 0;
                let what =
                    if used { "record in use is free in the bitmap" } else { "free record is used in the bitmap" };
                self.report.error(VolumePlace::record(at as u64 * 8 + bit), what);
            }
        }
    }

    pub(super) fn cluster_bitmap<R: ReadAt>(&mut self, reader: &mut R) {
        const CHUNK: usize = 1 << 20;
        let Some(file) = self.open(reader, records::BITMAP) else { return };
        let place = |offset: u64| VolumePlace::stream(records::BITMAP, types::DATA, offset);
        let Some(stream) = file.data(&[]) else {
            return self.report.error(place(0), "$Bitmap has no data");
        };
        let clusters = self.volume.geometry().clusters;
        if stream.size() != clusters.div_ceil(8).next_multiple_of(8) {
            self.report.warning(place(0), "$Bitmap has an odd length");
        }
        let mut chunk = vec![0; CHUNK];
        // A stretch of wrong bits is one finding.
        let mut open: Option<(u64, bool)> = None;
        let close = |report: &mut CheckReport, open: &mut Option<(u64, bool)>, end: u64| {
            if let Some((start, used)) = open.take() {
                let what = if used { "in use but free in $Bitmap" } else { "used in $Bitmap but by no stream" };
                report.error(place(start / 8), format!("clusters {start}..{end}: {what}"));
            }
        };
        let mut at = 0;
        let end = clusters.div_ceil(8).min(stream.size());
        while at < end {
            let here = (end - at).min(CHUNK as u64).next_multiple_of(8).min(CHUNK as u64) as usize;
            chunk[..here].fill(0xFF);
            if let Err(error) = self.volume.read_range(reader, stream, at, &mut chunk[..here]) {
                return self.report.damage(&error);
            }
            for (index, bytes) in chunk[..here].chunks_exact(8).enumerate() {
                let first = at * 8 + index as u64 * 64;
                let mut reported = [0; 8];
                reported.copy_from_slice(bytes);
                let reported = u64::from_le_bytes(reported);
                if first >= clusters {
                    break;
                }
                let inside = if clusters - first >= 64 { u64::MAX } else { (1 << (clusters - first)) - 1 };
                if reported | inside != u64::MAX {
                    self.report.warning(place(first / 8), "bits behind the last cluster are clear");
                }
                let wrong = (reported ^ self.used.word(first / 64)) & inside;
                if wrong == 0 {
                    close(&mut self.report, &mut open, first);
                    continue;
                }
                for bit in 0..64 {
                    let used = reported >> bit & 1 == 0;
                    if wrong >> bit & 1 == 0 || open.is_some_and(|(_, other)| other != used) {
                        close(&mut self.report, &mut open, first + bit);
                    }
                    if wrong >> bit & 1 != 0 && open.is_none() {
                        open = Some((first + bit, used));
                    }
                }
            }
            at += here as u64;
        }
        close(&mut self.report, &mut open, clusters.min(at * 8));
    }

    pub(super) fn mirror<R: ReadAt>(&mut self, reader: &mut R) {
        /// Windows keeps no more records up to date, whatever the length of the mirror (docs/spec/ntfs.md#metafiles).
        const KEPT: u64 = 24;
        let Some(file) = self.open(reader, records::MFT_MIRROR) else { return };
        let Some(stream) = file.data(&[]) else { return };
        let size = u64::from(self.volume.geometry().record_bytes);
        let count = (stream.size() / size).min(KEPT).min(self.volume.record_count());
        for number in 0..count {
            let mut copy = vec![0; size as usize];
            if let Err(error) = self.volume.read_range(reader, stream, number * size, &mut copy) {
                self.report.damage(&error);
                continue;
            }
            match self.volume.read_raw_record(reader, number) {
                Ok(bytes) if bytes == copy => {}
                Ok(_) if number < 4 => {
                    self.report.error(VolumePlace::record(number), "mirror differs");
                }
                Ok(_) => self.report.warning(VolumePlace::record(number), "mirror differs"),
                Err(error) => self.report.damage(&error),
            }
        }
    }
}
