//! Lists in an order in which neighbours lie together, so that queries which go to the same lists can be searched together.
//!
//! Cut in two along the direction in which centroids spread most, again and again: the order of a k-d tree with turned axes.

use nearest_kernels::{Kernels, Rows};

/// Parts of the order that are not cut again: of so many lists, or this share of all.
const PART: usize = 8;
const PARTS: usize = 64;
/// Centroids that a direction is taken from, and steps towards it.
const SAMPLE: usize = 512;
const STEPS: usize = 8;

/// The place of each list in such an order.
pub fn ranks(kernels: &Kernels, centroids: &[f32], dim: usize) -> Vec<u32> {
    let n = centroids.len() / dim;
    let mut order: Vec<u32> = (0..n as u32).collect();
    cut(kernels, centroids, dim, PART.max(n / PARTS), &mut order);
    let mut ranks = vec![0; n];
    order.iter().zip(0..).for_each(|(&list, rank)| ranks[list as usize] = rank);
    ranks
}

fn cut(kernels: &Kernels, centroids: &[f32], dim: usize, least: usize, lists: &mut [u32]) {
    if lists.len() <= least {
        return;
    }
    let direction = direction(kernels, centroids, dim, lists);
    let mut along: Vec<(f32, u32)> =
        lists.iter().map(|&list| (along(kernels, centroids, &direction, list), list)).collect();
    along.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    lists.iter_mut().zip(along).for_each(|(list, (_, sorted))| *list = sorted);
    let (first, second) = lists.split_at_mut(lists.len() / 2);
    cut(kernels, centroids, dim, least, first);
    cut(kernels, centroids, dim, least, second);
}

fn along(kernels: &Kernels, centroids: &[f32], direction: &[f32], list: u32) -> f32 {
    let mut product = [0.0];
    let centroid = &centroids[list as usize * direction.len()..][..direction.len()];
    kernels.dot::<f32>(direction, Rows::Contiguous(centroid), &mut product);
    product[0]
}

/// About the first principal component of some centroids (power iteration).
fn direction(kernels: &Kernels, centroids: &[f32], dim: usize, lists: &[u32]) -> Vec<f32> {
    let step = lists.len().div_ceil(SAMPLE).max(1);
    let mut rows = Vec::with_capacity(lists.len().div_ceil(step) * dim);
    for &list in lists.iter().step_by(step) {
        rows.extend_from_slice(&centroids[list as usize * dim..][..dim]);
    }
    let n = rows.len() / dim;
    let mut mean = vec![0.0; dim];
    rows.chunks_exact(dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / n as f32));
    rows.chunks_exact_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
    let mut products = vec![0.0; n];
    // From any row that is not the mean it goes to the widest direction that the row has a part in.
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>();
    let farthest = rows.chunks_exact(dim).max_by(|a, b| length(a).total_cmp(&length(b)));
    let mut direction = farthest.map_or_else(|| vec![0.0; dim], <[f32]>::to_vec);
    for _ in 0..STEPS {
        let scale = length(&direction).sqrt();
        if !(scale > 0.0 && scale.is_finite()) {
            // They are all alike, or too far apart to tell: any order will do.
            direction.fill(0.0);
            break;
        }
        direction.iter_mut().for_each(|x| *x /= scale);
        kernels.dot::<f32>(&direction, Rows::Contiguous(&rows), &mut products);
        let before = std::mem::replace(&mut direction, vec![0.0; dim]);
        for (row, product) in rows.chunks_exact(dim).zip(&products) {
            direction.iter_mut().zip(row).for_each(|(sum, x)| *sum += product * x);
        }
        if length(&direction) == 0.0 {
            direction = before;
            break;
        }
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_lie_together() {
        // On a line, in two dimensions of which the second is noise.
        let n = 500;
        let place = |i: usize| (i * 7919 % n) as f32;
        let centroids: Vec<f32> = (0..n).flat_map(|i| [place(i), (i % 3) as f32]).collect();
        let ranks = ranks(Kernels::best(), &centroids, 2);
        let mut seen = ranks.clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..n as u32).collect::<Vec<_>>());
        // A part is in no order inside; parts are, one way or the other.
        let turned = ranks[(0..n).find(|&i| place(i) == 0.0).unwrap()] > n as u32 / 2;
        for (i, &rank) in ranks.iter().enumerate() {
            let rank = if turned { n as u32 - 1 - rank } else { rank };
            let half = |at: f32| at >= n as f32 / 2.0;
            assert_eq!(half(rank as f32), half(place(i)), "{i}");
        }
    }

    #[test]
    fn what_has_no_direction_has_an_order() {
        for value in [0.0, 1.0, 1e30, f32::MAX] {
            let mut ranks = ranks(Kernels::best(), &vec![value; 300], 3);
            ranks.sort_unstable();
            assert_eq!(ranks, (0..100).collect::<Vec<_>>());
        }
        assert!(ranks(Kernels::best(), &[], 3).is_empty());
    }
}
