//! Exact search: the true neighbours, at the speed of the machine. The oracle of every test, the floor of every benchmark.
//!
//! | file | what it holds |
//! |---|---|
//! | `distance.rs` | the reported distance of two vectors, and its inverse: which sums can still be near enough |
//! | `compare.rs` | one query against rows as they lie: bound by memory |
//! | `multiply.rs` | many queries against packed rows: 8-bit multiply-adds with a proved error bound |
//! | `shadow.rs` | packed 8-bit rows kept beside the vectors, for single queries |
//! | `search.rs` | the k nearest, and all within a radius |
//! | `pairs.rs` | all pairs: the neighbours of every vector, the whole matrix of distances |
//!
//! Fast passes only select. Whatever they let through is compared again by the canonical kernels (float64 in a fixed
//! order, integers exactly), and what they leave out is out by a bound that covers all their rounding. So answers
//! have the same bits on every CPU, for any number of threads and any split of the queries.

mod compare;
mod distance;
mod multiply;
mod pairs;
mod search;
mod shadow;

pub use compare::{Bits, Comparer, Numbers};
pub(crate) use distance::{canonical as distance, of_score as distance_of_score};
pub use pairs::{knn_graph, pairwise};

pub use search::{Found, search, search_radius};
pub use shadow::{Shadow, shadow_bytes};

use crate::column::Row;
use crate::live::bits;

/// Rows handled together: their packed form fits the second-level cache.
pub const BLOCK_ROWS: usize = 1024;

/// Rows that lie side by side, and which of them count.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a, T> {
    /// The row number of the first.
    pub first: Row,
    /// The vectors, row-major.
    pub vectors: &'a [T],
    /// Bits of the rows that count, from the first on; nothing: all do.
    pub selected: Option<&'a [u64]>,
    /// Packed 8-bit blocks of the first rows.
    pub shadow: Option<&'a [u8]>,
}

/// The rows that a search looks at.
#[derive(Clone, Debug)]
pub struct Scope<'a, T> {
    /// Elements of a row.
    pub width: usize,
    /// The parts, by row number.
    pub parts: Vec<Part<'a, T>>,
    /// What the shadow's codes are relative to.
    pub centre: Option<&'a [f32]>,
}

/// Rows of one part that are handled together: at most [`BLOCK_ROWS`], starting at a multiple of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    part: usize,
    start: usize,
    end: usize,
}

impl<'a, T> Scope<'a, T> {
    /// All rows of one array.
    pub fn of(vectors: &'a [T], width: usize) -> Self {
        let part = Part { first: 0, vectors, selected: None, shadow: None };
        Self { width, parts: vec![part], centre: None }
    }

    /// All rows, counted or not.
    pub fn n_rows(&self) -> usize {
        self.parts.iter().map(|part| part.vectors.len() / self.width).sum()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(self.n_rows() / BLOCK_ROWS + self.parts.len());
        for (part, rows) in self.parts.iter().enumerate() {
            let n = rows.vectors.len() / self.width;
            for start in (0..n).step_by(BLOCK_ROWS) {
                let end = (start + BLOCK_ROWS).min(n);
                let block = Block { part, start, end };
                if self.selected(block).is_none_or(|words| words.iter().any(|&word| word != 0)) {
                    blocks.push(block);
                }
            }
        }
        blocks
    }

    /// The bits of a block's rows, or nothing where all of them count.
    fn selected(&self, block: Block) -> Option<&'a [u64]> {
        let words = &self.parts[block.part].selected?[block.start / 64..block.end.div_ceil(64)];
        let n_ones: u32 = words.iter().map(|word| word.count_ones()).sum();
        (n_ones as usize != block.end - block.start).then_some(words)
    }

    /// The vectors of a block, counted or not.
    fn vectors(&self, block: Block) -> &'a [T] {
        &self.parts[block.part].vectors[block.start * self.width..block.end * self.width]
    }

    fn first_row(&self, block: Block) -> Row {
        self.parts[block.part].first + block.start as Row
    }

    /// Positions within the block of the rows that count.
    fn positions(&self, block: Block, out: &mut Vec<u32>) {
        out.clear();
        match self.selected(block) {
            None => out.extend(0..(block.end - block.start) as u32),
            Some(words) => {
                let ones = words.iter().enumerate();
                out.extend(ones.flat_map(|(i, &word)| bits(word).map(move |bit| i as u32 * 64 + bit)));
            }
        }
    }
}
