//! Rows that move together.
//!
//! Removed rows are tombstones until most of a chunk is dead, or, in a graph, some of all: then live rows move to other chunks and
//! theirs goes free. Versions in use keep the old chunk, so nobody waits and nothing moves under a reader.

use super::Snapshot;
use super::writer::{Writer, copied};
use crate::column::{CHUNK_ROWS, Row};
use crate::error::Result;
use crate::work::Work;

/// Dead rows from which a chunk may be compacted.
const COMPACT_ROWS: usize = 1024;
/// Of so many rows of a graph one may be dead.
const ROWS_PER_DEAD_KEPT: usize = 32;

impl Writer {
    /// Moves live rows out of chunks that have too few of them; nothing if there are none.
    pub(super) fn compact(&mut self, before: &Snapshot, work: &Work<'_>) -> Result<Option<Snapshot>> {
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
        self.close();
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
            *published = graph.renumbered(codes, number, &after.live, &self.allocator, work)?;
        }
        Ok(Some(after))
    }
}
