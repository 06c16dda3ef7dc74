//! The functions of `_native`.

use half::f16;
use nearest_core::encoding::{Kind, Values};
use nearest_core::error::{Error, Result};
use nearest_core::exact::{self, Bits, Comparer, Numbers, Scope};
use nearest_core::ids::IdList;
use nearest_core::index::{check_many_numbers, check_numbers};
use nearest_core::metric::Metric;
use nearest_core::work::Work;
use nearest_core::{candidates, memory, work};
use nearest_kernels::{Kernels, MAX_DIM};
use numpy::{PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{Found, Matrix, check_k, check_queries, from_found};
use crate::calls::enter;
use crate::errors::exception;

/// `level`, `available` and `warning`.
#[pyfunction]
pub fn kernels(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("level", Kernels::best().name())?;
    dict.set_item(
        "available",
        Kernels::available().iter().map(|kernels| kernels.name()).collect::<Vec<_>>(),
    )?;
    dict.set_item("warning", Kernels::requested_but_missing())?;
    Ok(dict)
}

/// How many threads `None` means.
#[pyfunction]
pub fn default_n_threads() -> usize {
    work::default_n_threads()
}

/// How much memory this process may still use.
#[pyfunction]
pub fn available_bytes() -> u64 {
    memory::available_bytes()
}

pub fn check_dim(width: usize) -> Result<()> {
    if (1..=MAX_DIM).contains(&width) {
        return Ok(());
    }
    Err(Error::argument(format!("vectors must have between 1 and {MAX_DIM} dimensions, got {width}")))
}

/// Does one thing with vectors of whatever type, compared by whatever metric.
trait Compare: Send {
    type Out: Send;
    fn run<C: Comparer>(
        self,
        vectors: &[C::Element],
        width: usize,
        as_queries: &(dyn Fn(&[C::Element]) -> C + Sync),
        comparer: Option<&C>,
        work: &Work<'_>,
    ) -> Result<Self::Out>;
}

/// Checks vectors and queries (nothing: the vectors themselves), and runs `task` on them.
fn compare<T: Compare>(
    (name, vectors): (&str, Values<'_>),
    queries: Option<(&str, Values<'_>)>,
    width: usize,
    metric: Metric,
    task: T,
    work: &Work<'_>,
) -> Result<T::Out> {
    let kernels = Kernels::best();
    check_dim(width)?;
    if metric.is_binary() {
        return match (vectors, queries) {
            (Values::UInt8(vectors), Some((_, Values::UInt8(queries)))) => {
                let comparer = Bits::new(kernels, metric, width, queries);
                let as_queries = |rows: &[u8]| Bits::new(kernels, metric, width, rows.to_vec());
                task.run(vectors, width, &as_queries, Some(&comparer), work)
            }
            (Values::UInt8(vectors), None) => {
                let as_queries = |rows: &[u8]| Bits::new(kernels, metric, width, rows.to_vec());
                task.run(vectors, width, &as_queries, None, work)
            }
            (vectors, queries) => Err(Error::argument(format!(
                "{} compares packed bits (uint8), got {} and {}",
                metric.name(),
                vectors.element(),
                queries.map_or("nothing", |(_, queries)| queries.element())
            ))),
        };
    }
    match vectors {
        Values::Float32(vectors) => numbers::<f32, T>((name, vectors), queries, width, metric, task, work),
        Values::Float16(vectors) => numbers::<f16, T>((name, vectors), queries, width, metric, task, work),
        Values::Int8(vectors) => numbers::<i8, T>((name, vectors), queries, width, metric, task, work),
        Values::UInt8(vectors) => numbers::<u8, T>((name, vectors), queries, width, metric, task, work),
        Values::BFloat16(_) => Err(Error::argument("vectors must not be bfloat16")),
    }
}

fn numbers<K: Kind, T: Compare>(
    (name, vectors): (&str, &[K]),
    queries: Option<(&str, Values<'_>)>,
    dim: usize,
    metric: Metric,
    task: T,
    work: &Work<'_>,
) -> Result<T::Out> {
    let kernels = Kernels::best();
    let check_vectors = || match K::IS_INTEGER && !metric.is_angular() {
        true => Ok(()),
        false => check_many_numbers(kernels, name, vectors, dim, metric, work),
    };
    let as_queries = |rows: &[K]| Numbers::of_rows(kernels, metric, dim, rows);
    match queries {
        None => {
            check_vectors()?;
            task.run::<Numbers<'_, K>>(vectors, dim, &as_queries, None, work)
        }
        Some((name, Values::Float32(values))) => {
            check_numbers(kernels, name, values, dim, 0, metric)?;
            check_vectors()?;
            let comparer = Numbers::new(kernels, metric, dim, values);
            task.run(vectors, dim, &as_queries, Some(&comparer), work)
        }
        Some((name, other)) => {
            Err(Error::argument(format!("{name} must be float32, got {}", other.element())))
        }
    }
}

struct Knn(usize);

impl Compare for Knn {
    type Out = exact::Found;
    fn run<C: Comparer>(
        self,
        vectors: &[C::Element],
        width: usize,
        _: &(dyn Fn(&[C::Element]) -> C + Sync),
        comparer: Option<&C>,
        work: &Work<'_>,
    ) -> Result<exact::Found> {
        let comparer = comparer.expect("knn has queries");
        exact::search(&Scope::of(vectors, width), comparer, self.0, None, &candidates::ByRow, work)
    }
}

/// Exact neighbours by position.
#[pyfunction]
#[pyo3(signature = (vectors, queries, k, metric, n_threads, progress))]
pub fn knn<'py>(
    py: Python<'py>,
    vectors: &Bound<'py, PyAny>,
    queries: &Bound<'py, PyAny>,
    k: i64,
    metric: &str,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Found<'py>> {
    let metric = Metric::from_name(metric).map_err(|error| exception(py, error))?;
    let k = check_k(py, k)?;
    let (vectors, queries) = (Matrix::view("vectors", vectors)?, Matrix::view("queries", queries)?);
    let (_, width) = vectors.rows(py, "vectors")?;
    let n = check_queries(py, &queries, width)?;
    let (values, asked) = (vectors.values()?, queries.values()?);
    let n_threads = if n.is_none_or(|n| n == 1) { Some(1) } else { n_threads };
    let found = enter(py, n_threads, progress, |work| {
        compare(("vectors", values), Some(("queries", asked)), width, metric, Knn(k), work)
    })?;
    from_found(py, found, n.is_none(), k, false, |list| {
        IdList::Int(list.iter().map(|candidate| i64::from(candidate.row)).collect())
    })
}

struct Graph(usize);

impl Compare for Graph {
    type Out = exact::Found;
    fn run<C: Comparer>(
        self,
        vectors: &[C::Element],
        width: usize,
        as_queries: &(dyn Fn(&[C::Element]) -> C + Sync),
        _: Option<&C>,
        work: &Work<'_>,
    ) -> Result<exact::Found> {
        exact::knn_graph(vectors, width, self.0, as_queries, work)
    }
}

/// The nearest others of every vector.
#[pyfunction]
#[pyo3(signature = (vectors, k, metric, n_threads, progress))]
pub fn knn_graph<'py>(
    py: Python<'py>,
    vectors: &Bound<'py, PyAny>,
    k: i64,
    metric: &str,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let metric = Metric::from_name(metric).map_err(|error| exception(py, error))?;
    let k = check_k(py, k)?;
    let vectors = Matrix::view("vectors", vectors)?;
    let (_, width) = vectors.rows(py, "vectors")?;
    let values = vectors.values()?;
    let found = enter(py, n_threads, progress, |work| {
        compare(("vectors", values), None, width, metric, Graph(k), work)
    })?;
    let (ids, distances, _) = from_found(py, found, false, k, false, |list| {
        IdList::Int(list.iter().map(|candidate| i64::from(candidate.row)).collect())
    })?;
    Ok((ids, distances))
}

struct Pairwise<'a>(&'a mut [f32]);

impl Compare for Pairwise<'_> {
    type Out = ();
    fn run<C: Comparer>(
        self,
        vectors: &[C::Element],
        width: usize,
        _: &(dyn Fn(&[C::Element]) -> C + Sync),
        comparer: Option<&C>,
        work: &Work<'_>,
    ) -> Result<()> {
        exact::pairwise(comparer.expect("pairwise has queries"), vectors, width, self.0, work)
    }
}

/// Distances of all pairs.
#[pyfunction]
#[pyo3(signature = (vectors, other, metric, out, n_threads, progress))]
pub fn pairwise(
    py: Python<'_>,
    vectors: &Bound<'_, PyAny>,
    other: &Bound<'_, PyAny>,
    metric: &str,
    out: &Bound<'_, PyArray2<f32>>,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    let metric = Metric::from_name(metric).map_err(|error| exception(py, error))?;
    let (queries, vectors) = (Matrix::view("vectors", vectors)?, Matrix::view("other", other)?);
    let ((n, width), (m, other_width)) = (queries.rows(py, "vectors")?, vectors.rows(py, "other")?);
    if width != other_width || out.shape() != [n, m] {
        let text = format!(
            "vectors (n, d), other (m, d) and out (n, m) must fit, got ({n}, {width}), ({m}, {other_width}) and {:?}",
            out.shape()
        );
        return Err(exception(py, Error::Argument(text)));
    }
    let mut out = out.try_readwrite()?;
    let out = out.as_slice_mut()?;
    // Queries are numbers in float32, whatever the rows are.
    let floats: Option<Vec<f32>> = if metric.is_binary() {
        None
    } else {
        match queries.values()? {
            Values::Float32(_) | Values::BFloat16(_) => None,
            Values::Float16(values) => Some(values.iter().map(|value| value.to_f32()).collect()),
            Values::Int8(values) => Some(values.iter().map(|value| f32::from(*value)).collect()),
            Values::UInt8(values) => Some(values.iter().map(|value| f32::from(*value)).collect()),
        }
    };
    let asked = floats.as_deref().map_or(queries.values()?, Values::Float32);
    let values = vectors.values()?;
    enter(py, n_threads, progress, |work| {
        compare(("other", values), Some(("vectors", asked)), width, metric, Pairwise(out), work)
    })
}
