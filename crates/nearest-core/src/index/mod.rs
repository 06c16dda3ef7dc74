//! The index: an encoding × a structure, ids, and versions that readers see whole.
//!
//! | file | what it holds |
//! |---|---|
//! | `snapshot.rs` | one version: everything that reads |
//! | `writer.rs` | changes: staged unseen, published at once |
//! | `persist.rs` | the file: written forward, opened by map |
//!
//! Readers take the current [`Snapshot`] (one atomic load) and keep it as long as they like. Writers queue for the one
//! [`Writer`]; what they stage is seen by nobody until they publish the next snapshot.

mod persist;
mod snapshot;
mod writer;

use std::sync::{Arc, Condvar, Mutex};

use arc_swap::ArcSwap;
use nearest_kernels::{Kernels, MAX_DIM};

pub use persist::{IndexSpec, describe_spec, verify};
pub use snapshot::{Allowed, Neighbors, Queries, Snapshot, Stats, check_many_numbers, check_numbers};
use writer::Writer;
pub use writer::{Stage, Zeros};

use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::memory::{Allocator, SystemAllocator};
use crate::metric::Metric;

/// What an index is made of; fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Dimensions; bits where the encoding is binary.
    pub dim: usize,
    /// How distances are measured.
    pub metric: Metric,
    /// How vectors are stored.
    pub encoding: Encoding,
    /// Whether an 8-bit shadow is kept for single queries.
    pub shadow: bool,
    /// What random choices start from.
    pub seed: u64,
}

impl Spec {
    /// An error unless such an index can be.
    pub fn check(&self) -> Result<()> {
        let Spec { dim, metric, encoding, shadow, .. } = *self;
        if dim == 0 || dim > MAX_DIM {
            return Err(Error::argument(format!("dim must be between 1 and {MAX_DIM}, got {dim}")));
        }
        encoding.check_metric(metric)?;
        if shadow && encoding.is_short() {
            return Err(Error::NotImplemented(format!(
                "a scalar8 shadow is no shorter than {} vectors; it goes with float32, float16 and bfloat16",
                encoding.name()
            )));
        }
        if shadow && metric == Metric::Manhattan {
            return Err(Error::NotImplemented(
                "a shadow goes with euclidean, sqeuclidean, cosine, angular and inner_product, not manhattan"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Elements of a stored vector.
    pub fn width(&self) -> usize {
        self.encoding.width(self.dim)
    }
}

/// Vectors that can be searched, added to and removed from.
#[derive(Debug)]
pub struct Index {
    spec: Spec,
    current: ArcSwap<Snapshot>,
    writer: Mutex<WriterPlace>,
    writer_back: Condvar,
    /// Whether the vectors are a file's own pages, which cannot change.
    mapped: bool,
    kernels: &'static Kernels,
    allocator: Arc<dyn Allocator>,
}

/// Where the writer is when nobody has it.
#[derive(Debug)]
enum WriterPlace {
    /// Made from the current snapshot when first needed.
    Unmade,
    Here(Box<Writer>),
    /// Some thread of this process has it.
    Taken(u32),
}

impl Index {
    /// An empty index.
    pub fn new(spec: Spec) -> Result<Self> {
        Self::with_allocator(spec, Arc::new(SystemAllocator))
    }

    /// An empty index with another source of memory, as inside a server.
    pub fn with_allocator(spec: Spec, allocator: Arc<dyn Allocator>) -> Result<Self> {
        spec.check()?;
        Ok(Self::from_snapshot(Snapshot::empty(spec), false, allocator))
    }

    fn from_snapshot(snapshot: Snapshot, mapped: bool, allocator: Arc<dyn Allocator>) -> Self {
        Self {
            spec: *snapshot.spec(),
            current: ArcSwap::from_pointee(snapshot),
            writer: Mutex::new(WriterPlace::Unmade),
            writer_back: Condvar::new(),
            mapped,
            kernels: Kernels::best(),
            allocator,
        }
    }

    /// What it is made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether it is a memory map and cannot be changed.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// The current version.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
