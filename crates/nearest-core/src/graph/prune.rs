//! Which of the rows near a row it is linked to: those that no nearer one leads to.
//!
//! A candidate is left out if a chosen one is nearer to it than the row is, by a factor of squared distances (the
//! heuristic of HNSW, Malkov and Yashunin 2016; with the factor, the robust pruning of Vamana, Subramanya and others 2019). Equal
//! distances leave out too: of copies of the row one is chosen.

use std::cmp::Ordering;

use nearest_kernels::Kernels;

use super::pairs::{self, Pairs};
use crate::column::Row;

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Links at most.
    pub degree: usize,
    /// Of squared distances.
    pub factor: f32,
    /// Whether places that are left are filled with the nearest of what was left out.
    pub fills: bool,
}

/// The order of candidates: ties by row.
pub fn nearest_first(a: &(f32, Row), b: &(f32, Row)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Buffers of one worker.
#[derive(Debug, Default)]
pub struct Scratch<'a> {
    pairs: pairs::Scratch<'a>,
    rows: Vec<Row>,
    distances: Vec<f32>,
    left_out: Vec<(f32, Row)>,
}

/// Leaves of `candidates`, nearest first, each once and none of them the row itself, those that the row is linked to.
pub fn prune<'a>(
    kernels: &Kernels,
    pairs: &Pairs<'a>,
    rule: &Rule,
    candidates: &mut Vec<(f32, Row)>,
    scratch: &mut Scratch<'a>,
) {
    let Scratch { pairs: buffers, rows, distances, left_out } = scratch;
    left_out.clear();
    let mut n_chosen = 0;
    while n_chosen < candidates.len() && n_chosen < rule.degree {
        let (_, chosen) = candidates[n_chosen];
        n_chosen += 1;
        rows.clear();
        rows.extend(candidates[n_chosen..].iter().map(|candidate| candidate.1));
        if rows.is_empty() {
            break;
        }
        pairs.distances(kernels, chosen, rows, buffers, distances);
        let mut kept = n_chosen;
        for (i, distance) in (n_chosen..).zip(&*distances) {
            let candidate = candidates[i];
            if distance * rule.factor > candidate.0 {
                candidates[kept] = candidate;
                kept += 1;
            } else {
                left_out.push(candidate);
            }
        }
        candidates.truncate(kept);
    }
    candidates.truncate(rule.degree);
    if rule.fills && candidates.len() < rule.degree {
        left_out.sort_unstable_by(nearest_first);
        candidates.extend(left_out.iter().take(rule.degree - candidates.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(dim: usize, codes: &[u8]) -> Pairs<'_> {
        Pairs::of_bytes(dim, codes, 0.5)
    }

    /// All other rows, nearest first.
    fn others(pairs: &Pairs<'_>, row: Row) -> Vec<(f32, Row)> {
        let rows: Vec<Row> = (0..pairs.len() as Row).filter(|&other| other != row).collect();
        let mut distances = Vec::new();
        pairs.distances(Kernels::best(), row, &rows, &mut pairs::Scratch::default(), &mut distances);
        let mut all: Vec<(f32, Row)> = distances.into_iter().zip(rows).collect();
        all.sort_by(nearest_first);
        all
    }

    fn pruned(pairs: &Pairs<'_>, rule: &Rule, row: Row) -> Vec<Row> {
        let mut candidates = others(pairs, row);
        prune(Kernels::best(), pairs, rule, &mut candidates, &mut Scratch::default());
        candidates.into_iter().map(|candidate| candidate.1).collect()
    }

    #[test]
    fn the_nearest_on_each_side_is_chosen() {
        let pairs = points(1, &[100, 103, 106, 99, 90]);
        let mut rule = Rule { degree: 4, factor: 1.0, fills: false };
        assert_eq!(pruned(&pairs, &rule, 0), [3, 1]);
        rule.fills = true;
        assert_eq!(pruned(&pairs, &rule, 0), [3, 1, 2, 4]);
        rule.degree = 1;
        assert_eq!(pruned(&pairs, &rule, 0), [3]);
    }

    #[test]
    fn of_copies_one_is_chosen() {
        let pairs = points(2, &[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 9, 9]);
        let rule = Rule { degree: 6, factor: 1.2, fills: false };
        assert_eq!(pruned(&pairs, &rule, 0), [1, 5]);
        assert_eq!(pruned(&pairs, &rule, 3), [0, 5]);
        assert_eq!(pruned(&pairs, &rule, 5), [0], "all of them are as far");
    }

    proptest! {
        #[test]
        fn who_is_left_out_is_nearer_to_a_chosen_one(
            codes in prop::collection::vec(any::<u8>(), 3..200),
            degree in 1..12usize,
            factor in 1.0..1.5f32,
        ) {
            let pairs = points(3, &codes[..codes.len() / 3 * 3]);
            let rule = Rule { degree, factor, fills: false };
            let chosen = pruned(&pairs, &rule, 0);
            prop_assert!(chosen.len() <= degree);
            let far = |a: Row, b: Row| {
                let of = |row: Row| codes[3 * row as usize..][..3].iter().map(|&u| f64::from(u) / 2.0);
                of(a).zip(of(b)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
            };
            for (distance, row) in others(&pairs, 0) {
                prop_assert!((f64::from(distance) - far(0, row)).abs() < 0.1);
                let nearer = chosen.iter().take_while(|&&other| other != row);
                let led_to = nearer.clone().any(|&other| far(other, row) * f64::from(factor) <= far(0, row) * (1.0 + 1e-5));
                let is_chosen = chosen.contains(&row);
                prop_assert!(is_chosen || led_to || chosen.len() == degree, "row {} is missing", row);
                let well = nearer.clone().any(|&other| far(other, row) * f64::from(factor) < far(0, row) * (1.0 - 1e-5));
                prop_assert!(!is_chosen || !well, "row {} is chosen", row);
            }
        }
    }
}
