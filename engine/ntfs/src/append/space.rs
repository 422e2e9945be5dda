//! Allocation of free clusters.

use crate::build::LinearSpace;
use crate::read::{NtfsError, ReadAt, Stream, Volume};
use crate::units::{Clusters, Extent, Lcn, VolumeRange};

/// Bytes of `$Bitmap` examined at once.
pub(super) const BITMAP_CHUNK: usize = 1 << 20;

/// Free clusters in runs, ascending; none of them in `avoid`.
pub(super) fn free_extents<R: ReadAt>(
    volume: &Volume,
    reader: &mut R,
    bitmap: &Stream,
    avoid: &[VolumeRange],
) -> Result<Vec<Extent>, NtfsError> {
    let cluster = volume.geometry().cluster.bytes();
    let clusters = volume.geometry().clusters;
    let mut avoid: Vec<(u64, u64)> =
        avoid.iter().map(|range| (range.start.0 / cluster, range.end().0.div_ceil(cluster))).collect();
    avoid.sort_unstable();
    let mut free = Vec::new();
    let mut avoided = avoid.into_iter().peekable();
    let mut push = |from: u64, to: u64| {
        let mut from = from;
        while from < to {
            while avoided.next_if(|&(_, end)| end <= from).is_some() {}
            let (start, end) = avoided.peek().copied().unwrap_or((u64::MAX, u64::MAX));
            if start > from {
                let until = start.min(to);
                free.push(Extent { lcn: Lcn(from), len: Clusters(until - from) });
                from = until;
            } else {
                from = end;
            }
        }
    };
    let mut chunk = vec![0; BITMAP_CHUNK];
    let mut open: Option<u64> = None;
    let mut at = 0;
    while at * 8 < clusters {
        let got = volume.read_range(reader, bitmap, at, &mut chunk)?;
        // Clusters past the end of `$Bitmap` count as used.
        chunk[got..].fill(0xFF);
        for (i, byte) in chunk.iter().enumerate() {
            let first = (at + i as u64) * 8;
            if first >= clusters {
                break;
            }
            match (byte, open) {
                (0xFF, None) => continue,
                (0, Some(_)) => continue,
                _ => {}
            }
            for bit in 0..8.min(clusters - first) {
                match (byte >> bit & 1 == 1, open) {
                    (true, Some(from)) => {
                        push(from, first + bit);
                        open = None;
                    }
                    (false, None) => open = Some(first + bit),
                    _ => {}
                }
            }
        }
        at += BITMAP_CHUNK as u64;
    }
    if let Some(from) = open {
        push(from, clusters);
    }
    Ok(free)
}

/// Takes `need` clusters from `free`: the smallest run that holds them all, or as few runs as possible, the largest
/// first. Ascending; `None` if there are not enough.
pub(super) fn take(free: &mut Vec<Extent>, need: u64) -> Option<LinearSpace> {
    if need == 0 {
        return Some(LinearSpace::of(&[]));
    }
    let fitting = free.iter().enumerate().filter(|(_, extent)| extent.len.0 >= need);
    let mut taken = Vec::new();
    if let Some((i, _)) = fitting.min_by_key(|(_, extent)| extent.len) {
        taken.push(i);
    } else {
        let mut by_len: Vec<usize> = (0..free.len()).collect();
        by_len.sort_by_key(|&i| std::cmp::Reverse(free[i].len));
        let mut sum = 0;
        for i in by_len {
            if sum >= need {
                break;
            }
            sum += free[i].len.0;
            taken.push(i);
        }
        if sum < need {
            return None;
        }
        taken.sort_unstable();
    }
    let mut rest = need;
    let mut extents = Vec::with_capacity(taken.len());
    for &i in &taken {
        let extent = &mut free[i];
        let len = extent.len.0.min(rest);
        extents.push(Extent { lcn: extent.lcn, len: Clusters(len) });
        *extent = Extent { lcn: Lcn(extent.lcn.0 + len), len: Clusters(extent.len.0 - len) };
        rest -= len;
    }
    free.retain(|extent| extent.len.0 > 0);
    Some(LinearSpace::of(&extents))
}

/// Takes these runs from `free`; `None` unless they are free and as long as the files that they are for, one each:
/// `starts` has the start of each, and the end.
pub(super) fn given(free: &mut Vec<Extent>, places: &[Extent], starts: &[u64]) -> Option<LinearSpace> {
    if places.len() + 1 != starts.len() {
        return None;
    }
    for (place, file) in places.iter().zip(starts.windows(2)) {
        let end = place.lcn.0 + place.len.0;
        let i = free.iter().position(|run| run.lcn <= place.lcn && end <= run.lcn.0 + run.len.0)?;
        if file[1] - file[0] != place.len.0 {
            return None;
        }
        let run = free[i];
        let before = Extent { lcn: run.lcn, len: Clusters(place.lcn.0 - run.lcn.0) };
        let behind = Extent { lcn: Lcn(end), len: Clusters(run.lcn.0 + run.len.0 - end) };
        free.splice(i..=i, [before, behind].into_iter().filter(|run| run.len.0 > 0));
    }
    Some(LinearSpace::of(places))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(lcn: u64, len: u64) -> Extent {
        Extent { lcn: Lcn(lcn), len: Clusters(len) }
    }

    #[test]
    fn the_smallest_run_that_fits_is_taken_or_the_fewest() {
        let all = vec![extent(0, 3), extent(10, 8), extent(20, 5), extent(30, 1)];
        let pieces = |space: &LinearSpace| {
            let whole = crate::build::LinearRange { start: 0, len: space.len() };
            space.extents(whole).collect::<Vec<_>>()
        };
        let mut free = all.clone();
        assert_eq!(pieces(&take(&mut free, 4).unwrap()), [extent(20, 4)]);
        assert_eq!(free, [extent(0, 3), extent(10, 8), extent(24, 1), extent(30, 1)]);
        let mut free = all.clone();
        assert_eq!(pieces(&take(&mut free, 12).unwrap()), [extent(10, 8), extent(20, 4)]);
        assert_eq!(free, [extent(0, 3), extent(24, 1), extent(30, 1)]);
        assert!(take(&mut all.clone(), 18).is_none());
        let mut free = all.clone();
        let places = [extent(10, 2), extent(14, 4), extent(30, 1)];
        assert_eq!(pieces(&given(&mut free, &places, &[0, 2, 6, 7]).unwrap()), places);
        assert_eq!(free, [extent(0, 3), extent(12, 2), extent(20, 5)]);
        assert!(given(&mut all.clone(), &[extent(17, 2)], &[0, 2]).is_none(), "one of them is taken");
        assert!(given(&mut all.clone(), &[extent(10, 2)], &[0, 1]).is_none(), "too long");
        assert!(take(&mut all.clone(), 17).is_some());
    }
}
