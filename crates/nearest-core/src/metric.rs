//! Metrics: a few primitives, and the last step that turns them into the documented distance.

use crate::error::{Error, Result};

/// How far apart two vectors are. Lower is nearer, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Metric {
    /// √Σ(q − x)².
    Euclidean = 0,
    /// Σ(q − x)².
    SqEuclidean = 1,
    /// 1 − cos(q, x); a zero vector is at distance 1 from everything.
    Cosine = 2,
    /// The angle between q and x in radians; a zero vector is at π/2.
    Angular = 3,
    /// −⟨q, x⟩.
    InnerProduct = 4,
    /// Σ|q − x|.
    Manhattan = 5,
    /// The number of differing bits.
    Hamming = 6,
    /// 1 − |q ∧ x| / |q ∨ x| on bits; two empty sets are at distance 0.
    Jaccard = 7,
}

impl Metric {
    /// All of them, in the order of their numbers.
    pub const ALL: [Metric; 8] = [
        Metric::Euclidean,
        Metric::SqEuclidean,
        Metric::Cosine,
        Metric::Angular,
        Metric::InnerProduct,
        Metric::Manhattan,
        Metric::Hamming,
        Metric::Jaccard,
    ];

    /// The name used in Python, on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Euclidean => "euclidean",
            Metric::SqEuclidean => "sqeuclidean",
            Metric::Cosine => "cosine",
            Metric::Angular => "angular",
            Metric::InnerProduct => "inner_product",
            Metric::Manhattan => "manhattan",
            Metric::Hamming => "hamming",
            Metric::Jaccard => "jaccard",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|metric| metric.name()).collect();
            Error::argument(format!("metric must be one of {}, got '{name}'", names.join(", ")))
        })
    }

    /// The metric of that number, as files hold it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether it compares bits.
    pub fn is_binary(self) -> bool {
        matches!(self, Metric::Hamming | Metric::Jaccard)
    }

    /// Whether vectors can be looked for in lists: distances must be those of vectors that were moved and turned.
    pub fn is_listable(self) -> bool {
        !matches!(self, Metric::Manhattan | Metric::Hamming | Metric::Jaccard)
    }

    /// Whether only the directions of vectors count, so that a zero vector has no meaning.
    pub fn is_angular(self) -> bool {
        matches!(self, Metric::Cosine | Metric::Angular)
    }
}
