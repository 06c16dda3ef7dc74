//! Iterations in which a point is compared only with the centroids near the one it was nearest to.
//!
//! Once centroids are more or less where they stay, points that change clusters go to a neighbouring one. With m
//! neighbours of each of k centroids, an iteration costs n·m instead of n·k.

use std::ops::Range;

use super::centroids::{Buffers, Centroids, lock, split_at};
use super::lloyd::{Coded, Members, STAGE};
use super::points::Points;
use crate::candidates::ByRow;
use crate::error::Result;
use crate::exact::{Numbers, Scope, search};
use crate::metric::Metric;
use crate::work::Work;

/// Centroids whose neighbours are searched for at a time.
const SEARCHED: usize = 16_384;
/// Points of a task, about.
const TASK_ROWS: usize = 2048;

/// For each centroid the centroids near it, itself among them, in ascending order.
pub(super) struct Nearby {
    places: Vec<u32>,
    m: usize,
}

impl Nearby {
    pub(super) fn new<P: Points>(
        coded: &Coded<'_, P>,
        centroids: &[f32],
        m: usize,
        work: &Work<'_>,
    ) -> Result<Self> {
        let scope = Scope::of(centroids, coded.dim);
        let mut places = Vec::with_capacity(centroids.len() / coded.dim * m);
        for queries in centroids.chunks(SEARCHED * coded.dim) {
            let numbers = Numbers::<f32>::new(coded.kernels, Metric::SqEuclidean, coded.dim, queries);
            for list in search(&scope, &numbers, m, None, &ByRow, work)? {
                let (place, start) = ((places.len() / m) as u32, places.len());
                places.extend(list.iter().map(|candidate| candidate.row));
                let list = &mut places[start..];
                // Copies of it may have taken its place.
                if !list.contains(&place) {
                    list[m - 1] = place;
                }
                list.sort_unstable();
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
