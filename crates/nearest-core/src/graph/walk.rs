//! The search: the best rows seen so far, and what they are linked to.
//!
//! As HNSW (Malkov and Yashunin 2016) and Vamana do on one level, but never waiting for what was just asked for: in a round
//! links are taken that were asked for in the round before, the codes that they lead to are asked for, then the links of the
//! best rows known, and then the codes are compared that the round before asked for. What is followed is chosen two rounds
//! late, which costs some distances more, and saves two waits for memory a round.

use nearest_kernels::{Kernels, prefetch};

use super::codes::{Buffers, Chunks, Codes, Query, Reader};
use super::pool::{self, Pool};
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
    ways: Pool,
    found: Vec<u64>,
    rounds: Rounds,
}

#[derive(Debug, Default)]
struct Rounds {
    visited: Visited,
    seen: Vec<Row>,
    fresh: Vec<u64>,
    following: Vec<Row>,
}

/// What a walk did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// Rounds.
    pub n_rounds: usize,
    /// Rows followed.
    pub n_followed: usize,
    /// Distances.
    pub n_distances: usize,
}

/// Rows that may be found.
#[derive(Clone, Copy, Debug)]
pub struct Admitted<'a> {
    /// Bits by chunk of rows.
    pub words: &'a [&'a [u64]],
    /// Distances after which it is given up.
    pub most: usize,
}

/// Takes what was compared, and says what is followed.
trait Take {
    /// What an entry must be below to be taken.
    fn limit(&self) -> u64;
    /// Takes entries, in any order.
    fn take(&mut self, fresh: &mut [u64]);
    /// Appends the nearest rows that were not followed yet, `n` at most.
    fn follow(&mut self, n: usize, rows: &mut Vec<Row>);
    /// Whether so many distances are too many.
    fn gives_up(&self, n_distances: usize) -> bool;
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

    fn gives_up(&self, _: usize) -> bool {
        false
    }
}

/// Some rows may be found, and all lead on.
struct Among<'a> {
    pool: &'a mut Pool,
    ways: &'a mut Pool,
    found: &'a mut Vec<u64>,
    admitted: &'a Admitted<'a>,
}

impl Take for Among<'_> {
    fn limit(&self) -> u64 {
        self.pool.limit()
    }

    fn take(&mut self, fresh: &mut [u64]) {
        self.found.clear();
        self.found.extend(fresh.iter().filter(|&&entry| is_in(self.admitted.words, pool::row(entry))));
        self.pool.merge(self.found);
        self.ways.merge(fresh);
        self.ways.cut(self.pool.limit());
    }

    fn follow(&mut self, n: usize, rows: &mut Vec<Row>) {
        self.ways.follow(n, rows);
    }

    fn gives_up(&self, n_distances: usize) -> bool {
        n_distances > self.admitted.most
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

    /// Leaves the `ef` nearest rows that it came to from `starts`, entries of the pool, in the scratch's pool. `beam_width` rows
    /// are followed in a round.
    pub fn walk(
        &self,
        query: &Query,
        starts: &mut [u64],
        ef: usize,
        beam_width: usize,
        scratch: &mut Scratch,
    ) -> Steps {
        let Scratch { pool, rounds, .. } = scratch;
        pool.reset(ef);
        let (steps, _) = self.rounds(query, starts, beam_width, &mut &mut *pool, rounds);
        steps
    }

    /// The same among rows that may be found: on through all rows as long as they are nearer than the worst of `ef` found.
    /// Nothing where that takes too many distances.
    pub fn walk_among(
        &self,
        query: &Query,
        starts: &mut [u64],
        ef: usize,
        beam_width: usize,
        admitted: &Admitted<'_>,
        scratch: &mut Scratch,
    ) -> Option<Steps> {
        let Scratch { pool, ways, found, rounds } = scratch;
        pool.reset(ef);
        ways.reset(usize::MAX);
        let mut among = Among { pool, ways, found, admitted };
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
        let Rounds { visited, seen, fresh, following } = rounds;
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
            // Links that were asked for in the last round lead to codes that are compared in the next one.
            let first = seen.len();
            following.iter().for_each(|&row| visited.insert_all(self.links.row(row), self.n_rows, seen));
            self.reader.ask(query, &seen[first..]);
            following.clear();
            best.follow(beam_width, following);
            following.iter().for_each(|&row| prefetch(self.links.row(row)));
            if asked.is_empty() && first == seen.len() && following.is_empty() {
                break true;
            }
            if best.gives_up(seen.len()) {
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
        steps.n_distances = seen.len();
        visited.clear(seen);
        (steps, is_whole)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::coder::{Coder, ShortEncoding};
    use crate::column::Column;
    use crate::graph::NONE;
    use crate::lists::{Codec, Coding, CodingScratch, Frame, Loss, QueryCodes};
    use crate::memory::SystemAllocator;
    use crate::metric::Metric;
    use crate::random::Random;
    use crate::work::Work;

    const DEGREE: usize = 6;

    fn column<T: bytemuck::Pod>(width: usize, values: &[T]) -> Column<T> {
        let allocator: Arc<dyn crate::memory::Allocator> = Arc::new(SystemAllocator);
        Column::of(width, values, &allocator).unwrap()
    }

    /// Rows of integers as they are, or as codes of 4 or 8 bits; with scores of each for a query, computed slowly.
    fn codes(encoding: Option<ShortEncoding>, dim: usize, rows: &[f32]) -> Codes {
        let kernels = Kernels::best();
        let frame = Frame::new(kernels, Metric::Euclidean, vec![0.0; dim], None);
        let codec = match encoding {
            None => Codec::UInt8,
            Some(short) => Codec::Short(Coder::train(short, dim, rows, 0, kernels, &Work::inline()).unwrap()),
        };
        let coding = Coding::new(frame, codec, Loss::default());
        let (mut codes, mut terms) = (Vec::new(), Vec::new());
        for row in rows.chunks_exact(dim) {
            let mut code = vec![0; coding.code_bytes()];
            let term = match encoding {
                None => {
                    let bytes: Vec<u8> = row.iter().map(|&x| x as u8).collect();
                    coding.encode_native(kernels, &bytes, 0, &mut code)
                }
                Some(_) => {
                    coding.encode(kernels, row, &vec![0.0; dim], 0, &mut code, &mut CodingScratch::default())
                }
            };
            codes.extend(code);
            terms.extend([term.scale, term.bias]);
        }
        let width = coding.code_bytes();
        let empty = Codes::new(Arc::new(coding), None);
        Codes { codes: column(width, &codes), terms: column(2, &terms), ..empty }
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
            let rows = rows(n, dim, dim as u64);
            let values = self::rows(1, dim, 99);
            for encoding in [None, Some(ShortEncoding::Scalar4), Some(ShortEncoding::Scalar8)] {
                let codes = codes(encoding, dim, &rows);
                let (mut coded, mut query) = (QueryCodes::default(), Query::default());
                codes.coding.queries(kernels, &values, &mut coded, &mut CodingScratch::default());
                query.set(codes.bits(), dim, &coded.rows);
                if encoding.is_none() {
                    query.set_integers(&values);
                }
                let walker = Walker::new(kernels, &codes, Chunks::new(&links), n);
                for beam_width in 1..4 {
                    let mut starts = starts(&codes, &query, &[7, 200]);
                    let steps = walker.walk(&query, &mut starts, n, beam_width, &mut scratch);
                    assert_eq!((steps.n_distances, steps.n_followed), (n, n));
                    let all = scratch.pool.entries().to_vec();
                    assert_eq!(all.len(), n);
                    for (&entry, next) in all.iter().zip(&all[1..]) {
                        assert!(pool::distance(entry) <= pool::distance(*next));
                    }
                    // Distances from the vectors; codes of 4 bits are off by a part of it.
                    let lost = match encoding {
                        None => 0.0,
                        Some(ShortEncoding::Scalar8) => 0.02,
                        Some(_) => 0.25,
                    };
                    for &entry in &all {
                        let row = pool::row(entry) as usize;
                        let row = &rows[row * dim..][..dim];
                        let exact = kernels.canonical_sqeuclidean(&values, row);
                        let query_norm = kernels.canonical_squared_norm(&values);
                        let distance = f64::from(pool::distance(entry));
                        // Scores leave out half the square of the query.
                        let found = if encoding.is_none() { distance } else { 2.0 * distance + query_norm };
                        let size = query_norm + kernels.canonical_squared_norm(row);
                        assert!(
                            (found - exact).abs() <= lost * size,
                            "{encoding:?}, dim {dim}: {found}, {exact}"
                        );
                    }
                    for ef in [1, 5, 40] {
                        let starts = &mut starts[..ef.min(2)];
                        walker.walk(&query, starts, ef, beam_width, &mut scratch);
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
        let codes = codes(None, 4, &rows(5, 4, 1));
        let links = column(2, &[1, 0, 0, NONE, 3, NONE, 2, NONE, NONE, NONE]);
        let walker = Walker::new(kernels, &codes, Chunks::new(&links), 5);
        let (mut query, mut scratch) = (Query::default(), Scratch::default());
        query.set_integers(&[1.0, 2.0, 3.0, 4.0]);
        for (starts, seen) in [(&[0][..], &[0, 1][..]), (&[3, 4], &[2, 3, 4]), (&[], &[])] {
            walker.walk(&query, &mut self::starts(&codes, &query, starts), 10, 2, &mut scratch);
            let mut found: Vec<Row> = scratch.pool.entries().iter().map(|&entry| pool::row(entry)).collect();
            found.sort_unstable();
            assert_eq!(found, seen);
        }
    }
}
