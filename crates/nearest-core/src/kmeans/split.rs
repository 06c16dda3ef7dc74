//! Clusters cut in two: to give those a place that no point is nearest to, and to even out sizes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::centroids::Buffers;
use super::lloyd::{Cluster, Coded, Members, Plan, normalise};
use super::points::Points;
use crate::error::Result;
use crate::random::Random;

/// How far the two halves of a cluster begin from its mean, as a share of the way to one of its points.
///
/// The border between them goes through the mean wherever they are; nearer ones would be equal once coded in 8 bits,
/// farther ones would lose points to other clusters.
const APART: f32 = 0.25;
/// A balanced cluster heavier than this, in units of the mean weight, is cut in two.
const HEAVY: f64 = 1.5;

/// A cluster that could be cut: the one with the most comes first, of equal ones that in the lower place.
#[derive(PartialEq)]
struct Donor {
    amount: f64,
    cluster: usize,
    /// Cut before: its mean has been moved aside, and is not moved any farther.
    again: bool,
}

impl Eq for Donor {}

impl Ord for Donor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.amount.total_cmp(&other.amount).then(other.cluster.cmp(&self.cluster))
    }
}

impl PartialOrd for Donor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Cuts clusters after an iteration.
pub(super) struct Splitter<'a, P> {
    coded: &'a Coded<'a, P>,
    members: &'a Members,
    moved: &'a mut [bool],
    spherical: bool,
    random: Random,
    row: Buffers,
}

impl<'a, P: Points> Splitter<'a, P> {
    /// `moved` comes to tell which centroids are put elsewhere.
    pub(super) fn new(
        coded: &'a Coded<'a, P>,
        members: &'a Members,
        moved: &'a mut [bool],
        plan: &Plan,
        iteration: usize,
    ) -> Self {
        moved.fill(false);
        let random = Random::new(plan.seed, 1 + iteration as u64);
        Self { coded, members, moved, spherical: plan.spherical, random, row: Buffers::default() }
    }

    /// Gives every cluster without points half of the one that costs most. How many there were; where all points lie on
    /// their centroids, empty clusters stay where they are. After the `last` iteration no mean is moved any more.
    pub(super) fn fill_empty(
        &mut self,
        means: &mut [f32],
        clusters: &[Cluster],
        last: bool,
    ) -> Result<usize> {
        let empty = |&place: &usize| clusters[place].weight == 0.0;
        if !(0..clusters.len()).any(|place| empty(&place)) {
            return Ok(0);
        }
        let mut donors: BinaryHeap<Donor> = clusters
            .iter()
            .enumerate()
            .filter(|(_, cluster)| cluster.size > 1 && cluster.cost_after > 0.0)
            .map(|(cluster, found)| Donor { amount: found.cost_after, cluster, again: false })
            .collect();
        let mut n_filled = 0;
        for place in (0..clusters.len()).filter(empty) {
            while let Some(Donor { amount, cluster, again }) = donors.pop() {
                // One whose points all lie on its centroid only seemed to cost something: the next.
                if self.cut(means, cluster, place, !last && !again)? {
                    donors.push(Donor { amount: amount / 2.0, cluster, again: true });
                    n_filled += 1;
                    break;
                }
            }
        }
        Ok(n_filled)
    }

    /// Cuts heavy clusters in two, for which the lightest are given up. How many.
    pub(super) fn balance(&mut self, means: &mut [f32], clusters: &[Cluster]) -> Result<usize> {
        let total: f64 = clusters.iter().map(|cluster| cluster.weight).sum();
        let heavy = HEAVY * total / clusters.len() as f64;
        let mut donors: BinaryHeap<Donor> = clusters
            .iter()
            .enumerate()
            .filter(|(_, cluster)| cluster.size > 1 && cluster.weight > heavy)
            .map(|(cluster, found)| Donor { amount: found.weight, cluster, again: false })
            .collect();
        let mut light: Vec<usize> = (0..clusters.len())
            .filter(|&place| (0.0..heavy / 2.0).contains(&clusters[place].weight))
            .collect();
        light.sort_by(|&a, &b| clusters[a].weight.total_cmp(&clusters[b].weight).then(a.cmp(&b)));
        let mut n_cut = 0;
        for place in light {
            while let Some(Donor { amount, cluster, again }) = donors.pop() {
                // What is given up must be less than either half, and halves need not be cut for being large.
                if amount <= heavy.max(2.0 * clusters[place].weight) {
                    return Ok(n_cut);
                }
                if self.cut(means, cluster, place, !again)? {
                    donors.push(Donor { amount: amount / 2.0, cluster, again: true });
                    n_cut += 1;
                    break;
                }
            }
        }
        Ok(n_cut)
    }

    /// Puts the centroid in `place` on the way from a cluster's mean to one of its points; with `both` the mean goes as
    /// far to the other side, so that the border goes through where it was, else the centroid goes all the way. False
    /// for a cluster of but one value.
    fn cut(&mut self, means: &mut [f32], cluster: usize, place: usize, both: bool) -> Result<bool> {
        let dim = self.coded.dim;
        let rows = self.members.of(cluster);
        let first = self.random.below(rows.len());
        for &member in rows[first..].iter().chain(&rows[..first]) {
            let member = member as usize;
            let mean = &means[cluster * dim..][..dim];
            self.row.read(self.coded.kernels, self.coded.points, member..member + 1)?;
            let row = self.row.rows();
            if self.coded.weight(member) == 0.0 || row == mean {
                continue;
            }
            let step = |sign: f32| row.iter().zip(mean).map(move |(x, m)| m + sign * APART * (x - m));
            let (mut one, mut other): (Vec<f32>, Vec<f32>) = if both {
                (step(1.0).collect(), step(-1.0).collect())
            } else {
                (row.to_vec(), mean.to_vec())
            };
            if self.spherical {
                normalise(&mut one, row);
                normalise(&mut other, mean);
            }
            if one != other {
                means[place * dim..][..dim].copy_from_slice(&one);
                means[cluster * dim..][..dim].copy_from_slice(&other);
                self.moved[place] = true;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
