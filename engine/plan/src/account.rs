//! Files of an export: what a storage account said of each blob when the export was planned.
//!
//! They are kept with the catalog, one for each of its files, so that a resumed session reads the same versions of the
//! same blobs, and describes them alike in the manifest.

use crate::azure::names;
use crate::checkpoint::Fault;
use crate::checkpoint::code::{Decoder, Encoder};
use crate::hash;
use crate::units::ByteLen;

/// Blocks shorter than this are not written into the manifest one by one: the hash blocks of a drive are whole clusters.
const OWN_BLOCK_UNIT: u64 = 64 << 10;

/// Longest block of the published manifest grammar (docs/spec/import-export.md#manifest-grammar), and of the blobs that are
/// beyond it, of more than 195 GiB (docs/spec/import-export.md#names-and-sizes).
const OWN_BLOCK_MAX: u64 = 4 << 20;
const OWN_BLOCK_LARGE_MAX: u64 = 100 << 20;

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

/// The blob's own block list, where the manifest can follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnBlocks {
    /// Length of every block but the last, in bytes.
    pub len: u64,
    /// Ids in base64, as the service keeps them.
    pub ids: Vec<String>,
}

impl OwnBlocks {
    /// The block list of a blob of `length` bytes: `None` where its blocks are of various lengths, longer than the manifest
    /// may list, or cannot be hashed one by one because they are not whole clusters. The manifest then lists blocks of its
    /// own.
    pub fn of(blocks: Vec<(String, u64)>, length: u64) -> Option<Self> {
        let (_, len) = *blocks.first()?;
        let (last, others) = blocks.split_last()?;
        let is_alone = others.is_empty();
        let is_large = names::blocks_of(ByteLen(length)).is_ok_and(|blocks| blocks.len > OWN_BLOCK_MAX);
        let len_max = if is_large { OWN_BLOCK_LARGE_MAX } else { OWN_BLOCK_MAX };
        let is_whole = (is_alone || len.is_multiple_of(OWN_BLOCK_UNIT)) && len <= len_max;
        let is_even = others.iter().all(|(_, other)| *other == len) && (1..=len).contains(&last.1);
        let is_plain = |id: &String| id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        let is_even = is_even && blocks.iter().all(|(id, _)| is_plain(id));
        let sum = blocks.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
        if len == 0 || !is_whole || !is_even || sum != Some(length) {
            return None;
        }
        Some(Self { len, ids: blocks.into_iter().map(|(id, _)| id).collect() })
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

    /// Length of the blocks that a file of `length` bytes is hashed in.
    pub fn block_len(&self, file: u32) -> Option<u64> {
        self.blob(file)?.blocks.as_ref().map(|blocks| blocks.len)
    }

    /// Properties and metadata files that belong to a blob.
    pub fn sides(&self, file: u32) -> impl Iterator<Item = u32> + use<> {
        let blob = self.blob(file);
        let (properties, metadata) = (blob.and_then(|blob| blob.properties), blob.and_then(|blob| blob.metadata));
        properties.into_iter().chain(metadata)
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
    pub fn load(from: &mut Decoder<'_>, count: u32) -> Result<Self, Fault> {
        let endpoint = from.text()?;
        let mut files = Vec::new();
        for _ in 0..from.count(9)? {
            files.push(match from.u8()? {
                0 => {
                    let text =
                        std::str::from_utf8(from.list()?).map_err(|_| Fault("holds a text that is not UTF-8"))?;
                    ExportedFile::Side(text.into())
                }
                kind => ExportedFile::Blob(Box::new(load_blob(from, kind, count)?)),
            });
        }
        if files.len() != count as usize {
            return Err(Fault("does not say of each file which blob it holds"));
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
    });
    to.u64(blob.ranges.len() as u64);
    for (offset, len) in &blob.ranges {
        to.u64(*offset);
        to.u64(*len);
    }
    to.option(blob.properties, Encoder::u32);
    to.option(blob.metadata, Encoder::u32);
}

fn load_blob(from: &mut Decoder<'_>, kind: u8, count: u32) -> Result<ExportedBlob, Fault> {
    let kind = match kind {
        1 => ExportedKind::Block,
        2 => ExportedKind::Page,
        3 => ExportedKind::Append,
        _ => return Err(Fault("holds an unknown kind of blob")),
    };
    let path = from.text()?;
    let (snapshot, taken) = (from.option(Decoder::text)?, from.option(Decoder::text)?);
    let (etag, last_modified) = (from.text()?, from.text()?);
    let blocks = from.option(|from| {
        let len = from.u64()?;
        let ids = (0..from.count(8)?).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        if len == 0 || ids.is_empty() {
            return Err(Fault("holds an empty block list"));
        }
        Ok(OwnBlocks { len, ids })
    })?;
    let ranges = (0..from.count(16)?).map(|_| Ok((from.u64()?, from.u64()?))).collect::<Result<Vec<_>, Fault>>()?;
    let mut side = || match from.option(Decoder::u32)? {
        Some(file) if file >= count => Err(Fault("names a place that it does not have")),
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
    fn a_block_list_is_followed_where_its_blocks_are_whole_clusters() {
        let mib = 1 << 20;
        for (lens, len) in [
            (&[4 * mib, 4 * mib, 5][..], Some(4 * mib)),
            (&[8 * mib, 8 * mib], None),
            (&[5 * mib], None),
            (&[1_000_003], Some(1_000_003)),
            (&[65536, 1], Some(65536)),
            (&[1_000_003, 1_000_003], None),
            (&[4 * mib, 5 * mib], None),
            (&[4 * mib, 2 * mib, 4 * mib], None),
            (&[], None),
        ] {
            let sum = lens.iter().sum();
            assert_eq!(OwnBlocks::of(blocks(lens), sum).map(|own| own.len), len, "{lens:?}");
            assert_eq!(OwnBlocks::of(blocks(lens), sum + 1), None, "not the whole blob: {lens:?}");
        }
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
            blocks: Some(OwnBlocks { len: 4, ids: vec!["AAAAAA==".into()] }),
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
