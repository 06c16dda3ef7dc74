//! The rows of a list, in blocks of at most [`BLOCK_PLACES`]: packed codes, then scale, bias and number of each row.
//!
//! A block is one run of bytes, the same in memory and in a file. Places come in panels of 32; those after the last row
//! have scale 0 and bias −∞, so that no search meets them.

use std::sync::Arc;

use nearest_kernels::PANEL_ROWS;

use super::Coding;
use crate::column::Row;
use crate::memory::Slots;

/// Places of a block at most: what is copied when a row is added.
pub const BLOCK_PLACES: usize = 256;

/// Bytes of scale, bias and row number.
const TERM_BYTES: usize = 12;

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
        let n_panels = n_rows.div_ceil(PANEL_ROWS);
        n_panels * (panel_bytes + PANEL_ROWS * TERM_BYTES)
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

    /// Writes the terms of a block whose codes are in place.
    pub fn write_terms(bytes: &mut [u8], terms: &[Term], panel_bytes: usize) {
        let n_panels = terms.len().div_ceil(PANEL_ROWS);
        let places = n_panels * PANEL_ROWS;
        let bytes = &mut bytes[n_panels * panel_bytes..];
        let mut put = |kind: usize, at: usize, value: [u8; 4]| {
            bytes[(kind * places + at) * 4..][..4].copy_from_slice(&value);
        };
        for at in 0..places {
            let none = Term { scale: 0.0, bias: f32::NEG_INFINITY, row: Row::MAX };
            let term = terms.get(at).unwrap_or(&none);
            put(0, at, term.scale.to_le_bytes());
            put(1, at, term.bias.to_le_bytes());
            put(2, at, term.row.to_le_bytes());
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

    /// The packed codes of a panel.
    pub fn panel(&self, panel: usize) -> &[u8] {
        &self.bytes()[panel * self.panel_bytes..][..self.panel_bytes]
    }

    fn terms(&self, kind: usize) -> &[u8] {
        let n_panels = self.n_panels();
        let size = n_panels * PANEL_ROWS * 4;
        &self.bytes()[n_panels * self.panel_bytes + kind * size..][..size]
    }

    fn of_panel<T: bytemuck::Pod>(&self, kind: usize, panel: usize) -> &[T; PANEL_ROWS] {
        let values: &[T] = bytemuck::cast_slice(self.terms(kind));
        values[panel * PANEL_ROWS..].first_chunk().expect("32 places a panel")
    }

    /// Factors of the sums of a panel's rows.
    pub fn scales(&self, panel: usize) -> &[f32; PANEL_ROWS] {
        self.of_panel(0, panel)
    }

    /// What the rows of a panel add to every estimate.
    pub fn biases(&self, panel: usize) -> &[f32; PANEL_ROWS] {
        self.of_panel(1, panel)
    }

    /// The numbers of its rows.
    pub fn rows(&self) -> &[Row] {
        &bytemuck::cast_slice(self.terms(2))[..self.n_rows]
    }

    /// The terms of one row.
    pub fn term(&self, at: usize) -> Term {
        let (panel, place) = (at / PANEL_ROWS, at % PANEL_ROWS);
        Term { scale: self.scales(panel)[place], bias: self.biases(panel)[place], row: self.rows()[at] }
    }

    /// The code of one row.
    pub fn code(&self, coding: &Coding, at: usize, code: &mut [u8]) {
        coding.row_of_panel(self.panel(at / PANEL_ROWS), at % PANEL_ROWS, code);
    }
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
        self.blocks.iter().flat_map(|block| block.rows().iter().copied())
    }
}
