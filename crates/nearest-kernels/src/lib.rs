//! Distance kernels of `nearest`: slices in, numbers out.
//!
//! | file | what it holds |
//! |---|---|
//! | `kernels.rs` | [`Kernels`]: one table a CPU level, chosen once, with safe methods that check lengths |
//! | `element.rs` | [`Element`]: the number types that vectors are stored as |
//! | `rows.rs` | [`Rows`]: the rows that one query is compared with |
//! | `panel.rs` | packed panels of 32 rows, the queries they are multiplied with, and [`Hit`]s |
//! | `centroids.rs` | points and centroids that are compared by panels, and the best of them |
//! | `panel_row.rs` | one row out of a panel |
//! | `portable.rs` | plain loops: the meaning of every selection kernel, on every CPU |
//! | `canonical.rs` | the distances that are reported: float64 in one fixed order, the same bits on every level |
//! | `quantise.rs` | rows and queries as bytes, with true bounds of what that loses |
//! | `sums.rs` | sums of rows, for their means |
//! | `rotate.rs` | orthonormal rotations that cost O(dim · log dim) |
//! | `grid.rs` | rows as levels of 1 to 8 bits, with true bounds of what that loses |
//! | `unpack.rs` | levels, packed so that a panel of bytes is had from them at once |
//! | `words.rs` | product codes: words of a codebook, chosen and unpacked |
//! | `symmetric.rs` | inner loops of the symmetric eigenproblem |
//! | `x86_64/` | the same kernels for AVX2 and AVX-512 |
//!
//! Selection kernels ([`Kernels::dot`] and its kin) may round differently from one level to the next:
//! they choose candidates, and the canonical kernels say the distances that are reported. Kernels of
//! integers and bits are exact on every level.
//!
//! Callers validate their data: a NaN gives an unspecified number, never undefined behaviour.

// Kernels need instruction sets that are only known at run time, and loads without bounds checks in
// their inner loops. This crate is where such code lives; its public functions are all safe.
#![allow(unsafe_code)]
// Loops over lanes index several arrays at once and are unrolled; iterators over one of them hide that.
#![allow(clippy::needless_range_loop)]

mod canonical;
mod centroids;
mod codes;
mod element;
mod grid;
mod kernels;
mod panel;
mod panel_row;
mod portable;
mod quantise;
mod rotate;
mod rows;
mod sums;
mod symmetric;
mod unpack;
mod words;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use centroids::{Nearest, PanelCentroids, PanelPoints};
pub use codes::{CodeQuery, CodeSums};
pub use element::Element;
pub use grid::GridCode;
pub use kernels::Kernels;
pub use panel::{Hit, PANEL_ROWS, PanelQueries, PanelRows, pack_panel_bytes, pack_panel_f32, panel_depth};
pub use quantise::{QueryCode, RowCode};
pub use rows::Rows;
pub use sums::prefetch;
pub use symmetric::{RankTwo, STRIP, Turn};
pub use unpack::{pack_planes, planes_bytes, row_of_planes};
pub use words::{PARTS, WordTables};

/// The largest number of dimensions.
///
/// A sum of 32 768 products of bytes is at most 65 025 · 32 768 < 2³¹, so sums of integer kinds never
/// overflow an `i32`.
pub const MAX_DIM: usize = 32_768;
