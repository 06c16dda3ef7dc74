//! Links that were chosen for many rows, and the same in the other direction.

use std::sync::{Mutex, PoisonError};

use super::NONE;
use super::prune::nearest_first;
use crate::column::Row;
use crate::error::Result;
use crate::work::Work;

/// Rows a part.
pub const ROWS: usize = 64;
/// Rows whose links one task sorts.
const SORTED_ROWS: usize = 1 << 12;

/// A link with its squared distance.
pub type Link = (f32, Row);

/// Links of each of some rows, nearest first: by place among these.
#[derive(Debug, PartialEq)]
pub struct Chosen {
    parts: Vec<Part>,
}

/// Links of [`ROWS`] rows, or fewer in the last part: one row after the other.
#[derive(Debug, Default, PartialEq)]
pub struct Part {
    links: Vec<Link>,
    /// Where each row's end.
    ends: Vec<u32>,
}

impl Part {
    /// Adds those of the next row.
    pub fn push(&mut self, links: &[Link]) {
        self.links.extend_from_slice(links);
        self.ends.push(self.links.len() as u32);
    }

    /// Without room for more.
    pub fn finished(mut self) -> Self {
        self.links.shrink_to_fit();
        self
    }
}

impl Chosen {
    /// What the parts hold, one after the other.
    pub fn new(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// Links of the row at a place.
    pub fn of(&self, place: usize) -> &[Link] {
        let (part, i) = (&self.parts[place / ROWS], place % ROWS);
        let start = i.checked_sub(1).map_or(0, |before| part.ends[before] as usize);
        &part.links[start..part.ends[i] as usize]
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.ends.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Those of each row.
    pub fn iter(&self) -> impl Iterator<Item = &[Link]> {
        (0..self.len()).map(|place| self.of(place))
    }

    /// For each of `n` rows those that chose it: here the row at a place has its number, and links are below `n`.
    pub fn reversed(&self, n: usize, work: &Work<'_>) -> Result<Incoming> {
        let mut ends = vec![0usize; n];
        work.in_turn("linking", self.parts.len(), |i| {
            self.parts[i].links.iter().for_each(|link| ends[link.1 as usize] += 1);
            Ok(())
        })?;
        // Where those of each row start, until they are there.
        let mut n_links = 0;
        ends.iter_mut().for_each(|place| n_links += std::mem::replace(place, n_links));
        let mut links = vec![(0.0, NONE); n_links];
        work.in_turn("linking", self.parts.len(), |i| {
            for place in i * ROWS..i * ROWS + self.parts[i].ends.len() {
                for &(distance, link) in self.of(place) {
                    let end = &mut ends[link as usize];
                    links[*end] = (distance, place as Row);
                    *end += 1;
                }
            }
            Ok(())
        })?;
        let (mut rest, mut first) = (&mut links[..], 0);
        let mut blocks = Vec::with_capacity(n.div_ceil(SORTED_ROWS));
        for ends in ends.chunks(SORTED_ROWS) {
            let last = ends[ends.len() - 1];
            let (block, others) = rest.split_at_mut(last - first);
            blocks.push((Mutex::new(block), ends, first));
            (rest, first) = (others, last);
        }
        let sort = |(): &mut (), i: usize| {
            let (block, ends, first) = &blocks[i];
            let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
            let mut start = 0;
            for end in ends.iter().map(|end| end - first) {
                block[start..end].sort_unstable_by(nearest_first);
                start = end;
            }
            Ok(())
        };
        work.for_each("linking", blocks.len(), || (), sort)?;
        drop(blocks);
        Ok(Incoming { links, ends })
    }
}

/// Rows that chose a row, nearest first.
#[derive(Debug)]
pub struct Incoming {
    links: Vec<Link>,
    /// Where those of each row end.
    ends: Vec<usize>,
}

impl Incoming {
    /// Those that chose a row, `most` at most.
    pub fn of(&self, row: usize, most: usize) -> &[Link] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let all = &self.links[start..self.ends[row]];
        &all[..all.len().min(most)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::work::Silent;

    #[test]
    fn whoever_chose_a_row_is_found_from_there() {
        // More rows than a task sorts, and some that nobody chose.
        for n in [0, 1, 2, ROWS, 2 * SORTED_ROWS + 37] {
            let mut random = Random::new(3, 0);
            let rows: Vec<Vec<Link>> = (0..n)
                .map(|row| {
                    let links =
                        (0..row % 7).map(|i| ((random.bits() % 5) as f32, (i * i * 31 + row / 2) % (n + 3)));
                    let mut links: Vec<Link> =
                        links.map(|(distance, link)| (distance, link as Row)).collect();
                    links.sort_unstable_by(nearest_first);
                    links.dedup_by_key(|link| link.1);
                    links
                })
                .collect();
            let part = |rows: &[Vec<Link>]| {
                let mut part = Part::default();
                rows.iter().for_each(|links| part.push(links));
                part.finished()
            };
            let chosen = Chosen::new(rows.chunks(ROWS).map(part).collect());
            assert!(chosen.iter().eq(rows.iter().map(|links| &links[..])));
            // Links may lead to others than those that chose.
            let mut expected: Vec<Vec<Link>> = vec![Vec::new(); n + 3];
            for (row, links) in rows.iter().enumerate() {
                links
                    .iter()
                    .for_each(|&(distance, link)| expected[link as usize].push((distance, row as Row)));
            }
            for n_threads in [1, 2] {
                let incoming = chosen.reversed(n + 3, &Work::new(Some(n_threads), &Silent)).unwrap();
                for (row, expected) in expected.iter_mut().enumerate() {
                    expected.sort_unstable_by(nearest_first);
                    assert_eq!(incoming.of(row, usize::MAX), &expected[..]);
                    assert_eq!(incoming.of(row, 3), &expected[..expected.len().min(3)]);
                }
            }
        }
    }
}
