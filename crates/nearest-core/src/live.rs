//! Which rows count: those not removed, and of these the ones a filter lets pass.
//!
//! Bitmaps lie per chunk of rows and are shared between versions; a change copies only the chunks it touches.

use std::sync::Arc;

use crate::column::{CHUNK_ROWS, Row};

const WORDS: usize = CHUNK_ROWS / 64;

/// A set of rows, as bits per chunk.
#[derive(Clone, Debug, Default)]
pub struct RowSet {
    chunks: Arc<Vec<Option<Arc<[u64]>>>>,
    len: usize,
}

impl RowSet {
    /// All rows below `n`; whole chunks share their bits.
    pub fn first(n: usize) -> Self {
        let full: Arc<[u64]> = Arc::from(vec![u64::MAX; WORDS]);
        let mut set = Self { chunks: Arc::new(vec![Some(full); n / CHUNK_ROWS]), len: n - n % CHUNK_ROWS };
        set.insert((n - n % CHUNK_ROWS) as Row..n as Row);
        set
    }

    /// How many rows are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `row` is in it.
    pub fn contains(&self, row: Row) -> bool {
        let at = row as usize % CHUNK_ROWS;
        self.words(row as usize / CHUNK_ROWS).is_some_and(|words| words[at / 64] >> (at % 64) & 1 == 1)
    }

    /// The bits of a chunk, lowest row first; nothing if none of its rows is in the set.
    pub fn words(&self, chunk: usize) -> Option<&[u64]> {
        self.chunks.get(chunk)?.as_deref()
    }

    /// The bits of all chunks; none where none of a chunk's rows is in the set.
    pub fn all_words(&self) -> Vec<&[u64]> {
        self.chunks.iter().map(|words| words.as_deref().unwrap_or_default()).collect()
    }

    /// How many rows of a chunk are in it.
    pub fn len_in(&self, chunk: usize) -> usize {
        self.words(chunk).map_or(0, |words| words.iter().map(|word| word.count_ones() as usize).sum())
    }

    /// Puts rows in; returns how many were not there.
    pub fn insert(&mut self, rows: impl IntoIterator<Item = Row>) -> usize {
        self.change(rows, |word, bit| *word |= bit)
    }

    /// Takes rows out; returns how many were there.
    pub fn remove(&mut self, rows: impl IntoIterator<Item = Row>) -> usize {
        self.change(rows, |word, bit| *word &= !bit)
    }

    fn change(&mut self, rows: impl IntoIterator<Item = Row>, apply: impl Fn(&mut u64, u64)) -> usize {
        let chunks = Arc::make_mut(&mut self.chunks);
        let (mut added, mut removed) = (0, 0);
        for row in rows {
            let (chunk, at) = (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS);
            if chunks.len() <= chunk {
                chunks.resize(chunk + 1, None);
            }
            let words = chunks[chunk].get_or_insert_with(|| Arc::from(vec![0u64; WORDS]));
            let word = &mut Arc::make_mut(words)[at / 64];
            let before = *word;
            apply(word, 1 << (at % 64));
            added += (*word & !before).count_ones() as usize;
            removed += (before & !*word).count_ones() as usize;
        }
        self.len = self.len + added - removed;
        added + removed
    }

    /// Takes a whole chunk out.
    pub fn clear_chunk(&mut self, chunk: usize) {
        self.len -= self.len_in(chunk);
        if let Some(words) = Arc::make_mut(&mut self.chunks).get_mut(chunk) {
            *words = None;
        }
    }

    /// The rows in both.
    #[must_use]
    pub fn and(&self, other: &RowSet) -> RowSet {
        let mut len = 0;
        let chunks = self.chunks.iter().zip(other.chunks.iter()).map(|pair| {
            let (Some(a), Some(b)) = pair else { return None };
            let words: Arc<[u64]> = a.iter().zip(b.iter()).map(|(a, b)| a & b).collect();
            len += words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
            Some(words)
        });
        let chunks = Arc::new(chunks.collect());
        RowSet { chunks, len }
    }

    /// Its rows whose places among them are marked; there is a mark for each.
    #[must_use]
    pub fn marked(&self, marks: &[bool]) -> RowSet {
        let (mut left, mut len) = (marks, 0);
        let mut of_word = |word: u64| {
            let (here, rest) = left.split_at(word.count_ones() as usize);
            left = rest;
            let marked = match word {
                u64::MAX => packed(here),
                _ => bits(word).zip(here).fold(0, |marked, (bit, &mark)| marked | u64::from(mark) << bit),
            };
            len += marked.count_ones() as usize;
            marked
        };
        let of_chunk = |words: &Option<Arc<[u64]>>| -> Option<Arc<[u64]>> {
            let words: Arc<[u64]> = words.as_deref()?.iter().map(|&word| of_word(word)).collect();
            words.iter().any(|&word| word != 0).then_some(words)
        };
        let chunks = Arc::new(self.chunks.iter().map(of_chunk).collect());
        RowSet { chunks, len }
    }

    /// The place among the rows of the set of every row up to its last; `Row::MAX` for rows that are not in it.
    pub fn ranks(&self) -> Vec<Row> {
        let mut ranks = vec![Row::MAX; self.chunks.len() * CHUNK_ROWS];
        self.iter().zip(0..).for_each(|(row, rank)| ranks[row as usize] = rank);
        ranks
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.chunks.len()).flat_map(|chunk| self.iter_in(chunk))
    }

    /// The rows of one chunk, ascending.
    pub fn iter_in(&self, chunk: usize) -> impl Iterator<Item = Row> + '_ {
        self.words(chunk).unwrap_or_default().iter().enumerate().flat_map(move |(i, &word)| {
            let first = (chunk * CHUNK_ROWS + i * 64) as Row;
            bits(word).map(move |bit| first + bit)
        })
    }
}

impl FromIterator<Row> for RowSet {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let mut set = RowSet::default();
        set.insert(rows);
        set
    }
}

/// Whether a row is in a set, given as the bits of its chunks.
#[inline]
pub fn is_in(chunks: &[&[u64]], row: Row) -> bool {
    let at = row as usize % CHUNK_ROWS;
    let words = chunks.get(row as usize / CHUNK_ROWS);
    words.and_then(|words| words.get(at / 64)).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

/// 64 marks as a word, the first as its lowest bit.
fn packed(marks: &[bool]) -> u64 {
    let (eights, _) = bytemuck::cast_slice::<bool, u8>(marks).as_chunks::<8>();
    eights.iter().rev().fold(0, |word, &eight| {
        // Byte i has its bit moved to bit 56 + i, and nothing else comes there.
        word << 8 | u64::from_le_bytes(eight).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// The positions of the ones in a word, ascending.
pub fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(
            a in prop::collection::vec(0..200_000u32, 0..200),
            b in prop::collection::vec(0..200_000u32, 0..200),
        ) {
            let mut set: RowSet = a.iter().copied().collect();
            let mut model: BTreeSet<_> = a.iter().copied().collect();
            prop_assert!(set.iter().eq(model.iter().copied()));
            let before = set.clone();
            let other: RowSet = b.iter().copied().collect();
            let both = set.and(&other);
            prop_assert!(both.iter().eq(b.iter().copied().collect::<BTreeSet<_>>().intersection(&model).copied()));
            prop_assert_eq!(both.len(), both.iter().count());
            let gone = b.iter().filter(|row| model.remove(row)).count();
            prop_assert_eq!(set.remove(b.iter().copied()), gone);
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(a.iter().all(|&row| before.contains(row)));
            let marks: Vec<bool> = set.iter().map(|row| row % 3 == 0).collect();
            prop_assert!(set.marked(&marks).iter().eq(model.iter().copied().filter(|row| row % 3 == 0)));
            let full = RowSet::first(b.len() * 1000);
            let marks: Vec<bool> = full.iter().map(|row| row.is_multiple_of(a.len() as u32 + 1)).collect();
            prop_assert!(full.marked(&marks).iter().eq((0..full.len() as u32).step_by(a.len() + 1)));
            prop_assert_eq!(full.marked(&marks).len(), full.len().div_ceil(a.len() + 1));
            prop_assert_eq!(full.iter().collect::<Vec<_>>(), (0..b.len() as u32 * 1000).collect::<Vec<_>>());
            prop_assert_eq!(full.len(), b.len() * 1000);
            set.clear_chunk(0);
            prop_assert_eq!(set.len(), model.range(65_536..).count());
        }
    }
}
