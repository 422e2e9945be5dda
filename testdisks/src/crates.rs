//! Two published crates as judges of a finished drive: `bitlocker-core` decrypts it and `ntfs` reads the volume. They
//! walk every directory through its index, look every name up again, and read every block listed in the manifest.

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use md5::{Digest, Md5};
use ntfs::indexes::NtfsFileNameIndex;
use ntfs::structured_values::NtfsFileNamespace;
use ntfs::{Ntfs, NtfsFile, NtfsReadSeek};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::judge::{self, Verdict};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs both crates on a finished drive and its record. `plain` is the decrypted volume for sector sizes that
/// `bitlocker-core` cannot read; without it they are skipped.
pub fn crates(image: &Path, record: &Path, plain: Option<&Path>) -> Verdict {
    let verdict = || -> Result<Verdict> {
        let record = fs::read_to_string(record)?;
        let field = |name: &str| -> Result<&str> {
            let (_, rest) =
                record.split_once(&format!("<{name}>")).ok_or_else(|| format!("no {name} in the record"))?;
            Ok(rest.split_once('<').ok_or("no end")?.0)
        };
        let (manifest, hash) = (field("ManifestFile")?, field("ManifestHash")?);
        Ok(Verdict::Pass(match plain {
            Some(plain) => examine(&mut Blocks::new(File::open(plain)?), manifest, hash)?,
            None => {
                let (start, len, sector) = judge::volume_of(image)?;
                if sector != 512 {
                    let why = "bitlocker-core decrypts units of 512 bytes whatever the volume says";
                    return Ok(Verdict::Skipped(why.into()));
                }
                let window = Blocks::new(Window { file: File::open(image)?, start, len, at: 0 });
                let volume = bitlocker::BitLockerVolume::unlock_with_recovery_password(window, field("BitLockerKey")?)?;
                examine(&mut Blocks::new(volume), manifest, hash)?
            }
        }))
    };
    verdict().unwrap_or_else(|error| Verdict::Fail(error.to_string()))
}

/// Entry of the manifest for one file.
#[derive(Default)]
struct Listed {
    path: String,
    len: Option<u64>,
    /// Offset, length, upper-case MD5 of each block.
    blocks: Vec<(u64, u64, String)>,
}

/// Reads the whole volume; returns a summary.
fn examine<R: Read + Seek>(fs: &mut R, manifest: &str, hash: &str) -> Result<String> {
    let mut ntfs = Ntfs::new(fs)?;
    ntfs.read_upcase_table(fs)?;
    let info = ntfs.volume_info(fs)?;
    if (info.major_version(), info.minor_version()) != (3, 1) {
        return Err(format!("version {}.{}", info.major_version(), info.minor_version()).into());
    }
    let mut found = HashMap::new();
    let root = ntfs.root_directory(fs)?;
    walk(&ntfs, fs, &root, "", &mut found)?;

    let mut text = Vec::new();
    let record = *found.get(manifest).ok_or_else(|| format!("no {manifest}"))?;
    each_chunk(&ntfs.file(fs, record)?, fs, 0, None, &mut |bytes| text.extend_from_slice(bytes))?;
    let md5 = hex(Md5::digest(&text).as_slice());
    if md5 != hash {
        return Err(format!("{manifest} has MD5 {md5}, the record says {hash}").into());
    }
    found.remove(manifest);
    let (mut files, mut bytes) = (0, 0);
    for listed in listed(&text)? {
        let (files, bytes) = (&mut files, &mut bytes);
        let one = || -> Result<()> {
            // Metadata files serve several blobs.
            let Some(record) = found.remove(&listed.path) else {
                return if listed.len.is_none() { Ok(()) } else { Err("is not on the volume".into()) };
            };
            let file = ntfs.file(fs, record)?;
            *files += 1;
            *bytes += check_content(&file, fs, &listed)?;
            Ok(())
        };
        let mut one = one;
        one().map_err(|error| format!("{}: {error}", listed.path))?;
    }
    if let Some(path) = found.keys().find(|path| !path.starts_with("\\System Volume Information\\")) {
        return Err(format!("{} files that the manifest does not name: {path}", found.len()).into());
    }
    Ok(format!("{files} files, {bytes} bytes"))
}

/// Every file below `dir` by its path. Indexes and records must agree.
fn walk<R: Read + Seek>(
    ntfs: &Ntfs,
    fs: &mut R,
    dir: &NtfsFile<'_>,
    path: &str,
    found: &mut HashMap<String, u64>,
) -> Result<()> {
    let index = dir.directory_index(fs)?;
    let mut entries = index.entries();
    let mut names = Vec::new();
    while let Some(entry) = entries.next(fs) {
        let entry = entry?;
        let key = entry.key().ok_or("an entry without a key")??;
        names.push((key.name().to_string()?, key, entry.file_reference()));
    }
    for (name, key, reference) in names {
        let (number, whole) = (reference.file_record_number(), format!("{path}\\{name}"));
        // Records of the file system itself: everything before 16, and the root's entry for itself.
        if number < 16 || path.is_empty() && name.starts_with('$') && name != "$root" {
            continue;
        }
        if key.namespace() == NtfsFileNamespace::Dos {
            continue;
        }
        let wrong = |what: &str| -> Result<()> { Err(format!("{whole}: {what}").into()) };
        let mut finder = index.finder();
        match NtfsFileNameIndex::find(&mut finder, ntfs, fs, &name) {
            Some(entry) if entry.as_ref().is_ok_and(|e| e.file_reference().file_record_number() == number) => {}
            Some(Err(error)) => return wrong(&format!("cannot be looked up: {error}")),
            Some(Ok(_)) => return wrong("another file is found by its name"),
            None => return wrong("is not found by its name"),
        }
        let file = reference.to_file(ntfs, fs)?;
        if file.sequence_number() != reference.sequence_number() || file.hard_link_count() != 1 {
            wrong("sequence number or link count differ")?;
        }
        let own = file.name(fs, None, None).ok_or("a record without a name")??;
        if own.name().to_string()? != name
            || own.parent_directory_reference().file_record_number() != dir.file_record_number()
            || own.is_directory() != file.is_directory()
        {
            wrong("its record has another name, parent or kind")?;
        }
        let info = file.info()?;
        if info.modification_time() != key.modification_time() || info.creation_time() != key.creation_time() {
            wrong("index and record have different times")?;
        }
        if file.is_directory() {
            walk(ntfs, fs, &file, &whole, found)?;
            continue;
        }
        let data = file.data(fs, "").ok_or_else(|| format!("{whole}: no data"))??;
        if data.to_attribute()?.value_length() != key.data_size() {
            wrong("index and record have different lengths")?;
        }
        if found.insert(whole.clone(), number).is_some() {
            wrong("twice in its directory")?;
        }
    }
    Ok(())
}

/// Compares length and blocks of one file with the manifest; returns the bytes read.
fn check_content<R: Read + Seek>(file: &NtfsFile<'_>, fs: &mut R, listed: &Listed) -> Result<u64> {
    let Some(len) = listed.len else {
        let (_, _, hash) = listed.blocks.first().ok_or("no hash")?;
        let mut md5 = Md5::new();
        let read = each_chunk(file, fs, 0, None, &mut |bytes| md5.update(bytes))?;
        return if hex(md5.finalize().as_slice()) == *hash { Ok(read) } else { Err("has another hash".into()) };
    };
    let item = file.data(fs, "").ok_or("no data")??;
    let on_volume = item.to_attribute()?.value_length();
    if on_volume != len {
        return Err(format!("{on_volume} bytes, the manifest says {len}").into());
    }
    let mut total = 0;
    for (offset, len, hash) in &listed.blocks {
        let mut md5 = Md5::new();
        let read = each_chunk(file, fs, *offset, Some(*len), &mut |bytes| md5.update(bytes))?;
        if read != *len || hex(md5.finalize().as_slice()) != *hash {
            return Err(format!("block at {offset}: {read} of {len} bytes, or another hash").into());
        }
        total += read;
    }
    Ok(total)
}

/// Reads `len` bytes (or all) of a file from `offset`; returns the bytes read.
fn each_chunk<R: Read + Seek>(
    file: &NtfsFile<'_>,
    fs: &mut R,
    offset: u64,
    len: Option<u64>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<u64> {
    let item = file.data(fs, "").ok_or("no data")??;
    let attribute = item.to_attribute()?;
    let mut value = attribute.value(fs)?;
    let mut left = len.unwrap_or(value.len().saturating_sub(offset));
    value.seek(fs, SeekFrom::Start(offset))?;
    let (mut buf, mut done) = (vec![0; 256 << 10], 0);
    while left > 0 {
        let want = buf.len().min(usize::try_from(left)?);
        let got = value.read(fs, &mut buf[..want])?;
        if got == 0 {
            break;
        }
        take(&buf[..got]);
        (left, done) = (left - got as u64, done + got as u64);
    }
    Ok(done)
}

/// Files listed in a manifest, side files with their one hash and no length.
fn listed(text: &[u8]) -> Result<Vec<Listed>> {
    let mut reader = Reader::from_str(std::str::from_utf8(text)?);
    let (mut all, mut blob, mut side) = (Vec::new(), Listed::default(), None);
    let mut text = String::new();
    let mut is_blob = false;
    let attribute = |element: &BytesStart<'_>, name: &str| -> Result<String> {
        let found = element.try_get_attribute(name)?.ok_or_else(|| format!("no {name}"))?;
        Ok(found.value.into_owned())
    };
    loop {
        match reader.read_event()? {
            Event::Eof => return Ok(all),
            Event::Start(element) => {
                text.clear();
                match element.name().as_ref() {
                    "Blob" => (blob, is_blob) = (Listed::default(), true),
                    "MetadataPath" | "PropertiesPath" => side = Some(attribute(&element, "Hash")?),
                    _ => {}
                }
            }
            Event::Empty(element) if matches!(element.name().as_ref(), "Block" | "PageRange") => blob.blocks.push((
                attribute(&element, "Offset")?.parse()?,
                attribute(&element, "Length")?.parse()?,
                attribute(&element, "Hash")?,
            )),
            Event::Text(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => text.push_str(match name.as_ref() {
                "amp" => "&",
                "lt" => "<",
                "gt" => ">",
                "apos" => "'",
                "quot" => "\"",
                _ => return Err(format!("reference {name:?}").into()),
            }),
            Event::End(element) => match element.name().as_ref() {
                "FilePath" if is_blob => blob.path = std::mem::take(&mut text),
                "Length" if is_blob => blob.len = Some(text.parse()?),
                "MetadataPath" | "PropertiesPath" => {
                    let blocks = vec![(0, 0, side.take().ok_or("no hash")?)];
                    all.push(Listed { path: std::mem::take(&mut text), len: None, blocks });
                }
                "Blob" => {
                    all.push(std::mem::take(&mut blob));
                    is_blob = false;
                }
                _ => {}
            },
            _ => {}
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A part of a file presented as a whole file.
struct Window {
    file: File,
    start: u64,
    len: u64,
    at: u64,
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX));
        let got = std::os::unix::fs::FileExt::read_at(&self.file, &mut buf[..want], self.start + self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = place(to, self.at, self.len)?;
        Ok(self.at)
    }
}

fn place(to: SeekFrom, at: u64, len: u64) -> io::Result<u64> {
    let place = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => at.checked_add_signed(by),
        SeekFrom::End(by) => len.checked_add_signed(by),
    };
    place.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Whole blocks of a slow reader, a few of them cached: both crates read single sectors and seek in between.
struct Blocks<R> {
    inner: R,
    at: u64,
    len: u64,
    kept: Vec<Option<(u64, Vec<u8>)>>,
}

const BLOCK: u64 = 32 << 10;

impl<R: Read + Seek> Blocks<R> {
    fn new(mut inner: R) -> Self {
        let len = inner.seek(SeekFrom::End(0)).unwrap_or(0);
        Self { inner, at: 0, len, kept: (0..64).map(|_| None).collect() }
    }
}

impl<R: Read + Seek> Read for Blocks<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (block, inside) = (self.at / BLOCK, (self.at % BLOCK) as usize);
        let at = block as usize % self.kept.len();
        if self.kept[at].as_ref().is_none_or(|(kept, _)| *kept != block) {
            let mut bytes = Vec::new();
            self.inner.seek(SeekFrom::Start(block * BLOCK))?;
            (&mut self.inner).take(BLOCK).read_to_end(&mut bytes)?;
            self.kept[at] = Some((block, bytes));
        }
        let bytes = self.kept[at].as_ref().map_or(&[][..], |(_, bytes)| bytes.get(inside..).unwrap_or(&[]));
        let got = buf.len().min(bytes.len());
        buf[..got].copy_from_slice(&bytes[..got]);
        self.at += got as u64;
        Ok(got)
    }
}

impl<R: Read + Seek> Seek for Blocks<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = place(to, self.at, self.len)?;
        Ok(self.at)
    }
}
