//! What appends to everything that an index keeps of its vectors, and publishes the next version.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use nearest_kernels::Kernels;

use super::checked::{Zeros, of_checked, stage_values};
use super::{KeptAs, Snapshot, Spec, graphed, listed};
use crate::column::{CHUNK_ROWS, Column, ColumnWriter, Row, check_step};
use crate::encoding::{Kind, Values, Vectors, VectorsWriter, each_kind};
use crate::error::{Error, Result};
use crate::exact::{BLOCK_ROWS, Shadow, shadow_bytes};
use crate::graph::{self, Graph};
use crate::ids::{IdList, IdsWriter};
use crate::lists::{Coded, Lists};
use crate::live::RowSet;
use crate::memory::{Allocator, SlotWriter, Slots};
use crate::work::Work;

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
    pub(super) vectors: VectorsWriter,
    pub(super) ids: IdsWriter,
    shadow_writers: BTreeMap<usize, SlotWriter<u8>>,
    pub(super) graph: Option<GraphWriter>,
    pub(super) allocator: Arc<dyn Allocator>,
}

/// What appends to the columns of a graph, in step with the vectors.
#[derive(Debug)]
pub(super) struct GraphWriter {
    /// Nothing where codes are the vectors.
    pub(super) codes: Option<ColumnWriter<u8>>,
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
    pub(super) fn stage(&mut self, codes: &[u8], scales: &[bf16], ranges: &[Range<Row>]) -> Result<()> {
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
    pub(super) fn new(snapshot: &Snapshot, allocator: Arc<dyn Allocator>) -> Self {
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

    pub(super) fn rewind(&mut self) {
        each_kind!(&mut self.vectors, VectorsWriter, writer => writer.rewind());
        self.graph.iter_mut().for_each(GraphWriter::rewind);
    }

    /// Leaves the open chunks as they are: what is staged next goes elsewhere.
    pub(super) fn close(&mut self) {
        each_kind!(&mut self.vectors, VectorsWriter, writer => writer.close());
        self.graph.iter_mut().for_each(GraphWriter::close);
        self.ids.close();
        self.shadow_writers.clear();
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
    pub(super) fn publish(
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

    /// Stages vectors whose places are in lists: what is kept of them beside, and their entries.
    pub(super) fn stage_coded(
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

    /// Stages vectors of a graph: what is kept of them, and what walks compare.
    pub(super) fn stage_graphed(
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
pub(super) fn copied(writer: &mut VectorsWriter, vectors: &Vectors, rows: &[Row]) -> Result<Vec<Range<Row>>> {
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
