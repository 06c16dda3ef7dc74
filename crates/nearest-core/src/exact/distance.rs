//! The reported distance of two vectors, and which sums can still be near enough.

use nearest_kernels::Kernels;

use crate::metric::Metric;
use crate::stored::Stored;

/// The distance that goes with a squared Euclidean distance.
pub(super) fn of_sqeuclidean(metric: Metric, squared: f64) -> f32 {
    if metric == Metric::Euclidean { squared.sqrt() as f32 } else { squared as f32 }
}

/// The distance that goes with an inner product and the squared norms of the two vectors.
pub(super) fn of_dot(metric: Metric, dot: f64, squared_norms: (f64, f64)) -> f32 {
    if metric == Metric::InnerProduct {
        // Adding zero turns −0 into 0.
        return (0.0 - dot) as f32;
    }
    // √(a·a) is a, so a vector is at distance 0 from itself, not near it.
    let product = (squared_norms.0 * squared_norms.1).sqrt();
    let cosine = if product > 0.0 { (dot / product).clamp(-1.0, 1.0) } else { 0.0 };
    let distance = if metric == Metric::Cosine { 1.0 - cosine } else { cosine.acos() };
    distance as f32
}

/// The distance that goes with q·x (inner product) or q·x − ‖x‖²/2 (else), where these and the squared norm of q are exact.
pub(crate) fn of_score(metric: Metric, score: f64, query_squared_norm: f64) -> f32 {
    match metric {
        Metric::InnerProduct => of_dot(metric, score, (0.0, 0.0)),
        _ => of_sqeuclidean(metric, query_squared_norm - 2.0 * score),
    }
}

/// The canonical distance of a query and a row.
pub(crate) fn canonical<T: Stored>(
    kernels: &Kernels,
    metric: Metric,
    query: &[f32],
    query_squared_norm: f64,
    row: &[T],
) -> f32 {
    match metric {
        Metric::Euclidean | Metric::SqEuclidean => {
            of_sqeuclidean(metric, kernels.canonical_sqeuclidean(query, row))
        }
        Metric::Manhattan => kernels.canonical_manhattan(query, row) as f32,
        Metric::InnerProduct => of_dot(metric, kernels.canonical_dot(query, row), (0.0, 0.0)),
        Metric::Cosine | Metric::Angular => {
            let dot = kernels.canonical_dot(query, row);
            of_dot(metric, dot, (query_squared_norm, kernels.canonical_squared_norm(row)))
        }
        Metric::Hamming | Metric::Jaccard => unreachable!("numbers are not compared as bits"),
    }
}

/// A float64 that no distance reported as at most `limit` exceeds: reported distances are rounded.
fn above(limit: f32) -> f64 {
    f64::from(limit.next_up())
}

/// The largest squared Euclidean distance that may be reported as at most `limit`.
pub(super) fn largest_sqeuclidean(metric: Metric, limit: f32) -> f64 {
    if limit < 0.0 {
        return -1.0;
    }
    let limit = above(limit);
    if metric == Metric::Euclidean { limit * limit * (1.0 + 1e-15) } else { limit }
}

/// The smallest inner product (inner product), or cosine (cosine, angular), that may be reported as at most `limit`.
pub(super) fn smallest_dot(metric: Metric, limit: f32) -> f64 {
    match metric {
        Metric::InnerProduct => -above(limit),
        Metric::Cosine => 1.0 - above(limit) - 1e-15,
        // acos is off by some 10⁻⁸ near 0, where cosines are dense.
        _ => above(limit).clamp(0.0, std::f64::consts::PI).cos() - 1e-14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn limits_never_leave_out_what_they_report(value in 0f64..4.0, other in 0f64..4.0, steps in 0u32..3) {
            for metric in [Metric::Euclidean, Metric::SqEuclidean] {
                let mut limit = of_sqeuclidean(metric, value);
                for _ in 0..steps { limit = limit.next_up(); }
                if of_sqeuclidean(metric, other) <= limit {
                    prop_assert!(other <= largest_sqeuclidean(metric, limit));
                }
                prop_assert!(value <= largest_sqeuclidean(metric, limit));
            }
            for metric in [Metric::InnerProduct, Metric::Cosine, Metric::Angular] {
                let (value, other) = (value / 2.0 - 1.0, other / 2.0 - 1.0);
                let limit = of_dot(metric, value, (1.0, 1.0));
                if of_dot(metric, other, (1.0, 1.0)) <= limit {
                    prop_assert!(other >= smallest_dot(metric, limit));
                }
                prop_assert!(value >= smallest_dot(metric, limit));
            }
        }
    }

    #[test]
    fn infinite_limits_let_everything_in() {
        for metric in [Metric::Euclidean, Metric::SqEuclidean] {
            assert_eq!(largest_sqeuclidean(metric, f32::INFINITY), f64::INFINITY);
        }
        assert_eq!(smallest_dot(Metric::InnerProduct, f32::INFINITY), f64::NEG_INFINITY);
        assert_eq!(smallest_dot(Metric::Cosine, f32::INFINITY), f64::NEG_INFINITY);
        assert!(smallest_dot(Metric::Angular, f32::INFINITY) < -1.0);
    }
}
