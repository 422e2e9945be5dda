//! Reads back the files that a session added to a volume, and the manifest that lists them.

use crate::hash::hex_upper;
use crate::report::{Kind, Problem};
use crate::units::ByteLen;
use crate::verify::judge::{self, Context};
use crate::verify::listing::{self, Listing, Subject};
use crate::verify::row::Verdict;
use crate::verify::work::PieceToRead;
use crate::volume::files::Files;
use crate::volume::find::Opened;

/// The written files, and the selection of blocks to read.
#[allow(missing_debug_implementations, reason = "holds a callback")]
pub struct Added<'a> {
    /// Path of the manifest, with a leading `\`.
    pub manifest: &'a str,
    /// MD5 of the manifest.
    pub manifest_md5: [u8; 16],
    /// Directory of the session's files, with a leading `\`; `None` for files that existed before.
    pub below: Option<&'a str>,
    /// Selects the blocks to read, by their index in disk order, given their number.
    pub choose: &'a mut dyn FnMut(usize) -> Vec<usize>,
}

/// Reads the selection back and returns the bytes read; `request` of the context is ignored.
///
/// # Errors
/// [`Kind::Different`] for contents that differ from the written ones; errors of the drive.
pub fn run(opened: &Opened, context: &Context<'_>, added: Added<'_>) -> Result<ByteLen, Problem> {
    let name = &opened.found.drive.name;
    let different = |what: String| Problem::new(Kind::Different, what).drive(name);
    let files = Files::read(opened)?;
    let place = listing::find(&files, Some(added.manifest), None);
    let (place, _) = place.map_err(|_| different("the manifest is missing".into()))?;
    let mut listing = Listing::read(&files, place, &[], false, &mut |_| {})?;
    if listing.facts.md5 != hex_upper(&added.manifest_md5) {
        return Err(different("the manifest that was read back is another than the one that was written".into()));
    }
    let Some(below) = added.below else { return Ok(ByteLen(0)) };
    let is_added: Vec<bool> = (0..listing.subjects.len())
        .map(|blob| listing.file_path(&files, blob).strip_prefix(below).is_some_and(|rest| rest.starts_with('\\')))
        .collect();
    let mut work = listing.work(&files, &|blob, _| is_added[blob as usize]);
    let chosen = (added.choose)(work.road.len());
    work.road = chosen.into_iter().filter_map(|i| work.road.get(i).copied()).collect();
    let len = |item: &PieceToRead| u64::from(listing.pieces[item.piece as usize].len);
    work.bytes = [&work.road, &work.resident, &work.singly].into_iter().flatten().map(len).sum();
    let (listing, bench, outcome) = judge::read(opened, &files, context, listing, work, None);
    outcome?;
    let bad = |subject: &Subject| {
        let pieces = subject.pieces_at..subject.pieces_at + subject.pieces_len;
        let wrong = |verdict| matches!(verdict, Verdict::Different | Verdict::Unreadable | Verdict::Missing);
        match subject.verdict {
            verdict if wrong(verdict) => Some(verdict.word().to_owned()),
            _ => pieces.into_iter().find(|piece| wrong(listing.pieces[*piece as usize].verdict)).map(|piece| {
                let word = listing.pieces[piece as usize].verdict.word();
                bench.details.get(&piece).cloned().unwrap_or_else(|| word.to_owned())
            }),
        }
    };
    let blobs = listing.subjects.iter().enumerate().filter(|(blob, _)| is_added[*blob]);
    match blobs.filter_map(|(blob, subject)| Some((blob, bad(subject)?))).next() {
        Some((blob, why)) => {
            let path = listing.file_path(&files, blob);
            Err(different(format!("a file that was read back is not the one that was written: {why}")).value(path))
        }
        None => Ok(ByteLen(bench.done)),
    }
}
