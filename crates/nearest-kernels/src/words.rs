//! Product codes: parts of a vector as words of a codebook, chosen and unpacked.
//!
//! A codebook has, for each part (components that lie side by side), `2ᵇ` words of as many bytes, `b` being 4 or 8; a row's
//! code says which (Jégou, Douze and Schmid 2011). Unpacking looks words up by fours of components, as a byte panel has
//! them: one table of 32-bit words for every pair of a four and a part that meet, the bytes of other parts being 0.
//!
//! | packed | part `p` |
//! |---|---|
//! | 4 bits | 16 bytes from `16 p` on: in byte `r` the word of row `r` in the low half, of row `r + 16` in the high one |
//! | 8 bits | 32 bytes from `32 p` on: in byte `r` the word of row `r` |

use crate::panel::{PANEL_ROWS, panel_depth};

/// Parts that are compared with their words at once.
pub const PARTS: usize = 16;

/// Words for unpacking, arranged by fours of components.
#[derive(Clone, Debug)]
pub struct WordTables {
    bits: u32,
    n_parts: usize,
    /// Where the tables of each four of components end.
    ends: Vec<usize>,
    /// The part of each table.
    parts: Vec<u32>,
    /// `2ᵇ` entries each.
    tables: Vec<u32>,
}

impl WordTables {
    /// Tables of the words of parts that end at `ends`, the last of them the number of dimensions. `words` has them by
    /// part, then by number, then by component.
    ///
    /// # Panics
    /// Unless there are 4 or 8 bits, the ends ascend from 1 on or more, and `words` is of the right length.
    #[track_caller]
    pub fn new(bits: u32, ends: &[usize], words: &[u8]) -> Self {
        assert!(bits == 4 || bits == 8, "words have 4 or 8 bits, got {bits}");
        let ascending = ends.first().is_some_and(|&end| end > 0) && ends.is_sorted_by(|a, b| a < b);
        assert!(ascending, "parts must have at least one component, got ends {ends:?}");
        let n_words = 1 << bits;
        let dim = ends[ends.len() - 1];
        assert!(
            words.len() == dim * n_words,
            "there must be {} bytes of words, got {}",
            dim * n_words,
            words.len()
        );
        let mut made =
            Self { bits, n_parts: ends.len(), ends: Vec::new(), parts: Vec::new(), tables: Vec::new() };
        let mut part = 0;
        for four in (0..dim).step_by(4) {
            for j in four..dim.min(four + 4) {
                while ends[part] <= j {
                    part += 1;
                }
                let start = if part == 0 { 0 } else { ends[part - 1] };
                if j == four || j == start {
                    made.parts.push(part as u32);
                    made.tables.resize(made.tables.len() + n_words, 0);
                }
                let width = ends[part] - start;
                let first = made.tables.len() - n_words;
                for (number, entry) in made.tables[first..].iter_mut().enumerate() {
                    let byte = words[start * n_words + number * width + (j - start)];
                    *entry |= u32::from(byte) << (8 * (j - four));
                }
            }
            made.ends.push(made.parts.len());
        }
        made
    }

    /// Bytes of a packed panel.
    pub fn packed_bytes(&self) -> usize {
        self.part_bytes() * self.n_parts
    }

    fn part_bytes(&self) -> usize {
        PANEL_ROWS * self.bits as usize / 8
    }

    #[track_caller]
    pub(crate) fn check(&self, packed: usize, panel: usize) {
        assert!(packed == self.packed_bytes(), "words must take {} bytes, got {packed}", self.packed_bytes());
        let expected = self.ends.len() * 4 * PANEL_ROWS;
        assert!(panel == expected, "the panel must have {expected} bytes, got {panel}");
        debug_assert!(panel_depth(1) == 4);
    }
}

/// Looks up words of 4 bits for a four of components.
///
/// # Safety
/// To be called only inside functions that have the level's features.
pub(crate) unsafe trait Select {
    /// Puts together, for 32 rows, the entries of `tables` that the nibbles at `packed[16 · part..]` choose. Every part has
    /// its 16 bytes there.
    unsafe fn four(tables: &[[u32; 16]], parts: &[u32], packed: &[u8], out: &mut [u8; 4 * PANEL_ROWS]);
}

/// Plain loops.
pub(crate) struct Portable;

// SAFETY: no features are needed.
unsafe impl Select for Portable {
    #[inline(always)]
    unsafe fn four(tables: &[[u32; 16]], parts: &[u32], packed: &[u8], out: &mut [u8; 4 * PANEL_ROWS]) {
        let mut words = [0; PANEL_ROWS];
        for (table, part) in tables.iter().zip(parts) {
            let nibbles = &packed[*part as usize * 16..][..16];
            for (r, nibble) in nibbles.iter().enumerate() {
                words[r] |= table[usize::from(nibble & 15)];
                words[r + 16] |= table[usize::from(nibble >> 4)];
            }
        }
        store(&words, out);
    }
}

#[inline(always)]
fn store(words: &[u32; PANEL_ROWS], out: &mut [u8; 4 * PANEL_ROWS]) {
    for (word, place) in words.iter().zip(out.as_chunks_mut::<4>().0) {
        *place = word.to_le_bytes();
    }
}

/// Unpacks a panel. Lengths are as [`WordTables::check`] checks them.
///
/// # Safety
/// As [`Select`].
#[inline(always)]
pub(crate) unsafe fn unpack<S: Select>(words: &WordTables, packed: &[u8], panel: &mut [u8]) {
    let mut from = 0;
    let (fours, _) = panel.as_chunks_mut::<{ 4 * PANEL_ROWS }>();
    for (&end, out) in words.ends.iter().zip(fours) {
        let parts = &words.parts[from..end];
        if words.bits == 4 {
            let tables = &words.tables.as_chunks::<16>().0[from..end];
            // SAFETY: as the caller's; parts are those that `packed` holds.
            unsafe { S::four(tables, parts, packed, out) };
        } else {
            let tables = &words.tables.as_chunks::<256>().0[from..end];
            let mut rows = [0; PANEL_ROWS];
            for (table, part) in tables.iter().zip(parts) {
                let numbers = &packed[*part as usize * PANEL_ROWS..][..PANEL_ROWS];
                for r in 0..PANEL_ROWS {
                    rows[r] |= table[usize::from(numbers[r])];
                }
            }
            store(&rows, out);
        }
        from = end;
    }
}

/// The nearest word of each part, the first of equals.
///
/// Parts are taken in groups of 16, one a lane, the last filled up with parts of zeros. With `w` components a part, at
/// most: `values` has `w` vectors of lanes a group; `words`, for each group and each number of a word, `w` vectors and
/// one of half the squared norms. Multiplications and additions in a fixed order: the same on every level.
#[inline(always)]
pub(crate) fn nearest(words: &[f32], n_words: usize, values: &[f32], codes: &mut [u8]) {
    let width = values.len() / codes.len();
    let (values, _) = values.as_chunks::<PARTS>();
    let (words, _) = words.as_chunks::<PARTS>();
    let (groups, _) = codes.as_chunks_mut::<PARTS>();
    let of_groups = words.chunks_exact(n_words * (width + 1)).zip(values.chunks_exact(width));
    for (codes, (words, values)) in groups.iter_mut().zip(of_groups) {
        let mut best = [f32::NEG_INFINITY; PARTS];
        let mut chosen = [0_i32; PARTS];
        for (number, word) in words.chunks_exact(width + 1).enumerate() {
            let mut score = [0.0; PARTS];
            for (value, word) in values.iter().zip(word) {
                for j in 0..PARTS {
                    score[j] += value[j] * word[j];
                }
            }
            for j in 0..PARTS {
                // ‖v − w‖² = ‖v‖² − 2 (⟨v, w⟩ − ‖w‖²/2).
                let score = score[j] - word[width][j];
                let better = score > best[j];
                best[j] = if better { score } else { best[j] };
                chosen[j] = if better { number as i32 } else { chosen[j] };
            }
        }
        for j in 0..PARTS {
            codes[j] = chosen[j] as u8;
        }
    }
}

#[track_caller]
pub(crate) fn check_nearest(words: usize, n_words: usize, values: usize, codes: usize) {
    assert!(codes > 0 && codes.is_multiple_of(PARTS), "parts must come in groups of {PARTS}, got {codes}");
    assert!(values > 0 && values.is_multiple_of(codes), "parts must be of one width, got {values} values");
    assert!((1..=256).contains(&n_words), "a part has 1 to 256 words, got {n_words}");
    let expected = n_words * (values + codes);
    assert!(words == expected, "there must be {expected} values of words, got {words}");
}
