//! Short codes, packed so that a panel of bytes is had from them in a few instructions a cache line.
//!
//! **Planes.** Levels `n` of 1 to 7 bits are split into planes of 4, 2 and 1 bits, highest first (7 = 4 + 2 + 1). A plane of
//! `b` bits holds the bytes of a panel (see `panel.rs`) in lines of 64: line `l` holds in its lowest `b` bits the panel's
//! line `l · 8/b`, in the next `b` bits the line after that, and so on. Unpacked is `u = 2n` (see `grid.rs`).

use crate::panel::{PANEL_ROWS, panel_depth};

/// Bytes of a line.
const LINE: usize = 64;

/// Bits of each plane, in the order in which they lie.
const PLANES: [usize; 3] = [4, 2, 1];

/// Panel lines that a cycle of all planes holds.
const CYCLE: usize = 8;

/// Bytes that the planes of a panel take.
///
/// # Panics
/// Unless there are 1 to 7 bits, and `depth` is a multiple of 4.
#[track_caller]
pub const fn planes_bytes(bits: u32, depth: usize) -> usize {
    assert!(bits >= 1 && bits <= 7, "planes have 1 to 7 bits");
    assert!(depth.is_multiple_of(4), "a byte panel's depth must be a multiple of 4");
    let lines = depth * PANEL_ROWS / LINE;
    let [a, b, c] = starts(bits, lines);
    let _ = (a, b);
    c + if bits & 1 != 0 { lines.div_ceil(8) * LINE } else { 0 }
}

/// Where each plane starts, whether or not there is one.
pub(crate) const fn starts(bits: u32, lines: usize) -> [usize; 3] {
    let four = if bits & 4 != 0 { lines.div_ceil(2) * LINE } else { 0 };
    let two = if bits & 2 != 0 { lines.div_ceil(4) * LINE } else { 0 };
    [0, four, four + two]
}

/// Packs a panel of levels, `32 · depth` bytes of which the lowest `bits` count, into planes.
///
/// # Panics
/// Unless there are 1 to 7 bits and the lengths fit.
#[track_caller]
pub fn pack_planes(bits: u32, levels: &[u8], packed: &mut [u8]) {
    check(bits, levels.len(), packed.len());
    packed.fill(0);
    let starts = starts(bits, levels.len() / LINE);
    for (plane, start) in PLANES.into_iter().zip(starts) {
        if bits as usize & plane == 0 {
            continue;
        }
        let below = bits as usize & (plane - 1);
        let mask = (1u8 << plane) - 1;
        let per_byte = 8 / plane;
        let lines = levels.chunks(LINE * per_byte);
        for (levels, packed) in lines.zip(packed[start..].as_chunks_mut::<LINE>().0) {
            for (i, levels) in levels.as_chunks::<LINE>().0.iter().enumerate() {
                for j in 0..LINE {
                    packed[j] |= ((levels[j] >> below) & mask) << (i * plane);
                }
            }
        }
    }
}

/// The levels of one row of a packed panel, as many as it has dimensions.
///
/// # Panics
/// Unless there are 1 to 7 bits, `row` is below 32 and the lengths fit.
#[track_caller]
pub fn row_of_planes(bits: u32, packed: &[u8], row: usize, levels: &mut [u8]) {
    let depth = panel_depth(levels.len());
    check(bits, depth * PANEL_ROWS, packed.len());
    assert!(row < PANEL_ROWS, "a panel has 32 rows, asked for row {row}");
    let starts = starts(bits, depth * PANEL_ROWS / LINE);
    levels.fill(0);
    for (four, levels) in levels.chunks_mut(4).enumerate() {
        // Two lines hold a four of components, 16 rows each.
        let (line, at) = (2 * four + row / 16, row % 16 * 4);
        for (plane, start) in PLANES.into_iter().zip(starts) {
            if bits as usize & plane != 0 {
                let per_byte = 8 / plane;
                let (bytes, shift) = (start + line / per_byte * LINE + at, line % per_byte * plane);
                for (level, byte) in levels.iter_mut().zip(&packed[bytes..bytes + 4]) {
                    *level = *level << plane | (byte >> shift) & ((1 << plane) - 1);
                }
            }
        }
    }
}

/// Unpacks planes to `u = 2n`. Lengths are as [`check`] checks them.
#[inline(always)]
pub(crate) fn planes(bits: u32, packed: &[u8], panel: &mut [u8]) {
    match bits {
        1 => planes_of::<1>(packed, panel),
        2 => planes_of::<2>(packed, panel),
        3 => planes_of::<3>(packed, panel),
        4 => planes_of::<4>(packed, panel),
        5 => planes_of::<5>(packed, panel),
        6 => planes_of::<6>(packed, panel),
        _ => planes_of::<7>(packed, panel),
    }
}

#[inline(always)]
fn planes_of<const BITS: u32>(packed: &[u8], panel: &mut [u8]) {
    let (lines, _) = panel.as_chunks_mut::<LINE>();
    let [four, two, one] = starts(BITS, lines.len());
    let (fours, _) = packed[four..two].as_chunks::<LINE>();
    let (twos, _) = packed[two..one].as_chunks::<LINE>();
    let (ones, _) = packed[one..].as_chunks::<LINE>();
    for (cycle, lines) in lines.chunks_mut(CYCLE).enumerate() {
        let step = |i: usize, line: &mut [u8; LINE]| {
            let four = if BITS & 4 != 0 { &fours[cycle * 4 + i / 2] } else { &[0; LINE] };
            let two = if BITS & 2 != 0 { &twos[cycle * 2 + i / 4] } else { &[0; LINE] };
            let one = if BITS & 1 != 0 { &ones[cycle] } else { &[0; LINE] };
            for j in 0..LINE {
                let four = ((four[j] >> (i % 2 * 4)) & 15) << (BITS & 3);
                let two = ((two[j] >> (i % 4 * 2)) & 3) << (BITS & 1);
                let one = (one[j] >> i) & 1;
                line[j] = (four | two | one) << 1;
            }
        };
        if let Some(lines) = lines.as_chunks_mut::<CYCLE>().0.first_mut() {
            for i in 0..CYCLE {
                step(i, &mut lines[i]);
            }
        } else {
            for i in 0..CYCLE {
                if let Some(line) = lines.get_mut(i) {
                    step(i, line);
                }
            }
        }
    }
}

#[track_caller]
pub(crate) fn check(bits: u32, panel: usize, packed: usize) {
    assert!((1..=7).contains(&bits), "planes have 1 to 7 bits, got {bits}");
    assert!(
        panel.is_multiple_of(4 * PANEL_ROWS),
        "a byte panel must hold 32 rows of a multiple of 4 bytes, got {panel} bytes"
    );
    let expected = planes_bytes(bits, panel / PANEL_ROWS);
    assert!(packed == expected, "planes must have {expected} bytes, got {packed}");
}
