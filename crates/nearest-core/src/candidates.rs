//! The k nearest seen so far.

use crate::column::Row;

/// A row and how far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The distance as it will be reported.
    pub distance: f32,
    /// Where the vector lies.
    pub row: Row,
}

/// Says which of two rows at the same distance comes first: the one with the lower id.
pub trait RowOrder: Sync {
    /// Whether `a` comes before `b`.
    fn before(&self, a: Row, b: Row) -> bool;
}

/// Rows in the order they lie in, where the row is the id.
#[derive(Clone, Copy, Debug)]
pub struct ByRow;

impl RowOrder for ByRow {
    fn before(&self, a: Row, b: Row) -> bool {
        a < b
    }
}

fn nearer(a: Candidate, b: Candidate, order: &dyn RowOrder) -> bool {
    a.distance < b.distance || (a.distance == b.distance && order.before(a.row, b.row))
}

/// A bounded heap with the farthest candidate on top.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    k: usize,
    heap: Vec<Candidate>,
}

impl Candidates {
    /// Keeps at most `k`.
    pub fn new(k: usize) -> Self {
        Self { k, heap: Vec::new() }
    }

    /// What a candidate must not exceed to be let in: the k-th distance, or infinity while there is room.
    pub fn limit(&self) -> f32 {
        if self.heap.len() < self.k {
            f32::INFINITY
        } else {
            self.heap.first().map_or(f32::NEG_INFINITY, |c| c.distance)
        }
    }

    /// Lets a candidate in if it is among the k nearest; true if so.
    pub fn offer(&mut self, candidate: Candidate, order: &dyn RowOrder) -> bool {
        // Only a damaged file holds what has no distance; it is nobody's neighbour.
        if candidate.distance.is_nan() {
            return false;
        }
        if self.heap.len() < self.k {
            if self.heap.capacity() == 0 {
                // Large k are asked for more often than found: grow with what comes.
                self.heap.reserve_exact(self.k.min(64));
            }
            self.heap.push(candidate);
            let mut at = self.heap.len() - 1;
            while at > 0 && nearer(self.heap[(at - 1) / 2], self.heap[at], order) {
                self.heap.swap(at, (at - 1) / 2);
                at = (at - 1) / 2;
            }
            return true;
        }
        if self.k == 0 || !nearer(candidate, self.heap[0], order) {
            return false;
        }
        let mut at = 0;
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && nearer(self.heap[child], self.heap[child + 1], order) {
                child += 1;
            }
            if !nearer(candidate, self.heap[child], order) {
                break;
            }
            self.heap[at] = self.heap[child];
            at = child;
        }
        self.heap[at] = candidate;
        true
    }

    /// Takes over what another heap kept.
    pub fn merge(&mut self, other: Candidates, order: &dyn RowOrder) {
        for candidate in other.heap {
            self.offer(candidate, order);
        }
    }

    /// All of them, nearest first, ties by id.
    pub fn into_sorted(mut self, order: &dyn RowOrder) -> Vec<Candidate> {
        sort(&mut self.heap, order);
        self.heap
    }
}

/// Sorts nearest first, ties by id.
pub fn sort(candidates: &mut [Candidate], order: &dyn RowOrder) {
    candidates.sort_unstable_by(|&a, &b| {
        if nearer(a, b, order) {
            std::cmp::Ordering::Less
        } else if a.row == b.row {
            std::cmp::Ordering::Equal
        } else {
            std::cmp::Ordering::Greater
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_keeps_the_k_nearest(distances in prop::collection::vec(0..20u8, 0..200), k in 0..30usize) {
            let all: Vec<_> = distances
                .iter()
                .enumerate()
                .map(|(row, &d)| Candidate { distance: f32::from(d), row: (row * 7 % 211) as Row })
                .collect();
            let (first, second) = all.split_at(all.len() / 3);
            let mut heap = Candidates::new(k);
            let mut other = Candidates::new(k);
            first.iter().for_each(|&c| { heap.offer(c, &ByRow); });
            second.iter().for_each(|&c| { other.offer(c, &ByRow); });
            heap.merge(other, &ByRow);
            let mut expected = all.clone();
            expected.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
            expected.truncate(k);
            if expected.len() == k && k > 0 {
                prop_assert_eq!(heap.limit(), expected[k - 1].distance);
            }
            prop_assert_eq!(heap.into_sorted(&ByRow), expected);
        }
    }
}
