//! The search: the best rows seen so far, and what they are linked to.
//!
//! As HNSW (Malkov and Yashunin 2016) and Vamana do on one level, but never waiting for what was just asked for: in a round
//! links are taken that were asked for in the round before, the codes that they lead to are asked for, then the links of the
//! best rows known, and then the codes are compared that the round before asked for. What is followed is chosen two rounds
//! late, which costs some distances more, and saves two waits for memory a round.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use nearest_kernels::{Kernels, prefetch};

use super::codes::{Buffers, Chunks, Codes, Query, Reader};
use super::pool::{self, Pool, Reach};
use super::visited::Visited;
use crate::column::Row;
use crate::live::is_in;

/// What a walk reads.
#[derive(Debug)]
pub struct Walker<'a> {
    reader: Reader<'a>,
    links: Chunks<'a, Row>,
    n_rows: usize,
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The best rows.
    pub pool: Pool,
    /// The best rows to walk along, where not all of them may be found.
    ways: BinaryHeap<Reverse<u64>>,
    found: Vec<u64>,
    rounds: Rounds,
}

#[derive(Debug, Default)]
struct Rounds {
    visited: Visited,
    seen: Vec<Row>,
    fresh: Vec<u64>,
    following: Vec<Row>,
    next: Vec<Row>,
}

/// What a walk did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// Rounds.
    pub n_rounds: usize,
    /// Rows followed.
    pub n_followed: usize,
    /// Distances, but for those to where it started.
    pub n_distances: usize,
}

/// Rows that may be found.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    /// Bits by chunk of rows.
    pub words: &'a [&'a [u64]],
    /// When it is given up.
    pub limits: Limits,
}

/// How many distances a walk may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub most: usize,
    /// Until it found as many rows as it has to, and, asked again each time that these are doubled, is likely to end in time.
    pub patience: usize,
    /// How many these are.
    pub least: usize,
}

/// Takes what was compared, and says what is followed.
trait Take {
    /// What an entry must be below to be taken.
    fn limit(&self) -> u64;
    /// Takes entries, in any order.
    fn take(&mut self, fresh: &mut [u64]);
    /// Appends the nearest rows that were not followed yet, `n` at most.
    fn follow(&mut self, n: usize, rows: &mut Vec<Row>);
    /// Whether what was done, or is still to be done by what is known, is too much.
    fn gives_up(&mut self, n_distances: usize, n_followed: usize) -> bool;
}

/// Every row may be found.
impl Take for &mut Pool {
    fn limit(&self) -> u64 {
        Pool::limit(self)
    }

    fn take(&mut self, fresh: &mut [u64]) {
        self.merge(fresh);
    }

    fn follow(&mut self, n: usize, rows: &mut Vec<Row>) {
        Pool::follow(self, n, rows);
    }

    fn gives_up(&mut self, _: usize, _: usize) -> bool {
        false
    }
}

/// Some rows may be found, and all lead on.
struct Among<'a> {
    pool: &'a mut Pool,
    /// Entries of rows that were not followed yet.
    ways: &'a mut BinaryHeap<Reverse<u64>>,
    found: &'a mut Vec<u64>,
    admitted: &'a Admitted<'a>,
    /// After so many distances it is asked whether it is worth going on.
    patience: usize,
}

impl Take for Among<'_> {
    fn limit(&self) -> u64 {
        self.pool.limit()
    }

    fn take(&mut self, fresh: &mut [u64]) {
        self.found.clear();
        self.found.extend(fresh.iter().filter(|&&entry| is_in(self.admitted.words, pool::row(entry))));
        self.pool.merge(self.found);
        self.ways.extend(fresh.iter().map(|&entry| Reverse(entry)));
    }

    fn follow(&mut self, n: usize, rows: &mut Vec<Row>) {
        let limit = self.pool.limit();
        for _ in 0..n {
            match self.ways.pop() {
                Some(Reverse(entry)) if entry < limit => rows.push(pool::row(entry)),
                // All others are as far, and what is kept will not be farther.
                _ => return self.ways.clear(),
            }
        }
    }

    fn gives_up(&mut self, n_distances: usize, n_followed: usize) -> bool {
        let Limits { most, least, .. } = self.admitted.limits;
        if n_distances <= self.patience.min(most) {
            return false;
        }
        if n_distances > most || self.pool.entries().len() < least {
            return true;
        }
        self.patience = 2 * n_distances;
        // What is nearer than what was found will be followed, and each leads to half as many others as so far.
        let limit = self.pool.limit();
        let n_ahead = self.ways.iter().filter(|Reverse(entry)| *entry < limit).count();
        n_distances + n_ahead * n_distances / (2 * n_followed).max(1) > most
    }
}

impl<'a> Walker<'a> {
    /// Walks along `links` of rows below `n_rows`.
    pub fn new(kernels: &'static Kernels, codes: &'a Codes, links: Chunks<'a, Row>, n_rows: usize) -> Self {
        Self { reader: Reader::new(kernels, codes), links, n_rows }
    }

    /// What it reads of the codes.
    pub fn reader(&self) -> &Reader<'a> {
        &self.reader
    }

    /// Leaves the nearest rows that it came to from `starts`, entries of the pool, in the scratch's pool: `ef` at most, and within
    /// its reach if there is one. `beam_width` rows are followed in a round.
    pub fn walk(
        &self,
        query: &Query,
        starts: &mut [u64],
        (ef, reach): (usize, Option<Reach>),
        beam_width: usize,
        scratch: &mut Scratch,
    ) -> Steps {
        let Scratch { pool, rounds, .. } = scratch;
        pool.reset(ef, reach);
        let (steps, _) = self.rounds(query, starts, beam_width, &mut &mut *pool, rounds);
        steps
    }

    /// The same among rows that may be found: on through all rows as long as they are nearer than the worst that is kept, or
    /// within reach of what was found. Nothing where that takes too many distances.
    pub fn walk_among(
        &self,
        query: &Query,
        starts: &mut [u64],
        (ef, reach): (usize, Option<Reach>),
        beam_width: usize,
        admitted: &Admitted<'_>,
        scratch: &mut Scratch,
    ) -> Option<Steps> {
        let Scratch { pool, ways, found, rounds } = scratch;
        pool.reset(ef, reach);
        ways.clear();
        let mut among = Among { pool, ways, found, admitted, patience: admitted.limits.patience };
        let (steps, is_whole) = self.rounds(query, starts, beam_width, &mut among, rounds);
        is_whole.then_some(steps)
    }

    /// Rounds until nothing is left to follow; false if it was given up before.
    fn rounds(
        &self,
        query: &Query,
        starts: &mut [u64],
        beam_width: usize,
        best: &mut impl Take,
        rounds: &mut Rounds,
    ) -> (Steps, bool) {
        let Rounds { visited, seen, fresh, following, next } = rounds;
        let mut steps = Steps::default();
        let mut buffers = Buffers::default();
        visited.reserve(self.n_rows);
        seen.clear();
        following.clear();
        seen.extend(starts.iter().map(|&entry| pool::row(entry)));
        seen.iter().for_each(|&row| _ = visited.insert(row));
        best.take(starts);
        let mut asked = seen.len()..seen.len();
        let is_whole = loop {
            // Links are asked for first: they are what the next round begins with.
            next.clear();
            best.follow(beam_width, next);
            next.iter().for_each(|&row| prefetch(self.links.row(row)));
            // Those that were asked for in the last round lead to codes that are compared in the next one.
            let first = seen.len();
            following.iter().for_each(|&row| visited.insert_all(self.links.row(row), self.n_rows, seen));
            self.reader.ask(query, &seen[first..]);
            std::mem::swap(following, next);
            if asked.is_empty() && first == seen.len() && following.is_empty() {
                break true;
            }
            if best.gives_up(seen.len(), steps.n_followed) {
                break false;
            }
            steps.n_rounds += 1;
            steps.n_followed += following.len();
            let rows = &seen[asked];
            self.reader.distances(query, rows, &mut buffers);
            let limit = best.limit();
            let mut n = 0;
            fresh.clear();
            fresh.resize(rows.len(), 0);
            for (&row, &distance) in rows.iter().zip(&buffers.distances) {
                fresh[n] = pool::entry(distance, row);
                n += usize::from(fresh[n] < limit);
            }
            best.take(&mut fresh[..n]);
            asked = first..seen.len();
        };
        steps.n_distances = seen.len() - starts.len();
        visited.clear(seen);
        (steps, is_whole)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::coder::ShortEncoding;
    use crate::column::Column;
    use crate::graph::NONE;
    use crate::kmeans::Side;
    use crate::lists;
    use crate::memory::SystemAllocator;
    use crate::metric::Metric;
    use crate::random::Random;
    use crate::work::Work;

    const DEGREE: usize = 6;

    fn column<T: bytemuck::Pod>(width: usize, values: &[T]) -> Column<T> {
        let allocator: Arc<dyn crate::memory::Allocator> = Arc::new(SystemAllocator);
        Column::of(width, values, &allocator).unwrap()
    }

    /// Rows of uint8 as they are, or as short codes.
    fn codes(codes: lists::Codes, dim: usize, rows: &[f32]) -> Codes {
        let plan = lists::Plan {
            metric: Metric::Euclidean,
            codes,
            second: None,
            n_lists: 1,
            flat_up_to: lists::FLAT_UP_TO,
            spill: 0.0,
            seed: 0,
        };
        let side = Side::new(rows, dim);
        let empty = Codes::train(&side, &plan, &Work::inline()).unwrap();
        let coded = empty.code(&side, &Work::inline()).unwrap();
        Codes { codes: column(empty.codes.width(), &coded.codes), scales: column(1, &coded.scales), ..empty }
    }

    fn query(codes: &Codes, values: &[f32]) -> Query {
        let (kernels, dim) = (Kernels::best(), values.len());
        let (mut framed, mut coded, mut query) =
            (vec![0.0; dim], lists::CodedQueries::default(), Query::default());
        codes.coding.frame().query(kernels, values, &mut Vec::new(), &mut framed);
        coded.code(kernels, &framed, dim, &vec![0.0; dim]);
        query.set(codes, &framed, &coded);
        query
    }

    fn rows(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        (0..n * dim).map(|_| f32::from(random.bits() as u8)).collect()
    }

    /// A ring, with some links across it; rows have from one link to all.
    fn links(n: usize) -> Column<Row> {
        let mut random = Random::new(8, 0);
        let mut links = vec![NONE; n * DEGREE];
        for (row, links) in links.chunks_exact_mut(DEGREE).enumerate() {
            links[0] = ((row + 1) % n) as Row;
            let more = random.bits() as usize % DEGREE;
            links[1..=more].iter_mut().for_each(|link| *link = (random.bits() % n as u64) as Row);
        }
        column(DEGREE, &links)
    }

    fn starts(codes: &Codes, query: &Query, rows: &[Row]) -> Vec<u64> {
        let mut buffers = Buffers::default();
        Reader::new(Kernels::best(), codes).distances(query, rows, &mut buffers);
        rows.iter().zip(&buffers.distances).map(|(&row, &distance)| pool::entry(distance, row)).collect()
    }

    /// Walks with as large a pool as there are rows see all of them; smaller ones keep the nearest of what they see.
    #[test]
    fn a_pool_of_all_rows_is_exact() {
        let (kernels, n) = (Kernels::best(), 500);
        let links = links(n);
        let mut scratch = Scratch::default();
        for dim in [3, 64, 75, 130] {
            let bytes = rows(n, dim, dim as u64);
            // Of which upper halves tell nothing.
            let small: Vec<f32> = bytes.iter().map(|x| x % 16.0).collect();
            let own = |short| lists::Codes::Short(short);
            for (kind, rows, bits, lost) in [
                (lists::Codes::UInt8, &bytes, 4, 0.1),
                (lists::Codes::UInt8, &small, 8, 0.02),
                (own(ShortEncoding::Scalar4), &bytes, 4, 0.1),
                (own(ShortEncoding::Scalar8), &bytes, 4, 0.1),
            ] {
                let codes = codes(kind, dim, rows);
                // Where there are few dimensions near rows are too near for upper halves.
                assert!(codes.bits == bits || dim == 3);
                let values = &self::rows(1, dim, 99)[..];
                let query = query(&codes, values);
                let walker = Walker::new(kernels, &codes, Chunks::new(&links), n);
                for beam_width in 1..4 {
                    let mut starts = starts(&codes, &query, &[7, 200]);
                    let steps = walker.walk(&query, &mut starts, (n, None), beam_width, &mut scratch);
                    assert_eq!((steps.n_distances, steps.n_followed), (n - 2, n));
                    let all = scratch.pool.entries().to_vec();
                    assert_eq!(all.len(), n);
                    for (&entry, next) in all.iter().zip(&all[1..]) {
                        assert!(pool::distance(entry) <= pool::distance(*next));
                    }
                    // Distances from the vectors, up to what codes lose of them.
                    let squared = f64::from(query.squared().unwrap());
                    for &entry in &all {
                        let row = pool::row(entry) as usize;
                        let row = &rows[row * dim..][..dim];
                        let exact = kernels.canonical_sqeuclidean(values, row);
                        let found = 2.0 * f64::from(pool::distance(entry)) + squared;
                        let size =
                            kernels.canonical_squared_norm(values) + kernels.canonical_squared_norm(row);
                        assert!((found - exact).abs() <= lost * size, "{kind:?}, {dim}: {found}, {exact}");
                    }
                    for ef in [1, 5, 40] {
                        let starts = &mut starts[..ef.min(2)];
                        walker.walk(&query, starts, (ef, None), beam_width, &mut scratch);
                        let few = scratch.pool.entries();
                        assert_eq!(few.len(), ef);
                        assert!(few.iter().all(|entry| all.contains(entry)) && few.is_sorted());
                    }
                }
            }
        }
    }

    #[test]
    fn what_links_do_not_lead_to_is_not_seen() {
        let kernels = Kernels::best();
        let codes = codes(lists::Codes::UInt8, 4, &rows(5, 4, 1));
        let links = column(2, &[1, 0, 0, NONE, 3, NONE, 2, NONE, NONE, NONE]);
        let walker = Walker::new(kernels, &codes, Chunks::new(&links), 5);
        let (query, mut scratch) = (query(&codes, &[1.0, 2.0, 3.0, 4.0]), Scratch::default());
        for (starts, seen) in [(&[0][..], &[0, 1][..]), (&[3, 4], &[2, 3, 4]), (&[], &[])] {
            walker.walk(&query, &mut self::starts(&codes, &query, starts), (10, None), 2, &mut scratch);
            let mut found: Vec<Row> = scratch.pool.entries().iter().map(|&entry| pool::row(entry)).collect();
            found.sort_unstable();
            assert_eq!(found, seen);
        }
    }
}
