//! A shadow: packed 8-bit rows kept beside the vectors, so that a single query reads a quarter of the bytes.
//!
//! Blocks of [`BLOCK_ROWS`] rows, each self-contained: 32 panels of codes, then scale, bias, norm and error of every row
//! as four arrays, then the bounds of them all. Exact all the same: the shadow only selects (see `multiply.rs`).

use nearest_kernels::{Kernels, panel_depth};

use super::multiply::{Bounds, N_TERMS, PackedBlock, RowTerms, centre_of, pack_rows};
use super::{BLOCK_ROWS, Scope};
use crate::metric::Metric;
use crate::stored::Stored;

/// Floats at the end of a block: the bounds, padded to a cache line.
const N_BOUNDS: usize = 16;

/// Bytes of one block.
pub fn shadow_bytes(dim: usize) -> usize {
    BLOCK_ROWS * panel_depth(dim) + (N_TERMS * BLOCK_ROWS + N_BOUNDS) * size_of::<f32>()
}

/// Makes blocks of a shadow.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// What the codes are relative to.
    pub centre: Vec<f32>,
    metric: Metric,
}

impl Shadow {
    /// A shadow with a given centre.
    pub fn new(centre: Vec<f32>, metric: Metric) -> Self {
        Self { centre, metric }
    }

    /// A shadow for rows like these.
    pub fn for_rows<T: Stored>(rows: &[T], dim: usize, metric: Metric) -> Self {
        Self::new(centre_of(&Scope::of(rows, dim), metric), metric)
    }

    /// Packs [`BLOCK_ROWS`] rows into `block`, which has [`shadow_bytes`].
    pub fn pack<T: Stored>(&self, kernels: &Kernels, rows: &[T], block: &mut [u8]) {
        let dim = self.centre.len();
        assert!(rows.len() == BLOCK_ROWS * dim && block.len() == shadow_bytes(dim));
        let mut bounds = Bounds::NONE;
        let mut scratch = Vec::new();
        let mut codes = vec![0; BLOCK_ROWS * dim];
        let of_rows: Vec<RowTerms> = rows
            .chunks_exact(dim)
            .zip(codes.chunks_exact_mut(dim))
            .map(|(row, place)| {
                RowTerms::of(kernels, self.metric, row, &self.centre, &mut scratch, place, &mut bounds)
            })
            .collect();
        let (mut panels, mut terms) = (Vec::new(), Vec::new());
        pack_rows(&codes, dim, &of_rows, &mut panels, &mut terms);
        let tame = f32::from(u8::from(bounds.tame));
        terms.extend([bounds.norm, bounds.error, bounds.smallest_error, bounds.bias, tame]);
        terms.resize(N_TERMS * BLOCK_ROWS + N_BOUNDS, 0.0);
        let (place, rest) = block.split_at_mut(panels.len());
        place.copy_from_slice(&panels);
        rest.copy_from_slice(bytemuck::cast_slice(&terms));
    }
}

/// The i-th of some blocks, if there are so many.
pub(super) fn shadow_block(blocks: &[u8], dim: usize, i: usize) -> Option<PackedBlock<'_>> {
    let (size, depth) = (shadow_bytes(dim), panel_depth(dim));
    let (panels, terms) = blocks.get(i * size..(i + 1) * size)?.split_at(BLOCK_ROWS * depth);
    let (terms, bounds) = bytemuck::try_cast_slice::<u8, f32>(terms).ok()?.split_at(N_TERMS * BLOCK_ROWS);
    let &[norm, error, smallest_error, bias, tame, ..] = bounds else { return None };
    let bounds = Bounds { norm, error, smallest_error, bias, tame: tame == 1.0 };
    Some(PackedBlock { panels, terms, depth, bounds })
}
