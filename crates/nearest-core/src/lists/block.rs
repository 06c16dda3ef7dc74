//! The rows of a list, in blocks of at most [`BLOCK_PLACES`].
//!
//! A block is one run of bytes, the same in memory and in a file, and a search reads it front to back: 32 rows at a time,
//! their packed codes, then their scales, their biases and their numbers. Places after the last row have scale 0 and
//! bias −∞, so that no search meets them.

use std::sync::Arc;

use nearest_kernels::PANEL_ROWS;

use super::Coding;
use crate::column::Row;
use crate::memory::Slots;

/// Places of a block at most: what is copied when a row is added.
pub const BLOCK_PLACES: usize = 256;

/// Bytes of scale, bias and row number of 32 rows.
const TERMS_BYTES: usize = 3 * 4 * PANEL_ROWS;

/// Some rows of one list.
#[derive(Clone, Debug)]
pub struct Block {
    store: Arc<Slots<u8>>,
    start: usize,
    n_rows: usize,
    panel_bytes: usize,
}

/// One row of a block.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// Factor of its sums.
    pub scale: f32,
    /// What it adds to every estimate.
    pub bias: f32,
    /// Its number.
    pub row: Row,
}

impl Block {
    /// Bytes of a block of `n_rows` rows.
    pub fn size(n_rows: usize, panel_bytes: usize) -> usize {
        n_rows.div_ceil(PANEL_ROWS) * (panel_bytes + TERMS_BYTES)
    }

    /// The block whose bytes lie at `start` of `store`; nothing if they are not all there.
    pub fn at(store: &Arc<Slots<u8>>, start: usize, n_rows: usize, panel_bytes: usize) -> Option<Self> {
        let size = Self::size(n_rows, panel_bytes);
        let fits = start.checked_add(size)? <= store.published().len() && start.is_multiple_of(4);
        (fits && n_rows > 0 && n_rows <= BLOCK_PLACES).then(|| Self {
            store: store.clone(),
            start,
            n_rows,
            panel_bytes,
        })
    }

    /// Writes the terms of up to 32 rows behind their codes.
    pub fn write_terms(unit: &mut [u8], terms: &[Term]) {
        let at = unit.len() - TERMS_BYTES;
        let places = &mut unit[at..];
        let none = Term { scale: 0.0, bias: f32::NEG_INFINITY, row: Row::MAX };
        for i in 0..PANEL_ROWS {
            let term = terms.get(i).unwrap_or(&none);
            let values = [term.scale.to_le_bytes(), term.bias.to_le_bytes(), term.row.to_le_bytes()];
            for (kind, value) in values.into_iter().enumerate() {
                places[(kind * PANEL_ROWS + i) * 4..][..4].copy_from_slice(&value);
            }
        }
    }

    /// Rows of it.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Panels of it.
    pub fn n_panels(&self) -> usize {
        self.n_rows.div_ceil(PANEL_ROWS)
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.store.published()[self.start..][..Self::size(self.n_rows, self.panel_bytes)]
    }

    /// A panel of it.
    pub fn panel(&self, panel: usize) -> Panel<'_> {
        let size = self.panel_bytes + TERMS_BYTES;
        let (codes, terms) = self.bytes()[panel * size..][..size].split_at(self.panel_bytes);
        let (scales, terms) = terms.split_at(4 * PANEL_ROWS);
        let (biases, rows) = terms.split_at(4 * PANEL_ROWS);
        let rows: &[Row; PANEL_ROWS] = of_32(rows);
        let n_rows = (self.n_rows - panel * PANEL_ROWS).min(PANEL_ROWS);
        Panel { codes, scales: of_32(scales), biases: of_32(biases), rows: &rows[..n_rows] }
    }

    /// Bytes of a panel with its terms.
    pub fn unit_bytes(&self) -> usize {
        self.panel_bytes + TERMS_BYTES
    }

    /// Its panels, in order.
    pub fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        (0..self.n_panels()).map(|panel| self.panel(panel))
    }

    /// The numbers of its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.panels().flat_map(|panel| panel.rows.iter().copied())
    }

    /// The terms of one row.
    pub fn term(&self, at: usize) -> Term {
        let (panel, place) = (self.panel(at / PANEL_ROWS), at % PANEL_ROWS);
        Term { scale: panel.scales[place], bias: panel.biases[place], row: panel.rows[place] }
    }

    /// The code of one row.
    pub fn code(&self, coding: &Coding, at: usize, code: &mut [u8]) {
        coding.row_of_panel(self.panel(at / PANEL_ROWS).codes, at % PANEL_ROWS, code);
    }
}

/// Up to 32 rows of a block.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Their packed codes.
    pub codes: &'a [u8],
    /// Factors of their sums.
    pub scales: &'a [f32; PANEL_ROWS],
    /// What they add to every estimate.
    pub biases: &'a [f32; PANEL_ROWS],
    /// Their numbers.
    pub rows: &'a [Row],
}

fn of_32<T: bytemuck::Pod>(bytes: &[u8]) -> &[T; PANEL_ROWS] {
    bytemuck::cast_slice(bytes).first_chunk().expect("32 places")
}

/// The rows of one list.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// All but the last are full.
    pub blocks: Vec<Block>,
}

impl List {
    /// Rows of it, dead ones included.
    pub fn n_rows(&self) -> usize {
        self.blocks.iter().map(Block::n_rows).sum()
    }

    /// Bytes of it.
    pub fn n_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes().len()).sum()
    }

    /// The numbers of its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.blocks.iter().flat_map(Block::rows)
    }
}
