//! One query against a panel that lies in planes (see `unpack.rs`).
//!
//! What many queries share is unpacked once; a single one takes the levels from the planes as it multiplies, so that short
//! codes are read from memory and nothing is written. Planes are summed one after the other: Σ v n is made of Σ v n₄, Σ v n₂
//! and Σ v n₁ by shifts.

use super::tile::Multiply;
use crate::panel::{Hit, PANEL_ROWS, PanelQueries, PanelRows, push_hits};
use crate::unpack;

/// Bytes of a line: four components of 16 rows.
const LINE: usize = 64;
/// Rows of a line.
const LINE_ROWS: usize = 16;
/// Fours of components that a cycle of all planes holds.
const CYCLE: usize = 4;

/// What planes need of a level beyond [`Multiply`].
///
/// # Safety
/// As [`Multiply`].
pub(super) unsafe trait Levels: Multiply<Row = u8, Code = i8, Sum = i32> {
    /// Bits of every byte from `shift` on, as many as `mask` has; `shift` plus these is at most 8.
    unsafe fn levels(line: Self::Panel, shift: u32, mask: u8) -> Self::Panel;
    /// Every sum times 2^`by`.
    unsafe fn shifted(total: Self::Total, by: u32) -> Self::Total;
}

/// Pushes the rows whose estimates the query lets in.
///
/// # Safety
/// There are 1 to 7 bits, the panel has the bytes of so many planes of `depth`, a multiple of 4, and there is one query.
#[inline(always)]
pub(super) unsafe fn one_query<M: Levels>(
    bits: u32,
    rows: &PanelRows<'_, u8>,
    queries: &PanelQueries<'_, i8>,
    depth: usize,
    hits: &mut Vec<Hit<i32>>,
) {
    let [four, two, one] = unpack::starts(bits, depth * PANEL_ROWS / LINE);
    let (weight, threshold) = (queries.weight[0], queries.threshold[0]);
    let mut sums = [0; PANEL_ROWS];
    let mut mask = 0u32;
    for first_row in (0..LINE_ROWS).step_by(M::LANES) {
        // SAFETY: each plane has a place for these rows in each of its lines; rows and sums have 32 places.
        unsafe {
            let at = rows.panel.as_ptr().add(first_row * 4);
            let mut totals = [M::start(0); 2];
            if bits & 4 != 0 {
                totals = plane::<M, 4>(at.add(four), queries.codes, totals);
            }
            if bits & 2 != 0 {
                totals = plane::<M, 2>(at.add(two), queries.codes, totals);
            }
            if bits & 1 != 0 {
                totals = plane::<M, 1>(at.add(one), queries.codes, totals);
            }
            for (half, total) in totals.into_iter().enumerate() {
                let row = half * LINE_ROWS + first_row;
                // u = 2n
                let total = M::join(M::start(queries.start[0]), M::shifted(total, 1));
                M::store(total, sums.as_mut_ptr().add(row));
                let (scale, bias) = (rows.scale.as_ptr().add(row), rows.bias.as_ptr().add(row));
                let below = M::below(total, scale, bias, weight, threshold);
                mask |= (!below & ((1 << M::LANES) - 1)) << row;
            }
        }
    }
    if mask != 0 {
        push_hits(0, mask, &sums, hits);
    }
}

/// `2^BITS` times what is there, plus the sums of a plane of `BITS` bits: of the rows `at` points to, and of those 16 later.
///
/// # Safety
/// From `at` on there are the lines of the plane, each read as far as [`Multiply::LANES`] rows go.
#[inline(always)]
unsafe fn plane<M: Levels, const BITS: usize>(
    mut at: *const u8,
    codes: &[i8],
    above: [M::Total; 2],
) -> [M::Total; 2] {
    let mask = ((1u32 << BITS) - 1) as u8;
    // Of a line's fours, a packed line has so many, each as the first 16 rows and then the others.
    let fours = CYCLE / BITS;
    // SAFETY: every line that is read holds one of the fours of codes, so that it is there.
    unsafe {
        // Eight chains of sums.
        let mut totals = [[M::start(0); 2]; CYCLE];
        let (cycles, rest) = codes.as_chunks::<{ 4 * CYCLE }>();
        for codes in cycles {
            for line in 0..BITS {
                let packed = M::panel(at.add(line * LINE));
                for i in 0..fours {
                    let four = line * fours + i;
                    let spread = M::spread(codes.as_ptr().add(4 * four));
                    for half in 0..2 {
                        let levels = M::levels(packed, ((2 * i + half) * BITS) as u32, mask);
                        totals[four][half] = M::step(totals[four][half], levels, spread);
                    }
                }
            }
            at = at.add(BITS * LINE);
        }
        for (four, codes) in rest.chunks_exact(4).enumerate() {
            let packed = M::panel(at.add(four / fours * LINE));
            let spread = M::spread(codes.as_ptr());
            for half in 0..2 {
                let levels = M::levels(packed, ((2 * (four % fours) + half) * BITS) as u32, mask);
                totals[0][half] = M::step(totals[0][half], levels, spread);
            }
        }
        let mut sums = [M::shifted(above[0], BITS as u32), M::shifted(above[1], BITS as u32)];
        for of_four in totals {
            sums = [M::join(sums[0], of_four[0]), M::join(sums[1], of_four[1])];
        }
        sums
    }
}
