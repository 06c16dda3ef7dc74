//! The best rows seen so far, in order.

use crate::column::Row;

/// Keeps the `size` nearest, nearest first, or only those within its reach; ties by row.
///
/// An entry is one number: the distance, made an integer that sorts alike, then the row, then whether its links were
/// followed. So one comparison of integers sorts, and merging moves single words.
#[derive(Debug, Default)]
pub struct Pool {
    size: usize,
    reach: Option<Reach>,
    entries: Vec<u64>,
    /// Entries before it have all been followed.
    next: usize,
}

const FOLLOWED: u64 = 1;

/// How far what is kept may be, by what is found (Al-Jazzazi and others 2025): a query whose nearest rows stand out is done
/// soon, and one in the midst of many goes on.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// So many are kept however far they are; others are measured by the last of these.
    pub anchor: usize,
    /// Others are kept that are up to so many times as far, in squared distances.
    pub ratio: f32,
    /// `‖q‖²`: a distance `d` of an entry stands for a squared one of `2 d + ‖q‖²`.
    pub squared: f32,
}

impl Reach {
    /// What entries must be below, of an anchor like this one.
    #[inline(always)]
    fn limit(&self, anchor: u64) -> u64 {
        let squared = (2.0 * distance(anchor) + self.squared).max(0.0);
        // Rounding must not leave out the anchor.
        anchor.max(entry((self.ratio * squared - self.squared) / 2.0, 0))
    }
}

/// An entry of a row that was not followed yet.
#[inline(always)]
pub fn entry(distance: f32, row: Row) -> u64 {
    let bits = distance.to_bits();
    let ordered = bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000);
    u64::from(ordered) << 32 | u64::from(row) << 1
}

/// The row of an entry.
#[inline(always)]
pub fn row(entry: u64) -> Row {
    entry as u32 >> 1
}

/// The distance of an entry.
#[inline(always)]
pub fn distance(entry: u64) -> f32 {
    let ordered = (entry >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered ^ 0x8000_0000 } else { !ordered })
}

impl Pool {
    /// Empties it and lets it keep `size`, within a reach if there is one.
    pub fn reset(&mut self, size: usize, reach: Option<Reach>) {
        (self.size, self.reach) = (size, reach);
        self.entries.clear();
        self.next = 0;
    }

    /// What an entry must be below to be let in.
    #[inline(always)]
    pub fn limit(&self) -> u64 {
        let n = self.entries.len();
        let limit = if n < self.size { u64::MAX } else { self.entries[self.size - 1] };
        match &self.reach {
            Some(reach) if n >= reach.anchor => limit.min(reach.limit(self.entries[reach.anchor - 1])),
            _ => limit,
        }
    }

    /// Lets in entries that are not there yet, all below the limit where it is full; they are in any order, and left in order.
    pub fn merge(&mut self, fresh: &mut [u64]) {
        fresh.sort_unstable();
        let (mut at, mut left) = (self.entries.len(), fresh.len());
        self.entries.resize(at + left, 0);
        while left > 0 {
            let to = at + left - 1;
            if at > 0 && self.entries[at - 1] > fresh[left - 1] {
                self.entries[to] = self.entries[at - 1];
                at -= 1;
            } else {
                self.entries[to] = fresh[left - 1];
                left -= 1;
            }
        }
        self.entries.truncate(self.size);
        if let Some(reach) = &self.reach
            && self.entries.len() > reach.anchor
        {
            let limit = reach.limit(self.entries[reach.anchor - 1]);
            let n = self.entries.partition_point(|&entry| entry < limit);
            self.entries.truncate(n.max(reach.anchor));
            at = at.min(self.entries.len());
        }
        debug_assert!(self.entries.is_sorted());
        // `at` counts the entries before the first of them.
        self.next = self.next.min(at);
    }

    /// Marks the nearest rows that were not followed yet, `n` at most, and appends them to `rows`.
    pub fn follow(&mut self, n: usize, rows: &mut Vec<Row>) {
        let mut left = n;
        let mut at = self.next;
        while at < self.entries.len() && left > 0 {
            if self.entries[at] & FOLLOWED == 0 {
                self.entries[at] |= FOLLOWED;
                rows.push(row(self.entries[at]));
                left -= 1;
            }
            at += 1;
        }
        self.next = at;
    }

    /// All entries, nearest first.
    pub fn entries(&self) -> &[u64] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_sort_as_distances_do() {
        let distances = [f32::NEG_INFINITY, -1e30, -2.5, -0.0, 0.0, 1e-40, 3.0, 7e20, f32::INFINITY];
        for pair in distances.windows(2) {
            assert!(entry(pair[0], 9) < entry(pair[1], 0), "{pair:?}");
        }
        for d in distances {
            assert_eq!(distance(entry(d, 77) | FOLLOWED).to_bits(), d.to_bits());
            assert_eq!(row(entry(d, 0x7fff_ffff) | FOLLOWED), 0x7fff_ffff);
        }
    }

    /// Within reach are the first few, and what is up to some times as far as the last of them.
    #[test]
    fn what_is_out_of_reach_is_left_out() {
        let mut pool = Pool::default();
        // Squared distances of 1, 4, 9 and so on, from a query of length 2.
        let fresh = |range: std::ops::Range<u16>| -> Vec<u64> {
            range.map(|i| entry((f32::from(i).powi(2) - 4.0) / 2.0, i.into())).collect()
        };
        let found = |pool: &Pool| -> Vec<Row> { pool.entries().iter().map(|&entry| row(entry)).collect() };
        for (anchor, ratio, expected) in [(3, 2.0, 1..5), (3, 1.0, 1..4), (1, 1.0, 1..2), (5, 1e9, 1..9)] {
            pool.reset(8, Some(Reach { anchor, ratio, squared: 4.0 }));
            pool.merge(&mut fresh(4..6));
            pool.merge(&mut fresh(1..4));
            let limit = pool.limit();
            pool.merge(&mut fresh(6..20).into_iter().filter(|&entry| entry < limit).collect::<Vec<_>>());
            assert_eq!(found(&pool), expected.collect::<Vec<_>>(), "{anchor} {ratio}");
        }
    }

    proptest! {
        #[test]
        fn it_keeps_the_nearest_and_follows_them_in_order(
            batches in prop::collection::vec(prop::collection::vec(0..50u8, 0..20), 0..12),
            size in 1..30usize,
            n in 1..4usize,
        ) {
            let mut pool = Pool::default();
            pool.reset(size, None);
            let mut all: Vec<(u8, Row)> = Vec::new();
            let mut followed: Vec<Row> = Vec::new();
            for batch in batches {
                let limit = pool.limit();
                let mut fresh = Vec::new();
                for d in batch {
                    let row = all.len() as Row;
                    all.push((d, row));
                    let entry = entry(d.into(), row);
                    if entry < limit {
                        fresh.push(entry);
                    }
                }
                pool.merge(&mut fresh);
                let mut expected = all.clone();
                expected.sort_unstable();
                expected.truncate(size);
                let kept: Vec<Row> = pool.entries().iter().map(|&entry| row(entry)).collect();
                prop_assert_eq!(&kept, &expected.iter().map(|pair| pair.1).collect::<Vec<_>>());
                let next: Vec<Row> =
                    kept.iter().copied().filter(|row| !followed.contains(row)).take(n).collect();
                let mut rows = Vec::new();
                pool.follow(n, &mut rows);
                prop_assert_eq!(&rows, &next);
                followed.extend(rows);
            }
        }
    }
}
