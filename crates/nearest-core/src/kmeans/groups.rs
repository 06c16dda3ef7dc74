//! Centroids in groups: what a thing is near to is then looked for in a few of them, not among all.

use super::assign::assign;
use super::lloyd::Members;
use super::points::Side;
use super::{Settings, kmeans};
use crate::error::Result;
use crate::work::Work;

/// Points of a group that its centre is made from, at most.
const POINTS_PER_GROUP: usize = 64;
const N_ITERATIONS: usize = 8;

/// Points in groups.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// The centres of the groups, row-major.
    pub centres: Vec<f32>,
    /// The points, by group and then by place.
    pub order: Vec<u32>,
    /// Where each group ends.
    pub ends: Vec<u32>,
}

/// Puts points (row-major, fewer than 2³²) in `n_groups` groups, 1 to as many as they are. Some are empty where points are
/// alike.
pub fn grouped(points: &[f32], dim: usize, n_groups: usize, seed: u64, work: &Work<'_>) -> Result<Grouped> {
    let points = Side::new(points, dim);
    let settings = Settings {
        n_iterations: N_ITERATIONS,
        max_points_per_centroid: POINTS_PER_GROUP,
        hierarchical: Some(false),
        seed,
        ..Settings::new(n_groups)
    };
    let centres = kmeans(&points, &settings, work)?.centroids;
    let places = assign(&points, &centres, work)?.places;
    let mut members = Members::default();
    members.sort(&places, n_groups, |_| true);
    let ends = (1..=n_groups).map(|group| members.before(group) as u32).collect();
    Ok(Grouped { centres, order: members.all().to_vec(), ends })
}
