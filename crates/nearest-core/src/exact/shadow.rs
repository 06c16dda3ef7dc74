//! A shadow: packed 8-bit rows kept beside the vectors, so that a single query reads a quarter of the bytes.
//!
//! Blocks of [`BLOCK_ROWS`] rows, each self-contained: 32 panels of codes, then scale, norm, error and inverse norm of
//! every row. Exact all the same: the shadow only selects (see `multiply.rs`).

use nearest_kernels::{Kernels, PANEL_ROWS, pack_panel_bytes, panel_depth};

use super::BLOCK_ROWS;
use super::multiply::{Bounds, RowTerms};
use crate::metric::Metric;
use crate::stored::Stored;

/// Floats at the end of a block: the bounds, padded to a cache line.
const BOUNDS: usize = 16;

/// Bytes of one block.
pub fn shadow_bytes(dim: usize) -> usize {
    BLOCK_ROWS * panel_depth(dim) + (2 * BLOCK_ROWS + BOUNDS) * size_of::<f32>()
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
        Self::new(super::multiply::centre_of(&super::Scope::of(rows, dim)), metric)
    }

    /// Packs [`BLOCK_ROWS`] rows into `block`, which has [`shadow_bytes`].
    pub fn pack<T: Stored>(&self, kernels: &Kernels, rows: &[T], block: &mut [u8]) {
        let dim = self.centre.len();
        let depth = panel_depth(dim);
        assert!(rows.len() == BLOCK_ROWS * dim && block.len() == shadow_bytes(dim));
        let (panels, terms) = block.split_at_mut(BLOCK_ROWS * depth);
        let terms: &mut [f32] = bytemuck::cast_slice_mut(terms);
        let mut bounds = Bounds { tame: true, ..Bounds::default() };
        let mut codes = vec![0; PANEL_ROWS * dim];
        for (p, rows) in rows.chunks_exact(PANEL_ROWS * dim).enumerate() {
            for (i, row) in rows.chunks_exact(dim).enumerate() {
                let of = RowTerms::of(kernels, row, &self.centre, &mut codes[i * dim..(i + 1) * dim]);
                let at = p * PANEL_ROWS + i;
                (terms[at], terms[BLOCK_ROWS + at]) = of.bound(self.metric, &mut bounds);
            }
            let size = PANEL_ROWS * depth;
            pack_panel_bytes(&codes, dim, &mut panels[p * size..(p + 1) * size]);
        }
        let tame = f32::from(u8::from(bounds.tame));
        terms[2 * BLOCK_ROWS..][..4].copy_from_slice(&[bounds.norm, bounds.error, bounds.bias, tame]);
    }
}

/// One block of a shadow.
#[derive(Clone, Copy, Debug)]
pub struct ShadowBlock<'a> {
    panels: &'a [u8],
    terms: &'a [f32],
    depth: usize,
}

impl<'a> ShadowBlock<'a> {
    /// The i-th of some blocks, if there are so many.
    pub fn of(blocks: &'a [u8], dim: usize, i: usize) -> Option<Self> {
        let size = shadow_bytes(dim);
        let block = blocks.get(i * size..(i + 1) * size)?;
        let depth = panel_depth(dim);
        let (panels, terms) = block.split_at(BLOCK_ROWS * depth);
        Some(Self { panels, terms: bytemuck::try_cast_slice(terms).ok()?, depth })
    }

    /// The codes of one panel.
    pub(super) fn panel(&self, panel: usize) -> &'a [u8] {
        let size = PANEL_ROWS * self.depth;
        &self.panels[panel * size..(panel + 1) * size]
    }

    /// (scale, bias) of the rows of one panel.
    pub(super) fn terms(&self, panel: usize) -> (&'a [f32; PANEL_ROWS], &'a [f32; PANEL_ROWS]) {
        let (scale, rest) = self.terms.split_at(BLOCK_ROWS);
        let part = |terms: &'a [f32]| terms[panel * PANEL_ROWS..].first_chunk().expect("32 panels a block");
        (part(scale), part(rest))
    }

    /// What the rows have at most.
    pub(super) fn bounds(&self) -> Bounds {
        let [norm, error, bias, tame] = self.terms[2 * BLOCK_ROWS..][..4] else { unreachable!("16 floats") };
        Bounds { norm, error, bias, tame: tame == 1.0 }
    }
}
