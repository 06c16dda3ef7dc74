//! Versions whose rows lie in lists: made from vectors that were kept as they came, searched, read back.

use std::ops::Range;
use std::sync::Arc;

use nearest_kernels::{Element, Kernels};

use super::snapshot::{Goal, Knobs, Sought};
use super::{KeptAs, Snapshot, Structure};
use crate::candidates::Candidate;
use crate::column::{Column, Row};
use crate::encoding::{Encoding, Kind, Values, Vectors, each_kind};
use crate::error::{Error, Result};
use crate::exact;
use crate::kmeans::{Read, Side};
use crate::lists::{self, Coded, Coding, Estimate, Kept, ListSearch, Lists, Pair, PairBuffers};
use crate::live::RowSet;
use crate::memory::Allocator;
use crate::metric::Metric;
use crate::random::Random;
use crate::work::Work;

/// Vectors that are coded between two looks at whether to go on, when lists are first filled.
const FILL_ROWS: usize = 1 << 16;
/// Vectors of a list that centroids and coders are trained on, at most.
const TRAINING_ROWS_PER_LIST: usize = 64;
/// Vectors that they are trained on at least, if there are so many.
const LEAST_TRAINING_ROWS: usize = 16_384;

/// Trains lists on rows of `values`, row-major.
pub(super) fn train(
    spec: &super::Spec,
    n: usize,
    values: Values<'_>,
    rows: &[usize],
    work: &Work<'_>,
) -> Result<Lists> {
    if rows.is_empty() {
        return Err(Error::argument("lists are trained on vectors, got none"));
    }
    let plan = spec.plan(n);
    let n_lists = plan.n_lists.min(rows.len());
    each_kind!(values, Values, values => {
        let read = |range: Range<usize>, out: &mut [f32]| {
            for (&row, out) in rows[range].iter().zip(out.chunks_exact_mut(spec.dim)) {
                let row = &values[row * spec.dim..][..spec.dim];
                out.iter_mut().zip(row).for_each(|(out, x)| *out = x.to_f32());
            }
        };
        let points = Read::new(rows.len(), spec.dim, read);
        let lists = lists::train(&points, &lists::Plan { n_lists, ..plan }, work)?;
        Ok(Lists { made_for: n as u64, ..lists })
    })
}

/// Codes vectors for lists.
pub(super) fn code(lists: &Lists, values: Values<'_>, kept_as: KeptAs, work: &Work<'_>) -> Result<Coded> {
    let keeps = !matches!(kept_as, KeptAs::Raw(_));
    let dim = lists.coding.dim();
    each_kind!(values, Values, values => lists.code(&Side::new(values, dim), keeps, work))
}

impl Snapshot {
    /// This version with its rows in lists, which are trained on them unless they are given.
    pub(super) fn listed(
        self,
        trained: Option<Lists>,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Snapshot> {
        assert!(self.lists.is_none() && self.spec.is_listed());
        each_kind!(&self.vectors, Vectors, column => {
            let read = |row: Row, out: &mut [f32]| {
                out.iter_mut().zip(column.row(row)).for_each(|(out, x)| *out = x.to_f32());
                Ok(())
            };
            self.listed_from(column, &read, trained, allocator, work)
        })
    }

    /// This version with lists that are made anew from the vectors as they are kept.
    pub(super) fn relisted(self, allocator: &Arc<dyn Allocator>, work: &Work<'_>) -> Result<Snapshot> {
        match (self.spec.kept_as(), &self.lists, &self.vectors) {
            (KeptAs::Raw(_), ..) => Snapshot { lists: None, ..self }.listed(None, allocator, work),
            (_, Some(lists), Vectors::UInt8(column)) => {
                let read = |row: Row, out: &mut [f32]| self.decoded(lists, row, out);
                self.listed_from(column, &read, None, allocator, work)
            }
            _ => unreachable!("codes are bytes, and of lists"),
        }
    }

    /// Whether its lists do not suit its rows any more, and can be made anew from what is kept of these.
    pub(super) fn is_outgrown(&self) -> bool {
        // Codes of what centroids leave are too little to make others from.
        let keeps = self.spec.keeps_vectors() || matches!(self.spec.kept_as(), KeptAs::Code(_));
        self.lists.as_ref().is_some_and(|lists| {
            // As many lists as before, trained on no more vectors than before, are hardly better ones.
            let would_gain = matches!(self.spec.structure, Structure::Lists { n_lists: 0, .. })
                || lists.made_for < (TRAINING_ROWS_PER_LIST * lists.n_lists()) as u64;
            keeps && lists.n_lists() > 1 && lists.is_outgrown(self.len(), would_gain)
        })
    }

    /// `column` has a row for each row; `read` gives its vector.
    fn listed_from<T: Kind>(
        &self,
        column: &Column<T>,
        read: &(dyn Fn(Row, &mut [f32]) -> Result<()> + Sync),
        trained: Option<Lists>,
        allocator: &Arc<dyn Allocator>,
        work: &Work<'_>,
    ) -> Result<Snapshot> {
        let spec = self.spec;
        let rows: Vec<Row> = self.live.iter().collect();
        let dim = spec.dim;
        let failed = std::sync::Mutex::new(Ok(()));
        let read = |rows: &[Row], out: &mut [f32]| {
            for (&row, out) in rows.iter().zip(out.chunks_exact_mut(dim)) {
                if let Err(error) = read(row, out) {
                    *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Err(error);
                }
            }
        };
        let made = trained.is_none();
        let mut lists = match trained {
            Some(lists) => lists,
            None => {
                let plan = spec.plan(rows.len());
                let most = (plan.n_lists * TRAINING_ROWS_PER_LIST).max(LEAST_TRAINING_ROWS).min(rows.len());
                let chosen = Random::new(spec.seed, 1).choose(most, rows.len());
                let chosen: Vec<Row> = chosen.into_iter().map(|i| rows[i as usize]).collect();
                let points = Read::new(chosen.len(), dim, |range: Range<usize>, out: &mut [f32]| {
                    read(&chosen[range], out)
                });
                let n_lists = plan.n_lists.min(chosen.len());
                let lists = lists::train(&points, &lists::Plan { n_lists, ..plan }, work)?;
                Lists { made_for: rows.len() as u64, ..lists }
            }
        };
        let kept_as = spec.kept_as();
        let keeps = !matches!(kept_as, KeptAs::Raw(_));
        let mut kept = Vec::new();
        for part in rows.chunks(FILL_ROWS) {
            let points =
                Read::new(part.len(), dim, |range: Range<usize>, out: &mut [f32]| read(&part[range], out));
            let mut coded = lists.code(&points, keeps, work)?;
            coded.entries.terms.iter_mut().for_each(|term| term.row = part[term.row as usize]);
            lists = lists.with(&coded, part.len(), &self.live, allocator, work)?;
            kept.append(&mut coded.kept);
        }
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
        if made {
            // Those that come later are compared with all of these: a few far ones among them must not make every change
            // a training.
            lists.distance = lists.added.1 / rows.len().max(1) as f64;
            lists.added = (0, 0.0);
        }
        let vectors = match kept_as {
            KeptAs::Raw(encoding) => same_kind(&self.vectors, encoding, allocator)?,
            KeptAs::Code(_) | KeptAs::Place => {
                let width = lists.kept_bytes();
                Vectors::UInt8(column.with_rows(width, &rows, &kept, allocator)?)
            }
        };
        Ok(Snapshot { vectors, lists: Some(lists), ..self.clone() })
    }

    /// Searches the lists.
    pub(super) fn search_lists(
        &self,
        lists: &Lists,
        queries: &[f32],
        sought: &Sought<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let Sought { selected, exclude, goal, knobs } = *sought;
        let n_queries = queries.len() / self.spec.dim;
        let n_probe = knobs.effort.unwrap_or_else(|| default_effort(lists)).clamp(1, lists.n_lists());
        let goal = match goal {
            Goal::Nearest(k) => {
                let k = k.min(selected.len());
                let n_bytes = (n_queries as u64).checked_mul(k as u64).and_then(|n| n.checked_mul(16));
                work.check_memory(n_bytes, &format!("{k} neighbors of {n_queries} queries"))?;
                let is_filtered = selected.len() < self.live.len();
                let usual = || default_pool(lists, &self.spec, k, is_filtered);
                let pool = knobs.rerank_k.unwrap_or_else(usual).max(k);
                lists::Goal::Nearest { k, pool }
            }
            Goal::Within(radius) => lists::Goal::Within(radius),
        };
        let kept = KeptRows {
            snapshot: self,
            lists,
            queries,
            squared_norms: queries
                .chunks_exact(self.spec.dim)
                .map(|query| self.kernels.canonical_squared_norm(query))
                .collect(),
        };
        let search = ListSearch {
            kernels: self.kernels,
            lists,
            selected,
            selected_words: selected.all_words(),
            live: &self.live,
            is_filtered: selected.len() < self.live.len(),
            exclude,
            kept: &kept,
            order: &self.ids,
            n_probe,
            // Some are in a second one, and a damaged file may have any in more.
            are_disjoint: false,
        };
        search.run(queries, goal, work)
    }

    /// Whether looking at all selected vectors answers a search at least as well as its lists.
    pub(super) fn prefers_exact(&self, lists: &Lists, selected: &RowSet, knobs: Knobs) -> bool {
        // With all its lists a search looks at everything anyway; rows that are few are found faster by their numbers.
        let all = knobs.effort.is_some_and(|effort| effort >= lists.n_lists());
        all && self.spec.keeps_vectors() || selected.len() <= self.live.len() / 64
    }

    /// What codes are moved by before they are compared: inner products are not those of vectors that were moved in the frame.
    pub(super) fn moved_by<'a>(&self, coding: &'a Coding) -> &'a [f32] {
        match self.spec.metric {
            Metric::Euclidean | Metric::SqEuclidean => &[],
            _ => coding.frame().turned_centre(),
        }
    }

    /// What is kept of a row beside the lists, where the vectors are not.
    pub(super) fn kept(&self, row: Row) -> &[u8] {
        let Vectors::UInt8(column) = &self.vectors else { unreachable!("codes are bytes") };
        column.row(row)
    }

    /// The list of a row of which only that is kept.
    pub(super) fn list_of(&self, row: Row) -> u32 {
        u32::from_le_bytes(*self.kept(row).first_chunk().expect("the number of a list"))
    }

    /// The list of a row of which only that is kept, and its place there.
    fn place_of(&self, lists: &Lists, row: Row) -> Result<(u32, u32)> {
        let list = self.list_of(row);
        let place = lists.place(list, row);
        let place = place
            .ok_or_else(|| Error::format(format!("row {row} is not in list {list}, where it should be")))?;
        Ok((list, place))
    }

    /// The vector of a row, as the bytes of the integers that only its list holds.
    pub(super) fn native(&self, lists: &Lists, row: Row, out: &mut [u8]) -> Result<()> {
        let (list, place) = self.place_of(lists, row)?;
        lists.native_at(list, place, out);
        Ok(())
    }

    /// The vector of a row as far as it is known, in the original coordinates, where it is not kept by row.
    pub(super) fn decoded(&self, lists: &Lists, row: Row, out: &mut [f32]) -> Result<()> {
        if self.spec.encoding.is_integer() {
            let mut bytes = vec![0; self.spec.dim];
            self.native(lists, row, &mut bytes)?;
            let is_signed = self.spec.encoding == Encoding::Int8;
            let value = |byte: u8| if is_signed { f32::from(byte as i8) } else { f32::from(byte) };
            out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = value(byte));
            return Ok(());
        }
        let mut framed = vec![0.0; self.spec.dim];
        match &lists.second {
            Some(second) => second.decode(self.kept(row), &mut framed),
            None => {
                let (list, place) = self.place_of(lists, row)?;
                lists.decode_at(self.kernels, list, place, &mut Vec::new(), &mut framed);
            }
        }
        lists.coding.frame().invert(self.kernels, &framed, out);
        Ok(())
    }
}

/// Lists looked at where nothing is said and nothing was measured.
fn default_effort(lists: &Lists) -> usize {
    (lists.n_lists() as f64).sqrt().ceil() as usize
}

/// So many times more estimates are compared again where a filter may keep what is far from the query: there many rows are
/// about as far, and codes lose as much as ever. (photos1m, 4 bits, the half that is farthest from all queries: recall@10
/// 0.895 with as many as without a filter, more lists or not; 0.965 with 75, 0.980 with 100, 0.994 with 400.)
const FILTERED: usize = 4;

/// Estimates that are compared again: the more the codes lose, the more of them.
fn default_pool(lists: &Lists, spec: &super::Spec, k: usize, is_filtered: bool) -> usize {
    if spec.kept_as() == KeptAs::Place && !spec.encoding.is_integer() {
        return k;
    }
    let loss = lists.coding.loss();
    let lost = f64::from(loss.error) / f64::from(loss.spread).max(1e-30);
    let pool = (k as f64 * (1.0 + 8.0 * lost) + 4.0 + 10.0 * lost) as usize;
    // What loses nothing chooses as well among any rows.
    if is_filtered && lost > 0.0 { pool.saturating_mul(FILTERED) } else { pool }
}

/// Vectors of this kind in that of `encoding`.
pub(super) fn same_kind(
    vectors: &Vectors,
    encoding: Encoding,
    allocator: &Arc<dyn Allocator>,
) -> Result<Vectors> {
    fn converted<T: Kind, U: Kind>(column: &Column<T>, allocator: &Arc<dyn Allocator>) -> Result<Column<U>> {
        let width = column.width();
        column.alongside(width, allocator, |range, out: &mut [U]| {
            for (row, out) in range.zip(out.chunks_exact_mut(width)) {
                for (out, value) in out.iter_mut().zip(column.row(row)) {
                    *out = U::from_f32(value.to_f32()).ok_or_else(|| {
                        Error::argument(format!(
                            "vectors must hold values of {}, got {}",
                            U::NAME,
                            value.to_f32()
                        ))
                    })?;
                }
            }
            Ok(())
        })
    }
    match (vectors, encoding) {
        (Vectors::Float32(_), Encoding::Float32)
        | (Vectors::Float16(_), Encoding::Float16)
        | (Vectors::BFloat16(_), Encoding::BFloat16)
        | (Vectors::Int8(_), Encoding::Int8)
        | (Vectors::UInt8(_), Encoding::UInt8) => Ok(vectors.clone()),
        (Vectors::Float32(column), Encoding::Float16) => converted(column, allocator).map(Vectors::Float16),
        (Vectors::Float32(column), Encoding::BFloat16) => converted(column, allocator).map(Vectors::BFloat16),
        (Vectors::Float32(column), Encoding::Int8) => converted(column, allocator).map(Vectors::Int8),
        (Vectors::Float32(column), Encoding::UInt8) => converted(column, allocator).map(Vectors::UInt8),
        _ => unreachable!("vectors that wait for lists are float32 or of the index's encoding"),
    }
}

/// The vectors as they are kept beside the lists.
struct KeptRows<'a> {
    snapshot: &'a Snapshot,
    lists: &'a Lists,
    queries: &'a [f32],
    squared_norms: Vec<f64>,
}

/// The order in which rows of one list come together.
fn by_place(pairs: &[Pair], order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..pairs.len() as u32);
    order.sort_unstable_by_key(|&i| {
        let estimate = &pairs[i as usize].estimate;
        (u64::from(estimate.list) << 32) | u64::from(estimate.place)
    });
}

/// Pairs before a pair's turn at which its row is asked for.
const AHEAD: usize = 4;

impl KeptRows<'_> {
    fn kernels(&self) -> &'static Kernels {
        self.snapshot.kernels
    }

    /// Distances of vectors that are kept as they are.
    fn raw<T: Kind>(&self, column: &Column<T>, numbers: &[u32], pairs: &mut [Pair]) {
        let (metric, dim) = (self.snapshot.spec.metric, self.snapshot.spec.dim);
        let rows: Vec<&[T]> = pairs.iter().map(|pair| column.row(pair.estimate.row)).collect();
        for (i, pair) in pairs.iter_mut().enumerate() {
            if let Some(ahead) = rows.get(i + AHEAD) {
                nearest_kernels::prefetch(ahead);
            }
            let query = numbers[pair.query as usize] as usize;
            let values = &self.queries[query * dim..][..dim];
            pair.distance =
                exact::distance(self.kernels(), metric, values, self.squared_norms[query], rows[i]);
        }
    }

    /// Distances of integer vectors that only the lists hold: from their scores, where these are exact.
    fn native<T: Kind>(&self, numbers: &[u32], pairs: &mut [Pair], buffers: &mut PairBuffers) {
        let (metric, dim) = (self.snapshot.spec.metric, self.snapshot.spec.dim);
        let PairBuffers { order, bytes, .. } = buffers;
        let mut all_known = true;
        for of_query in pairs.chunk_by_mut(|a, b| a.query == b.query) {
            let query = numbers[of_query[0].query as usize] as usize;
            let exact = self.lists.coding.scores_exactly(&self.queries[query * dim..][..dim]);
            for pair in of_query {
                let score = pair.estimate.score;
                let known = exact && score.abs() < lists::EXACT_BELOW;
                all_known &= known;
                pair.distance = match known {
                    true => exact::distance_of_score(metric, score.into(), self.squared_norms[query]),
                    false => f32::NAN,
                };
            }
        }
        if all_known {
            return;
        }
        by_place(pairs, order);
        order.retain(|&i| pairs[i as usize].distance.is_nan());
        bytes.resize(dim, 0);
        let row = &mut bytes[..dim];
        for (turn, &i) in order.iter().enumerate() {
            if let Some(&ahead) = order.get(turn + AHEAD) {
                let ahead = pairs[ahead as usize].estimate;
                self.lists.prefetch_at(ahead.list, ahead.place);
            }
            let pair = &mut pairs[i as usize];
            self.lists.native_at(pair.estimate.list, pair.estimate.place, row);
            let query = numbers[pair.query as usize] as usize;
            let values = &self.queries[query * dim..][..dim];
            let row: &[T] = bytemuck::cast_slice(row);
            pair.distance = exact::distance(self.kernels(), metric, values, self.squared_norms[query], row);
        }
    }

    /// Distances of vectors that are known by their codes, in the frame: it changes none.
    fn coded(&self, column: &Column<u8>, framed: &[f32], pairs: &mut [Pair], buffers: &mut PairBuffers) {
        let (metric, dim) = (self.snapshot.spec.metric, self.snapshot.spec.dim);
        let kernels = self.kernels();
        let PairBuffers { order, row, queries, squared_norms, bytes, .. } = buffers;
        let centre = self.snapshot.moved_by(&self.lists.coding);
        let queries = if metric.is_angular() {
            queries.clear();
            framed
                .chunks_exact(dim)
                .for_each(|query| queries.extend(query.iter().zip(centre).map(|(q, c)| q + c)));
            &queries[..]
        } else {
            framed
        };
        squared_norms.clear();
        squared_norms.extend(queries.chunks_exact(dim).map(|query| kernels.canonical_squared_norm(query)));
        row.resize(dim, 0.0);
        if self.lists.second.is_none() {
            by_place(pairs, order);
        } else {
            order.clear();
            order.extend(0..pairs.len() as u32);
        }
        for (turn, &i) in order.iter().enumerate() {
            let estimate = pairs[i as usize].estimate;
            let ahead = order.get(turn + AHEAD).map(|&i| pairs[i as usize].estimate);
            match &self.lists.second {
                Some(second) => {
                    if let Some(ahead) = ahead {
                        nearest_kernels::prefetch(column.row(ahead.row));
                    }
                    second.decode(column.row(estimate.row), row);
                }
                None => {
                    if let Some(ahead) = ahead {
                        self.lists.prefetch_at(ahead.list, ahead.place);
                    }
                    self.lists.decode_at(kernels, estimate.list, estimate.place, bytes, row);
                }
            }
            row.iter_mut().zip(centre).for_each(|(x, c)| *x += c);
            let query = pairs[i as usize].query as usize;
            let values = &queries[query * dim..][..dim];
            pairs[i as usize].distance = exact::distance(kernels, metric, values, squared_norms[query], row);
        }
    }
}

impl Kept for KeptRows<'_> {
    fn distances(&self, numbers: &[u32], framed: &[f32], pairs: &mut [Pair], buffers: &mut PairBuffers) {
        match (self.snapshot.spec.encoding, self.snapshot.spec.kept_as(), &self.snapshot.vectors) {
            (_, KeptAs::Raw(_), vectors) => {
                each_kind!(vectors, Vectors, column => self.raw(column, numbers, pairs));
            }
            (Encoding::UInt8, ..) => self.native::<u8>(numbers, pairs, buffers),
            (Encoding::Int8, ..) => self.native::<i8>(numbers, pairs, buffers),
            (_, _, Vectors::UInt8(column)) => self.coded(column, framed, pairs, buffers),
            _ => unreachable!("codes are bytes"),
        }
    }

    fn rescore(&self, query: (&[i8], f32), estimates: &mut [Estimate], buffers: &mut PairBuffers) -> bool {
        let (Some(second), Vectors::UInt8(column)) = (&self.lists.second, &self.snapshot.vectors) else {
            return false;
        };
        for estimate in &*estimates {
            nearest_kernels::prefetch(column.row(estimate.row));
        }
        let rows: Vec<&[u8]> = estimates.iter().map(|estimate| column.row(estimate.row)).collect();
        let PairBuffers { bytes, scores, .. } = buffers;
        if second.scores(self.kernels(), query, &rows, bytes, scores).is_none() {
            return false;
        }
        estimates.iter_mut().zip(scores).for_each(|(estimate, score)| estimate.score = *score);
        true
    }
}
