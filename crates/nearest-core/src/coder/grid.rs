//! `scalar8`, `scalar4` and `rabitq`: every component as a level of an even grid, with a scale a row.
//!
//! How a row is coded, and the bound of what that loses, is in `grid.rs` of the kernels. Nothing is trained.
//!
//! A row's code is made of planes of 4, 2 and 1 bits, as a panel is (see `unpack.rs` of the kernels), 8 bits being bytes. A
//! plane of `b` bits has `w = ⌈dim · b / 8⌉` bytes; byte `k` holds, from the lowest bits on, components `k`, `k + w`, …: so
//! one load and a few shifts bring components that lie side by side.

use nearest_kernels::{
    Kernels, PANEL_ROWS, pack_panel_bytes, pack_planes, panel_depth, planes_bytes, row_of_planes,
};

use super::{CodeTerms, CoderScratch, ShortEncoding};

/// Bits of each plane, in the order in which they lie.
const PLANES: [u32; 3] = [4, 2, 1];

/// Levels of an even grid, `bits` a component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridCoder {
    dim: usize,
    bits: u32,
}

impl GridCoder {
    pub(super) fn new(encoding: ShortEncoding, dim: usize) -> Self {
        let bits = match encoding {
            ShortEncoding::Scalar8 => 8,
            ShortEncoding::Scalar4 => 4,
            ShortEncoding::Rabitq { bits } => bits.into(),
            ShortEncoding::Product { .. } => unreachable!("products have codebooks"),
        };
        Self { dim, bits }
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    pub(super) fn zero(&self) -> i32 {
        if self.is_identity() { 128 } else { (1 << self.bits) - 1 }
    }

    pub(super) fn is_identity(&self) -> bool {
        self.bits == 8
    }

    pub(super) fn code_bytes(&self) -> usize {
        if self.is_identity() { self.dim } else { self.planes().map(|(_, width)| width).sum() }
    }

    pub(super) fn panel_bytes(&self) -> usize {
        let depth = panel_depth(self.dim);
        if self.is_identity() { PANEL_ROWS * depth } else { planes_bytes(self.bits, depth) }
    }

    /// Bits and bytes of the planes of a row.
    fn planes(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        let Self { dim, bits, .. } = *self;
        PLANES
            .into_iter()
            .filter(move |plane| bits & plane != 0)
            .map(move |plane| (plane, plane_width(dim, plane)))
    }

    pub(super) fn encode(
        &self,
        kernels: &Kernels,
        x: &[f32],
        code: &mut [u8],
        scratch: &mut CoderScratch,
    ) -> CodeTerms {
        let found = if self.is_identity() {
            kernels.quantise_grid(x, self.bits, code)
        } else {
            scratch.levels.resize(self.dim, 0);
            let found = kernels.quantise_grid(x, self.bits, &mut scratch.levels);
            self.pack_row(&scratch.levels, code);
            found
        };
        CodeTerms { scale: found.scale, error: found.error }
    }

    fn pack_row(&self, levels: &[u8], mut code: &mut [u8]) {
        code.fill(0);
        for (plane, width) in self.planes() {
            let place;
            (place, code) = code.split_at_mut(width);
            let (below, mask) = (self.bits & (plane - 1), (1u8 << plane) - 1);
            for (i, levels) in levels.chunks(width).enumerate() {
                for (byte, level) in place.iter_mut().zip(levels) {
                    *byte |= ((level >> below) & mask) << (i as u32 * plane);
                }
            }
        }
    }

    /// The levels of a row, which are bytes already where there are 8 bits.
    fn unpack_row(&self, mut code: &[u8], levels: &mut [u8]) {
        if self.is_identity() {
            levels.copy_from_slice(code);
            return;
        }
        levels.fill(0);
        for (plane, width) in self.planes() {
            let bytes;
            (bytes, code) = code.split_at(width);
            let mask = (1u8 << plane) - 1;
            for (i, levels) in levels.chunks_mut(width).enumerate() {
                for (level, byte) in levels.iter_mut().zip(bytes) {
                    *level = *level << plane | (byte >> (i as u32 * plane)) & mask;
                }
            }
        }
    }

    /// The bytes `u` of a row.
    pub(super) fn row_bytes(&self, code: &[u8], bytes: &mut [u8]) {
        self.unpack_row(code, bytes);
        if !self.is_identity() {
            bytes.iter_mut().for_each(|byte| *byte *= 2);
        }
    }

    pub(super) fn pack_panel(&self, codes: &[u8], panel: &mut [u8], scratch: &mut CoderScratch) {
        if self.is_identity() {
            pack_panel_bytes(codes, self.dim, panel);
            return;
        }
        let CoderScratch { levels, panel: bytes, .. } = scratch;
        levels.resize(codes.len() / self.code_bytes() * self.dim, 0);
        for (code, levels) in codes.chunks_exact(self.code_bytes()).zip(levels.chunks_exact_mut(self.dim)) {
            self.unpack_row(code, levels);
        }
        bytes.resize(PANEL_ROWS * panel_depth(self.dim), 0);
        pack_panel_bytes(levels, self.dim, bytes);
        pack_planes(self.bits, bytes, panel);
    }

    pub(super) fn unpack_panel(&self, kernels: &Kernels, panel: &[u8], bytes: &mut [u8]) {
        if self.is_identity() {
            bytes.copy_from_slice(panel);
        } else {
            kernels.unpack_planes(self.bits, panel, bytes);
        }
    }

    pub(super) fn row_of_panel(&self, panel: &[u8], row: usize, code: &mut [u8]) {
        if self.is_identity() {
            for (j, byte) in code.iter_mut().enumerate() {
                *byte = panel[j / 4 * 4 * PANEL_ROWS + row * 4 + j % 4];
            }
        } else {
            let mut levels = vec![0; self.dim];
            row_of_planes(self.bits, panel, row, &mut levels);
            self.pack_row(&levels, code);
        }
    }
}

fn plane_width(dim: usize, plane: u32) -> usize {
    (dim * plane as usize).div_ceil(8)
}
