//! Records and directories must agree on a file's name: a file exists only where both do.

use super::*;
use crate::read::ErrorKind;

const VICTIM: &str = "directory/file number 0042.txt";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Offset of the valid entry of a name in an index block without fixups; data after the last entry is left over.
fn entry_of(block: &[u8], name: &str) -> Option<usize> {
    let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, end) = (0x18 + word(0x18), 0x18 + word(0x1C));
    let name = utf16(name);
    while at + 0x52 < end {
        if block[at + 0x52..].starts_with(&name) && usize::from(block[at + 0x50]) * 2 == name.len() {
            return Some(at);
        }
        at += usize::from(u16::from_le_bytes([block[at + 8], block[at + 9]]));
    }
    None
}

/// Offset of the index block with a name of `directory`.
fn block_of(bytes: &[u8], directory: &str, name: &str) -> usize {
    let volume = open(bytes).unwrap();
    let file = volume.open_file(&mut &bytes[..], record_of(bytes, directory)).unwrap();
    let stream = file.streams.iter().find(|stream| stream.attribute() == types::INDEX_ALLOCATION).unwrap();
    for at in (0..stream.size()).step_by(4096) {
        let mut block = vec![0; 4096];
        volume.read_range(&mut &bytes[..], stream, at, &mut block).unwrap();
        if raw::undo_fixups(&mut block, *b"INDX", 0x28).is_err() || entry_of(&block, name).is_none() {
            continue;
        }
        let runs = volume.extents(stream).unwrap();
        let run = runs.iter().find(|run| (run.offset..run.offset + run.len).contains(&at)).unwrap();
        let RunPlace::Lcn(lcn) = run.place else { panic!("not in clusters") };
        return (volume.geometry().cluster.offset_of(lcn).0 + at - run.offset) as usize;
    }
    panic!("no block holds the name");
}

fn edit_entry(bytes: &mut [u8], edit: impl Fn(&mut [u8], usize)) {
    let block = block_of(bytes, "directory", "file number 0042.txt");
    edit_protected(&mut bytes[block..block + 4096], *b"INDX", |block| {
        let at = entry_of(block, "file number 0042.txt").unwrap();
        edit(block, at);
    });
}

#[test]
fn a_file_is_where_its_record_and_its_directory_agree() {
    let Some(sound) = small_volume("witnesses") else { return };
    let deeper = record_of(&sound, "deep/er/and");
    let victim = record_of(&sound, VICTIM);
    type Damage<'a> = (&'a str, &'a str, Box<dyn Fn(&mut Vec<u8>) + 'a>);
    let cases: Vec<Damage<'_>> = vec![
        (
            "no directory lists it",
            VICTIM,
            Box::new(|b| {
                edit_entry(b, |block, at| {
                    let len = usize::from(u16::from_le_bytes([block[at + 8], block[at + 9]]));
                    let used = u32::from_le_bytes(block[0x1C..0x20].try_into().unwrap()) as usize;
                    block.copy_within(at + len..0x18 + used, at);
                    block[0x1C..0x20].copy_from_slice(&((used - len) as u32).to_le_bytes());
                });
            }),
        ),
        (
            "no such name in this directory",
            VICTIM,
            Box::new(|b| edit_entry(b, |block, at| block[at + 0x52 + 38] = b's')),
        ),
        ("another file by now", VICTIM, Box::new(|b| edit_entry(b, |block, at| block[at + 6] += 1))),
        ("not in use", VICTIM, Box::new(|b| edit_record(b, victim, |record| record[0x16] &= !1))),
        (
            "no such name in this directory",
            VICTIM,
            Box::new(|b| {
                edit_record(b, victim, |record| {
                    let at = attribute_at(record, types::FILE_NAME) + 0x18;
                    record[at + 0x42 + 38] = b's';
                });
            }),
        ),
        // A name that is not where a search looks for it.
        ("out of order", VICTIM, Box::new(|b| edit_entry(b, |block, at| block[at + 0x52] = b'a'))),
        // Everything below shares the fate of a directory that is not listed.
        (
            "no directory lists it",
            "deep/er/and/deeper/leaf.txt",
            Box::new(|b| {
                edit_record(b, deeper, |record| {
                    let name = utf16("deeper");
                    let at = record.windows(name.len()).position(|window| window == name).unwrap();
                    record[at - 0x52 + 6] += 1;
                });
            }),
        ),
    ];
    for (number, (wanted, path, damage)) in cases.iter().enumerate() {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        assert!(bytes != sound, "case {number} changed nothing");
        let volume = open(&bytes).unwrap();
        let catalog = volume.catalog(&mut &bytes[..]).unwrap();
        let texts: Vec<String> = catalog.problems().iter().map(ToString::to_string).collect();
        assert_eq!(catalog.lookup(&volume, path), None, "case {number}");
        assert!(texts.iter().any(|text| text.contains(wanted)), "case {number}: no {wanted:?} in {texts:#?}");
        for id in catalog.files() {
            let paths = catalog.names(id).filter_map(|name| catalog.path(name)).map(|path| display_name(&path));
            assert!(!paths.into_iter().any(|found| found.replace('\\', "/") == format!("/{path}")), "case {number}");
        }
        for other in ["directory/file number 0041.txt", "DIRECTORY/file number 0043.TXT", "plain.bin"] {
            assert!(catalog.lookup(&volume, other).is_some(), "case {number}: {other}");
        }
        assert!(!volume.check(&mut &bytes[..]).is_sound(), "case {number}");
    }
}

#[test]
fn a_bad_sector_in_an_index_costs_the_names_of_its_block() {
    let Some(bytes) = small_volume("index-sector") else { return };
    let volume = open(&bytes).unwrap();
    let block = block_of(&bytes, "directory", "file number 0042.txt");
    let mut reader = BadSector { bytes: &bytes, bad: block as u64 + 1024 };
    let catalog = volume.catalog(&mut reader).unwrap();
    assert!(catalog.problems().iter().any(|problem| matches!(problem.kind, ErrorKind::Read(_))));
    assert_eq!(catalog.lookup(&volume, VICTIM), None);
    let others = (0..150).filter(|i| catalog.lookup(&volume, &format!("directory/file number {i:04}.txt")).is_some());
    assert!(others.count() > 50, "other blocks are read");
}
