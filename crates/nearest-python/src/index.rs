//! `_native.Index`, `Stage` and `Snapshot`: one line each over the core.
#![allow(clippy::too_many_arguments, reason = "as many as the Python methods have")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nearest_core::candidates::Candidate;
use nearest_core::encoding::{Encoding, Values};
use nearest_core::error::Error;
use nearest_core::files::RealFiles;
use nearest_core::ids::{Id, IdList};
use nearest_core::index::{self, Allowed, Knobs, Queries, Spec, Structure, Zeros};
use nearest_core::memory::Bytes;
use nearest_core::metric::Metric;
use nearest_core::work::Work;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::arrays::{Found, Matrix, check_k, check_queries, from_found, from_ids, ids};
use crate::calls::{enter, enter_with_caller};
use crate::errors::exception;

/// An index.
#[pyclass(module = "nearest._native", frozen)]
pub struct Index(Arc<index::Index>);

#[pymethods]
impl Index {
    #[new]
    fn new(
        py: Python<'_>,
        dim: usize,
        metric: &str,
        structure: Option<(String, u32, u32)>,
        encoding: &str,
        rerank: Option<&str>,
        shadow: Option<&str>,
        seed: u64,
    ) -> PyResult<Self> {
        let make = || {
            let shadow = match shadow {
                None => false,
                Some("scalar8") => true,
                Some(other) => {
                    return Err(Error::argument(format!("shadow must be None or 'scalar8', got '{other}'")));
                }
            };
            let (metric, encoding) = (Metric::from_name(metric)?, Encoding::from_name(encoding)?);
            let rerank = rerank.map(Encoding::from_name).transpose()?;
            // What does not fit is too large, and refused as such.
            let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let structure = match structure {
                None => Structure::Exact,
                Some((kind, degree, ef_build)) if kind == "graph" => {
                    Structure::Graph { degree: short(degree), ef_build: short(ef_build) }
                }
                Some((_, n_lists, spill)) => {
                    Structure::Lists { n_lists, spill: u8::try_from(spill).unwrap_or(u8::MAX) }
                }
            };
            index::Index::new(Spec { dim, metric, encoding, rerank, structure, shadow, seed })
        };
        Ok(Self(Arc::new(make().map_err(|error| exception(py, error))?)))
    }

    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, memory_map: bool) -> PyResult<Self> {
        enter(py, Some(1), None, |_| index::Index::open(&RealFiles, &path, memory_map))
            .map(Arc::new)
            .map(Self)
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<Self> {
        let data = data.as_bytes();
        enter(py, Some(1), None, |_| index::Index::from_bytes(Arc::new(Bytes::copied(data)?)))
            .map(Arc::new)
            .map(Self)
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let snapshot = self.0.snapshot();
        let bytes = enter(py, Some(1), None, |_| {
            let mut bytes = Vec::new();
            snapshot.write(&mut bytes).map(|()| bytes)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let snapshot = self.0.snapshot();
        enter(py, Some(1), None, |_| snapshot.save(&RealFiles, &path))
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.snapshot())
    }

    fn stage(&self, py: Python<'_>) -> PyResult<Stage> {
        let stage = enter_with_caller(py, |caller| self.0.stage(Zeros::Refuse, caller))?;
        Ok(Stage(Mutex::new(Some(stage))))
    }

    #[pyo3(signature = (ids, progress))]
    fn remove(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, progress: Option<Py<PyAny>>) -> PyResult<usize> {
        let ids = crate::arrays::ids(ids)?;
        enter(py, None, progress, |work| self.0.remove(&ids, work))
    }

    #[pyo3(signature = (n, vectors, rows, n_threads, progress))]
    fn train(
        &self,
        py: Python<'_>,
        n: usize,
        vectors: &Bound<'_, PyAny>,
        rows: Option<PyReadonlyArray1<'_, i64>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let matrix = Matrix::view("vectors", vectors)?;
        let values = matrix.values()?;
        matrix.rows(py, "vectors")?;
        let Some(rows) = rows else {
            return enter(py, n_threads, progress, |work| self.0.train(n, values, work));
        };
        // A negative number becomes one that is too large, and is refused as such.
        let rows: Vec<usize> = rows.as_slice()?.iter().map(|&row| row as usize).collect();
        enter(py, n_threads, progress, |work| self.0.train_on(n, values, &rows, work))
    }

    fn empty_copy(&self, py: Python<'_>) -> PyResult<Self> {
        enter(py, Some(1), None, |_| self.0.empty_copy()).map(Arc::new).map(Self)
    }

    #[pyo3(signature = (n_threads, progress))]
    fn link(&self, py: Python<'_>, n_threads: Option<usize>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        enter(py, n_threads, progress, |work| self.0.link(work))
    }

    fn set_calibration(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        enter_with_caller(py, |caller| self.0.set_calibration(text, caller))
    }

    #[getter]
    fn dim(&self) -> usize {
        self.0.spec().dim
    }

    #[getter]
    fn metric(&self) -> &'static str {
        self.0.spec().metric.name()
    }

    #[getter]
    fn encoding(&self) -> String {
        self.0.spec().encoding.name()
    }

    #[getter]
    fn rerank(&self) -> Option<String> {
        self.0.spec().rerank.map(Encoding::name)
    }

    #[getter]
    fn structure(&self) -> Option<(&'static str, u32, u32)> {
        match self.0.spec().structure {
            Structure::Exact => None,
            Structure::Lists { n_lists, spill } => Some(("lists", n_lists, spill.into())),
            Structure::Graph { degree, ef_build } => Some(("graph", degree.into(), ef_build.into())),
        }
    }

    #[getter]
    fn shadow(&self) -> Option<&'static str> {
        self.0.spec().shadow.then_some("scalar8")
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.0.spec().seed
    }

    #[getter]
    fn read_only(&self) -> bool {
        self.0.is_mapped()
    }
}

/// One atomic change.
#[pyclass(module = "nearest._native", frozen)]
pub struct Stage(Mutex<Option<index::Stage>>);

impl Stage {
    fn over(py: Python<'_>) -> PyErr {
        exception(py, Error::argument("this change was committed or undone already"))
    }
}

#[pymethods]
impl Stage {
    #[pyo3(signature = (vectors, ids, n_threads, progress))]
    fn append(
        &self,
        py: Python<'_>,
        vectors: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let matrix = Matrix::view("vectors", vectors)?;
        let values = matrix.values()?;
        let ids = ids.map(crate::arrays::ids).transpose()?;
        matrix.rows(py, "vectors")?;
        enter(py, n_threads, progress, |work| {
            let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            stage.as_mut().map(|stage| stage.append(values, ids, work)).transpose()
        })?
        .ok_or_else(|| Self::over(py))
    }

    fn append_from(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<bool> {
        enter(py, None, None, |work| {
            let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            stage.as_mut().map(|stage| stage.append_from(&snapshot.0, work)).transpose()
        })?
        .ok_or_else(|| Self::over(py))
    }

    fn hold(&self, py: Python<'_>, places: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
        // A negative number becomes one that is too large, and is refused as such.
        let places: Vec<usize> = places.as_slice()?.iter().map(|&place| place as usize).collect();
        enter(py, Some(1), None, |_| {
            let mut stage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            stage.as_mut().map(|stage| stage.hold(&places)).transpose()
        })?
        .ok_or_else(|| Self::over(py))
    }

    #[pyo3(signature = (replace, n_threads, progress))]
    fn commit<'py>(
        &self,
        py: Python<'py>,
        replace: bool,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let stage = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stage = stage.ok_or_else(|| Self::over(py))?;
        let ids = enter(py, n_threads, progress, |work| stage.commit(replace, work))?;
        from_ids(py, ids)
    }
}

/// The index at one moment.
#[pyclass(module = "nearest._native", frozen)]
pub struct Snapshot(Arc<index::Snapshot>);

/// A filter as it came from Python.
enum Filter {
    Ids(IdList),
    Mask(Vec<bool>),
}

impl Filter {
    fn view(filter: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(mask) = filter.cast::<PyArray1<bool>>() {
            return Ok(Filter::Mask(mask.try_readonly()?.as_slice()?.to_vec()));
        }
        Ok(Filter::Ids(ids(filter)?))
    }

    fn allowed(filter: Option<&Self>) -> Option<Allowed<'_>> {
        filter.map(|filter| match filter {
            Filter::Ids(ids) => Allowed::Ids(ids),
            Filter::Mask(mask) => Allowed::Mask(mask),
        })
    }
}

fn knobs_of((effort, rerank_k): (Option<usize>, Option<usize>)) -> Knobs {
    Knobs { effort, rerank_k }
}

impl Snapshot {
    /// Runs a search of queries that came as an array; tells whether it was a single one.
    fn queried<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        filter: Option<&Bound<'py, PyAny>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
        search: impl FnOnce(
            Queries<'_>,
            Option<Allowed<'_>>,
            &Work<'_>,
        ) -> nearest_core::error::Result<index::Neighbors>
        + Send,
    ) -> PyResult<(bool, Vec<Vec<Candidate>>)> {
        let spec = self.0.spec();
        let matrix = Matrix::view("queries", queries)?;
        let n = check_queries(py, &matrix, spec.width())?;
        let filter = filter.map(Filter::view).transpose()?;
        let queries = match (matrix.values()?, spec.encoding) {
            (Values::UInt8(bits), Encoding::Binary) => Queries::Bits(bits),
            (Values::Float32(values), encoding) if encoding != Encoding::Binary => Queries::Numbers(values),
            (other, encoding) => {
                let expected = if encoding == Encoding::Binary { "packed bits (uint8)" } else { "float32" };
                let text = format!("queries must be {expected}, got {}", other.element());
                return Err(exception(py, Error::Argument(text)));
            }
        };
        // A single query never waits for the pool.
        let n_threads = if n.is_none_or(|n| n == 1) { Some(1) } else { n_threads };
        let filter = filter.as_ref();
        let found = enter(py, n_threads, progress, |work| search(queries, Filter::allowed(filter), work))?;
        Ok((n.is_none(), found.found))
    }

    fn found<'py>(
        &self,
        py: Python<'py>,
        found: Vec<Vec<Candidate>>,
        single: bool,
        k: usize,
    ) -> PyResult<Found<'py>> {
        let text = self.0.id_kind() == "text";
        from_found(py, found, single, k, text, |list| {
            self.0.ids_of(list.iter().map(|candidate| candidate.row))
        })
    }
}

#[pymethods]
impl Snapshot {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn contains(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        if let Ok(text) = id.extract::<&str>() {
            return Ok(py.detach(|| self.0.contains(Id::Text(text))));
        }
        let id: i64 = id.extract()?;
        Ok(py.detach(|| self.0.contains(Id::Int(id))))
    }

    #[getter]
    fn id_kind(&self) -> &'static str {
        self.0.id_kind()
    }

    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let ids = py.detach(|| self.0.ids());
        from_ids(py, ids)
    }

    fn get<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let ids = crate::arrays::ids(ids)?;
        let width = self.0.spec().width();
        let n = ids.len();
        let shape = [n, width];
        let rows = enter(py, Some(1), None, |work| {
            work.check_memory((n as u64).checked_mul(width as u64 * 4), "the vectors asked for")?;
            self.0.rows_of(&ids)
        })?;
        macro_rules! gathered {
            ($element:ty, $variant:ident, $convert:expr) => {{
                let mut out: Vec<$element> = Vec::with_capacity(n * width);
                enter(py, Some(1), None, |_| {
                    self.0.values_of(&rows, |values| {
                        if let Values::$variant(values) = values {
                            out.extend(values.iter().map($convert));
                        }
                    })
                })?;
                Ok(PyArray1::from_vec(py, out).reshape(shape)?.into_any())
            }};
        }
        match self.0.values_encoding() {
            Encoding::Float32 | Encoding::Short(_) => gathered!(f32, Float32, |value| *value),
            Encoding::Float16 => gathered!(f32, Float16, |value| value.to_f32()),
            Encoding::BFloat16 => gathered!(f32, BFloat16, |value| value.to_f32()),
            Encoding::Int8 => gathered!(i8, Int8, |value| *value),
            Encoding::UInt8 | Encoding::Binary => gathered!(u8, UInt8, |value| *value),
        }
    }

    fn without(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, progress: Option<Py<PyAny>>) -> PyResult<Self> {
        let ids = crate::arrays::ids(ids)?;
        enter(py, None, progress, |work| self.0.without(&ids, work)).map(Arc::new).map(Self)
    }

    #[getter]
    fn calibration(&self) -> Option<String> {
        self.0.calibration().map(str::to_owned)
    }

    #[getter]
    fn is_trained(&self) -> bool {
        self.0.is_trained()
    }

    #[pyo3(signature = (queries, k, knobs, filter, n_threads, progress))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        k: i64,
        knobs: (Option<usize>, Option<usize>),
        filter: Option<&Bound<'py, PyAny>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Found<'py>> {
        let k = check_k(py, k)?;
        let (single, found) =
            self.queried(py, queries, filter, n_threads, progress, |queries, allowed, work| {
                self.0.search(queries, k, allowed, knobs_of(knobs), work)
            })?;
        self.found(py, found, single, k)
    }

    /// How a search goes: nothing where no graph is walked along.
    #[pyo3(signature = (queries, k, knobs, filter, n_threads))]
    fn looked<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        k: i64,
        knobs: (Option<usize>, Option<usize>),
        filter: Option<&Bound<'py, PyAny>>,
        n_threads: Option<usize>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let k = check_k(py, k)?;
        let mut looked = None;
        self.queried(py, queries, filter, n_threads, None, |queries, allowed, work| {
            let found = self.0.search(queries, k, allowed, knobs_of(knobs), work)?;
            looked = found.looked;
            Ok(found)
        })?;
        let Some(looked) = looked else { return Ok(None) };
        let dict = PyDict::new(py);
        dict.set_item("n_walks", looked.n_walks)?;
        dict.set_item("n_scans", looked.n_scans)?;
        dict.set_item("n_rounds", looked.n_rounds)?;
        dict.set_item("n_followed", looked.n_followed)?;
        dict.set_item("n_compared", looked.n_compared)?;
        dict.set_item("n_reranked", looked.n_reranked)?;
        Ok(Some(dict))
    }

    #[pyo3(signature = (ids, k, knobs, filter, n_threads, progress))]
    fn neighbors_of<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        k: i64,
        knobs: (Option<usize>, Option<usize>),
        filter: Option<&Bound<'py, PyAny>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Found<'py>> {
        let k = check_k(py, k)?;
        let ids = crate::arrays::ids(ids)?;
        let filter = filter.map(Filter::view).transpose()?;
        let filter = filter.as_ref();
        let found = enter(py, n_threads, progress, |work| {
            self.0.neighbors_of(&ids, k, Filter::allowed(filter), knobs_of(knobs), work)
        })?;
        self.found(py, found.found, false, k)
    }

    #[pyo3(signature = (queries, radius, knobs, filter, n_threads, progress))]
    fn search_radius<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        radius: f32,
        knobs: (Option<usize>, Option<usize>),
        filter: Option<&Bound<'py, PyAny>>,
        n_threads: Option<usize>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let (_, found) =
            self.queried(py, queries, filter, n_threads, progress, |queries, allowed, work| {
                self.0.search_radius(queries, radius, allowed, knobs_of(knobs), work)
            })?;
        found
            .into_iter()
            .map(|list| {
                let k = list.len();
                let (ids, distances, _) = self.found(py, vec![list], true, k)?;
                Ok((ids, distances))
            })
            .collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("n_vectors", stats.n_vectors)?;
        dict.set_item("n_removed", stats.n_removed)?;
        dict.set_item("vectors_bytes", stats.vectors_bytes)?;
        dict.set_item("ids_bytes", stats.ids_bytes)?;
        dict.set_item("shadow_bytes", stats.shadow_bytes)?;
        dict.set_item("n_shadowed", stats.n_shadowed)?;
        if let Some(lists) = stats.lists {
            dict.set_item("n_lists", lists.n_lists)?;
            dict.set_item("n_entries", lists.n_entries)?;
            dict.set_item("largest_list", lists.largest_list)?;
            dict.set_item("lists_bytes", lists.lists_bytes)?;
            dict.set_item("drift", lists.drift)?;
        }
        if let Some(graph) = stats.graph {
            dict.set_item("n_links", graph.n_links)?;
            dict.set_item("n_hubs", graph.n_hubs)?;
            dict.set_item("n_waiting", graph.n_waiting)?;
            dict.set_item("unreachable", graph.n_unreachable)?;
            dict.set_item("graph_bytes", graph.graph_bytes)?;
        }
        Ok(dict)
    }
}
