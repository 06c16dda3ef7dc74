//! One version of an index: everything that reads.

use std::sync::Arc;

use nearest_kernels::{Element, Kernels};

use super::writer::ShadowView;
use super::{KeptAs, Spec};
use crate::candidates::Candidate;
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::encoding::{Encoding, Values, Vectors, each_kind};
use crate::error::{Error, Result};
use crate::exact::{self, Bits, Comparer, Numbers, Part, Scope};
use crate::graph::Graph;
use crate::ids::{Id, IdList, Ids};
use crate::lists::Lists;
use crate::live::RowSet;
use crate::stored::Stored;
use crate::work::Work;

/// An index at one moment; later changes do not show.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) spec: Spec,
    pub(super) vectors: Vectors,
    pub(super) live: RowSet,
    pub(super) ids: Ids,
    pub(super) shadow: Option<ShadowView>,
    /// Nothing until there were vectors enough to make them from.
    pub(super) lists: Option<Lists>,
    /// Likewise.
    pub(super) graph: Option<Graph>,
    /// What was measured of it, as text.
    pub(super) calibration: Option<Arc<str>>,
    pub(super) next_id: i64,
    pub(super) kernels: &'static Kernels,
}

/// Queries of a search.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// n × dim numbers.
    Numbers(&'a [f32]),
    /// n × ⌈dim / 8⌉ bytes of packed bits.
    Bits(&'a [u8]),
}

/// How hard an approximate search tries; a default where nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knobs {
    /// Lists looked at, or about how many candidates a walk keeps.
    pub effort: Option<usize>,
    /// Estimates compared again.
    pub rerank_k: Option<usize>,
}

/// Which rows a search may return.
#[derive(Clone, Copy, Debug)]
pub enum Allowed<'a> {
    /// Those with these ids; unknown ones are no error.
    Ids(&'a IdList),
    /// Those marked, in the order of [`Snapshot::ids`].
    Mask(&'a [bool]),
}

/// What was found, a list a query.
#[derive(Debug)]
pub struct Neighbors {
    /// Rows and distances, nearest first, ties by id.
    pub found: Vec<Vec<Candidate>>,
    /// How it went, where a graph was walked along.
    pub looked: Option<Looked>,
}

impl Neighbors {
    fn of(found: Vec<Vec<Candidate>>) -> Self {
        Self { found, looked: None }
    }
}

/// How searches of a graph went, all queries together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Looked {
    /// Walks, and queries that were compared with all selected vectors instead.
    pub n_walks: usize,
    pub n_scans: usize,
    /// Rounds of walks, each a wait for memory, and vectors whose links were followed.
    pub n_rounds: usize,
    pub n_followed: usize,
    /// Codes compared.
    pub n_compared: usize,
    /// Candidates compared again.
    pub n_reranked: usize,
}

impl Looked {
    /// Adds others.
    pub fn add(&mut self, other: Looked) {
        self.n_walks += other.n_walks;
        self.n_scans += other.n_scans;
        self.n_rounds += other.n_rounds;
        self.n_followed += other.n_followed;
        self.n_compared += other.n_compared;
        self.n_reranked += other.n_reranked;
    }
}

/// Counts and bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Stats {
    pub n_vectors: usize,
    pub n_removed: usize,
    pub vectors_bytes: usize,
    pub ids_bytes: usize,
    pub shadow_bytes: usize,
    pub n_shadowed: usize,
    /// What the lists hold, once there are lists.
    pub lists: Option<ListsStats>,
    /// What the graph holds, once there is one.
    pub graph: Option<GraphStats>,
}

/// What a graph holds.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct GraphStats {
    pub n_links: usize,
    pub n_hubs: usize,
    /// Vectors that wait for links and are compared with every query.
    pub n_waiting: usize,
    /// Live vectors that no walk can come to.
    pub n_unreachable: usize,
    /// Codes that walks compare, unless they are the vectors; terms, links and hubs.
    pub graph_bytes: usize,
}

/// What lists hold.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ListsStats {
    pub n_lists: usize,
    pub n_entries: usize,
    pub largest_list: usize,
    pub lists_bytes: usize,
    /// How much farther from their centroids the vectors added since are than those that these were made from, as a factor
    /// of squared distances; 1 where none was added.
    pub drift: f64,
}

impl Snapshot {
    pub(super) fn empty(spec: Spec) -> Self {
        Self {
            spec,
            vectors: Vectors::empty(spec.encoding, spec.dim),
            live: RowSet::default(),
            ids: Ids::None,
            shadow: spec.shadow.then(ShadowView::default),
            lists: None,
            graph: None,
            calibration: None,
            next_id: 0,
            kernels: Kernels::best(),
        }
    }

    /// What the index is made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The kind of ids: `none`, `implicit`, `int` or `text`.
    pub fn id_kind(&self) -> &'static str {
        self.ids.kind()
    }

    /// Whether there is a vector of that id.
    pub fn contains(&self, id: Id<'_>) -> bool {
        self.ids.find(id, &self.live).is_some()
    }

    /// All ids, in the order of the rows.
    pub fn ids(&self) -> IdList {
        self.ids.list(self.live.iter())
    }

    /// The ids of rows that were found.
    pub fn ids_of(&self, rows: impl Iterator<Item = Row>) -> IdList {
        self.ids.list(rows)
    }

    /// The rows of ids, or an error that names those that are not there.
    pub fn rows_of(&self, ids: &IdList) -> Result<Vec<Row>> {
        self.ids.check_kind(ids)?;
        let mut rows = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        for id in ids.iter() {
            match self.ids.find(id, &self.live) {
                Some(row) => rows.push(row),
                None => unknown.push(id.to_string()),
            }
        }
        if unknown.is_empty() {
            return Ok(rows);
        }
        let n = unknown.len();
        unknown.truncate(5);
        let more = if n > unknown.len() { ", …" } else { "" };
        Err(Error::UnknownId(format!(
            "no vectors with {n} of {} ids: {}{more}",
            ids.len(),
            unknown.join(", ")
        )))
    }

    /// Calls `take` with the values of each row, in the order of `rows`: as they were stored, or, where only short codes are kept,
    /// the vectors these stand for (normalised where only directions count).
    pub fn values_of(&self, rows: &[Row], mut take: impl FnMut(Values<'_>)) -> Result<()> {
        if self.is_trained() && !matches!(self.spec.kept_as(), KeptAs::Raw(_)) {
            let mut values = vec![0.0; self.spec.dim];
            let mut bytes = vec![0; self.spec.dim];
            for &row in rows {
                match (&self.lists, &self.graph) {
                    (Some(lists), _) if self.spec.encoding.is_integer() => {
                        self.native(lists, row, &mut bytes)?;
                    }
                    (Some(lists), _) => self.decoded(lists, row, &mut values)?,
                    (_, Some(graph)) if self.spec.encoding.is_integer() => {
                        self.native_of_graph(graph, row, &mut bytes);
                    }
                    (_, Some(graph)) => self.decoded_of_graph(graph, row, &mut values),
                    (None, None) => unreachable!("it is trained"),
                }
                take(match self.spec.encoding {
                    Encoding::Int8 => Values::Int8(bytemuck::cast_slice(&bytes)),
                    Encoding::UInt8 => Values::UInt8(&bytes),
                    _ => Values::Float32(&values),
                });
            }
            return Ok(());
        }
        for &row in rows {
            match &self.vectors {
                Vectors::Float32(column) => take(Values::Float32(column.row(row))),
                Vectors::Float16(column) => take(Values::Float16(column.row(row))),
                Vectors::BFloat16(column) => take(Values::BFloat16(column.row(row))),
                Vectors::Int8(column) => take(Values::Int8(column.row(row))),
                Vectors::UInt8(column) => take(Values::UInt8(column.row(row))),
            }
        }
        Ok(())
    }

    /// This version without the vectors of those ids that are there, as if they had never been there; nobody else sees it. A
    /// graph that links any of them is made anew for it.
    pub fn without(&self, ids: &IdList, work: &Work<'_>) -> Result<Snapshot> {
        self.ids.check_kind(ids)?;
        let rows: Vec<Row> = ids.iter().filter_map(|id| self.ids.find(id, &self.live)).collect();
        let mut live = self.live.clone();
        live.remove(rows);
        // Links that were chosen among them lead to where they were.
        let graph = self.graph_without(&live, work)?;
        Ok(Snapshot { live, graph, ..self.clone() })
    }

    /// In which encoding [`Snapshot::values_of`] gives vectors; float32 where only codes are kept.
    pub fn values_encoding(&self) -> Encoding {
        match self.spec.kept_as() {
            _ if self.spec.encoding.is_raw() => self.spec.encoding,
            KeptAs::Raw(encoding) if self.is_trained() => encoding,
            _ => Encoding::Float32,
        }
    }

    /// What was measured of this index, as the text that [`Index::set_calibration`](super::Index::set_calibration) was given.
    pub fn calibration(&self) -> Option<&str> {
        self.calibration.as_deref()
    }

    /// Whether its lists or links were made.
    pub fn is_trained(&self) -> bool {
        self.lists.is_some() || self.graph.is_some()
    }

    /// The `k` nearest to each query.
    pub fn search(
        &self,
        queries: Queries<'_>,
        k: usize,
        allowed: Option<Allowed<'_>>,
        knobs: Knobs,
        work: &Work<'_>,
    ) -> Result<Neighbors> {
        self.run(queries, allowed, None, Goal::Nearest(k), knobs, work)
    }

    /// All vectors at a distance of at most `radius` from each query.
    pub fn search_radius(
        &self,
        queries: Queries<'_>,
        radius: f32,
        allowed: Option<Allowed<'_>>,
        knobs: Knobs,
        work: &Work<'_>,
    ) -> Result<Neighbors> {
        if radius.is_nan() {
            return Err(Error::argument("radius must be a number, got NaN"));
        }
        self.run(queries, allowed, None, Goal::Within(radius), knobs, work)
    }

    /// The `k` nearest others of stored vectors.
    pub fn neighbors_of(
        &self,
        ids: &IdList,
        k: usize,
        allowed: Option<Allowed<'_>>,
        knobs: Knobs,
        work: &Work<'_>,
    ) -> Result<Neighbors> {
        let rows = self.rows_of(ids)?;
        let goal = Goal::Nearest(k);
        if let (Encoding::Binary, Vectors::UInt8(column)) = (self.spec.encoding, &self.vectors) {
            let bits: Vec<u8> = rows.iter().flat_map(|&row| column.row(row).iter().copied()).collect();
            return self.run(Queries::Bits(&bits), allowed, Some(&rows), goal, knobs, work);
        }
        let mut values = Vec::with_capacity(rows.len() * self.spec.dim);
        self.values_of(&rows, |row| {
            each_kind!(row, Values, row => values.extend(row.iter().map(|value| value.to_f32())));
        })?;
        self.run(Queries::Numbers(&values), allowed, Some(&rows), goal, knobs, work)
    }

    fn run(
        &self,
        queries: Queries<'_>,
        allowed: Option<Allowed<'_>>,
        exclude: Option<&[Row]>,
        goal: Goal,
        knobs: Knobs,
        work: &Work<'_>,
    ) -> Result<Neighbors> {
        self.check_queries(queries)?;
        let rows = allowed.map(|allowed| self.rows_allowed(allowed)).transpose()?;
        let selected = rows.as_ref().unwrap_or(&self.live);
        let metric = self.spec.metric;
        if let (Some(lists), Queries::Numbers(values)) = (&self.lists, queries) {
            let sought = Sought { selected, exclude, goal, knobs };
            if !self.prefers_exact(lists, selected, knobs) {
                return self.search_lists(lists, values, &sought, work).map(Neighbors::of);
            }
            if !matches!(self.spec.kept_as(), KeptAs::Raw(_)) {
                return self.search_gathered(lists, values, &sought, work).map(Neighbors::of);
            }
        }
        if let (Some(graph), Queries::Numbers(values)) = (&self.graph, queries) {
            let sought = Sought { selected, exclude, goal, knobs };
            if !self.prefers_all(graph, selected, knobs) {
                let (found, looked) = self.search_graph(graph, values, &sought, work)?;
                return Ok(Neighbors { found, looked: Some(looked) });
            }
            if !matches!(self.spec.kept_as(), KeptAs::Raw(_)) {
                return self.search_gathered_codes(graph, values, &sought, work).map(Neighbors::of);
            }
        }
        let found = match (queries, &self.vectors) {
            (Queries::Bits(bits), Vectors::UInt8(column)) => {
                let comparer = Bits::new(self.kernels, metric, self.spec.width(), bits);
                self.find(column, selected, &comparer, exclude, goal, work)
            }
            (Queries::Numbers(values), vectors) => each_kind!(vectors, Vectors, column => {
                let comparer = Numbers::new(self.kernels, metric, self.spec.dim, values);
                self.find(column, selected, &comparer, exclude, goal, work)
            }),
            (Queries::Bits(_), _) => unreachable!("queries were checked"),
        }?;
        Ok(Neighbors::of(found))
    }

    fn find<C: Comparer>(
        &self,
        column: &Column<C::Element>,
        selected: &RowSet,
        comparer: &C,
        exclude: Option<&[Row]>,
        goal: Goal,
        work: &Work<'_>,
    ) -> Result<Vec<Vec<Candidate>>> {
        let scope = self.scope(column, selected);
        match goal {
            Goal::Nearest(k) => exact::search(&scope, comparer, k, exclude, &self.ids, work),
            Goal::Within(radius) => exact::search_radius(&scope, comparer, radius, exclude, &self.ids, work),
        }
    }

    fn scope<'a, T: Stored>(&'a self, column: &'a Column<T>, selected: &'a RowSet) -> Scope<'a, T> {
        let n_chunks = column.n_chunks();
        let n_rows: usize = (0..n_chunks).map(|chunk| column.rows_in(chunk)).sum();
        let all = selected.len() == n_rows;
        let parts = (0..n_chunks)
            .filter(|&chunk| column.rows_in(chunk) > 0 && (all || selected.words(chunk).is_some()))
            .map(|chunk| Part {
                first: (chunk * CHUNK_ROWS) as Row,
                vectors: column.chunk(chunk),
                selected: if all { None } else { selected.words(chunk) },
                shadow: self.shadow.as_ref().and_then(|shadow| shadow.chunk(chunk)),
            })
            .collect();
        let centre = self.shadow.as_ref().and_then(ShadowView::centre);
        Scope { width: column.width(), parts, centre }
    }

    fn rows_allowed(&self, allowed: Allowed<'_>) -> Result<RowSet> {
        match allowed {
            Allowed::Ids(ids) => {
                self.ids.check_kind(ids)?;
                Ok(ids.iter().filter_map(|id| self.ids.find(id, &self.live)).collect())
            }
            Allowed::Mask(mask) if mask.len() != self.len() => Err(Error::argument(format!(
                "a filter mask must have shape ({},), one place an id of index.ids, got ({},)",
                self.len(),
                mask.len()
            ))),
            Allowed::Mask(mask) => Ok(self.live.marked(mask)),
        }
    }

    fn check_queries(&self, queries: Queries<'_>) -> Result<()> {
        let (width, len, fits) = match queries {
            Queries::Numbers(values) => (self.spec.dim, values.len(), self.spec.encoding != Encoding::Binary),
            Queries::Bits(bytes) => (self.spec.width(), bytes.len(), self.spec.encoding == Encoding::Binary),
        };
        if !fits {
            let expected = if self.spec.encoding == Encoding::Binary { "packed bits" } else { "numbers" };
            return Err(Error::argument(format!("queries must be {expected} for this index")));
        }
        if !len.is_multiple_of(width) {
            return Err(Error::argument(format!(
                "queries must have {width} elements each, got {len} in all"
            )));
        }
        match queries {
            Queries::Numbers(values) => {
                check_numbers(self.kernels, "queries", values, width, 0, self.spec.metric)
            }
            Queries::Bits(bytes) => check_bits("queries", bytes, self.spec.dim, 0),
        }
    }

    /// Counts and bytes.
    pub fn stats(&self) -> Stats {
        let shadow = self.shadow.as_ref();
        Stats {
            n_vectors: self.live.len(),
            n_removed: self.vectors.n_rows() - self.live.len(),
            vectors_bytes: self.vectors.memory_bytes(),
            ids_bytes: self.ids.memory_bytes(),
            shadow_bytes: shadow.map_or(0, ShadowView::memory_bytes),
            n_shadowed: shadow.map_or(0, |shadow| shadow.n_rows(self.spec.dim)),
            lists: self.lists.as_ref().map(|lists| ListsStats {
                n_lists: lists.n_lists(),
                n_entries: lists.n_entries(),
                largest_list: lists.lists.iter().map(|list| list.n_rows()).max().unwrap_or(0),
                lists_bytes: lists.memory_bytes(),
                drift: lists.drift(),
            }),
            graph: self.graph.as_ref().map(|graph| self.graph_stats(graph)),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Goal {
    Nearest(usize),
    Within(f32),
}

/// What a search looks for among which rows, and how hard.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) selected: &'a RowSet,
    pub(super) exclude: Option<&'a [Row]>,
    pub(super) goal: Goal,
    pub(super) knobs: Knobs,
}

/// An error that names the first value that is not finite, or the first zero vector where only directions count.
/// `first` is the number of rows that came before these.
pub fn check_numbers<T: Stored>(
    kernels: &Kernels,
    what: &str,
    values: &[T],
    dim: usize,
    first: usize,
    metric: crate::metric::Metric,
) -> Result<()> {
    if !kernels.all_finite(values) {
        let at =
            values.iter().position(|value| !value.to_f32().is_finite()).expect("one of them is not finite");
        return Err(Error::argument(format!(
            "{what} must be finite, got {} in row {}, dimension {}",
            values[at].to_f32(),
            first + at / dim,
            at % dim
        )));
    }
    if metric.is_angular() {
        let zero = T::zeroed();
        if let Some(row) =
            values.chunks_exact(dim).position(|row| row.iter().all(|value| value.to_f32() == zero.to_f32()))
        {
            return Err(Error::argument(format!(
                "{what} must not be zero under the metric {}, got a zero vector in row {}",
                metric.name(),
                first + row
            )));
        }
    }
    Ok(())
}

/// [`check_numbers`] for many vectors, on all threads of the work.
pub fn check_many_numbers<T: Stored>(
    kernels: &Kernels,
    what: &str,
    values: &[T],
    dim: usize,
    metric: crate::metric::Metric,
    work: &Work<'_>,
) -> Result<()> {
    // Some 100 µs each, so that few vectors start no thread.
    let rows = (1usize << 20).div_ceil(dim);
    let parts: Vec<&[T]> = values.chunks(rows * dim).collect();
    work.for_each(
        "checking",
        parts.len(),
        || (),
        |(), i| check_numbers(kernels, what, parts[i], dim, i * rows, metric),
    )
}

/// An error if a row has bits beyond `dim`.
pub fn check_bits(what: &str, bytes: &[u8], dim: usize, first: usize) -> Result<()> {
    let n_bytes = dim.div_ceil(8);
    // The first bit is the highest of its byte, so what is beyond are the lowest of the last.
    let beyond = (1u8 << (n_bytes * 8 - dim)) - 1;
    match bytes.chunks_exact(n_bytes).position(|row| row[n_bytes - 1] & beyond != 0) {
        Some(row) => Err(Error::argument(format!(
            "{what} must have zeros in the bits beyond dim {dim}, got ones in row {}",
            first + row
        ))),
        None => Ok(()),
    }
}
