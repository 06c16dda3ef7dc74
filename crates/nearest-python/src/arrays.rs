//! numpy arrays in and out.

use half::f16;
use nearest_core::candidates::Candidate;
use nearest_core::encoding::Values;
use nearest_core::error::Error;
use nearest_core::ids::IdList;
use nearest_core::work::Work;
use numpy::{
    PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::exception;

/// An array of one of the element types vectors come in.
pub enum Matrix<'py> {
    Float32(PyReadonlyArrayDyn<'py, f32>),
    Float16(PyReadonlyArrayDyn<'py, f16>),
    Int8(PyReadonlyArrayDyn<'py, i8>),
    UInt8(PyReadonlyArrayDyn<'py, u8>),
}

fn wrong(py: Python<'_>, text: String) -> PyErr {
    exception(py, Error::Argument(text))
}

impl<'py> Matrix<'py> {
    /// Views a C-contiguous array of float32, float16, int8 or uint8.
    pub fn view(what: &str, array: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
            return Ok(Matrix::Float32(array.try_readonly()?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
            return Ok(Matrix::UInt8(array.try_readonly()?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<i8>>() {
            return Ok(Matrix::Int8(array.try_readonly()?));
        }
        if let Ok(array) = array.cast::<PyArrayDyn<f16>>() {
            return Ok(Matrix::Float16(array.try_readonly()?));
        }
        let got = match array.cast::<PyUntypedArray>() {
            Ok(array) => format!("an array of {}", array.dtype()),
            Err(_) => array.get_type().to_string(),
        };
        Err(wrong(
            array.py(),
            format!("{what} must be an array of float32, float16, int8 or uint8, got {got}"),
        ))
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Matrix::Float32(array) => array.shape(),
            Matrix::Float16(array) => array.shape(),
            Matrix::Int8(array) => array.shape(),
            Matrix::UInt8(array) => array.shape(),
        }
    }

    /// Its elements, row-major.
    pub fn values(&self) -> PyResult<Values<'_>> {
        Ok(match self {
            Matrix::Float32(array) => Values::Float32(array.as_slice()?),
            Matrix::Float16(array) => Values::Float16(array.as_slice()?),
            Matrix::Int8(array) => Values::Int8(array.as_slice()?),
            Matrix::UInt8(array) => Values::UInt8(array.as_slice()?),
        })
    }

    /// Its shape as (n, width), an error that names `what` if it has none.
    pub fn rows(&self, py: Python<'_>, what: &str) -> PyResult<(usize, usize)> {
        match *self.shape() {
            [n, width] => Ok((n, width)),
            ref other => Err(wrong(py, format!("{what} must have two dimensions, got shape {other:?}"))),
        }
    }
}

/// Checks that queries have `width` elements each; tells how many there are, or nothing for a single one.
pub fn check_queries(py: Python<'_>, queries: &Matrix<'_>, width: usize) -> PyResult<Option<usize>> {
    match *queries.shape() {
        [n] if n == width => Ok(None),
        [n, m] if m == width => Ok(Some(n)),
        ref other => {
            let shape: Vec<_> = other.iter().map(ToString::to_string).collect();
            let comma = if shape.len() == 1 { "," } else { "" };
            let got = format!("({}{comma})", shape.join(", "));
            Err(wrong(py, format!("queries must have shape (n, {width}) or ({width},), got {got}")))
        }
    }
}

/// How many neighbours, if that can be.
pub fn check_k(py: Python<'_>, k: i64) -> PyResult<usize> {
    match usize::try_from(k) {
        Ok(k) if k > 0 => Ok(k),
        _ => Err(exception(py, Error::argument(format!("k must be at least 1, got {k}")))),
    }
}

/// Ids from an int64 array or a list of texts.
pub fn ids(ids: &Bound<'_, PyAny>) -> PyResult<IdList> {
    if let Ok(ids) = ids.cast::<PyArray1<i64>>() {
        return Ok(IdList::Int(ids.try_readonly()?.as_slice()?.to_vec()));
    }
    if let Ok(ids) = ids.cast::<PyList>() {
        return Ok(IdList::Text(ids.extract()?));
    }
    Err(wrong(ids.py(), format!("ids must be an int64 array or a list of str, got {}", ids.get_type())))
}

/// An int64 array or a list of texts.
pub fn from_ids(py: Python<'_>, ids: IdList) -> PyResult<Bound<'_, PyAny>> {
    Ok(match ids {
        IdList::Int(ids) => PyArray1::from_vec(py, ids).into_any(),
        IdList::Text(ids) => PyList::new(py, ids)?.into_any(),
    })
}

/// (ids, distances, counts) of what was found, padded to `k` unless it was a single query.
pub type Found<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Turns what was found into arrays. `name` gives the ids of rows.
pub fn from_found<'py>(
    py: Python<'py>,
    found: Vec<Vec<Candidate>>,
    single: bool,
    k: usize,
    text: bool,
    name: impl Fn(&[Candidate]) -> IdList,
) -> PyResult<Found<'py>> {
    let counts: Vec<i64> = found.iter().map(|list| list.len() as i64).collect();
    let n = found.len();
    let width = if single { found.first().map_or(0, Vec::len) } else { k };
    let n_bytes = (n as u64).checked_mul(width as u64).and_then(|size| size.checked_mul(12));
    Work::inline()
        .check_memory(n_bytes, &format!("{k} neighbors of {n} queries"))
        .map_err(|error| exception(py, error))?;
    let size = n * width;
    let mut distances = Vec::with_capacity(size);
    for list in &found {
        distances.extend(list.iter().map(|candidate| candidate.distance));
        distances.resize(distances.len() + width - list.len(), f32::INFINITY);
    }
    let distances = PyArray1::from_vec(py, distances);
    let counts = PyArray1::from_vec(py, counts).into_any();
    let ids = if text {
        let empty = "".into_pyobject(py)?.into_any().unbind();
        let mut texts: Vec<Py<PyAny>> = Vec::with_capacity(size);
        for list in &found {
            let IdList::Text(ids) = name(list) else { unreachable!("text was asked for") };
            for id in &ids {
                texts.push(id.into_pyobject(py)?.into_any().unbind());
            }
            texts.extend((list.len()..width).map(|_| empty.clone_ref(py)));
        }
        let ids = PyArray1::from_vec(py, texts);
        if single { ids.into_any() } else { ids.reshape([n, width])?.into_any() }
    } else {
        let mut numbers: Vec<i64> = Vec::with_capacity(size);
        for list in &found {
            let IdList::Int(ids) = name(list) else { unreachable!("numbers were asked for") };
            numbers.extend(ids);
            numbers.resize(numbers.len() + width - list.len(), -1);
        }
        let ids = PyArray1::from_vec(py, numbers);
        if single { ids.into_any() } else { ids.reshape([n, width])?.into_any() }
    };
    let distances = if single { distances.into_any() } else { distances.reshape([n, width])?.into_any() };
    Ok((ids, distances, counts))
}
