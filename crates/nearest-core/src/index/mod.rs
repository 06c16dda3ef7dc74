//! The index: an encoding × a structure, ids, and versions that readers see whole.
//!
//! | file | what it holds |
//! |---|---|
//! | `snapshot.rs` | one version: everything that reads |
//! | `stage.rs` | changes: staged unseen, published at once |
//! | `checked.rs` | vectors as they come, checked, in the type that is kept |
//! | `writer.rs` | what appends, and publishes the next version |
//! | `compact.rs` | rows that move together |
//! | `listed.rs` | versions whose rows lie in lists |
//! | `graphed.rs` | versions whose rows are linked |
//! | `gathered.rs` | exact searches among rows that are read out of lists or codes |
//! | `persist.rs` | the file: written forward, opened by map |
//! | `graph_file.rs` | the sections of a graph in it |
//!
//! Readers take the current [`Snapshot`] (one atomic load) and keep it as long as they like. Writers queue for the one
//! [`Writer`]; what they stage is seen by nobody until they publish the next snapshot.

mod checked;
mod compact;
mod gathered;
mod graph_file;
mod graphed;
mod listed;
mod persist;
mod snapshot;
mod stage;
mod writer;

use std::sync::{Arc, Condvar, Mutex};

use arc_swap::ArcSwap;
use nearest_kernels::{Kernels, MAX_DIM};

pub use checked::Zeros;
pub use persist::{IndexSpec, describe_spec, verify};
pub use snapshot::{
    Allowed, Knobs, Looked, Neighbors, Queries, Snapshot, Stats, check_many_numbers, check_numbers,
};
pub use stage::Stage;
use writer::Writer;

use crate::coder::ShortEncoding;
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::graph;
use crate::lists::{Codes, FLAT_UP_TO, Plan};
use crate::memory::{Allocator, SystemAllocator};
use crate::metric::Metric;

/// What a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Everything.
    Exact,
    /// The lists nearest to the query.
    Lists {
        /// How many; 0: chosen when there are enough vectors to make them from.
        n_lists: u32,
        /// Vectors in a hundred that get a second list, at most 100.
        spill: u8,
    },
    /// What a walk from neighbour to neighbour comes to.
    Graph {
        /// Links a vector, at most.
        degree: u16,
        /// Vectors near a vector that its links are chosen from.
        ef_build: u16,
    },
}

/// Links that a vector of a graph can have.
const DEGREES: std::ops::RangeInclusive<u16> = 2..=256;
/// Vectors that its links can be chosen from.
const EF_BUILDS: std::ops::RangeInclusive<u16> = 2..=1024;

/// What is kept of each row beside the lists, or beside what walks compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptAs {
    /// The vector, in this encoding.
    Raw(Encoding),
    /// A code of the whole vector.
    Code(ShortEncoding),
    /// The number of its list, which holds all that is known of it; in a graph the code that walks compare.
    Place,
}

/// Vectors an index has at least when its lists are made without being asked for.
const FIRST_TRAINING: usize = 1024;
/// Vectors of a list that is to be made.
const ROWS_PER_LIST: usize = 32;
/// Lists at most.
const MAX_LISTS: u32 = 1 << 20;

/// What an index is made of; fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Dimensions; bits where the encoding is binary.
    pub dim: usize,
    /// How distances are measured.
    pub metric: Metric,
    /// How vectors are stored; in lists, where they are looked for.
    pub encoding: Encoding,
    /// How vectors are stored a second time, to compare candidates again, where `encoding` is a short one.
    pub rerank: Option<Encoding>,
    /// What a search looks at.
    pub structure: Structure,
    /// Whether an 8-bit shadow is kept for single queries.
    pub shadow: bool,
    /// What random choices start from.
    pub seed: u64,
}

impl Spec {
    /// An error unless such an index can be.
    pub fn check(&self) -> Result<()> {
        let Spec { dim, metric, encoding, rerank, structure, shadow, .. } = *self;
        if dim == 0 || dim > MAX_DIM {
            return Err(Error::argument(format!("dim must be between 1 and {MAX_DIM}, got {dim}")));
        }
        encoding.check_metric(metric)?;
        if let Encoding::Short(short) = encoding {
            short.check_dim(dim)?;
        }
        match rerank {
            None => {}
            Some(_) if encoding.is_raw() => {
                return Err(Error::NotImplemented(format!(
                    "rerank goes with short encodings (scalar8, scalar4, product, rabitq); {} vectors are kept as they are and \
                     compared as they are",
                    encoding.name()
                )));
            }
            Some(Encoding::Short(short)) => short.check_dim(dim)?,
            Some(Encoding::Binary) => {
                return Err(Error::NotImplemented(
                    "rerank can be any encoding of numbers, got binary".into(),
                ));
            }
            Some(_) => {}
        }
        if self.is_trained() && !metric.is_listable() {
            let what = match (structure, encoding.is_raw()) {
                (Structure::Graph { .. }, _) => "Graph".into(),
                (_, true) => "Lists".into(),
                _ => format!("encoding {}", encoding.name()),
            };
            return Err(Error::NotImplemented(format!(
                "{what} goes with the metrics euclidean, sqeuclidean, cosine, angular and inner_product, got metric={}",
                metric.name()
            )));
        }
        if let Structure::Lists { n_lists, spill } = structure {
            if n_lists > MAX_LISTS {
                return Err(Error::argument(format!("n_lists must be at most {MAX_LISTS}, got {n_lists}")));
            }
            if spill > 100 {
                return Err(Error::argument(format!(
                    "spill must be from 0 to 100 in a hundred, got {spill}"
                )));
            }
        }
        if let Structure::Graph { degree, ef_build } = structure {
            let in_range = |name: &str, value, range: std::ops::RangeInclusive<u16>| {
                if range.contains(&value) {
                    return Ok(());
                }
                let (least, most) = (range.start(), range.end());
                Err(Error::argument(format!("{name} must be from {least} to {most}, got {value}")))
            };
            in_range("degree", degree, DEGREES)?;
            in_range("ef_build", ef_build, EF_BUILDS)?;
            if let Encoding::Short(short) = encoding {
                graph::codes::check_encoding(short)?;
            }
            if let Some(Encoding::Short(short @ ShortEncoding::Product { .. })) = rerank {
                return Err(Error::NotImplemented(format!(
                    "rerank of Graph goes with all encodings but product and binary, got rerank={}",
                    short.name()
                )));
            }
        }
        if shadow && (encoding.is_short() || structure != Structure::Exact) {
            return Err(Error::NotImplemented(format!(
                "a scalar8 shadow goes with Exact over float32, float16 and bfloat16 vectors, not with {} vectors{}",
                encoding.name(),
                match structure {
                    Structure::Exact => "",
                    Structure::Lists { .. } => " in lists",
                    Structure::Graph { .. } => " in a graph",
                }
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

    /// Whether vectors wait, as they came, until there are enough to train on.
    pub fn is_trained(&self) -> bool {
        self.structure != Structure::Exact || !self.encoding.is_raw()
    }

    /// Whether rows are looked for in lists: in one of all rows, if only their encoding asks for it.
    pub fn is_listed(&self) -> bool {
        self.is_trained() && self.graph_plan().is_none()
    }

    /// What the graph is to be, if there is one.
    pub(crate) fn graph_plan(&self) -> Option<graph::Plan> {
        let Structure::Graph { degree, ef_build } = self.structure else { return None };
        Some(graph::Plan { degree: degree.into(), ef_build: ef_build.into(), seed: self.seed })
    }

    /// What is kept of each row once there are lists or links.
    pub(crate) fn kept_as(&self) -> KeptAs {
        match (self.encoding, self.rerank) {
            (Encoding::Short(_), None) => KeptAs::Place,
            (Encoding::Short(_), Some(Encoding::Short(short))) => KeptAs::Code(short),
            (Encoding::Short(_), Some(raw)) => KeptAs::Raw(raw),
            // A graph's walks compare lengths where only directions count: by codes of 4 bits, as of other numbers.
            (raw, _) if raw.is_integer() && self.is_trained() && !self.links_directions() => KeptAs::Place,
            (raw, _) => KeptAs::Raw(raw),
        }
    }

    /// Whether it is a graph, and only directions count.
    fn links_directions(&self) -> bool {
        self.graph_plan().is_some() && self.metric.is_angular()
    }

    /// Whether vectors are known as they came, up to rounding to an element type, once there are lists.
    pub(crate) fn keeps_vectors(&self) -> bool {
        self.encoding.is_raw() || matches!(self.kept_as(), KeptAs::Raw(_))
    }

    /// How many vectors there must be before lists or links are made without being asked for.
    pub fn training_rows(&self) -> usize {
        let lists = match self.structure {
            Structure::Exact | Structure::Graph { .. } => 1,
            Structure::Lists { n_lists: 0, .. } => 512,
            Structure::Lists { n_lists, .. } => n_lists as usize,
        };
        (ROWS_PER_LIST * lists).max(FIRST_TRAINING)
    }

    /// The lists to make for `n` vectors; for a graph one, whose codes are those that walks compare.
    pub(crate) fn plan(&self, n: usize) -> Plan {
        let (n_lists, spill) = match self.structure {
            Structure::Exact | Structure::Graph { .. } => (1, 0),
            Structure::Lists { n_lists: 0, spill } => (lists_for(n), spill),
            Structure::Lists { n_lists, spill } => (n_lists as usize, spill),
        };
        let codes = match self.encoding {
            Encoding::UInt8 if !self.links_directions() => Codes::UInt8,
            Encoding::Int8 if !self.links_directions() => Codes::Int8,
            Encoding::Short(short) => Codes::Short(short),
            // Vectors that are kept as they are have a shadow: of 4 bits in a graph, where few candidates suffice; of 8 in lists.
            _ if self.graph_plan().is_some() => Codes::Short(ShortEncoding::Scalar4),
            _ => Codes::Short(ShortEncoding::Scalar8),
        };
        let second = match self.kept_as() {
            KeptAs::Code(short) => Some(short),
            _ => None,
        };
        let spill = f32::from(spill) / 100.0;
        let flat_up_to = FLAT_UP_TO;
        Plan { metric: self.metric, codes, second, n_lists, flat_up_to, spill, seed: self.seed }
    }

    /// Elements of a stored vector.
    pub fn width(&self) -> usize {
        self.encoding.width(self.dim)
    }
}

/// How many lists suit `n` vectors.
pub fn lists_for(n: usize) -> usize {
    let lists = (2.5 * (n as f64).sqrt()) as usize;
    lists.next_multiple_of(32).clamp(32, MAX_LISTS as usize).min(n.max(1))
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
