//! Columns: rows of fixed width in append-only chunks, read without locks while one writer appends.
//!
//! Row r lies in chunk r / [`CHUNK_ROWS`]. A chunk is filled once, front to back. Its memory goes back only when the
//! last [`Column`] that knows it is dropped, so a freed row range can be given a new chunk at once: who still reads
//! the old one keeps it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::memory::{Allocator, Buffer, Bytes, SlotWriter, Slots};

/// A position in an index.
pub type Row = u32;

/// Rows of one chunk.
pub const CHUNK_ROWS: usize = 1 << 16;
/// Chunks of one column: all row numbers are below `u32::MAX`.
const MAX_CHUNKS: usize = (1 << 16) - 1;
/// Rows a first chunk has room for.
const FIRST_ROWS: usize = 256;

/// One chunk of a published column.
#[derive(Debug)]
struct Chunk<T> {
    slots: Arc<Slots<T>>,
    /// Rows of it that belong to this view.
    n_rows: usize,
}

// Derived `Clone` would ask for `T: Clone` and is otherwise this.
impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Self {
        Self { slots: self.slots.clone(), n_rows: self.n_rows }
    }
}

/// A column as it was when it was published.
#[derive(Debug)]
pub struct Column<T> {
    width: usize,
    chunk_rows: usize,
    chunks: Arc<Vec<Option<Chunk<T>>>>,
    /// The chunk that grows, kept out of the shared list so that appending does not copy the list.
    open: Option<(usize, Chunk<T>)>,
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        Self {
            width: self.width,
            chunk_rows: self.chunk_rows,
            chunks: self.chunks.clone(),
            open: self.open.clone(),
        }
    }
}

impl<T: Pod> Column<T> {
    /// No rows yet; each will have `width` elements. `chunk_rows` is [`CHUNK_ROWS`] or a divisor of it, for columns
    /// of which one row stands for several rows of the index.
    pub fn new(width: usize, chunk_rows: usize) -> Self {
        Self { width, chunk_rows, chunks: Arc::new(Vec::new()), open: None }
    }

    /// A column of these rows, which lie side by side.
    pub fn of(width: usize, rows: &[T], allocator: &Arc<dyn Allocator>) -> Result<Self> {
        let mut writer = ColumnWriter::new(Self::new(width, CHUNK_ROWS), allocator.clone());
        writer.append(rows)?;
        Ok(writer.publish(&[]))
    }

    /// A column whose chunks, in order, are given; all but the last are full.
    pub fn from_chunks(width: usize, chunk_rows: usize, chunks: Vec<Arc<Slots<T>>>) -> Self {
        let chunks = chunks
            .into_iter()
            .map(|slots| Some(Chunk { n_rows: slots.published().len() / width, slots }))
            .collect();
        Self { width, chunk_rows, chunks: Arc::new(chunks), open: None }
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Chunks, freed ones included.
    pub fn n_chunks(&self) -> usize {
        self.chunks.len().max(self.open.as_ref().map_or(0, |(at, _)| at + 1))
    }

    fn chunk_at(&self, chunk: usize) -> Option<&Chunk<T>> {
        match &self.open {
            Some((at, open)) if *at == chunk => Some(open),
            _ => self.chunks.get(chunk)?.as_ref(),
        }
    }

    /// Rows of a chunk; a freed one has none.
    pub fn rows_in(&self, chunk: usize) -> usize {
        self.chunk_at(chunk).map_or(0, |chunk| chunk.n_rows)
    }

    /// The rows of a chunk, side by side.
    pub fn chunk(&self, chunk: usize) -> &[T] {
        self.chunk_at(chunk).map_or(&[], |chunk| &chunk.slots.published()[..chunk.n_rows * self.width])
    }

    /// One row, or nothing where there is none.
    pub fn get(&self, row: Row) -> Option<&[T]> {
        let at = row as usize % self.chunk_rows * self.width;
        self.chunk(row as usize / self.chunk_rows).get(at..at + self.width)
    }

    /// One row that is there.
    pub fn row(&self, row: Row) -> &[T] {
        self.get(row).expect("a row of this column")
    }

    /// A column of another type with a row for each row of this one. `fill` gets the rows of a chunk.
    pub fn alongside<U: Pod>(
        &self,
        width: usize,
        allocator: &Arc<dyn Allocator>,
        mut fill: impl FnMut(Range<Row>, &mut [U]) -> Result<()>,
    ) -> Result<Column<U>> {
        self.lying_alike(width, |rows| {
            let n = rows.len() * width;
            let (slots, mut writer) = Slots::with_capacity(n, allocator)?;
            let mut filled = Ok(());
            writer.stage(n, |part| filled = fill(rows.start as Row..rows.end as Row, part));
            filled?;
            writer.publish();
            Ok(slots)
        })
    }

    /// The same of `rows`, which has those of all chunks side by side, those of freed ones too.
    pub fn alongside_in<U: Pod>(&self, width: usize, rows: Buffer) -> Result<Column<U>> {
        let bytes = Arc::new(Bytes::Buffered(rows));
        self.lying_alike(width, |rows| {
            Slots::fixed(bytes.clone(), rows.start * width * size_of::<U>(), rows.len() * width)
        })
    }

    /// A column in chunks that lie as here, the same of them open: what is appended goes where it goes here.
    fn lying_alike<U: Pod>(
        &self,
        width: usize,
        mut slots: impl FnMut(Range<usize>) -> Result<Arc<Slots<U>>>,
    ) -> Result<Column<U>> {
        let mut part = |chunk: usize| {
            let Some(&Chunk { n_rows, .. }) = self.chunk_at(chunk) else { return Ok(None) };
            let first = chunk * self.chunk_rows;
            Ok(Some(Chunk { slots: slots(first..first + n_rows)?, n_rows }))
        };
        let mut chunks: Vec<_> = (0..self.n_chunks()).map(&mut part).collect::<Result<_>>()?;
        let open = self.open.as_ref().and_then(|&(at, _)| Some((at, chunks[at].take()?)));
        Ok(Column { width, chunk_rows: self.chunk_rows, chunks: Arc::new(chunks), open })
    }

    /// The same with `values` in the places of `rows`, ascending, and zeros in all others.
    pub fn with_rows<U: Pod>(
        &self,
        width: usize,
        rows: &[Row],
        values: &[U],
        allocator: &Arc<dyn Allocator>,
    ) -> Result<Column<U>> {
        let mut next = rows.iter().zip(values.chunks_exact(width)).peekable();
        self.alongside(width, allocator, |range, out: &mut [U]| {
            while let Some((&row, values)) = next.next_if(|(row, _)| range.contains(row)) {
                out[(row - range.start) as usize * width..][..width].copy_from_slice(values);
            }
            Ok(())
        })
    }

    /// Bytes of memory held, without those of a map.
    pub fn memory_bytes(&self) -> usize {
        (0..self.n_chunks()).filter_map(|i| self.chunk_at(i)).map(|chunk| chunk.slots.memory_bytes()).sum()
    }
}

/// What belongs to a row lies in several columns.
///
/// # Panics
/// Unless rows went where those of another column did: what is found would have the id, or the code, of another row.
#[track_caller]
pub fn check_step(went: &[Range<Row>], others: &[Range<Row>]) {
    let is_same = went.iter().cloned().flatten().eq(others.iter().cloned().flatten());
    assert!(is_same, "columns are out of step: {went:?}, {others:?}");
}

/// The one place that appends to a column. What is staged stays unseen until `publish` returns the next [`Column`].
#[derive(Debug)]
pub struct ColumnWriter<T> {
    published: Column<T>,
    /// Chunks filled or grown since the last `publish`, by position; the last one is open.
    writers: Vec<(usize, SlotWriter<T>)>,
    /// Of these the first is opened next, in whatever order they were freed: so columns stay in step.
    freed: BTreeSet<usize>,
    allocator: Arc<dyn Allocator>,
}

impl<T: Pod> ColumnWriter<T> {
    /// Appends to `column`.
    pub fn new(column: Column<T>, allocator: Arc<dyn Allocator>) -> Self {
        let freed = (0..column.n_chunks()).filter(|&i| column.chunk_at(i).is_none()).collect();
        let mut published = column;
        if published.open.is_none() && published.n_chunks() > 0 {
            // A partly filled last chunk goes on being filled, in a larger copy.
            let last = published.n_chunks() - 1;
            published.open = published
                .chunk_at(last)
                .filter(|chunk| chunk.n_rows < published.chunk_rows)
                .map(|chunk| (last, chunk.clone()));
        }
        Self { published, writers: Vec::new(), freed, allocator }
    }

    /// The column as last published.
    pub fn published(&self) -> &Column<T> {
        &self.published
    }

    /// Stages `n` rows and returns where they went, in order. `fill` gets rows i.. of the n, side by side.
    pub fn stage(
        &mut self,
        n: usize,
        mut fill: impl FnMut(Range<usize>, &mut [T]),
    ) -> Result<Vec<Range<Row>>> {
        let (width, chunk_rows) = (self.published.width, self.published.chunk_rows);
        let mut ranges = Vec::new();
        let mut done = 0;
        while done < n {
            let (chunk, writer) = self.room_for(n - done)?;
            let m = (writer.room() / width).min(n - done);
            let first = chunk * chunk_rows + writer.staged() / width;
            writer.stage(m * width, |part| fill(done..done + m, part));
            ranges.push(first as Row..(first + m) as Row);
            done += m;
        }
        Ok(ranges)
    }

    /// Stages rows that lie side by side.
    pub fn append(&mut self, rows: &[T]) -> Result<Vec<Range<Row>>> {
        let width = self.published.width;
        self.stage(rows.len() / width, |part, out| {
            out.copy_from_slice(&rows[part.start * width..part.end * width]);
        })
    }

    /// The open chunk, with room for a row at least.
    fn room_for(&mut self, n: usize) -> Result<(usize, &mut SlotWriter<T>)> {
        let (width, chunk_rows) = (self.published.width, self.published.chunk_rows);
        let has_room = self.writers.last().is_some_and(|(_, writer)| writer.room() >= width);
        if !has_room {
            let grown = match self.writers.last() {
                Some((at, writer)) => Some((*at, writer.slots().capacity() / width)),
                None => self.published.open.as_ref().map(|(at, chunk)| (*at, chunk.n_rows)),
            };
            match grown {
                Some((at, capacity)) if capacity < chunk_rows => self.grow(at, capacity, n)?,
                _ => self.open_chunk(n)?,
            }
        }
        let (at, writer) = self.writers.last_mut().expect("just opened");
        Ok((*at, writer))
    }

    /// Replaces the open chunk, which is full, by a larger copy.
    fn grow(&mut self, at: usize, capacity: usize, n: usize) -> Result<()> {
        let (width, chunk_rows) = (self.published.width, self.published.chunk_rows);
        let wanted = (capacity * 2).max(capacity + n).max(FIRST_ROWS).min(chunk_rows);
        let (_, mut larger) = Slots::with_capacity(wanted * width, &self.allocator)?;
        match self.writers.last() {
            Some((_, writer)) => larger.stage(writer.staged(), |part| part.copy_from_slice(writer.written())),
            None => {
                let rows = self.published.chunk(at);
                larger.stage(rows.len(), |part| part.copy_from_slice(rows));
            }
        }
        self.writers.pop();
        self.writers.push((at, larger));
        Ok(())
    }

    fn open_chunk(&mut self, n: usize) -> Result<()> {
        let chunk_rows = self.published.chunk_rows;
        let used =
            self.writers.iter().map(|(at, _)| at + 1).max().unwrap_or(0).max(self.published.n_chunks());
        let at = self.freed.first().copied().unwrap_or(used);
        if at >= MAX_CHUNKS {
            return Err(Error::Memory(format!("an index holds at most {} rows", MAX_CHUNKS * CHUNK_ROWS)));
        }
        // A column's first chunk starts small and grows; later ones belong to a large index.
        let capacity = if at == 0 && used == 0 { n.max(FIRST_ROWS).min(chunk_rows) } else { chunk_rows };
        let (_, writer) = Slots::with_capacity(capacity * self.published.width, &self.allocator)?;
        self.freed.pop_first();
        self.writers.push((at, writer));
        Ok(())
    }

    /// A staged or published row.
    pub fn row(&self, row: Row) -> &[T] {
        let (width, chunk_rows) = (self.published.width, self.published.chunk_rows);
        let (chunk, at) = (row as usize / chunk_rows, row as usize % chunk_rows * width);
        match self.writers.iter().rev().find(|(i, _)| *i == chunk) {
            Some((_, writer)) => &writer.written()[at..at + width],
            None => self.published.row(row),
        }
    }

    /// Publishes what was staged, without the chunks in `free`.
    pub fn publish(&mut self, free: &[usize]) -> Column<T> {
        let width = self.published.width;
        let closed = self.writers.len().saturating_sub(1);
        let open_moves = match (&self.published.open, self.writers.last()) {
            (Some((old, _)), Some((new, _))) => old != new,
            _ => false,
        };
        if closed > 0 || open_moves || !free.is_empty() {
            let mut chunks = Vec::clone(&self.published.chunks);
            let mut set = |at: usize, chunk| {
                if chunks.len() <= at {
                    chunks.resize(at + 1, None);
                }
                chunks[at] = chunk;
            };
            if let Some((at, chunk)) = self.published.open.take() {
                set(at, Some(chunk));
            }
            for (at, mut writer) in self.writers.drain(..closed) {
                writer.publish();
                let n_rows = writer.staged() / width;
                set(at, Some(Chunk { slots: writer.slots().clone(), n_rows }));
            }
            for &at in free {
                set(at, None);
                self.freed.insert(at);
            }
            self.published.chunks = Arc::new(chunks);
        }
        if let Some((at, writer)) = self.writers.last_mut() {
            writer.publish();
            let n_rows = writer.staged() / width;
            self.published.open = Some((*at, Chunk { slots: writer.slots().clone(), n_rows }));
        }
        self.published.clone()
    }

    /// Publishes what was staged and closes the open chunk, so that the next row goes to a new one.
    pub fn close(&mut self) {
        self.publish(&[]);
        self.writers.clear();
        if let Some((at, chunk)) = self.published.open.take() {
            let mut chunks = Vec::clone(&self.published.chunks);
            if chunks.len() <= at {
                chunks.resize(at + 1, None);
            }
            chunks[at] = Some(chunk);
            self.published.chunks = Arc::new(chunks);
        }
    }

    /// Forgets what was staged.
    pub fn rewind(&mut self) {
        let published = &self.published;
        for (at, mut writer) in std::mem::take(&mut self.writers) {
            match published.chunk_at(at) {
                // The open chunk, or a larger copy of it: keep the room, forget the rows.
                Some(chunk) => {
                    writer.rewind_to(chunk.n_rows * published.width);
                    self.writers.push((at, writer));
                }
                None if at < published.n_chunks() => {
                    self.freed.insert(at);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SystemAllocator;

    const SMALL: usize = 1024;

    fn writer() -> ColumnWriter<u32> {
        ColumnWriter::new(Column::new(2, SMALL), Arc::new(SystemAllocator))
    }

    fn append(writer: &mut ColumnWriter<u32>, values: Range<u32>) -> Vec<Range<Row>> {
        let first = values.start;
        writer
            .stage(values.len(), |range, part| {
                for (i, pair) in range.zip(part.chunks_exact_mut(2)) {
                    pair.fill(first + i as u32);
                }
            })
            .unwrap()
    }

    fn values(column: &Column<u32>) -> Vec<u32> {
        (0..column.n_chunks()).flat_map(|i| column.chunk(i).chunks_exact(2).map(|pair| pair[0])).collect()
    }

    #[test]
    fn rows_keep_their_order_whatever_the_pieces() {
        for piece in [1, 7, 255, 256, 257, 1024, 5000] {
            let mut writer = writer();
            let mut views = Vec::new();
            let mut n = 0;
            while n < 5000 {
                let m = piece.min(5000 - n);
                append(&mut writer, n..n + m);
                n += m;
                views.push((n, writer.publish(&[])));
            }
            for (n, view) in views {
                assert_eq!(values(&view), (0..n).collect::<Vec<_>>());
                assert_eq!(view.row(n - 1), [n - 1; 2]);
                assert!(view.get(n).is_none());
            }
        }
    }

    /// Whatever one of them staged and forgot.
    #[test]
    fn columns_that_lie_alike_go_on_alike() {
        let n = 4 * SMALL as u32 + 100;
        let (mut one, mut other) = (writer(), writer());
        for writer in [&mut one, &mut other] {
            append(writer, 0..n);
            writer.publish(&[1, 3]);
            writer.close();
            append(writer, 0..10);
            writer.publish(&[0, 2]);
        }
        append(&mut one, 0..3 * SMALL as u32);
        one.rewind();
        let allocator: Arc<dyn Allocator> = Arc::new(SystemAllocator);
        let beside = one.published().alongside(2, &allocator, |_, out: &mut [u32]| {
            out.fill(7);
            Ok(())
        });
        let mut beside = ColumnWriter::new(beside.unwrap(), allocator);
        for n in [5, 2000, 700, 3000] {
            let went = append(&mut one, 0..n);
            assert_eq!(append(&mut other, 0..n), went);
            let flat = |ranges: Vec<Range<Row>>| ranges.into_iter().flatten().collect::<Vec<_>>();
            assert_eq!(flat(append(&mut beside, 0..n)), flat(went));
            let views = [one.publish(&[]), other.publish(&[])];
            assert_eq!(values(&views[0]), values(&views[1]));
            assert_eq!(values(&beside.publish(&[])).len(), values(&views[0]).len());
        }
    }

    #[test]
    fn a_rewound_stage_leaves_nothing() {
        let mut writer = writer();
        append(&mut writer, 0..300);
        let before = writer.publish(&[]);
        for n in [10, 500, 4000] {
            append(&mut writer, 1000..1000 + n);
            writer.rewind();
        }
        assert_eq!(values(&writer.publish(&[])), values(&before));
        append(&mut writer, 300..2500);
        assert_eq!(writer.row(2400), [2400; 2]);
        assert_eq!(values(&writer.publish(&[])), (0..2500).collect::<Vec<_>>());
    }

    #[test]
    fn freed_chunks_are_used_again_and_old_views_keep_theirs() {
        let mut writer = writer();
        append(&mut writer, 0..3000);
        let before = writer.publish(&[]);
        let after = writer.publish(&[0]);
        assert_eq!(after.rows_in(0), 0);
        assert!(after.get(5).is_none());
        let ranges = append(&mut writer, 7000..7100);
        assert_eq!(ranges, [3000..3072, 0..28]);
        let last = writer.publish(&[]);
        assert_eq!(last.row(0), [7072; 2]);
        assert_eq!(before.row(0), [0; 2]);
        assert_eq!(values(&before), (0..3000).collect::<Vec<_>>());
    }

    #[test]
    fn a_column_made_of_parts_can_grow() {
        let mut first = writer();
        append(&mut first, 0..1500);
        let view = first.publish(&[]);
        let slots: Vec<_> = (0..2).map(|i| view.chunk_at(i).unwrap().slots.clone()).collect();
        let mut second = ColumnWriter::new(Column::from_chunks(2, SMALL, slots), Arc::new(SystemAllocator));
        append(&mut second, 1500..2600);
        assert_eq!(values(&second.publish(&[])), (0..2600).collect::<Vec<_>>());
        assert_eq!(values(&view), (0..1500).collect::<Vec<_>>());
    }

    #[test]
    fn a_closed_chunk_stays_short() {
        let mut writer = writer();
        append(&mut writer, 0..10);
        writer.publish(&[]);
        writer.close();
        assert_eq!(append(&mut writer, 10..12), [1024..1026]);
        let view = writer.publish(&[]);
        assert_eq!((view.rows_in(0), view.rows_in(1)), (10, 2));
    }
}
