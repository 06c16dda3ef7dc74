//! Iterations in which a point is compared only with the centroids near the one it was nearest to.
//!
//! Once centroids are more or less where they stay, points that change clusters go to a neighbouring one. With m
//! neighbours of each of k centroids, an iteration costs n·m instead of n·k.

use std::ops::Range;

use nearest_kernels::Kernels;

use super::centroids::{Buffers, Centroids, lock, split_at};
use super::groups::{Grouped, grouped};
use super::lloyd::{Coded, Members, STAGE};
use super::points::Points;
use crate::candidates::ByRow;
use crate::error::Result;
use crate::exact::{Numbers, Scope, search};
use crate::metric::Metric;
use crate::work::Work;

/// Centroids whose neighbours are searched for at a time.
const SEARCHED: usize = 16_384;
/// Up to so many centroids all are compared to find the nearest; then so many times those that are looked for, in groups.
const COMPARED: usize = 1 << 16;
const COMPARED_PER_PLACE: usize = 32;
/// Groups that are ordered by how near they are to one.
const AROUND: usize = 256;
/// Points of a task, about.
const TASK_ROWS: usize = 2048;

/// Those near a centroid, in ascending order, it among them.
fn near(place: u32, m: usize, found: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut list: Vec<u32> = found.collect();
    // Copies of it may have taken its place.
    if !list.contains(&place) {
        list[m - 1] = place;
    }
    list.sort_unstable();
    list
}

/// For each centroid the centroids near it, itself among them, in ascending order.
pub(super) struct Nearby {
    places: Vec<u32>,
    m: usize,
}

impl Nearby {
    /// `m` of each; `seed` is for the groups of very many.
    pub(super) fn new<P: Points>(
        coded: &Coded<'_, P>,
        centroids: &[f32],
        m: usize,
        seed: u64,
        work: &Work<'_>,
    ) -> Result<Self> {
        Self::found(coded.kernels, centroids, coded.dim, m, (COMPARED, seed), work)
    }

    /// Above `flat_up_to` centroids those of nearby groups are compared.
    fn found(
        kernels: &'static Kernels,
        centroids: &[f32],
        dim: usize,
        m: usize,
        (flat_up_to, seed): (usize, u64),
        work: &Work<'_>,
    ) -> Result<Self> {
        let k = centroids.len() / dim;
        if k <= flat_up_to {
            let mut places = Vec::with_capacity(k * m);
            let scope = Scope::of(centroids, dim);
            for queries in centroids.chunks(SEARCHED * dim) {
                let numbers = Numbers::<f32>::new(kernels, Metric::SqEuclidean, dim, queries);
                for list in search(&scope, &numbers, m, None, &ByRow, work)? {
                    let place = (places.len() / m) as u32;
                    places.extend(near(place, m, list.iter().map(|candidate| candidate.row)));
                }
            }
            return Ok(Self { places, m });
        }
        let row = |place: u32| &centroids[place as usize * dim..][..dim];
        let n_groups = (4 * k.isqrt()).clamp(1, k);
        let Grouped { centres, order, ends } = grouped(centroids, dim, n_groups, seed, work)?;
        let of = |group: usize| {
            let start = if group == 0 { 0 } else { ends[group - 1] };
            &order[start as usize..ends[group] as usize]
        };
        let around = {
            let numbers = Numbers::<f32>::new(kernels, Metric::SqEuclidean, dim, &centres);
            search(&Scope::of(&centres, dim), &numbers, n_groups.min(AROUND), None, &ByRow, work)?
        };
        let mut places = vec![0; k * m];
        let (mut some, mut values, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        for (group, around) in around.iter().enumerate().filter(|&(group, _)| !of(group).is_empty()) {
            some.clear();
            some.extend_from_slice(of(group));
            // All others where these are not enough: most may be empty.
            for near in around.iter().map(|near| near.row as usize).chain(0..n_groups) {
                if some.len() >= COMPARED_PER_PLACE * m {
                    break;
                }
                if near != group {
                    some.extend_from_slice(of(near));
                }
            }
            some.sort_unstable();
            some.dedup();
            let copy = |places: &[u32], values: &mut Vec<f32>| {
                values.clear();
                places.iter().for_each(|&place| values.extend_from_slice(row(place)));
            };
            copy(&some, &mut values);
            copy(of(group), &mut queries);
            let scope = Scope::of(&values, dim);
            for (of, queries) in of(group).chunks(SEARCHED).zip(queries.chunks(SEARCHED * dim)) {
                let numbers = Numbers::<f32>::new(kernels, Metric::SqEuclidean, dim, queries);
                let found = search(&scope, &numbers, m, None, &ByRow, work)?;
                for (&place, list) in of.iter().zip(found) {
                    let list = list.iter().map(|candidate| some[candidate.row as usize]);
                    places[place as usize * m..][..m].copy_from_slice(&near(place, m, list));
                }
            }
        }
        Ok(Self { places, m })
    }

    fn of(&self, place: usize) -> &[u32] {
        &self.places[place * self.m..][..self.m]
    }

    /// The nearest of the centroids near the one where each point was, into `places`; how many points changed.
    ///
    /// `members` are sorted by those places. A centroid that has been `moved` far says nothing about where its points
    /// belong: they are compared with all.
    pub(super) fn assign<P: Points>(
        &self,
        coded: &Coded<'_, P>,
        centroids: &Centroids<'_>,
        members: &Members,
        moved: &[bool],
        places: &mut [u32],
        work: &Work<'_>,
    ) -> Result<usize> {
        let k = moved.len();
        let mut tasks: Vec<Range<usize>> = Vec::new();
        let mut cuts = Vec::new();
        let mut first = 0;
        for place in 0..k {
            let done = members.before(first);
            if members.before(place + 1) - done >= TASK_ROWS || place + 1 == k {
                tasks.push(first..place + 1);
                cuts.push(members.before(place + 1));
                first = place + 1;
            }
        }
        // In the order of the members, which tasks have side by side.
        let mut found = vec![0; places.len()];
        {
            let found = split_at(&mut found, &cuts);
            let scratch = || (Buffers::default(), Centroids::none(coded));
            work.for_each(STAGE, tasks.len(), scratch, |(buffers, some), task| {
                let mut found = lock(&found[task]);
                let mut rest = &mut found[..];
                for place in tasks[task].clone() {
                    let rows = members.of(place);
                    let out = rest.split_off_mut(..rows.len()).expect("as many as members");
                    if rows.is_empty() {
                        continue;
                    }
                    if moved[place] {
                        coded.choose_of(rows, centroids, buffers, out);
                        continue;
                    }
                    centroids.some(self.of(place), some);
                    coded.choose_of(rows, some, buffers, out);
                    out.iter_mut().for_each(|best| *best = self.of(place)[*best as usize]);
                }
                Ok(())
            })?;
        }
        let mut n_moved = 0;
        for (&row, &place) in members.all().iter().zip(&found) {
            let before = &mut places[row as usize];
            n_moved += usize::from(*before != place);
            *before = place;
        }
        Ok(n_moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn those_near_by_groups_are_those_of_all() {
        const M: usize = 16;
        let kernels = Kernels::best();
        let found = |centroids: &[f32], dim, flat_up_to, n_threads| {
            let work = Work::new(Some(n_threads), &crate::work::Silent);
            Nearby::found(kernels, centroids, dim, M, (flat_up_to, 5), &work).unwrap()
        };
        for (dim, k, n_values) in [(3, 2000, 1000), (10, 3000, 50), (1, 40, 3), (2, 1000, 2), (4, 19, 100)] {
            let mut random = Random::new(3, dim as u64);
            let centroids: Vec<f32> = (0..k * dim).map(|_| random.below(n_values) as f32).collect();
            let (all, some) = (found(&centroids, dim, k, 1), found(&centroids, dim, 0, 1));
            assert_eq!(some.places, found(&centroids, dim, 0, 3).places);
            let farthest = |nearby: &Nearby, place: usize| {
                let row = |at: usize| &centroids[at * dim..][..dim];
                let of = nearby.of(place);
                assert!(of.is_sorted_by(|a, b| a < b) && of.contains(&(place as u32)), "{place}: {of:?}");
                let far = |&at: &u32| kernels.canonical_sqeuclidean(row(place), row(at as usize));
                of.iter().map(far).fold(0.0, f64::max)
            };
            // Not all of the nearest in ten dimensions, of which 512 are compared, but what is about as near.
            let sum = |nearby| (0..k).map(|place| farthest(nearby, place)).sum::<f64>();
            assert!(sum(&some) <= 1.05 * sum(&all), "{dim} {k} {n_values}: {} {}", sum(&some), sum(&all));
        }
    }
}
