//! The best estimates of one query.

use crate::column::Row;

/// A row that may be among the nearest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// How near it seems; higher is nearer.
    pub score: f32,
    /// Its number.
    pub row: Row,
    /// The list it was found in.
    pub list: u32,
    /// Its place there.
    pub place: u32,
}

/// Whether `a` goes before `b`: ties by row, so that the order of the offers does not matter.
fn before(a: &Estimate, b: &Estimate) -> bool {
    a.score > b.score || (a.score == b.score && a.row < b.row)
}

/// The best estimates, best first, each row once.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    size: usize,
    best: Vec<Estimate>,
}

impl Pool {
    /// Empties it and lets it keep `size`.
    pub fn reset(&mut self, size: usize) {
        self.size = size;
        self.best.clear();
    }

    /// What a score must reach to be let in.
    pub fn limit(&self) -> f32 {
        if self.best.len() < self.size {
            f32::NEG_INFINITY
        } else {
            self.best.last().map_or(f32::INFINITY, |last| last.score)
        }
    }

    /// Lets an estimate in if it is among the best. Of two estimates of one row the higher stays.
    pub fn offer(&mut self, estimate: Estimate) {
        if self.best.len() == self.size && !self.best.last().is_some_and(|last| before(&estimate, last)) {
            return;
        }
        if let Some(at) = self.best.iter().position(|other| other.row == estimate.row) {
            if self.best[at].score >= estimate.score {
                return;
            }
            self.best.remove(at);
        } else if self.best.len() == self.size {
            self.best.pop();
        }
        let at = self.best.partition_point(|other| before(other, &estimate));
        self.best.insert(at, estimate);
    }

    /// Best first.
    pub fn best(&self) -> &[Estimate] {
        &self.best
    }
}
