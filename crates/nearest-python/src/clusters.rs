//! k-means.

use nearest_core::encoding::{Kind, Values};
use nearest_core::error::{Error, Result};
use nearest_core::index::check_many_numbers;
use nearest_core::kmeans as core;
use nearest_core::kmeans::{Assigned, KMeans, Settings, Side};
use nearest_core::metric::Metric;
use nearest_core::work::Work;
use nearest_kernels::Kernels;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{Matrix, check_k};
use crate::calls::enter;
use crate::errors::exception;
use crate::functions::check_dim;

type Clusters<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Runs one generic body for whatever element type the values have.
macro_rules! each_type {
    ($values:expr, $vectors:ident => $body:expr) => {
        match $values {
            Values::Float32($vectors) => $body,
            Values::Float16($vectors) => $body,
            Values::BFloat16($vectors) => $body,
            Values::Int8($vectors) => $body,
            Values::UInt8($vectors) => $body,
        }
    };
}

/// Every vector is checked, also where only a sample of them is used.
fn check<K: Kind>(vectors: &[K], dim: usize, spherical: bool, work: &Work<'_>) -> Result<()> {
    check_dim(dim)?;
    let metric = if spherical { Metric::Cosine } else { Metric::Euclidean };
    if K::IS_INTEGER && !spherical {
        return Ok(());
    }
    check_many_numbers(Kernels::best(), "vectors", vectors, dim, metric, work)
}

/// Centroids (k, dim), objective of each iteration, points of each centroid.
#[pyfunction]
#[pyo3(signature = (
    vectors, k, n_iterations, spherical, balanced, hierarchical, weights, max_points_per_centroid, seed, n_threads, progress
))]
#[allow(clippy::too_many_arguments, reason = "as many as the Python function has")]
pub fn kmeans<'py>(
    py: Python<'py>,
    vectors: &Bound<'py, PyAny>,
    k: i64,
    n_iterations: usize,
    spherical: bool,
    balanced: bool,
    hierarchical: Option<bool>,
    weights: Option<PyReadonlyArray1<'py, f32>>,
    max_points_per_centroid: usize,
    seed: u64,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Clusters<'py>> {
    let k = check_k(py, k)?;
    let vectors = Matrix::view("vectors", vectors)?;
    let (_, dim) = vectors.rows(py, "vectors")?;
    let values = vectors.values()?;
    let weights = weights.as_ref().map(|weights| weights.as_slice()).transpose()?;
    let settings = Settings {
        k,
        n_iterations,
        spherical,
        balanced,
        hierarchical,
        weights,
        max_points_per_centroid,
        seed,
    };
    let found: KMeans = enter(py, n_threads, progress, |work| {
        each_type!(values, vectors => {
            check(vectors, dim, spherical, work)?;
            core::kmeans(&Side::new(vectors, dim), &settings, work)
        })
    })?;
    let sizes: Vec<i64> = found.sizes.iter().map(|&size| size as i64).collect();
    Ok((
        PyArray1::from_vec(py, found.centroids).reshape([k, dim])?.into_any(),
        PyArray1::from_vec(py, found.objective).into_any(),
        PyArray1::from_vec(py, sizes).into_any(),
    ))
}

/// The rows of `n` that k-means would use, or nothing where it uses all.
#[pyfunction]
pub fn kmeans_rows(
    py: Python<'_>,
    n: usize,
    k: usize,
    max_points_per_centroid: usize,
    seed: u64,
) -> Option<Bound<'_, PyArray1<i64>>> {
    let settings = Settings { max_points_per_centroid, seed, ..Settings::new(k) };
    let rows = core::sampled_rows(n, &settings)?;
    Some(PyArray1::from_iter(py, rows.into_iter().map(i64::from)))
}

/// The nearest centroid of every vector, and the squared distance from it.
#[pyfunction]
#[pyo3(signature = (vectors, centroids, n_threads, progress))]
pub fn assign<'py>(
    py: Python<'py>,
    vectors: &Bound<'py, PyAny>,
    centroids: &Bound<'py, PyArray2<f32>>,
    n_threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let vectors = Matrix::view("vectors", vectors)?;
    let (_, dim) = vectors.rows(py, "vectors")?;
    if centroids.shape()[1] != dim {
        let text = format!("vectors must have {} dimensions, got {dim}", centroids.shape()[1]);
        return Err(exception(py, Error::Argument(text)));
    }
    let centroids = centroids.try_readonly()?;
    let (values, centroids) = (vectors.values()?, centroids.as_slice()?);
    let Assigned { places, distances } = enter(py, n_threads, progress, |work| {
        each_type!(values, vectors => {
            check(vectors, dim, false, work)?;
            core::assign(&Side::new(vectors, dim), centroids, work)
        })
    })?;
    let ids = PyArray1::from_iter(py, places.into_iter().map(i64::from)).into_any();
    Ok((ids, PyArray1::from_vec(py, distances).into_any()))
}
