//! Centroids packed in 8 bits, to be multiplied with many queries at once.

use nearest_kernels::{Kernels, PANEL_ROWS, PanelQueries, PanelRows, pack_panel_bytes, panel_depth};

use crate::metric::Metric;

/// Packed centroids, with what turns sums of codes into scores.
#[derive(Clone, Debug)]
pub struct Packed {
    panel_bytes: usize,
    panels: Vec<u8>,
    scales: Vec<f32>,
    /// What centroids add to the score of queries.
    biases: Vec<f32>,
    /// −‖c‖²/2.
    norms: Vec<f32>,
}

impl Packed {
    /// Packs centroids, row-major.
    pub fn new(kernels: &Kernels, metric: Metric, dim: usize, centroids: &[f32]) -> Self {
        let panel_bytes = PANEL_ROWS * panel_depth(dim);
        let n = centroids.len() / dim;
        let n_panels = n.div_ceil(PANEL_ROWS);
        let mut codes = vec![0; n * dim];
        let zeros = vec![0.0; dim];
        let mut scales = vec![0.0; n_panels * PANEL_ROWS];
        let mut norms = vec![f32::NEG_INFINITY; n_panels * PANEL_ROWS];
        for (i, (centroid, code)) in centroids.chunks_exact(dim).zip(codes.chunks_exact_mut(dim)).enumerate()
        {
            let coded = kernels.quantise_row(centroid, &zeros, code);
            scales[i] = coded.scale;
            norms[i] = (-0.5 * kernels.canonical_squared_norm(centroid)) as f32;
        }
        let biases = match metric {
            Metric::InnerProduct => {
                norms.iter().map(|norm| if norm.is_finite() { 0.0 } else { *norm }).collect()
            }
            _ => norms.clone(),
        };
        let mut panels = vec![0; n_panels * panel_bytes];
        for (codes, panel) in codes.chunks(PANEL_ROWS * dim).zip(panels.chunks_exact_mut(panel_bytes)) {
            pack_panel_bytes(codes, dim, panel);
        }
        Self { panel_bytes, panels, scales, biases, norms }
    }

    /// Scores of a query: those of centroids, and places up to the end of a panel, which are −∞.
    pub fn places(&self) -> usize {
        self.scales.len()
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.panels.len() + 4 * 3 * self.scales.len()
    }

    /// Adds to inner products of a query what makes scores of them.
    pub fn add_biases(&self, scores: &mut [f32]) {
        scores.iter_mut().zip(&self.biases).for_each(|(score, bias)| *score += bias);
    }

    /// Scores of queries with all centroids, in units of each query, [`Packed::places`] a query; `by_distance` if the nearest
    /// are to have the best ones whatever queries go by.
    pub fn scores(
        &self,
        kernels: &Kernels,
        by_distance: bool,
        queries: &PanelQueries<'_, i8>,
        out: &mut [f32],
    ) {
        let biases = if by_distance { &self.norms } else { &self.biases };
        for (panel, bytes) in self.panels.chunks_exact(self.panel_bytes).enumerate() {
            let at = panel * PANEL_ROWS;
            let rows = PanelRows {
                panel: bytes,
                scale: self.scales[at..].first_chunk().expect("32 places a panel"),
                bias: biases[at..].first_chunk().expect("32 places a panel"),
                mutual: None,
                ahead: &[],
            };
            kernels.estimates_i8(&rows, queries, &mut out[at..], self.places());
        }
    }
}
