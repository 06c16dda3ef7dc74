//! `product(m, bits)`: the vector in `m` parts, each coded as the nearest of 2ᵇ words (Jégou, Douze and Schmid 2011).
//!
//! Words are trained on directions and chosen for the row's direction, its length being in the scale that a row has
//! anyway. They are held as signed bytes with one unit for all, so that unpacking gives bytes to multiply; the row's scale,
//! fitted to the row, takes up what the unit would be. Parts are as even as can be, the first ones one component longer.
//!
//! A row's code has the words of its parts in order, two in a byte where they have 4 bits, the first in the low half.

use std::sync::Mutex;

use nearest_kernels::{Kernels, PANEL_ROWS, PARTS, WordTables};

use super::{CodeTerms, CoderScratch};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::work::Work;

/// Rows that training looks at, at most.
const SAMPLE_ROWS: usize = 16_384;
/// Rounds of k-means; more change the error by less than a thousandth.
const ROUNDS: usize = 16;
/// What the bytes of words are relative to.
const ZERO: u8 = 128;

/// Codebooks of parts.
#[derive(Clone, Debug)]
pub struct ProductCoder {
    bits: u32,
    /// Where each part ends.
    ends: Vec<usize>,
    /// Components of words, in directions of length 1, are whole numbers of this.
    unit: f32,
    /// By part, by number, by component: bytes from 1 to 255.
    words: Vec<u8>,
    /// The words as [`Kernels::nearest_words`] takes them.
    lanes: Vec<f32>,
    tables: WordTables,
}

/// How parts lie in the vector, and in groups of lanes.
#[derive(Clone, Copy)]
struct Parts<'a> {
    ends: &'a [usize],
}

impl Parts<'_> {
    fn range(self, part: usize) -> std::ops::Range<usize> {
        (if part == 0 { 0 } else { self.ends[part - 1] })..self.ends[part]
    }

    /// The first parts are the widest.
    fn width(self) -> usize {
        self.ends[0]
    }

    fn n_groups(self) -> usize {
        self.ends.len().div_ceil(PARTS)
    }

    /// Floats that a vector takes in lanes.
    fn lanes(self) -> usize {
        self.n_groups() * self.width() * PARTS
    }

    /// The place of a component of a part among the lanes.
    fn lane(self, part: usize, component: usize) -> usize {
        (part / PARTS * self.width() + component) * PARTS + part % PARTS
    }

    /// Puts `x · factor` into lanes; places without a component are left as they are.
    fn spread(self, x: &[f32], factor: f32, lanes: &mut [f32]) {
        for part in 0..self.ends.len() {
            for (component, x) in x[self.range(part)].iter().enumerate() {
                lanes[self.lane(part, component)] = x * factor;
            }
        }
    }
}

/// Where parts end that share `dim` components as evenly as can be.
fn even_ends(dim: usize, m: usize) -> Vec<usize> {
    (1..=m).map(|part| part * (dim / m) + part.min(dim % m)).collect()
}

/// One over the length, if float32 holds it and what is made with it.
fn inverse_length(kernels: &Kernels, x: &[f32]) -> Option<f32> {
    let length = kernels.canonical_squared_norm(x).sqrt();
    (1e-30..1e30).contains(&length).then(|| (1.0 / length) as f32)
}

impl ProductCoder {
    pub(super) fn train(
        m: usize,
        bits: u32,
        dim: usize,
        sample: &[f32],
        seed: u64,
        kernels: &Kernels,
        work: &Work<'_>,
    ) -> Result<Self> {
        let ends = even_ends(dim, m);
        let parts = Parts { ends: &ends };
        let step = (sample.len() / dim).div_ceil(SAMPLE_ROWS).max(1);
        let n_rows = (sample.len() / dim).div_ceil(step);
        work.check_memory(
            n_rows.checked_mul(parts.lanes() * size_of::<f32>()).map(|n| n as u64),
            "training",
        )?;
        let mut rows = Vec::with_capacity(n_rows * parts.lanes());
        for row in sample.chunks_exact(dim).step_by(step) {
            if let Some(inverse) = inverse_length(kernels, row) {
                rows.resize(rows.len() + parts.lanes(), 0.0);
                let start = rows.len() - parts.lanes();
                parts.spread(row, inverse, &mut rows[start..]);
            }
        }
        if rows.is_empty() {
            return Err(Error::argument(format!(
                "product({m}, {bits}) needs rows other than zeros to train on"
            )));
        }
        let words = cluster(parts, 1 << bits, &rows, seed, kernels, work)?;
        let largest = words.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let unit = largest / 127.0;
        let bytes = words.iter().map(|word| ((word / unit).round() as i32 + i32::from(ZERO)) as u8);
        Self::new(bits, ends.clone(), unit, bytes.collect())
            .ok_or_else(|| Error::argument(format!("product({m}, {bits}) needs rows of numbers to train on")))
    }

    /// The coder of these words, if they are ones.
    fn new(bits: u32, ends: Vec<usize>, unit: f32, words: Vec<u8>) -> Option<Self> {
        if !(unit > 1e-12 && unit < 1.0) || words.contains(&0) {
            return None;
        }
        let (parts, n_words) = (Parts { ends: &ends }, 1 << bits);
        let width = parts.width();
        let mut lanes = vec![0.0; parts.n_groups() * n_words * (width + 1) * PARTS];
        for part in 0..ends.len() {
            let range = parts.range(part);
            for number in 0..n_words {
                let word = &words[range.start * n_words + number * range.len()..][..range.len()];
                let place = (part / PARTS * n_words + number) * (width + 1);
                let mut half_square = 0.0;
                for (component, &byte) in word.iter().enumerate() {
                    let value = f32::from(byte) - f32::from(ZERO);
                    lanes[(place + component) * PARTS + part % PARTS] = value;
                    half_square += 0.5 * value * value;
                }
                lanes[(place + width) * PARTS + part % PARTS] = half_square;
            }
        }
        let tables = WordTables::new(bits, &ends, &words);
        Some(Self { bits, ends, unit, words, lanes, tables })
    }

    /// The unit as four bytes, lowest first; then the words, by part, by number, by component.
    pub(super) fn state(&self) -> Vec<u8> {
        self.unit.to_le_bytes().into_iter().chain(self.words.iter().copied()).collect()
    }

    pub(super) fn from_state(m: usize, bits: u32, dim: usize, state: &[u8]) -> Result<Self> {
        let expected = size_of::<f32>() + (dim << bits);
        let wrong = |text: String| Error::format(format!("the codebooks of product({m}, {bits}) {text}"));
        if state.len() != expected {
            return Err(wrong(format!("must have {expected} bytes, got {}", state.len())));
        }
        let (unit, words) = state.split_first_chunk().expect("longer than a float");
        Self::new(bits, even_ends(dim, m), f32::from_le_bytes(*unit), words.to_vec())
            .ok_or_else(|| wrong("hold values that none can have".into()))
    }

    fn parts(&self) -> Parts<'_> {
        Parts { ends: &self.ends }
    }

    pub(super) fn dim(&self) -> usize {
        self.ends[self.ends.len() - 1]
    }

    pub(super) fn zero(&self) -> i32 {
        ZERO.into()
    }

    pub(super) fn code_bytes(&self) -> usize {
        (self.ends.len() * self.bits as usize).div_ceil(8)
    }

    pub(super) fn panel_bytes(&self) -> usize {
        self.tables.packed_bytes()
    }

    pub(super) fn encode(
        &self,
        kernels: &Kernels,
        x: &[f32],
        code: &mut [u8],
        scratch: &mut CoderScratch,
    ) -> CodeTerms {
        let (parts, CoderScratch { levels, lanes, numbers, .. }) = (self.parts(), scratch);
        lanes.clear();
        lanes.resize(parts.lanes(), 0.0);
        // A row without a length has the words nearest to zero, and a scale of 0.
        let inverse = inverse_length(kernels, x).unwrap_or(0.0);
        if inverse > 0.0 {
            parts.spread(x, inverse / self.unit, lanes);
        }
        numbers.clear();
        numbers.resize(parts.n_groups() * PARTS, 0);
        kernels.nearest_words(&self.lanes, 1 << self.bits, lanes, numbers);
        self.pack_numbers(&numbers[..self.ends.len()], code);
        levels.resize(x.len(), 0);
        self.row_bytes(code, levels);
        let found = kernels.fit_grid(x, 8, levels);
        CodeTerms { scale: found.scale, error: found.error }
    }

    fn pack_numbers(&self, numbers: &[u8], code: &mut [u8]) {
        if self.bits == 8 {
            code.copy_from_slice(numbers);
            return;
        }
        for (pair, byte) in numbers.chunks(2).zip(code) {
            *byte = pair[0] | pair.get(1).map_or(0, |second| second << 4);
        }
    }

    /// Which word a code has for a part.
    fn number(&self, code: &[u8], part: usize) -> u8 {
        if self.bits == 8 { code[part] } else { (code[part / 2] >> (part % 2 * 4)) & 15 }
    }

    /// The bytes `u` of a row.
    pub(super) fn row_bytes(&self, code: &[u8], bytes: &mut [u8]) {
        for part in 0..self.ends.len() {
            let range = self.parts().range(part);
            let at = (range.start << self.bits) + usize::from(self.number(code, part)) * range.len();
            let len = range.len();
            bytes[range].copy_from_slice(&self.words[at..at + len]);
        }
    }

    pub(super) fn pack_panel(&self, codes: &[u8], panel: &mut [u8]) {
        panel.fill(0);
        for (r, code) in codes.chunks_exact(self.code_bytes()).enumerate() {
            for part in 0..self.ends.len() {
                let number = self.number(code, part);
                if self.bits == 8 {
                    panel[part * PANEL_ROWS + r] = number;
                } else {
                    panel[part * PANEL_ROWS / 2 + r % 16] |= number << (r / 16 * 4);
                }
            }
        }
    }

    pub(super) fn unpack_panel(&self, kernels: &Kernels, panel: &[u8], bytes: &mut [u8]) {
        kernels.unpack_words(&self.tables, panel, bytes);
    }

    pub(super) fn row_of_panel(&self, panel: &[u8], row: usize, code: &mut [u8]) {
        let number = |part: usize| {
            if self.bits == 8 {
                panel[part * PANEL_ROWS + row]
            } else {
                (panel[part * PANEL_ROWS / 2 + row % 16] >> (row / 16 * 4)) & 15
            }
        };
        let numbers: Vec<u8> = (0..self.ends.len()).map(number).collect();
        self.pack_numbers(&numbers, code);
    }
}

/// The words of all parts, as [`ProductCoder::words`] has them: centroids of rows that lie in lanes (Lloyd's k-means).
fn cluster(
    parts: Parts<'_>,
    n_words: usize,
    rows: &[f32],
    seed: u64,
    kernels: &Kernels,
    work: &Work<'_>,
) -> Result<Vec<f32>> {
    let n_rows = rows.len() / parts.lanes();
    let group_lanes = parts.width() * PARTS;
    let mut random = Random::new(seed, 0);
    let start = |random: &mut Random| -> Vec<f32> {
        let picked = (0..n_words).flat_map(|_| {
            let row = random.below(n_rows);
            rows[row * parts.lanes()..][..parts.lanes()].to_vec()
        });
        picked.collect()
    };
    // By number, then in lanes.
    let mut words = start(&mut random);
    for _ in 0..ROUNDS {
        // What takes the place of words without rows.
        let others = start(&mut random);
        let groups: Vec<_> = (0..parts.n_groups()).map(|_| Mutex::new(Vec::new())).collect();
        work.for_each(
            "training codebooks",
            parts.n_groups(),
            || (),
            |(), group| {
                let of_group = |words: &[f32], number: usize| -> Vec<f32> {
                    words[number * parts.lanes() + group * group_lanes..][..group_lanes].to_vec()
                };
                let mut table = Vec::with_capacity(n_words * (group_lanes + PARTS));
                for number in 0..n_words {
                    let word = of_group(&words, number);
                    table.extend_from_slice(&word);
                    table.extend((0..PARTS).map(|part| {
                        let squares = word[part..].iter().step_by(PARTS).map(|value| value * value);
                        0.5 * squares.sum::<f32>()
                    }));
                }
                let mut sums = vec![0.0f64; n_words * group_lanes];
                let mut counts = vec![0u32; n_words * PARTS];
                let mut numbers = [0; PARTS];
                for row in rows.chunks_exact(parts.lanes()) {
                    let row = &row[group * group_lanes..][..group_lanes];
                    kernels.nearest_words(&table, n_words, row, &mut numbers);
                    for (part, &number) in numbers.iter().enumerate() {
                        let number = usize::from(number);
                        counts[number * PARTS + part] += 1;
                        for (sum, value) in sums[number * group_lanes + part..]
                            .iter_mut()
                            .step_by(PARTS)
                            .zip(row[part..].iter().step_by(PARTS))
                        {
                            *sum += f64::from(*value);
                        }
                    }
                }
                let mut made = Vec::with_capacity(n_words * group_lanes);
                for number in 0..n_words {
                    let other = of_group(&others, number);
                    for lane in 0..group_lanes {
                        let count = counts[number * PARTS + lane % PARTS];
                        let mean = (sums[number * group_lanes + lane] / f64::from(count.max(1))) as f32;
                        made.push(if count == 0 { other[lane] } else { mean });
                    }
                }
                *groups[group].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = made;
                Ok(())
            },
        )?;
        for (group, made) in groups.into_iter().enumerate() {
            let made = made.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            for (number, word) in made.chunks_exact(group_lanes).enumerate() {
                words[number * parts.lanes() + group * group_lanes..][..group_lanes].copy_from_slice(word);
            }
        }
    }
    let mut of_parts = Vec::with_capacity(parts.ends[parts.ends.len() - 1] * n_words);
    for part in 0..parts.ends.len() {
        for number in 0..n_words {
            let components = 0..parts.range(part).len();
            of_parts.extend(
                components.map(|component| words[number * parts.lanes() + parts.lane(part, component)]),
            );
        }
    }
    Ok(of_parts)
}
