//! Clusters: the few places that are taken first, and all others as one linear space.

use crate::units::{Clusters, Extent, Lcn};

/// A run of the linear space: `len` clusters from its `start`-th.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinearRange {
    /// First cluster, counted in the linear space.
    pub start: u64,
    /// Clusters of the run.
    pub len: Clusters,
}

impl LinearRange {
    /// First position after the run.
    pub const fn end(self) -> u64 {
        self.start + self.len.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    lcn: u64,
    len: u64,
}

/// Every cluster outside the fixed metafiles, ascending, numbered without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpace {
    segments: Vec<Segment>,
}

impl LinearSpace {
    /// The space between `taken` (sorted, disjoint, below `clusters`).
    pub(crate) fn between(taken: &[Extent], clusters: u64) -> Self {
        let mut segments = Vec::new();
        let (mut start, mut lcn) = (0, 0);
        let ends = taken.iter().map(|extent| (extent.lcn.0, extent.lcn.0 + extent.len.0));
        for (from, to) in ends.chain([(clusters, clusters)]) {
            if from > lcn {
                segments.push(Segment { start, lcn, len: from - lcn });
                start += from - lcn;
            }
            lcn = to;
        }
        Self { segments }
    }

    /// The space of these extents (sorted, disjoint).
    pub(crate) fn of(extents: &[Extent]) -> Self {
        let mut start = 0;
        let segments = extents.iter().map(|extent| {
            let segment = Segment { start, lcn: extent.lcn.0, len: extent.len.0 };
            start += extent.len.0;
            segment
        });
        Self { segments: segments.collect() }
    }

    /// Number of its clusters.
    pub fn len(&self) -> Clusters {
        Clusters(self.segments.last().map_or(0, |segment| segment.start + segment.len))
    }

    /// Whether it has no clusters.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Extents of a range of the space on the volume, in order. The part beyond the space's end is omitted.
    pub fn extents(&self, range: LinearRange) -> Extents<'_> {
        let first = self.segments.partition_point(|segment| segment.start + segment.len <= range.start);
        Extents { segments: &self.segments[first..], at: range.start, end: range.end() }
    }

    /// Clusters from `at` to the next hole; 0 at or past the end.
    pub(crate) fn run_from(&self, at: u64) -> u64 {
        let i = self.segments.partition_point(|segment| segment.start + segment.len <= at);
        self.segments.get(i).map_or(0, |segment| segment.start + segment.len - at)
    }

    /// The part of the space in the clusters `from..to`, ascending: range and first cluster of each piece.
    pub(crate) fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (LinearRange, Lcn)> + '_ {
        let first = self.segments.partition_point(|segment| segment.lcn + segment.len <= from);
        self.segments[first..].iter().take_while(move |segment| segment.lcn < to).map(move |segment| {
            let lcn = segment.lcn.max(from);
            let end = (segment.lcn + segment.len).min(to);
            (LinearRange { start: segment.start + (lcn - segment.lcn), len: Clusters(end - lcn) }, Lcn(lcn))
        })
    }
}

/// Iterator of [`LinearSpace::extents`].
#[derive(Clone, Debug)]
pub struct Extents<'a> {
    segments: &'a [Segment],
    at: u64,
    end: u64,
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.at >= self.end {
            return None;
        }
        let (segment, rest) = self.segments.split_first()?;
        self.segments = rest;
        let skip = self.at - segment.start;
        let len = (segment.len - skip).min(self.end - self.at);
        self.at += len;
        Some(Extent { lcn: Lcn(segment.lcn + skip), len: Clusters(len) })
    }
}

/// Allocates clusters, lowest first; each place in one piece.
#[derive(Debug)]
pub(crate) struct FirstFit {
    taken: Vec<Extent>,
    clusters: u64,
}

impl FirstFit {
    /// `taken` must be sorted and disjoint.
    pub(crate) fn new(taken: Vec<Extent>, clusters: u64) -> Self {
        Self { taken, clusters }
    }

    /// Takes the lowest free run of `len` clusters.
    pub(crate) fn take(&mut self, len: u64) -> Option<Extent> {
        let mut lcn = 0;
        let mut place = self.taken.len();
        for (i, extent) in self.taken.iter().enumerate() {
            if extent.lcn.0 - lcn >= len {
                place = i;
                break;
            }
            lcn = extent.lcn.0 + extent.len.0;
        }
        let found = Extent { lcn: Lcn(lcn), len: Clusters(len) };
        if place == self.taken.len() && self.clusters.saturating_sub(lcn) < len {
            return None;
        }
        self.taken.insert(place, found);
        Some(found)
    }

    pub(crate) fn taken(&self) -> &[Extent] {
        &self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(lcn: u64, len: u64) -> Extent {
        Extent { lcn: Lcn(lcn), len: Clusters(len) }
    }

    #[test]
    fn line_skips_what_is_taken() {
        let space = LinearSpace::between(&[extent(0, 3), extent(5, 1), extent(6, 2)], 12);
        assert_eq!(space.len(), Clusters(6));
        let all: Vec<_> = space.extents(LinearRange { start: 1, len: Clusters(4) }).collect();
        assert_eq!(all, [extent(4, 1), extent(8, 3)]);
        assert_eq!(space.extents(LinearRange { start: 2, len: Clusters(0) }).count(), 0);
        assert_eq!(space.extents(LinearRange { start: 5, len: Clusters(9) }).collect::<Vec<_>>(), [extent(11, 1)]);
        let within: Vec<_> = space.within(4, 10).collect();
        assert_eq!(within[0], (LinearRange { start: 1, len: Clusters(1) }, Lcn(4)));
        assert_eq!(within[1], (LinearRange { start: 2, len: Clusters(2) }, Lcn(8)));
        assert_eq!((space.run_from(1), space.run_from(2), space.run_from(6)), (1, 4, 0));
    }

    #[test]
    fn first_fit_takes_the_lowest_gap_that_holds_it() {
        let mut fit = FirstFit::new(vec![extent(4, 2)], 10);
        assert_eq!(fit.take(5), None);
        assert_eq!(fit.take(4), Some(extent(0, 4)));
        assert_eq!(fit.take(3), Some(extent(6, 3)));
        assert_eq!(fit.take(1), Some(extent(9, 1)));
        assert_eq!(fit.take(1), None);
        assert_eq!(fit.taken(), [extent(0, 4), extent(4, 2), extent(6, 3), extent(9, 1)]);
    }
}
