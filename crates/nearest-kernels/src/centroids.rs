//! Panels of points against coded centroids: which centroid suits each point best, or how well each suits.
//!
//! `score = scale[c] * (start[c] + Σ panel · codes) + bias[c] * weight[r]`, larger is better. With points
//! `x − centre ≈ s (u − 128)` and centroids `c − centre ≈ t v`, where the nearest centroid is that with the largest
//! `(x − centre)·(c − centre) − ‖c − centre‖²/2`, that is `scale = t`, `start = −128 Σ v`, `bias = −‖c − centre‖²/2` and
//! `weight = 1 / s`: the score in units of `s`, which is one for all centroids.
//!
//! Sums of bytes are exact, and a score is two products and a sum, each rounded on its own: scores have the same bits
//! on every level, and so have the choices made from them. Sums of floats round in any order.

use crate::panel::{PANEL_ROWS, PanelCode};

/// A packed panel of points (see [`crate::pack_panel_bytes`]).
#[derive(Debug)]
pub struct PanelPoints<'a, T> {
    /// The packed points: 32 · depth bytes, or 32 · dim floats.
    pub panel: &'a [T],
    /// Factor of the centroids' bias.
    pub weight: &'a [f32; PANEL_ROWS],
}

/// Centroids to compare with a panel.
///
/// `score = scale[c] * (start[c] + Σ panel · codes) + bias[c] * weight[r]`, larger is better; see the head of this file
/// for what makes the nearest centroid the best.
#[derive(Debug)]
pub struct PanelCentroids<'a, C: PanelCode> {
    /// The centroids, row by row: `n * depth` codes, or `n * dim` floats.
    pub codes: &'a [C],
    /// What each centroid's sums start from.
    pub start: &'a [C::Sum],
    /// Factor of each centroid's sums.
    pub scale: &'a [f32],
    /// What each centroid adds per unit of the point's weight.
    pub bias: &'a [f32],
}

/// The best centroid so far of each of the 32 points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// Its score.
    pub score: [f32; PANEL_ROWS],
    /// Its place among the centroids.
    pub place: [u32; PANEL_ROWS],
}

impl Nearest {
    /// Nothing seen yet. A score that is NaN or −∞ is never better than this.
    pub const NONE: Nearest = Nearest { score: [f32::NEG_INFINITY; PANEL_ROWS], place: [0; PANEL_ROWS] };
}

impl<C: PanelCode> PanelCentroids<'_, C> {
    /// Panics unless points and centroids fit together; gives (centroids, depth).
    #[track_caller]
    pub(crate) fn check<T>(&self, points: &PanelPoints<'_, T>) -> (usize, usize) {
        let n = self.scale.len();
        let depth = points.panel.len() / PANEL_ROWS;
        assert!(
            points.panel.len() == depth * PANEL_ROWS && depth > 0,
            "a panel must hold 32 rows of at least one element, got {} elements",
            points.panel.len()
        );
        assert!(u32::try_from(n).is_ok(), "a panel takes at most 2³² − 1 centroids, got {n}");
        assert!(
            n.checked_mul(depth) == Some(self.codes.len()),
            "centroids must hold {n} · {depth} codes, got {}",
            self.codes.len()
        );
        assert!(self.start.len() == n, "start must have length {n}, got {}", self.start.len());
        assert!(self.bias.len() == n, "bias must have length {n}, got {}", self.bias.len());
        (n, depth)
    }
}
