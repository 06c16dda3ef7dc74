//! Changes: staged unseen, published at once.
//!
//! Removed rows are tombstones until most of a chunk is dead, or, in a graph, some of all: then live rows move to other chunks and
//! theirs goes free. Versions in use keep the old chunk, so nobody waits and nothing moves under a reader.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use half::{bf16, f16};
use nearest_kernels::Kernels;

use super::snapshot::{check_bits, check_numbers};
use super::{Index, KeptAs, Snapshot, Spec, WriterPlace, graphed, listed};
use crate::column::{CHUNK_ROWS, Column, ColumnWriter, Row, check_step};
use crate::encoding::{Encoding, Kind, Values, Vectors, VectorsWriter, each_kind};
use crate::error::{Error, Result};
use crate::exact::{BLOCK_ROWS, Shadow, shadow_bytes};
use crate::graph::{self, Graph};
use crate::ids::{IdList, IdsWriter};
use crate::lists::{Coded, Lists};
use crate::live::RowSet;
use crate::memory::{Allocator, SlotWriter, Slots};
use crate::work::{Caller, Work};

/// Dead rows from which a chunk may be compacted.
const COMPACT_ROWS: usize = 1024;
/// Of so many rows of a graph one may be dead.
const ROWS_PER_DEAD_KEPT: usize = 32;
/// How long to wait for another writer before looking for signals.
const PATIENCE: Duration = Duration::from_millis(50);

/// Whether zero vectors are taken where only directions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// They are an error.
    Refuse,
    /// They are at cosine distance 1 from everything.
    Accept,
}

/// The shadow of one version: packed blocks by chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowView {
    shadow: Option<Arc<Shadow>>,
    chunks: Arc<Vec<Option<Arc<Slots<u8>>>>>,
}

impl ShadowView {
    pub(super) fn new(shadow: Shadow, chunks: Vec<Option<Arc<Slots<u8>>>>) -> Self {
        Self { shadow: Some(Arc::new(shadow)), chunks: Arc::new(chunks) }
    }

    pub(super) fn chunk(&self, chunk: usize) -> Option<&[u8]> {
        self.chunks.get(chunk)?.as_deref().map(Slots::published)
    }

    pub(super) fn centre(&self) -> Option<&[f32]> {
        self.shadow.as_ref().map(|shadow| &shadow.centre[..])
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.iter().flatten().map(|slots| slots.published().len().min(slots.memory_bytes())).sum()
    }

    pub(super) fn n_rows(&self, dim: usize) -> usize {
        let blocks = |slots: &Arc<Slots<u8>>| slots.published().len() / shadow_bytes(dim);
        self.chunks.iter().flatten().map(blocks).sum::<usize>() * BLOCK_ROWS
    }
}

/// The one right to change an index.
#[derive(Debug)]
pub(super) struct Writer {
    vectors: VectorsWriter,
    ids: IdsWriter,
    shadow_writers: BTreeMap<usize, SlotWriter<u8>>,
    graph: Option<GraphWriter>,
    allocator: Arc<dyn Allocator>,
}

/// What appends to the columns of a graph, in step with the vectors.
#[derive(Debug)]
struct GraphWriter {
    /// Nothing where codes are the vectors.
    codes: Option<ColumnWriter<u8>>,
    scales: ColumnWriter<bf16>,
}

impl GraphWriter {
    fn new(graph: &Graph, kept_as: KeptAs, allocator: &Arc<dyn Allocator>) -> Self {
        let codes = match kept_as {
            KeptAs::Place => None,
            _ => Some(ColumnWriter::new(graph.codes.codes.clone(), allocator.clone())),
        };
        Self { codes, scales: ColumnWriter::new(graph.codes.scales.clone(), allocator.clone()) }
    }

    fn rewind(&mut self) {
        self.codes.iter_mut().for_each(ColumnWriter::rewind);
        self.scales.rewind();
    }

    fn close(&mut self) {
        self.codes.iter_mut().for_each(ColumnWriter::close);
        self.scales.close();
    }

    /// Stages as many rows as the vectors were given `ranges` for.
    fn stage(&mut self, codes: &[u8], scales: &[bf16], ranges: &[Range<Row>]) -> Result<()> {
        check_step(&self.scales.append(scales)?, ranges);
        if let Some(writer) = &mut self.codes {
            check_step(&writer.append(codes)?, ranges);
        }
        Ok(())
    }

    /// The graph with what was staged, and without links for it.
    fn publish(&mut self, before: &Graph, vectors: &Vectors, free: &[usize]) -> Graph {
        let codes = match (&mut self.codes, vectors) {
            (Some(writer), _) => writer.publish(free),
            (None, Vectors::UInt8(column)) => column.clone(),
            (None, _) => unreachable!("codes are bytes"),
        };
        let codes = graph::Codes { codes, scales: self.scales.publish(free), ..before.codes.clone() };
        Graph { codes, ..before.clone() }
    }
}

impl Writer {
    fn new(snapshot: &Snapshot, allocator: Arc<dyn Allocator>) -> Self {
        let vectors = match &snapshot.vectors {
            Vectors::Float32(column) => {
                VectorsWriter::Float32(ColumnWriter::new(column.clone(), allocator.clone()))
            }
            Vectors::Float16(column) => {
                VectorsWriter::Float16(ColumnWriter::new(column.clone(), allocator.clone()))
            }
            Vectors::BFloat16(column) => {
                VectorsWriter::BFloat16(ColumnWriter::new(column.clone(), allocator.clone()))
            }
            Vectors::Int8(column) => {
                VectorsWriter::Int8(ColumnWriter::new(column.clone(), allocator.clone()))
            }
            Vectors::UInt8(column) => {
                VectorsWriter::UInt8(ColumnWriter::new(column.clone(), allocator.clone()))
            }
        };
        let ids = IdsWriter::new(&snapshot.ids, &snapshot.live, snapshot.next_id, allocator.clone());
        let kept_as = snapshot.spec.kept_as();
        let graph = snapshot.graph.as_ref().map(|graph| GraphWriter::new(graph, kept_as, &allocator));
        Self { vectors, ids, shadow_writers: BTreeMap::new(), graph, allocator }
    }

    fn rewind(&mut self) {
        each_kind!(&mut self.vectors, VectorsWriter, writer => writer.rewind());
        self.graph.iter_mut().for_each(GraphWriter::rewind);
    }

    fn publish_vectors(&mut self, free: &[usize]) -> Vectors {
        match &mut self.vectors {
            VectorsWriter::Float32(writer) => Vectors::Float32(writer.publish(free)),
            VectorsWriter::Float16(writer) => Vectors::Float16(writer.publish(free)),
            VectorsWriter::BFloat16(writer) => Vectors::BFloat16(writer.publish(free)),
            VectorsWriter::Int8(writer) => Vectors::Int8(writer.publish(free)),
            VectorsWriter::UInt8(writer) => Vectors::UInt8(writer.publish(free)),
        }
    }

    /// Packs the blocks that have become full.
    fn extend_shadow<T: Kind>(
        &mut self,
        column: &Column<T>,
        mut view: ShadowView,
        spec: &Spec,
        free: &[usize],
    ) -> Result<ShadowView> {
        let size = shadow_bytes(spec.dim);
        let mut chunks = Vec::clone(&view.chunks);
        chunks.resize(column.n_chunks().max(chunks.len()), None);
        let mut changed = false;
        for &chunk in free {
            changed |= chunks[chunk].take().is_some();
            self.shadow_writers.remove(&chunk);
        }
        for (chunk, place) in chunks.iter_mut().enumerate() {
            let there = place.as_ref().map_or(0, |slots| slots.published().len() / size);
            let full = column.rows_in(chunk) / BLOCK_ROWS;
            if full <= there {
                continue;
            }
            let rows = column.chunk(chunk);
            let shadow = view
                .shadow
                .get_or_insert_with(|| Arc::new(Shadow::for_rows(rows, spec.dim, spec.metric)))
                .clone();
            if !self.shadow_writers.contains_key(&chunk) {
                let (_, mut writer) = Slots::with_capacity(CHUNK_ROWS / BLOCK_ROWS * size, &self.allocator)?;
                if let Some(before) = place.as_deref().map(Slots::published) {
                    writer.stage(before.len(), |part| part.copy_from_slice(before));
                }
                self.shadow_writers.insert(chunk, writer);
            }
            let writer = self.shadow_writers.get_mut(&chunk).expect("just made");
            for rows in rows.chunks_exact(BLOCK_ROWS * spec.dim).skip(there) {
                writer.stage(size, |block| shadow.pack(Kernels::best(), rows, block));
            }
            writer.publish();
            *place = Some(writer.slots().clone());
            if full == CHUNK_ROWS / BLOCK_ROWS {
                self.shadow_writers.remove(&chunk);
            }
            changed = true;
        }
        if changed {
            view.chunks = Arc::new(chunks);
        }
        Ok(view)
    }

    /// The version after `before` in which `new` rows have `ids`, only `live` rows are live, and `free` chunks are gone.
    fn publish(
        &mut self,
        before: &Snapshot,
        live: RowSet,
        lists: Option<Lists>,
        new: &[Range<Row>],
        ids: &IdList,
        free: &[usize],
    ) -> Result<Snapshot> {
        let vectors = self.publish_vectors(free);
        let shadow = match &before.shadow {
            None => None,
            Some(view) => Some(each_kind!(&vectors, Vectors, column => {
                self.extend_shadow(column, view.clone(), &before.spec, free)
            })?),
        };
        let graph = match (&mut self.graph, &before.graph) {
            (Some(writer), Some(graph)) => Some(writer.publish(graph, &vectors, free)),
            _ => None,
        };
        let ids = self.ids.publish(&live, new, ids, free);
        let next_id = self.ids.next_id();
        Ok(Snapshot { vectors, live, ids, shadow, lists, graph, next_id, ..before.clone() })
    }

    /// Moves live rows out of chunks that have too few of them; nothing if there are none.
    fn compact(&mut self, before: &Snapshot, work: &Work<'_>) -> Result<Option<Snapshot>> {
        let (n_rows, n_live) = (before.vectors.n_rows(), before.live.len());
        // All links are copied and followed where any row of a graph moves: many chunks at once, when dead rows are many.
        let waits = before.graph.is_some() && (n_rows - n_live) * ROWS_PER_DEAD_KEPT < n_rows;
        if n_rows - n_live < COMPACT_ROWS || waits {
            return Ok(None);
        }
        let is_left = |n: usize, live: usize| match before.graph {
            // Those that were never filled too: one of them is enough.
            Some(_) => n > 0 && (CHUNK_ROWS - live) * 2 * ROWS_PER_DEAD_KEPT > CHUNK_ROWS,
            None => n - live >= COMPACT_ROWS && n > 2 * live,
        };
        let chunks = 0..before.vectors.n_chunks();
        let dead: Vec<usize> = chunks
            .filter(|&chunk| is_left(before.vectors.rows_in(chunk), before.live.len_in(chunk)))
            .collect();
        if dead.is_empty() {
            return Ok(None);
        }
        if self.ids.is_implicit() {
            self.ids.materialise(before.vectors.n_rows())?;
        }
        // Before numbers change: dead rows are ways between others.
        let graph = match &before.graph {
            Some(graph) if graph.n_dead(&before.live) > 0 => {
                Some(graph.repaired(&before.live, &self.allocator, work)?)
            }
            graph => graph.clone(),
        };
        // The open chunk may be one of them: what moves must go elsewhere.
        each_kind!(&mut self.vectors, VectorsWriter, writer => writer.close());
        self.graph.iter_mut().for_each(GraphWriter::close);
        self.ids.close();
        self.shadow_writers.clear();
        let rows: Vec<Row> = dead.iter().flat_map(|&chunk| before.live.iter_in(chunk)).collect();
        let ids = before.ids.list(rows.iter().copied());
        let ranges = copied(&mut self.vectors, &before.vectors, &rows)?;
        if let (Some(writer), Some(graph)) = (&mut self.graph, &graph) {
            let scales: Vec<_> = rows.iter().map(|&row| graph.codes.scales.row(row)[0]).collect();
            let codes: Vec<_> = match writer.codes {
                Some(_) => rows.iter().map(|&row| graph.codes.codes.row(row)).collect(),
                None => Vec::new(),
            };
            writer.stage(&codes.concat(), &scales, &ranges)?;
        }
        self.ids.stage(before.vectors.n_rows(), &ids, &ranges)?;
        let mut live = before.live.clone();
        dead.iter().for_each(|&chunk| live.clear_chunk(chunk));
        live.insert(ranges.iter().cloned().flatten());
        let mut numbers: Vec<Option<Row>> =
            (0..before.vectors.n_chunks() * CHUNK_ROWS).map(|row| Some(row as Row)).collect();
        dead.iter().for_each(|&chunk| numbers[chunk * CHUNK_ROWS..][..CHUNK_ROWS].fill(None));
        let moved = ranges.iter().cloned().flatten();
        rows.iter().zip(moved).for_each(|(&row, place)| numbers[row as usize] = Some(place));
        let number = |row: Row| numbers.get(row as usize).copied().flatten();
        let lists = before.lists.as_ref().map(|lists| lists.renumbered(number, &self.allocator, work));
        let mut after = self.publish(before, live, lists.transpose()?, &ranges, &ids, &dead)?;
        if let (Some(graph), Some(published)) = (graph, &mut after.graph) {
            let codes = published.codes.clone();
            *published = graph.renumbered(codes, number, &after.live, &self.allocator)?;
        }
        Ok(Some(after))
    }
}

impl Writer {
    /// Stages vectors whose places are in lists: what is kept of them beside, and their entries.
    fn stage_coded(
        &mut self,
        lists: &Lists,
        values: Values<'_>,
        spec: &Spec,
        first: usize,
        zeros: Zeros,
        work: &Work<'_>,
    ) -> Result<(Coded, Vec<Range<Row>>)> {
        let kernels = Kernels::best();
        let kept_as = spec.kept_as();
        let mut coded = None;
        let ranges = if let KeptAs::Raw(_) = kept_as {
            each_kind!(&mut self.vectors, VectorsWriter, column => {
                stage_values(column, values, spec, first, zeros, kernels)
            })?
        } else {
            let code = |values: Values<'_>| listed::code(lists, values, kept_as, work);
            let done = of_checked(values, spec, first, zeros, kernels, code)?;
            let VectorsWriter::UInt8(column) = &mut self.vectors else { unreachable!("codes are bytes") };
            let ranges = column.append(&done.kept)?;
            coded = Some(done);
            ranges
        };
        let mut coded = match coded {
            Some(coded) => coded,
            None => listed::code(lists, values, kept_as, work)?,
        };
        coded.kept.clear();
        let rows: Vec<Row> = ranges.iter().cloned().flatten().collect();
        coded.entries.terms.iter_mut().for_each(|term| term.row = rows[term.row as usize]);
        Ok((coded, ranges))
    }
}

impl Writer {
    /// Stages vectors of a graph: what is kept of them, and what walks compare.
    fn stage_graphed(
        &mut self,
        codes: &graph::Codes,
        values: Values<'_>,
        spec: &Spec,
        first: usize,
        zeros: Zeros,
        work: &Work<'_>,
    ) -> Result<Vec<Range<Row>>> {
        let kernels = Kernels::best();
        let (coded, ranges) = if let KeptAs::Raw(_) = spec.kept_as() {
            let ranges = each_kind!(&mut self.vectors, VectorsWriter, column => {
                stage_values(column, values, spec, first, zeros, kernels)
            })?;
            (graphed::code(codes, values, work)?, ranges)
        } else {
            let code = |values: Values<'_>| graphed::code(codes, values, work);
            let coded = of_checked(values, spec, first, zeros, kernels, code)?;
            let VectorsWriter::UInt8(column) = &mut self.vectors else { unreachable!("codes are bytes") };
            let kept = if spec.kept_as() == KeptAs::Place { &coded.codes } else { &coded.kept };
            let ranges = column.append(kept)?;
            (coded, ranges)
        };
        if ranges.iter().any(|range| range.end as usize > graph::MOST_ROWS) {
            return Err(Error::Memory(format!("a graph holds at most {} rows", graph::MOST_ROWS)));
        }
        let writer = self.graph.as_mut().expect("a graph has a writer");
        writer.stage(&coded.codes, &coded.scales, &ranges)?;
        Ok(ranges)
    }
}

/// Stages rows of vectors as they are, in ascending order of rows.
fn copied(writer: &mut VectorsWriter, vectors: &Vectors, rows: &[Row]) -> Result<Vec<Range<Row>>> {
    match (writer, vectors) {
        (VectorsWriter::Float32(writer), Vectors::Float32(column)) => copy(writer, column, rows),
        (VectorsWriter::Float16(writer), Vectors::Float16(column)) => copy(writer, column, rows),
        (VectorsWriter::BFloat16(writer), Vectors::BFloat16(column)) => copy(writer, column, rows),
        (VectorsWriter::Int8(writer), Vectors::Int8(column)) => copy(writer, column, rows),
        (VectorsWriter::UInt8(writer), Vectors::UInt8(column)) => copy(writer, column, rows),
        _ => unreachable!("what is of one encoding is kept alike"),
    }
}

fn copy<T: Kind>(writer: &mut ColumnWriter<T>, column: &Column<T>, rows: &[Row]) -> Result<Vec<Range<Row>>> {
    let width = column.width();
    writer.stage(rows.len(), |part, out| {
        for (&row, place) in rows[part].iter().zip(out.chunks_exact_mut(width)) {
            place.copy_from_slice(column.row(row));
        }
    })
}

impl Index {
    fn check_writable(&self) -> Result<()> {
        if self.mapped {
            return Err(Error::ReadOnly(
                "this index is a memory map and cannot be changed; open it with memory_map=False to change it".into(),
            ));
        }
        Ok(())
    }

    /// Makes the lists of an index from vectors like those it has or will have, before there are enough of them or instead
    /// of from them; `n` is how many it is to hold.
    pub fn train(self: &Arc<Self>, n: usize, sample: Values<'_>, work: &Work<'_>) -> Result<()> {
        let rows: Vec<usize> = (0..sample.len() / self.spec.dim).collect();
        self.train_on(n, sample, &rows, work)
    }

    /// The same from some rows of `values`, in this order, which are not copied.
    pub fn train_on(
        self: &Arc<Self>,
        n: usize,
        values: Values<'_>,
        rows: &[usize],
        work: &Work<'_>,
    ) -> Result<()> {
        if !self.spec.is_trained() {
            return Err(Error::argument("an index that looks at all its vectors has nothing to train"));
        }
        let mut stage = self.stage(Zeros::Accept, work.caller())?;
        let before = self.snapshot();
        if before.is_trained() {
            return Err(Error::argument("the lists or codes of this index were made already"));
        }
        let dim = self.spec.dim;
        if !values.len().is_multiple_of(dim) || rows.iter().any(|&row| row >= values.len() / dim) {
            return Err(Error::argument(format!(
                "lists are trained on whole vectors of {dim} numbers that are there"
            )));
        }
        each_kind!(values, Values, values => {
            for &row in rows {
                let values = &values[row * dim..][..dim];
                check_numbers(self.kernels, "vectors", values, dim, row, crate::metric::Metric::Euclidean)?;
            }
        });
        let before = Snapshot::clone(&before);
        let after = if self.spec.is_listed() {
            let lists = listed::train(&self.spec, n, values, rows, work)?;
            before.listed(Some(lists), &self.allocator, work)?
        } else {
            let codes = graphed::train(&self.spec, values, rows, work)?;
            before.graphed(Some(codes), &self.allocator, work)?
        };
        // The writer holds vectors of another kind: it is made anew.
        stage.is_whole = false;
        self.current.store(Arc::new(after));
        Ok(())
    }

    /// An empty index whose lists were made as this one's: what is added to it can be carried over by
    /// [`Stage::append_from`]. Without lists where there are none yet.
    pub fn empty_copy(&self) -> Result<Self> {
        let before = self.snapshot();
        let empty = Snapshot::empty(self.spec);
        let (allocator, work) = (&self.allocator, Work::inline());
        let after = match (&before.lists, &before.graph) {
            (Some(lists), _) => empty.listed(Some(lists.without_rows()), allocator, &work)?,
            (_, Some(graph)) => empty.graphed(Some(graph.codes.without_rows()), allocator, &work)?,
            (None, None) => empty,
        };
        Ok(Self::from_snapshot(after, false, self.allocator.clone()))
    }

    /// Keeps what was measured of this index, as text; an empty one forgets it.
    pub fn set_calibration(self: &Arc<Self>, text: &str, caller: &dyn Caller) -> Result<()> {
        let _stage = self.stage(Zeros::Accept, caller)?;
        let calibration = (!text.is_empty()).then(|| text.into());
        self.current.store(Arc::new(Snapshot { calibration, ..Snapshot::clone(&self.snapshot()) }));
        Ok(())
    }

    /// Links the vectors of a graph that wait.
    pub fn link(self: &Arc<Self>, work: &Work<'_>) -> Result<()> {
        let _stage = self.stage(Zeros::Accept, work.caller())?;
        let before = Snapshot::clone(&self.snapshot());
        let after = before.linked(&RowSet::default(), &self.allocator, work)?;
        self.current.store(Arc::new(after));
        Ok(())
    }

    /// Waits for the writer.
    fn take_writer(&self, caller: &dyn Caller) -> Result<Box<Writer>> {
        self.check_writable()?;
        let process = std::process::id();
        let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *place, WriterPlace::Taken(process)) {
                WriterPlace::Here(writer) => return Ok(writer),
                // A thread that had it when this process was forked does not exist here; what it staged is unseen.
                WriterPlace::Taken(by) if by == process => {
                    let (guard, timeout) = self
                        .writer_back
                        .wait_timeout(place, PATIENCE)
                        .unwrap_or_else(PoisonError::into_inner);
                    place = guard;
                    if timeout.timed_out() && matches!(*place, WriterPlace::Taken(_)) {
                        drop(place);
                        if !caller.poll(0, 0, "waiting for another writer") {
                            return Err(Error::Cancelled);
                        }
                        place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                    }
                }
                WriterPlace::Unmade | WriterPlace::Taken(_) => {
                    drop(place);
                    return Ok(Box::new(Writer::new(&self.snapshot(), self.allocator.clone())));
                }
            }
        }
    }

    /// Gives the writer back, or, if it may be half-changed, leaves it to be made anew.
    fn return_writer(&self, writer: Option<Box<Writer>>) {
        let mut place = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        *place = writer.map_or(WriterPlace::Unmade, WriterPlace::Here);
        self.writer_back.notify_one();
    }

    /// Begins a change that is seen at once or never.
    pub fn stage(self: &Arc<Self>, zeros: Zeros, caller: &dyn Caller) -> Result<Stage> {
        let writer = self.take_writer(caller)?;
        Ok(Stage {
            index: self.clone(),
            writer: Some(writer),
            zeros,
            ranges: Vec::new(),
            ids: None,
            coded: Coded::default(),
            held: RowSet::default(),
            n_staged: 0,
            is_whole: true,
        })
    }

    /// Removes the vectors of those ids that are there, at once; returns how many.
    pub fn remove(self: &Arc<Self>, ids: &IdList, work: &Work<'_>) -> Result<usize> {
        ids.check()?;
        // Taking the writer makes the snapshot the last one until it is given back.
        let stage = self.stage(Zeros::Accept, work.caller())?;
        let before = self.snapshot();
        before.ids.check_kind(ids)?;
        let rows: Vec<Row> = ids.iter().filter_map(|id| before.ids.find(id, &before.live)).collect();
        let mut live = before.live.clone();
        let n = live.remove(rows);
        if n > 0 {
            stage.publish(&before, live, &[], &IdList::Int(Vec::new()), work)?;
        }
        Ok(n)
    }
}

/// A change of an index that nobody sees until it is committed, and that is gone if it is dropped before.
#[derive(Debug)]
pub struct Stage {
    index: Arc<Index>,
    writer: Option<Box<Writer>>,
    zeros: Zeros,
    ranges: Vec<Range<Row>>,
    ids: Option<IdList>,
    /// Rows on their way into lists.
    coded: Coded,
    /// Rows that are not to be linked yet.
    held: RowSet,
    n_staged: usize,
    /// Whether the writer can be used again as it is.
    is_whole: bool,
}

impl Stage {
    /// Stages vectors (row-major, `float32` or the encoding's own type) with their ids; ids for all blocks or none.
    pub fn append(&mut self, values: Values<'_>, ids: Option<IdList>, work: &Work<'_>) -> Result<()> {
        let spec = *self.index.spec();
        let width = spec.width();
        if !values.len().is_multiple_of(width) {
            return Err(Error::argument(format!(
                "vectors must have {width} elements each, got {} in all",
                values.len()
            )));
        }
        let n = values.len() / width;
        self.take_ids(n, ids)?;
        if spec.encoding == Encoding::Binary {
            let Values::UInt8(bytes) = values else {
                return Err(Error::argument(format!(
                    "vectors must be packed bits (uint8), got {}",
                    values.element()
                )));
            };
            check_bits("vectors", bytes, spec.dim, self.n_staged)?;
        }
        let (first, zeros, kernels) = (self.n_staged, self.zeros, self.index.kernels);
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let snapshot = self.index.snapshot();
        let ranges = match (&snapshot.lists, &snapshot.graph) {
            (None, Some(graph)) => writer.stage_graphed(&graph.codes, values, &spec, first, zeros, work)?,
            (None, None) => {
                // What waits for lists is kept as it came, and must be such as they will keep.
                if let (Encoding::Short(_), KeptAs::Raw(kept), Values::Float32(values)) =
                    (spec.encoding, spec.kept_as(), values)
                {
                    check_held(kept, values, &spec, first, zeros, kernels)?;
                }
                each_kind!(&mut writer.vectors, VectorsWriter, column => {
                    stage_values(column, values, &spec, first, zeros, kernels)
                })?
            }
            (Some(lists), _) => {
                let (coded, ranges) = writer.stage_coded(lists, values, &spec, first, zeros, work)?;
                self.coded.append(coded);
                ranges
            }
        };
        self.ranges.extend(ranges);
        self.n_staged += n;
        Ok(())
    }

    /// Says which of the vectors that were staged are not to be linked yet, by their places: so they can be queries that a graph
    /// is measured on. [`Index::link`] links them.
    pub fn hold(&mut self, places: &[usize]) -> Result<()> {
        if let Some(place) = places.iter().find(|&&place| place >= self.n_staged) {
            return Err(Error::argument(format!(
                "there are {} staged vectors, got place {place}",
                self.n_staged
            )));
        }
        let rows: Vec<Row> = self.ranges.iter().cloned().flatten().collect();
        self.held.insert(places.iter().map(|&place| rows[place]));
        Ok(())
    }

    fn take_ids(&mut self, n: usize, ids: Option<IdList>) -> Result<()> {
        if let Some(ids) = &ids {
            if ids.len() != n {
                return Err(Error::argument(format!(
                    "ids must be as many as vectors, {n}, got {}",
                    ids.len()
                )));
            }
            ids.check()?;
            self.index.snapshot().ids.check_kind(ids)?;
        }
        match (&mut self.ids, ids) {
            (mine, ids) if self.n_staged == 0 => *mine = ids,
            (None, None) => {}
            (Some(mine), Some(ids)) if mine.kind() == ids.kind() => mine.extend(ids),
            _ => {
                return Err(Error::argument(
                    "ids must be given for all vectors of a change, of one kind, or for none",
                ));
            }
        }
        Ok(())
    }

    /// Stages all vectors of another index with their ids, their codes as they are; false, and nothing is staged, where its
    /// lists were not made as those of this one.
    pub fn append_from(&mut self, other: &Snapshot, work: &Work<'_>) -> Result<bool> {
        let snapshot = self.index.snapshot();
        let (Some(lists), Some(others)) = (&snapshot.lists, &other.lists) else { return Ok(false) };
        let (spec, of_other) = (self.index.spec(), other.spec());
        let alike = (spec.metric, spec.encoding, spec.rerank)
            == (of_other.metric, of_other.encoding, of_other.rerank);
        if !alike || !lists.is_trained_as(others) {
            return Ok(false);
        }
        let rows: Vec<Row> = other.live.iter().collect();
        let n = rows.len();
        let n_bytes = others.lists.iter().map(|list| list.n_bytes() as u64).sum();
        work.check_memory(Some(n_bytes), "the codes of another index")?;
        self.take_ids(n, (n > 0).then(|| other.ids.list(rows.iter().copied())))?;
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let ranges = copied(&mut writer.vectors, &other.vectors, &rows)?;
        let staged: Vec<Row> = ranges.iter().cloned().flatten().collect();
        let number = |row: Row| rows.binary_search(&row).ok().map(|at| staged[at]);
        let (entries, distance) = (others.entries_of(number, work)?, others.distance_of(n));
        let mut found = RowSet::default();
        found.insert(entries.terms.iter().map(|term| term.row));
        if found.len() != n {
            // Only a damaged file lacks some.
            return Err(Error::format(format!("{} of {n} rows are in no list", n - found.len())));
        }
        self.coded.append(Coded { entries, kept: Vec::new(), distance });
        self.ranges.extend(ranges);
        self.n_staged += n;
        Ok(true)
    }

    /// Publishes all that was staged, at once; with `replace`, vectors that had these ids go in the same instant.
    pub fn commit(mut self, replace: bool, work: &Work<'_>) -> Result<IdList> {
        let before = self.index.snapshot();
        let writer = self.writer.as_mut().expect("a stage has the writer");
        let automatic = self.ids.is_none();
        let ids = match self.ids.take() {
            Some(ids) => ids,
            None if replace && self.n_staged > 0 => {
                return Err(Error::argument("upsert needs ids, got none"));
            }
            None => writer.ids.automatic(self.n_staged)?,
        };
        if self.n_staged == 0 {
            return Ok(ids);
        }
        let mut live = before.live.clone();
        if !automatic {
            if let Some(i) = ids.repeated() {
                return Err(Error::argument(format!(
                    "ids must differ, got {} again at position {i}",
                    ids.get(i)
                )));
            }
            let there: Vec<(usize, Row)> = ids
                .iter()
                .enumerate()
                .filter_map(|(i, id)| before.ids.find(id, &before.live).map(|row| (i, row)))
                .collect();
            match there.first() {
                Some(&(i, _)) if !replace => {
                    return Err(Error::argument(format!(
                        "{} of {} ids are in the index already, the first is {} at position {i}; upsert replaces",
                        there.len(),
                        ids.len(),
                        ids.get(i)
                    )));
                }
                _ => live.remove(there.into_iter().map(|(_, row)| row)),
            };
        }
        live.insert(self.ranges.iter().cloned().flatten());
        let ranges = std::mem::take(&mut self.ranges);
        self.publish(&before, live, &ranges, &ids, work)?;
        Ok(ids)
    }

    /// Publishes, moves together what lies scattered, and gives the writer back; on an error nothing has changed.
    fn publish(
        mut self,
        before: &Snapshot,
        live: RowSet,
        new: &[Range<Row>],
        ids: &IdList,
        work: &Work<'_>,
    ) -> Result<()> {
        let n_new = new.iter().map(ExactSizeIterator::len).sum();
        let lists = before.lists.as_ref();
        let lists = lists
            .map(|lists| lists.with(&self.coded, n_new, &live, &self.index.allocator, work))
            .transpose()?;
        let writer = self.writer.as_mut().expect("a stage has the writer");
        // Until this is through, a failure (or a panic) leaves the writer half-changed.
        self.is_whole = false;
        writer.ids.stage(before.vectors.n_rows(), ids, new)?;
        let mut after = writer.publish(before, live, lists, new, ids, &[])?;
        let allocator = &self.index.allocator;
        if after.spec.is_trained() && !after.is_trained() && after.len() >= after.spec.training_rows() {
            // The writer holds vectors of another kind than those in lists or linked: it is left to be made anew.
            let trained = match after.spec.is_listed() {
                true => after.listed(None, allocator, work)?,
                false => after.graphed(None, allocator, work)?,
            };
            self.index.current.store(Arc::new(trained));
            return Ok(());
        }
        if let Some(graph) = &after.graph {
            let graph = graph.awaiting(new.iter().cloned().flatten(), &after.live);
            after = Snapshot { graph: Some(graph), ..after }.maintained(&self.held, allocator, work)?;
        }
        if after.is_outgrown() {
            let relisted = after.relisted(allocator, work)?;
            self.index.current.store(Arc::new(relisted));
            return Ok(());
        }
        let compacted = match writer.compact(&after, work) {
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            compacted => compacted,
        };
        // Room that cannot be made now can be made another time, by a writer made anew.
        self.is_whole = compacted.is_ok();
        self.index.current.store(Arc::new(compacted.ok().flatten().unwrap_or(after)));
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A writer that is not whole is left to be made anew from what was published.
        let writer = self.writer.take().filter(|_| self.is_whole).map(|mut writer| {
            writer.rewind();
            writer
        });
        self.index.return_writer(writer);
    }
}

/// Stages vectors of any type that can be held exactly enough, after checking them.
fn stage_values<T: Kind>(
    column: &mut ColumnWriter<T>,
    values: Values<'_>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Vec<Range<Row>>> {
    column.append(&held::<T>(values, spec, first, zeros, kernels)?)
}

/// What `code` makes of vectors of which only codes are kept, after checking them; integers come to it as these.
fn of_checked<R>(
    values: Values<'_>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
    code: impl FnOnce(Values<'_>) -> Result<R>,
) -> Result<R> {
    match spec.encoding {
        Encoding::UInt8 => code(Values::UInt8(&held::<u8>(values, spec, first, zeros, kernels)?)),
        Encoding::Int8 => code(Values::Int8(&held::<i8>(values, spec, first, zeros, kernels)?)),
        _ => {
            let metric = if zeros == Zeros::Accept { crate::metric::Metric::Euclidean } else { spec.metric };
            each_kind!(values, Values, values => {
                check_numbers(kernels, "vectors", values, spec.dim, first, metric)?;
            });
            code(values)
        }
    }
}

/// Vectors as this type, after checking them; an error where it cannot hold them exactly enough.
fn held<'a, T: Kind>(
    values: Values<'a>,
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Cow<'a, [T]>> {
    if let Some(values) = T::values(&values) {
        let metric = if zeros == Zeros::Accept { crate::metric::Metric::Euclidean } else { spec.metric };
        check_numbers(kernels, "vectors", values, spec.width(), first, metric)?;
        return Ok(Cow::Borrowed(values));
    }
    let Values::Float32(values) = values else {
        return Err(Error::argument(format!(
            "vectors must be float32 or {}, got {}",
            T::NAME,
            values.element()
        )));
    };
    converted::<T>(values, spec, first, zeros, kernels).map(Cow::Owned)
}

/// Vectors in another type that can hold them exactly enough.
fn converted<T: Kind>(
    values: &[f32],
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<Vec<T>> {
    let width = spec.width();
    let metric = if zeros == Zeros::Accept { crate::metric::Metric::Euclidean } else { spec.metric };
    check_numbers(kernels, "vectors", values, width, first, metric)?;
    let mut converted = Vec::with_capacity(values.len());
    for (i, &value) in values.iter().enumerate() {
        converted.push(T::from_f32(value).ok_or_else(|| {
            Error::argument(format!(
                "vectors must hold values of {}, got {value} in row {}, dimension {}",
                T::NAME,
                first + i / width,
                i % width
            ))
        })?);
    }
    // What was not zero may have become so.
    check_numbers(kernels, "vectors", &converted, width, first, metric)?;
    Ok(converted)
}

/// An error unless vectors can be held in an encoding that keeps them as they are.
fn check_held(
    encoding: Encoding,
    values: &[f32],
    spec: &Spec,
    first: usize,
    zeros: Zeros,
    kernels: &Kernels,
) -> Result<()> {
    match encoding {
        Encoding::Float16 => converted::<f16>(values, spec, first, zeros, kernels).map(drop),
        Encoding::BFloat16 => converted::<bf16>(values, spec, first, zeros, kernels).map(drop),
        Encoding::Int8 => converted::<i8>(values, spec, first, zeros, kernels).map(drop),
        Encoding::UInt8 => converted::<u8>(values, spec, first, zeros, kernels).map(drop),
        Encoding::Float32 | Encoding::Binary | Encoding::Short(_) => Ok(()),
    }
}
