//! The best rows seen so far, in order.

use crate::column::Row;

/// Keeps the `size` nearest, nearest first; ties by row.
///
/// An entry is one number: the distance, made an integer that sorts alike, then the row, then whether its links were
/// followed. So one comparison of integers sorts, and merging moves single words.
#[derive(Debug, Default)]
pub struct Pool {
    size: usize,
    entries: Vec<u64>,
    /// Entries before it have all been followed.
    next: usize,
}

const FOLLOWED: u64 = 1;

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
    /// Empties it and lets it keep `size`.
    pub fn reset(&mut self, size: usize) {
        self.size = size;
        self.entries.clear();
        self.next = 0;
    }

    /// What an entry must be below to be let in.
    #[inline(always)]
    pub fn limit(&self) -> u64 {
        if self.entries.len() < self.size { u64::MAX } else { self.entries[self.size - 1] }
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

    /// Leaves only entries below a limit.
    pub fn cut(&mut self, limit: u64) {
        self.entries.truncate(self.entries.partition_point(|&entry| entry < limit));
        self.next = self.next.min(self.entries.len());
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

    proptest! {
        #[test]
        fn it_keeps_the_nearest_and_follows_them_in_order(
            batches in prop::collection::vec(prop::collection::vec(0..50u8, 0..20), 0..12),
            size in 1..30usize,
            n in 1..4usize,
        ) {
            let mut pool = Pool::default();
            pool.reset(size);
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
