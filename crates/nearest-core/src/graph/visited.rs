//! Which rows were seen: a bit a row, of which only those that were set are cleared.

use crate::column::Row;

/// A set of rows that is empty again in as many steps as it has rows.
#[derive(Debug, Default)]
pub struct Visited {
    words: Vec<u64>,
}

impl Visited {
    /// Makes room for rows below `n`.
    pub fn reserve(&mut self, n: usize) {
        if self.words.len() * 64 < n {
            self.words.resize(n.div_ceil(64), 0);
        }
    }

    /// Puts a row in; whether it was not there.
    #[inline(always)]
    pub fn insert(&mut self, row: Row) -> bool {
        let (word, bit) = (&mut self.words[row as usize / 64], 1 << (row % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether a row is in it.
    pub fn contains(&self, row: Row) -> bool {
        self.words[row as usize / 64] & 1 << (row % 64) != 0
    }

    /// Puts links in up to the first that is no row below `n_rows`, and appends those that were not there to `new`. Without a
    /// branch a link: no processor can guess which of them are new.
    pub fn insert_all(&mut self, links: &[Row], n_rows: usize, new: &mut Vec<Row>) {
        let mut n = new.len();
        new.resize(n + links.len(), 0);
        for &link in links {
            // [`NONE`](super::NONE), or of a damaged file.
            if link as usize >= n_rows {
                break;
            }
            new[n] = link;
            n += usize::from(self.insert(link));
        }
        new.truncate(n);
    }

    /// Empties it of these rows, which must be all it has.
    pub fn clear(&mut self, rows: &[Row]) {
        rows.iter().for_each(|&row| self.words[row as usize / 64] = 0);
        debug_assert!(self.words.iter().all(|&word| word == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::NONE;

    #[test]
    fn links_are_new_once() {
        let mut visited = Visited::default();
        visited.reserve(200);
        let mut new = vec![7];
        assert!(visited.insert(3));
        visited.insert_all(&[5, 3, 199, 5, 64, NONE, 9], 200, &mut new);
        assert_eq!(new, [7, 5, 199, 64]);
        visited.insert_all(&[64, 0], 200, &mut new);
        assert_eq!(new, [7, 5, 199, 64, 0]);
        visited.clear(&[3, 5, 199, 64, 0]);
        assert!(visited.insert(199));
    }
}
