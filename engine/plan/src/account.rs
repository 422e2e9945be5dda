//! Files of an export: what a storage account said of each blob when the export was planned.
//!
//! They are kept with the catalog, one for each of its files, so that a resumed session reads the same versions of the
//! same blobs, and describes them alike in the manifest.

use std::ops::Range;

use crate::azure::names;
use crate::checkpoint::CheckpointFault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::hash;
use crate::units::ClusterSize;

/// Kind of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportedKind {
    /// Of blocks.
    #[default]
    Block,
    /// Of pages.
    Page,
    /// Of blocks that were appended.
    Append,
}

/// The blob's own block list, which the manifest follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnBlocks {
    /// Length of every block but the last, in bytes; 0 where they are of various lengths.
    len: u64,
    /// Offset of the end of each block, where they are of various lengths.
    ends: Vec<u64>,
    /// Ids in base64, as the service keeps them.
    ids: Vec<String>,
}

impl OwnBlocks {
    /// The block list of a blob of `length` bytes: `None` where it is not the whole blob, or has blocks that no manifest
    /// can list (docs/spec/import-export.md#names-and-sizes). The manifest then lists blocks of its own.
    pub fn of(blocks: Vec<(String, u64)>, length: u64) -> Option<Self> {
        let (_, len) = *blocks.first()?;
        let (last, others) = blocks.split_last()?;
        let is_even = others.iter().all(|(_, other)| *other == len) && last.1 <= len;
        let is_listable = |(id, len): &(String, u64)| {
            let mut id = id.bytes();
            (1..=names::BLOCK_LEN_MAX).contains(len)
                && id.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        };
        if blocks.len() as u64 > names::BLOCKS_MAX || !blocks.iter().all(is_listable) {
            return None;
        }
        let mut end = 0;
        let ends = blocks.iter().map(|(_, len)| {
            end += len;
            end
        });
        let ends: Vec<u64> = ends.collect();
        if ends.last() != Some(&length) {
            return None;
        }
        let ids = blocks.into_iter().map(|(id, _)| id).collect();
        Some(if is_even { Self { len, ends: Vec::new(), ids } } else { Self { len: 0, ends, ids } })
    }

    /// Ids in base64, in the order of the blocks.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }
}

/// The pieces of a file that are hashed one by one, in its order and without gaps.
#[derive(Clone, Copy, Debug)]
pub struct HashBlocks<'a> {
    total: u64,
    len: u64,
    ends: &'a [u64],
}

impl<'a> HashBlocks<'a> {
    /// Blocks of `len` bytes, the last one shorter, of a file of `total` bytes.
    pub const fn even(total: u64, len: u64) -> Self {
        Self { total, len, ends: &[] }
    }

    /// The blocks of a blob of `total` bytes as the account has them.
    pub fn own(total: u64, own: &'a OwnBlocks) -> Self {
        Self { total, len: own.len.max(1), ends: &own.ends }
    }

    /// Number of blocks.
    pub fn count(&self) -> u64 {
        if self.ends.is_empty() { self.total.div_ceil(self.len) } else { self.ends.len() as u64 }
    }

    /// Length of every block but the last; `None` where they are of various lengths.
    pub fn even_len(&self) -> Option<u64> {
        self.ends.is_empty().then_some(self.len)
    }

    /// Bytes of the file in block `number`, which must be one of [`Self::count`].
    pub fn range(&self, number: u64) -> Range<u64> {
        if self.ends.is_empty() {
            let start = number * self.len;
            return start..(start + self.len).min(self.total);
        }
        let end = |number: u64| self.ends.get(number as usize).copied().unwrap_or(self.total);
        number.checked_sub(1).map_or(0, end)..end(number)
    }

    /// The block that holds the byte at `offset`; the end of the file, if nothing does.
    pub fn around(&self, offset: u64) -> Range<u64> {
        if offset >= self.total {
            return self.total..self.total;
        }
        let number = if self.ends.is_empty() {
            offset / self.len
        } else {
            self.ends.partition_point(|end| *end <= offset) as u64
        };
        self.range(number)
    }

    /// Whether a block ends within a cluster, other than with the file.
    pub fn splits(&self, cluster: ClusterSize) -> bool {
        let is_split = |end: &u64| *end < self.total && !end.is_multiple_of(cluster.bytes());
        if self.ends.is_empty() { is_split(&self.len) } else { self.ends.iter().any(is_split) }
    }
}

/// A blob, or a snapshot of one, that is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportedBlob {
    /// `container/name`.
    pub path: String,
    /// Time of the snapshot that was asked for; the manifest names it.
    pub snapshot: Option<String>,
    /// Time of the snapshot that was taken because the blob is in use: that is read instead of the blob.
    pub taken: Option<String>,
    /// ETag of the version that was planned.
    pub etag: String,
    /// `Last-Modified`, as the service writes it.
    pub last_modified: String,
    /// Kind.
    pub kind: ExportedKind,
    /// Its blocks, where the manifest lists them.
    pub blocks: Option<OwnBlocks>,
    /// Ranges of a page blob that hold something: offset and length in bytes, ascending.
    pub ranges: Vec<(u64, u64)>,
    /// File of the catalog with its properties.
    pub properties: Option<u32>,
    /// File of the catalog with its metadata.
    pub metadata: Option<u32>,
}

/// Contents of one file of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportedFile {
    /// A blob's content.
    Blob(Box<ExportedBlob>),
    /// Properties or metadata of a blob: the text itself.
    Side(Box<str>),
}

impl ExportedFile {
    /// The blob, if it is one.
    pub fn blob(&self) -> Option<&ExportedBlob> {
        match self {
            Self::Blob(blob) => Some(blob),
            Self::Side(_) => None,
        }
    }

    /// MD5 of a text; zeros for a blob, whose content is not known yet.
    pub fn text_md5(&self) -> [u8; 16] {
        match self {
            Self::Blob(_) => [0; 16],
            Self::Side(text) => hash::md5(text.as_bytes()),
        }
    }
}

/// The files of an export, in the order of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Endpoint of the account, without any secret.
    pub endpoint: String,
    /// One for each file of the catalog.
    pub files: Vec<ExportedFile>,
}

impl Exported {
    /// The blob of a catalog's file; `None` for properties and metadata.
    pub fn blob(&self, file: u32) -> Option<&ExportedBlob> {
        self.files.get(file as usize).and_then(ExportedFile::blob)
    }

    /// The blob's own blocks, where the manifest lists them.
    pub fn blocks(&self, file: u32) -> Option<&OwnBlocks> {
        self.blob(file)?.blocks.as_ref()
    }

    /// Properties and metadata files that belong to a blob.
    pub fn sides(&self, file: u32) -> impl Iterator<Item = u32> + use<> {
        let blob = self.blob(file);
        let (properties, metadata) = (blob.and_then(|blob| blob.properties), blob.and_then(|blob| blob.metadata));
        properties.into_iter().chain(metadata)
    }

    /// The facts of these files alone, in the order of [`Catalog::part`](crate::catalog::Catalog::part): ascending indices
    /// of the whole. A blob's properties and metadata must be among them if the blob is.
    pub fn part(&self, chosen: &[u32]) -> Self {
        let place = |file: u32| chosen.binary_search(&file).ok().map(|place| place as u32);
        let one = |file: &u32| match self.files.get(*file as usize)? {
            ExportedFile::Side(text) => Some(ExportedFile::Side(text.clone())),
            ExportedFile::Blob(blob) => {
                let (properties, metadata) = (blob.properties.and_then(place), blob.metadata.and_then(place));
                Some(ExportedFile::Blob(Box::new(ExportedBlob { properties, metadata, ..(**blob).clone() })))
            }
        };
        Self { endpoint: self.endpoint.clone(), files: chosen.iter().filter_map(one).collect() }
    }

    /// Snapshots that were taken of blobs in use: `container/name` and time.
    pub fn taken(&self) -> impl Iterator<Item = (&str, &str)> {
        let blobs = self.files.iter().filter_map(ExportedFile::blob);
        blobs.filter_map(|blob| Some((&*blob.path, blob.taken.as_deref()?)))
    }

    /// Writes all of it.
    pub fn save(&self, to: &mut Encoder<'_>) {
        to.text(&self.endpoint);
        to.u64(self.files.len() as u64);
        for file in &self.files {
            match file {
                ExportedFile::Side(text) => {
                    to.u8(0);
                    to.list(text.as_bytes());
                }
                ExportedFile::Blob(blob) => save_blob(to, blob),
            }
        }
    }

    /// Reads what [`Self::save`] wrote, for a catalog of `count` files.
    ///
    /// # Errors
    /// The bytes are cut off, or not of this catalog.
    pub fn load(from: &mut Decoder<'_>, count: u32) -> Result<Self, CheckpointFault> {
        let endpoint = from.text()?;
        let mut files = Vec::new();
        for _ in 0..from.count(9)? {
            files.push(match from.u8()? {
                0 => {
                    let text = std::str::from_utf8(from.list()?)
                        .map_err(|_| CheckpointFault("holds a text that is not UTF-8"))?;
                    ExportedFile::Side(text.into())
                }
                kind => ExportedFile::Blob(Box::new(load_blob(from, kind, count)?)),
            });
        }
        if files.len() != count as usize {
            return Err(CheckpointFault("does not say of each file which blob it holds"));
        }
        Ok(Self { endpoint, files })
    }
}

fn save_blob(to: &mut Encoder<'_>, blob: &ExportedBlob) {
    to.u8(match blob.kind {
        ExportedKind::Block => 1,
        ExportedKind::Page => 2,
        ExportedKind::Append => 3,
    });
    to.text(&blob.path);
    to.option(blob.snapshot.as_deref(), Encoder::text);
    to.option(blob.taken.as_deref(), Encoder::text);
    to.text(&blob.etag);
    to.text(&blob.last_modified);
    to.option(blob.blocks.as_ref(), |to, blocks| {
        to.u64(blocks.len);
        to.u64(blocks.ids.len() as u64);
        blocks.ids.iter().for_each(|id| to.text(id));
        blocks.ends.iter().for_each(|end| to.u64(*end));
    });
    to.u64(blob.ranges.len() as u64);
    for (offset, len) in &blob.ranges {
        to.u64(*offset);
        to.u64(*len);
    }
    to.option(blob.properties, Encoder::u32);
    to.option(blob.metadata, Encoder::u32);
}

fn load_blob(from: &mut Decoder<'_>, kind: u8, count: u32) -> Result<ExportedBlob, CheckpointFault> {
    let kind = match kind {
        1 => ExportedKind::Block,
        2 => ExportedKind::Page,
        3 => ExportedKind::Append,
        _ => return Err(CheckpointFault("holds an unknown kind of blob")),
    };
    let path = from.text()?;
    let (snapshot, taken) = (from.option(Decoder::text)?, from.option(Decoder::text)?);
    let (etag, last_modified) = (from.text()?, from.text()?);
    let blocks = from.option(|from| {
        let len = from.u64()?;
        let ids = (0..from.count(8)?).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Err(CheckpointFault("holds an empty block list"));
        }
        let ends = (0..if len == 0 { ids.len() } else { 0 }).map(|_| from.u64()).collect::<Result<Vec<_>, _>>()?;
        if !ends.is_sorted_by(|a, b| a < b) || ends.first() == Some(&0) {
            return Err(CheckpointFault("holds a block list out of order"));
        }
        Ok(OwnBlocks { len, ends, ids })
    })?;
    let ranges =
        (0..from.count(16)?).map(|_| Ok((from.u64()?, from.u64()?))).collect::<Result<Vec<_>, CheckpointFault>>()?;
    let mut side = || match from.option(Decoder::u32)? {
        Some(file) if file >= count => Err(CheckpointFault("names a place that it does not have")),
        file => Ok(file),
    };
    let (properties, metadata) = (side()?, side()?);
    Ok(ExportedBlob { path, snapshot, taken, etag, last_modified, kind, blocks, ranges, properties, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(lens: &[u64]) -> Vec<(String, u64)> {
        lens.iter().enumerate().map(|(i, len)| (format!("id{i}"), *len)).collect()
    }

    #[test]
    fn a_block_list_is_followed_whatever_the_lengths_of_its_blocks() {
        let mib = 1 << 20;
        for (lens, len) in [
            (&[4 * mib, 4 * mib, 5][..], Some(4 * mib)),
            (&[100 * mib, 8 * mib], Some(100 * mib)),
            (&[1_000_003], Some(1_000_003)),
            (&[65536, 1], Some(65536)),
            (&[1_000_003, 1_000_003], Some(1_000_003)),
            (&[4 * mib, 5 * mib], Some(0)),
            (&[4 * mib, 2 * mib + 1, 4 * mib], Some(0)),
            (&[], None),
            (&[1, 0], None),
            (&[100 * mib + 1], None),
            (&vec![1; 50_001], None),
        ] {
            let sum = lens.iter().sum();
            let own = OwnBlocks::of(blocks(lens), sum);
            assert_eq!(own.as_ref().map(|own| own.len), len, "{lens:?}");
            assert_eq!(OwnBlocks::of(blocks(lens), sum + 1), None, "not the whole blob: {lens:?}");
            let Some(own) = own else { continue };
            let cut = HashBlocks::own(sum, &own);
            assert_eq!(cut.count(), lens.len() as u64);
            let mut at = 0;
            for (number, len) in lens.iter().enumerate() {
                let range = at..at + len;
                assert_eq!(cut.range(number as u64), range, "{lens:?}");
                for offset in [range.start, range.end - 1] {
                    assert_eq!(cut.around(offset), range, "{lens:?}");
                }
                at = range.end;
            }
            assert_eq!(cut.around(sum), sum..sum);
        }
        assert_eq!(OwnBlocks::of(vec![("a\"b".into(), 1)], 1), None, "no id of the service");
    }

    #[test]
    fn a_part_keeps_what_belongs_together() {
        let blob = |path: &str, properties, metadata| {
            let path = path.to_owned();
            let blob = ExportedBlob { path, properties, metadata, ..ExportedBlob::default() };
            ExportedFile::Blob(Box::new(blob))
        };
        let side = |text: &str| ExportedFile::Side(text.into());
        let files = vec![
            blob("c/a", Some(1), None),
            side("of a"),
            blob("c/b", Some(5), Some(3)),
            side("metadata of b"),
            blob("c/c", None, None),
            side("properties of b"),
        ];
        let whole = Exported { endpoint: "https://a.example/".into(), files };
        let part = whole.part(&[2, 3, 5]);
        let sides: Vec<&ExportedFile> = part.sides(0).map(|side| &part.files[side as usize]).collect();
        assert_eq!((part.files.len(), part.endpoint.as_str()), (3, whole.endpoint.as_str()));
        assert_eq!(part.blob(0).map(|blob| blob.path.as_str()), Some("c/b"));
        assert_eq!(sides, [&side("properties of b"), &side("metadata of b")]);
        assert_eq!(whole.part(&[0, 1, 2, 3, 4, 5]), whole);
    }

    #[test]
    fn round_trip_and_hostile_bytes() {
        let blob = ExportedBlob {
            path: "c/a:b".into(),
            snapshot: Some("2026-11-29T08:00:00.0000000Z".into()),
            taken: None,
            etag: "\"0x1\"".into(),
            last_modified: "Sun, 29 Nov 2026 08:00:00 GMT".into(),
            kind: ExportedKind::Page,
            blocks: OwnBlocks::of(blocks(&[4, 9, 2]), 15),
            ranges: vec![(512, 1024)],
            properties: Some(1),
            metadata: None,
        };
        let files = vec![ExportedFile::Blob(Box::new(blob)), ExportedFile::Side("<Properties/>".into())];
        let before = Exported { endpoint: "https://a.example/".into(), files };
        let mut bytes = Vec::new();
        let mut to = Encoder::new(&mut bytes);
        before.save(&mut to);
        to.end().expect("memory");
        let mut from = Decoder::new(&bytes);
        assert_eq!(Exported::load(&mut from, 2), Ok(before.clone()));
        assert!(from.rest().is_empty());
        assert!(
            Exported::load(&mut Decoder::new(&bytes), 3).is_err()
                && Exported::load(&mut Decoder::new(&bytes), 1).is_err()
        );
        let mut random = dray_base::entropy::Seeded::new(7);
        for _ in 0..3000 {
            let mut changed = bytes.clone();
            let at = (random.next_u64() % changed.len() as u64) as usize;
            changed[at] = random.next_u64() as u8;
            changed.truncate(changed.len() - (random.next_u64() % 4 / 3) as usize * 5);
            let _ = Exported::load(&mut Decoder::new(&changed), 2);
        }
        assert_eq!(before.sides(0).collect::<Vec<_>>(), [1]);
        assert_eq!(before.files[1].text_md5(), hash::md5(b"<Properties/>"));
    }
}
