//! The best estimates of one query.

use crate::column::Row;

/// A row that may be among the nearest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// How near it seems; higher is nearer.
    pub score: f32,
    /// Its number.
    pub row: Row,
    /// The list it was found in.
    pub list: u32,
    /// Its place there.
    pub place: u32,
}

/// Whether `a` goes before `b`: ties by row, and of one row by list, so that the order of the offers does not matter.
fn before(a: &Estimate, b: &Estimate) -> bool {
    a.score > b.score || (a.score == b.score && (a.row, a.list) < (b.row, b.list))
}

/// Pools up to this size are kept in order, so that a row that comes again is found; larger ones, and those of rows that come once,
/// are put in order when they overflow.
const ORDERED: usize = 48;

/// The best estimates, each row once.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    size: usize,
    best: Vec<Estimate>,
    /// What a score must reach to be let in.
    limit: f32,
    /// Whether the best are in order, each row once.
    is_settled: bool,
    /// Whether no row is offered twice.
    once: bool,
    /// For putting them in order: rows and places in `best`.
    by_row: Vec<u64>,
    spare: Vec<Estimate>,
}

impl Pool {
    /// Empties it and lets it keep `size`, of rows of which none comes again if `once`.
    pub fn reset(&mut self, size: usize, once: bool) {
        (self.size, self.once) = (size, once);
        self.clear();
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.best.clear();
        self.is_settled = true;
        self.limit = if self.size == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
    }

    /// What a score must reach to be let in.
    pub fn limit(&self) -> f32 {
        self.limit
    }

    /// Lets an estimate in if it is among the best. Of two estimates of one row the higher stays.
    pub fn offer(&mut self, estimate: Estimate) {
        if !(estimate.score >= self.limit) {
            return;
        }
        if self.once || self.size > ORDERED {
            self.best.push(estimate);
            self.is_settled = false;
            if self.best.len() >= 2 * self.size {
                self.settle();
            }
            return;
        }
        if self.best.len() == self.size && !self.best.last().is_some_and(|last| before(&estimate, last)) {
            return;
        }
        if let Some(at) = self.best.iter().position(|other| other.row == estimate.row) {
            if !before(&estimate, &self.best[at]) {
                return;
            }
            self.best.remove(at);
        } else if self.best.len() == self.size {
            self.best.pop();
        }
        let at = self.best.partition_point(|other| before(other, &estimate));
        self.best.insert(at, estimate);
        if self.best.len() == self.size {
            self.limit = self.best[self.size - 1].score;
        }
    }

    /// Leaves the best, in order.
    fn settle(&mut self) {
        if !self.once {
            self.unite();
        }
        if self.best.len() > self.size {
            self.best.select_nth_unstable_by(self.size.saturating_sub(1), order);
            self.best.truncate(self.size);
        }
        if self.best.len() == self.size {
            self.limit = self.best.iter().fold(f32::INFINITY, |limit, estimate| limit.min(estimate.score));
        }
    }

    /// Of the estimates of a row the best stays.
    fn unite(&mut self) {
        // Rows and places are sorted, not the estimates: that is much faster.
        self.by_row.clear();
        self.by_row
            .extend(self.best.iter().zip(0u64..).map(|(estimate, at)| u64::from(estimate.row) << 32 | at));
        self.by_row.sort_unstable();
        let of_rows = self.by_row.chunk_by(|a, b| a >> 32 == b >> 32);
        let best =
            of_rows.filter_map(|of_row| of_row.iter().map(|&at| self.best[at as u32 as usize]).min_by(order));
        self.spare.clear();
        self.spare.extend(best);
        std::mem::swap(&mut self.best, &mut self.spare);
    }

    /// How many rows there are.
    pub fn len(&mut self) -> usize {
        self.best().len()
    }

    /// Best first.
    pub fn best(&mut self) -> &[Estimate] {
        if !self.is_settled {
            self.settle();
            self.best.sort_unstable_by(order);
            self.is_settled = true;
        }
        &self.best
    }
}

/// Best first.
pub(super) fn order(a: &Estimate, b: &Estimate) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)).then(a.list.cmp(&b.list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_comes_once_also_where_estimates_come_in_order() {
        for size in [1, 2, 40] {
            let mut pool = Pool::default();
            pool.reset(size, false);
            for list in 0..2 {
                pool.offer(Estimate { score: 5.0 - list as f32, row: 7, list, place: 0 });
            }
            assert_eq!(pool.len(), 1);
            assert_eq!(pool.best()[0].score, 5.0);
        }
    }

    proptest! {
        #[test]
        fn it_keeps_the_best_of_each_row(
            offers in prop::collection::vec((0u32..60, -20i8..20), 0..400),
            size in prop_oneof![0usize..40, 60usize..90],
            once: bool,
        ) {
            let mut pool = Pool::default();
            pool.reset(size, once);
            let mut offers: Vec<Estimate> = offers
                .into_iter()
                .map(|(row, score)| Estimate { score: score.into(), row, list: score.unsigned_abs().into(), place: row })
                .collect();
            if once {
                (0..).zip(&mut offers).for_each(|(row, estimate)| estimate.row = row);
            }
            let mut expected = offers.clone();
            offers.into_iter().for_each(|estimate| pool.offer(estimate));
            expected.sort_by(|a, b| a.row.cmp(&b.row).then(order(a, b)));
            expected.dedup_by_key(|estimate| estimate.row);
            expected.sort_by(order);
            expected.truncate(size);
            prop_assert_eq!(pool.len(), expected.len());
            prop_assert_eq!(pool.best(), expected);
        }
    }
}
