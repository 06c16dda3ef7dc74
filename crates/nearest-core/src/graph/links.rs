//! Links of all rows while they are chosen: side by side in one buffer, which becomes the next version's column as it is.

use std::sync::Arc;

use super::codes::{Chunks, Codes};
use super::{Graph, NONE};
use crate::column::{CHUNK_ROWS, Column, Row};
use crate::error::Result;
use crate::memory::{Allocator, Buffer};

/// Links by row number, [`NONE`] in the places that have none.
#[derive(Debug)]
pub struct Links {
    degree: usize,
    buffer: Buffer,
}

impl Links {
    /// None, of the rows that there are codes of.
    pub fn none(codes: &Codes, degree: usize, allocator: &Arc<dyn Allocator>) -> Result<Self> {
        Self::with(codes, degree, &Column::new(degree, CHUNK_ROWS), allocator)
    }

    /// Those of a graph.
    pub fn of(graph: &Graph, allocator: &Arc<dyn Allocator>) -> Result<Self> {
        Self::with(&graph.codes, graph.plan.degree, &graph.links, allocator)
    }

    fn with(
        codes: &Codes,
        degree: usize,
        known: &Column<Row>,
        allocator: &Arc<dyn Allocator>,
    ) -> Result<Self> {
        let n_bytes = codes.rows_end() * degree * size_of::<Row>();
        let mut links = Self { degree, buffer: Buffer::zeroed(n_bytes, allocator)? };
        for (chunk, out) in links.all_mut().chunks_mut(CHUNK_ROWS * degree).enumerate() {
            // Freed chunks are left alone: what is never written takes no memory.
            let (old, new) =
                out[..codes.codes.rows_in(chunk) * degree].split_at_mut(known.chunk(chunk).len());
            old.copy_from_slice(known.chunk(chunk));
            new.fill(NONE);
        }
        Ok(links)
    }

    /// These, of as many rows.
    #[cfg(test)]
    pub fn of_rows<const DEGREE: usize>(rows: &[[Row; DEGREE]]) -> Self {
        let allocator: Arc<dyn Allocator> = Arc::new(crate::memory::SystemAllocator);
        let mut buffer = Buffer::zeroed(size_of_val(rows), &allocator).unwrap();
        buffer.copy_from_slice(bytemuck::cast_slice(rows.as_flattened()));
        Self { degree: DEGREE, buffer }
    }

    /// As a column with the same rows as that of the codes.
    pub fn into_column(self, codes: &Column<u8>) -> Result<Column<Row>> {
        codes.alongside_in(self.degree, self.buffer)
    }

    /// As walks read them.
    pub fn chunks(&self) -> Chunks<'_, Row> {
        Chunks::of(bytemuck::cast_slice(&self.buffer), self.degree)
    }

    /// Rows that there are places for.
    pub fn n_rows(&self) -> usize {
        self.buffer.len() / size_of::<Row>() / self.degree
    }

    /// The links of a row.
    pub fn of_row(&self, row: Row) -> &[Row] {
        let links = &bytemuck::cast_slice(&self.buffer)[row as usize * self.degree..][..self.degree];
        &links[..n_links(links, self.n_rows())]
    }

    /// The places for the links of a row, and how many of them are taken.
    pub fn places(&mut self, row: Row) -> (&mut [Row], usize) {
        let (degree, n_rows) = (self.degree, self.n_rows());
        let places = &mut self.all_mut()[row as usize * degree..][..degree];
        let n = n_links(places, n_rows);
        (places, n)
    }

    /// Gives a row these links.
    pub fn put(&mut self, row: Row, links: impl IntoIterator<Item = Row>) {
        let (places, _) = self.places(row);
        places.fill(NONE);
        places.iter_mut().zip(links).for_each(|(place, link)| *place = link);
    }

    fn all_mut(&mut self) -> &mut [Row] {
        bytemuck::cast_slice_mut(&mut self.buffer)
    }
}

/// Up to [`NONE`], or to what only a damaged file has.
fn n_links(places: &[Row], n_rows: usize) -> usize {
    places.iter().position(|&link| link as usize >= n_rows).unwrap_or(places.len())
}
