//! The parsers below [`Volume`](super::Volume) one by one, for fuzzing.

use super::index::Node;
use super::lznt1;
use super::raw::{self, Body, Record, types};

/// A record as stored: fixups, header, every attribute, its file names and runs.
pub fn record(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if raw::undo_fixups(&mut bytes, *b"FILE", 0x2A).is_err() {
        return;
    }
    let Ok(record) = Record::new(&bytes) else { return };
    for attribute in record.attributes() {
        let Ok(attribute) = attribute else { return };
        match attribute.body {
            Body::Resident { value, .. } if attribute.ty == types::FILE_NAME => drop(raw::file_name(value)),
            Body::Resident { .. } => {}
            Body::NonResident(body) => {
                let _ = raw::decode_runs(body.pairs, body.lowest, body.highest, 1 << 20, &mut Vec::new());
            }
        }
    }
}

/// An index block as stored, or an index root's value.
pub fn index(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let is_block = raw::undo_fixups(&mut bytes, *b"INDX", 0x28).is_ok();
    let node = Node::of(bytes, is_block);
    for entry in node.entries().unwrap_or_default() {
        if !entry.is_end() {
            let _ = raw::file_name(node.key(&entry));
        }
        let _ = node.entry_bytes(&entry);
    }
}

/// Decodes the mapping pairs of a stream from VCN `lowest` to `highest` on a volume of `clusters` clusters.
pub fn runs(pairs: &[u8], lowest: u64, highest: i64, clusters: u64) {
    let _ = raw::decode_runs(pairs, lowest, highest, clusters, &mut Vec::new());
}

/// A compression unit.
pub fn lznt1(input: &[u8], output: &mut [u8]) {
    let _ = lznt1::decompress(input, output);
}
