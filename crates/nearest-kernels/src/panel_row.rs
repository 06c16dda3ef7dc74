//! One row out of a byte panel, as the numbers it stands for.

use crate::panel::PANEL_ROWS;

/// Groups of four bytes that are brought together before they become numbers.
const GROUPS: usize = 16;

/// `out = scale · (byte − zero) + offset` for each component of one row of a panel; every operation is rounded once, so
/// that all levels give the same bits.
#[inline(always)]
pub(crate) fn decode(panel: &[u8], row: usize, zero: i32, scale: f32, offset: &[f32], out: &mut [f32]) {
    let (groups, _) = panel.as_chunks::<{ 4 * PANEL_ROWS }>();
    let (group_blocks, _) = groups.as_chunks::<GROUPS>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<{ 4 * GROUPS }>();
    let (offset_blocks, offset_rest) = offset.as_chunks::<{ 4 * GROUPS }>();
    for ((block, out), offset) in group_blocks.iter().zip(out_blocks).zip(offset_blocks) {
        let mut bytes = [0; 4 * GROUPS];
        for g in 0..GROUPS {
            bytes[4 * g..4 * g + 4].copy_from_slice(&block[g][4 * row..4 * row + 4]);
        }
        for j in 0..4 * GROUPS {
            out[j] = scale * (i32::from(bytes[j]) - zero) as f32 + offset[j];
        }
    }
    let first = groups.len() - out_rest.len().div_ceil(4);
    for (j, (out, offset)) in out_rest.iter_mut().zip(offset_rest).enumerate() {
        let byte = groups[first + j / 4][4 * row + j % 4];
        *out = scale * (i32::from(byte) - zero) as f32 + offset;
    }
}
