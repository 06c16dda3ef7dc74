//! Panels of points against coded centroids.
//!
//! Sums are those of `tile.rs`. What differs is what becomes of them: lanes are points, so that the best centroid of
//! each is kept lane by lane, and nothing is ever summed across lanes.

use super::tile::{Multiply, multiply};
use crate::centroids::{Nearest, PanelCentroids, PanelPoints};
use crate::panel::PANEL_ROWS;

/// What makes scores of sums and keeps the best, on one level.
///
/// # Safety
/// As [`Multiply`]; pointers are good for `LANES` elements.
pub(super) unsafe trait Keep: Multiply {
    /// Scores of `LANES` points.
    type Scores: Copy;
    /// Places of `LANES` centroids.
    type Places: Copy;
    /// Which of `LANES` points.
    type Mask: Copy;

    /// `scale * total + bias * weight`, each product rounded on its own.
    unsafe fn score(total: Self::Total, scale: f32, bias: f32, weight: Self::Scores) -> Self::Scores;
    unsafe fn load(at: *const f32) -> Self::Scores;
    unsafe fn save(scores: Self::Scores, at: *mut f32);
    unsafe fn load_places(at: *const u32) -> Self::Places;
    unsafe fn save_places(places: Self::Places, at: *mut u32);
    unsafe fn place(place: u32) -> Self::Places;
    /// `a > b`; a NaN is not.
    unsafe fn greater(a: Self::Scores, b: Self::Scores) -> Self::Mask;
    /// `a` where the mask is set, else `b`.
    unsafe fn either(mask: Self::Mask, a: Self::Scores, b: Self::Scores) -> Self::Scores;
    unsafe fn either_place(mask: Self::Mask, a: Self::Places, b: Self::Places) -> Self::Places;
}

/// What a block does with its scores.
///
/// # Safety
/// As [`Keep`].
pub(super) unsafe trait Sink<M: Keep> {
    /// Takes the scores of `V * LANES` points from `row` on with `Q` centroids from `place` on.
    unsafe fn take<const Q: usize, const V: usize>(
        &mut self,
        place: usize,
        row: usize,
        scores: &[[M::Scores; V]; Q],
    );
}

/// Keeps the best, and with `TWO` the second best.
pub(super) struct Best<'a, const TWO: bool> {
    pub(super) first: u32,
    pub(super) best: &'a mut Nearest,
    pub(super) second: &'a mut Nearest,
}

/// Writes all scores down.
pub(super) struct All<'a>(pub(super) &'a mut [f32]);

// SAFETY: reads and writes lanes `row..row + V * LANES` of arrays of 32.
unsafe impl<M: Keep, const TWO: bool> Sink<M> for Best<'_, TWO> {
    #[inline(always)]
    unsafe fn take<const Q: usize, const V: usize>(
        &mut self,
        place: usize,
        row: usize,
        scores: &[[M::Scores; V]; Q],
    ) {
        // SAFETY: as the trait's.
        unsafe {
            for v in 0..V {
                let at = row + v * M::LANES;
                let mut best = M::load(self.best.score.as_ptr().add(at));
                let mut places = M::load_places(self.best.place.as_ptr().add(at));
                let mut second = M::load(self.second.score.as_ptr().add(at));
                let mut second_places = M::load_places(self.second.place.as_ptr().add(at));
                for q in 0..Q {
                    let new = scores[q][v];
                    let new_places = M::place(self.first.wrapping_add((place + q) as u32));
                    let better = M::greater(new, best);
                    if TWO {
                        // The old best goes down where it was beaten; elsewhere the new one may still come second.
                        let above = M::greater(new, second);
                        second = M::either(better, best, M::either(above, new, second));
                        let below = M::either_place(above, new_places, second_places);
                        second_places = M::either_place(better, places, below);
                    }
                    best = M::either(better, new, best);
                    places = M::either_place(better, new_places, places);
                }
                M::save(best, self.best.score.as_mut_ptr().add(at));
                M::save_places(places, self.best.place.as_mut_ptr().add(at));
                if TWO {
                    M::save(second, self.second.score.as_mut_ptr().add(at));
                    M::save_places(second_places, self.second.place.as_mut_ptr().add(at));
                }
            }
        }
    }
}

// SAFETY: the caller of the kernel gave room for 32 scores of each centroid.
unsafe impl<M: Keep> Sink<M> for All<'_> {
    #[inline(always)]
    unsafe fn take<const Q: usize, const V: usize>(
        &mut self,
        place: usize,
        row: usize,
        scores: &[[M::Scores; V]; Q],
    ) {
        for q in 0..Q {
            for v in 0..V {
                let at = (place + q) * PANEL_ROWS + row + v * M::LANES;
                // SAFETY: as the trait's.
                unsafe { M::save(scores[q][v], self.0.as_mut_ptr().add(at)) }
            }
        }
    }
}

/// Blocks of 12 centroids and the whole panel, for 32 registers of 16 lanes.
///
/// # Safety
/// Lengths are as [`PanelCentroids::check`] checks them, `depth` is a multiple of the group, and the sink has room.
#[inline(always)]
pub(super) unsafe fn wide<M: Keep, S: Sink<M>>(
    points: &PanelPoints<'_, M::Row>,
    centroids: &PanelCentroids<'_, M::Code>,
    depth: usize,
    mut sink: S,
) {
    // SAFETY: as the caller's.
    unsafe {
        let place = blocks::<M, S, 12, 2, 1>(0, 0, points, centroids, depth, &mut sink);
        let place = blocks::<M, S, 4, 2, 1>(place, 0, points, centroids, depth, &mut sink);
        blocks::<M, S, 1, 2, 4>(place, 0, points, centroids, depth, &mut sink);
    }
}

/// Blocks of a few centroids and half a panel, for 16 registers of 8 lanes.
///
/// # Safety
/// As [`wide`].
#[inline(always)]
pub(super) unsafe fn narrow<M: Keep, S: Sink<M>>(
    points: &PanelPoints<'_, M::Row>,
    centroids: &PanelCentroids<'_, M::Code>,
    depth: usize,
    mut sink: S,
) {
    for row in [0, PANEL_ROWS / 2] {
        // SAFETY: as the caller's.
        unsafe {
            let place = if M::GROUP == 1 {
                blocks::<M, S, 6, 2, 1>(0, row, points, centroids, depth, &mut sink)
            } else {
                blocks::<M, S, 4, 2, 1>(0, row, points, centroids, depth, &mut sink)
            };
            blocks::<M, S, 1, 2, 2>(place, row, points, centroids, depth, &mut sink);
        }
    }
}

/// Takes `Q` centroids at a time from `place` on; gives the first that is left.
///
/// # Safety
/// As [`wide`]; `row + V * LANES` is at most 32.
#[inline(always)]
unsafe fn blocks<M: Keep, S: Sink<M>, const Q: usize, const V: usize, const U: usize>(
    mut place: usize,
    row: usize,
    points: &PanelPoints<'_, M::Row>,
    centroids: &PanelCentroids<'_, M::Code>,
    depth: usize,
    sink: &mut S,
) -> usize {
    let n = centroids.scale.len();
    while n - place >= Q {
        // SAFETY: centroids `place..place + Q` exist.
        unsafe {
            let panel = points.panel.as_ptr().add(row * M::GROUP);
            let codes = centroids.codes.as_ptr().add(place * depth);
            let start = centroids.start.as_ptr().add(place);
            let totals = multiply::<M, Q, V, U, false>(panel, codes, start, depth, &[]);
            let mut scores = [[M::load(points.weight.as_ptr()); V]; Q];
            for v in 0..V {
                let weight = M::load(points.weight.as_ptr().add(row + v * M::LANES));
                for q in 0..Q {
                    let scale = *centroids.scale.get_unchecked(place + q);
                    let bias = *centroids.bias.get_unchecked(place + q);
                    scores[q][v] = M::score(totals[q][v], scale, bias, weight);
                }
            }
            sink.take(place, row, &scores);
        }
        place += Q;
    }
    place
}
