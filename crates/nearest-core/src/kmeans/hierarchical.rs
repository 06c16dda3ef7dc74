//! Many centroids, from two levels: √k clusters of the points, then as many centroids within each as its weight asks for.
//!
//! Comparing n points with k centroids costs n·k in each iteration; with √k of them, twice, 2 n √k. What two levels miss is
//! near the borders of the first. One iteration over all centroids, where that can be afforded, and some over those nearby
//! make up for most of it. With k = 8 192, beside ten iterations over all, it takes a quarter of the time, and the
//! objective is 0.1 % higher on photos (42 points a centroid), 1.6 % on wordnet (14 points a centroid, 384 dimensions).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::assign::assign;
use super::lloyd::{Coded, Members, Plan, Start, iterate, random_points};
use super::points::{Points, Sample};
use super::{NEARBY, Settings};
use crate::error::Result;
use crate::random::Random;
use crate::work::Whole;

/// Iterations after those of the two levels.
const REFINING: usize = 6;
/// Up to so many centroids the first of them compares all.
const WHOLE_K: usize = 16_384;

/// What is done, and what it counts for in progress: 1 is a point compared with all centroids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    k_coarse: usize,
    n_coarse: usize,
    n_iterations: usize,
    n_refining: usize,
    n_whole: usize,
    n: usize,
    k: usize,
}

impl Steps {
    pub(super) fn new(n: usize, settings: &Settings<'_>) -> Self {
        let k = settings.k;
        let k_coarse = k.isqrt().max(1);
        Steps {
            k_coarse,
            n_coarse: n.min(k_coarse.saturating_mul(settings.max_points_per_centroid)),
            n_iterations: settings.n_iterations,
            n_refining: REFINING.min(settings.n_iterations),
            n_whole: usize::from(k <= WHOLE_K),
            n,
            k,
        }
    }

    fn units(&self, n: usize, k: usize) -> u64 {
        (n as u64 * k as u64).div_ceil(self.k as u64)
    }

    pub(super) fn total(&self) -> u64 {
        let coarse = self.units(self.n_coarse, self.k_coarse) * self.n_iterations as u64;
        let assigned = self.units(self.n, self.k_coarse);
        // About as many each as there are in the mean; more where clusters differ.
        let fine = self.units(self.n, self.k.div_ceil(self.k_coarse)) * self.n_iterations as u64;
        let nearby = self.units(self.n, NEARBY.min(self.k)) * (self.n_refining - self.n_whole) as u64;
        coarse + assigned + fine + self.n as u64 * self.n_whole as u64 + nearby
    }

    /// What follows the two levels.
    pub(super) fn refining(&self, flat: Plan) -> Plan {
        Plan { n_iterations: self.n_refining, n_whole: self.n_whole, n_nearby: Some(NEARBY), ..flat }
    }
}

/// Centroids and clusters from two levels, to be refined.
pub(super) fn two_levels<P: Points>(
    sample: &Sample<'_, P>,
    settings: &Settings<'_>,
    steps: &Steps,
    whole: &Whole<'_>,
) -> Result<Start> {
    let (n, dim) = (sample.len(), sample.dim());
    let Settings { k, weights, seed, .. } = *settings;
    let plan = |n, k, stream| Plan {
        n_iterations: settings.n_iterations,
        spherical: settings.spherical,
        balanced: settings.balanced,
        seed: Random::new(seed, stream).bits(),
        n_whole: usize::MAX,
        n_nearby: None,
        units: steps.units(n, k),
    };
    let cluster = |sample: &Sample<'_, P>, k, stream| {
        let plan = plan(sample.len(), k, stream);
        let coded = Coded::new(sample, weights, &whole.part(0)?)?;
        let first = random_points(&coded, k, plan.seed)?;
        iterate(&coded, first, &plan, whole)
    };
    let coarse = {
        let rows = Random::new(seed, u64::MAX - 1).choose(steps.n_coarse, n);
        cluster(&sample.part(&rows), steps.k_coarse, u64::MAX)?.centroids
    };
    let mut places = assign(sample, &coarse, &whole.part(steps.units(n, steps.k_coarse))?)?.places;
    let mut members = Members::default();
    members.sort(&places, steps.k_coarse, |_| true);
    let weight = |row: &u32| weights.map_or(1.0, |weights| f64::from(weights[sample.place(*row as usize)]));
    let sizes: Vec<(f64, usize)> = (0..steps.k_coarse)
        .map(|place| {
            let rows = members.of(place);
            (rows.iter().map(weight).sum(), rows.len())
        })
        .collect();
    let mut centroids = Vec::with_capacity(k * dim);
    for (place, share) in shares(&sizes, k).into_iter().enumerate().filter(|(_, share)| *share > 0) {
        let (first, rows) = ((centroids.len() / dim) as u32, members.of(place));
        let found = cluster(&sample.part(rows), share, place as u64)?;
        centroids.extend(found.centroids);
        rows.iter().zip(found.places).for_each(|(&row, place)| places[row as usize] = first + place);
    }
    Ok(Start { centroids, places: Some(places) })
}

/// How many of `k` centroids each cluster of (weight, size) gets: in proportion to its weight (Jefferson's method), at
/// least one, at most its size. There are at least as many points as centroids, and as centroids clusters.
fn shares(clusters: &[(f64, usize)], k: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = clusters.iter().map(|&(_, size)| size.min(1)).collect();
    // The weight each centroid would have with one more; all are positive or 0, whose bits are ordered as they are.
    let next = |place: usize, share: usize| (clusters[place].0 / (share + 1) as f64).to_bits();
    let mut heap: BinaryHeap<(u64, Reverse<usize>)> = (0..clusters.len())
        .filter(|&place| clusters[place].1 > 1)
        .map(|place| (next(place, 1), Reverse(place)))
        .collect();
    for _ in shares.iter().sum::<usize>()..k {
        let Some((_, Reverse(place))) = heap.pop() else { break };
        shares[place] += 1;
        if shares[place] < clusters[place].1 {
            heap.push((next(place, shares[place]), Reverse(place)));
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_weights_and_add_up() {
        assert_eq!(shares(&[(10.0, 10), (30.0, 30), (0.0, 0), (60.0, 60)], 10), [1, 3, 0, 6]);
        assert_eq!(shares(&[(1000.0, 2), (1.0, 50)], 10), [2, 8]);
        assert_eq!(shares(&[(0.0, 5), (0.0, 5), (1.0, 1)], 11), [5, 5, 1]);
        let mut random = Random::new(1, 1);
        for _ in 0..200 {
            let clusters: Vec<(f64, usize)> =
                (0..20).map(|_| random.below(50)).map(|size| (size as f64 * 0.3, size)).collect();
            let n: usize = clusters.iter().map(|cluster| cluster.1).sum();
            let k = 20 + random.below(n - 19);
            let shares = shares(&clusters, k);
            assert_eq!(shares.iter().sum::<usize>(), k);
            assert!(shares.iter().zip(&clusters).all(|(&share, c)| share <= c.1 && (share > 0) == (c.1 > 0)));
        }
    }
}
