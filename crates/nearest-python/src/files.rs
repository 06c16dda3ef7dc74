//! Files of named arrays, and what a file says of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use nearest_core::error::{Error, Result};
use nearest_core::file::{Dtype, FileView, FileWriter};
use nearest_core::files::{Files, RealFiles, replace_file};
use nearest_core::index::{Structure, describe_spec};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::calls::enter;
use crate::errors::exception;

/// The section that holds the text about the others.
const META: &str = "meta";

/// Type, shape and bytes of an array.
type Parts<'a> = (Dtype, Vec<u64>, &'a [u8]);

macro_rules! arrays {
    ($($variant:ident $element:ty, $dtype:ident, $name:literal;)*) => {
        /// An array of a type that files hold.
        enum Array<'py> {
            $($variant(PyReadonlyArrayDyn<'py, $element>),)*
        }

        impl<'py> Array<'py> {
            fn view(array: &Bound<'py, PyAny>) -> PyResult<Self> {
                $(if let Ok(array) = array.cast::<PyArrayDyn<$element>>() {
                    return Ok(Array::$variant(array.try_readonly()?));
                })*
                let text = format!("files hold arrays of numbers, got {}", array.get_type());
                Err(exception(array.py(), Error::Argument(text)))
            }

            fn parts(&self) -> PyResult<Parts<'_>> {
                Ok(match self {
                    $(Array::$variant(array) => {
                        let shape = array.shape().iter().map(|&n| n as u64).collect();
                        (Dtype::$dtype, shape, bytes_of(array.as_slice()?))
                    })*
                })
            }
        }

        /// The name numpy gives a type.
        fn numpy_name(dtype: Dtype) -> &'static str {
            match dtype {
                $(Dtype::$dtype => $name,)*
                other => other.name(),
            }
        }

        /// A copy of a section as an array.
        fn copied<'py>(py: Python<'py>, view: &FileView, name: &str) -> PyResult<Bound<'py, PyAny>> {
            let section = view.section(name).expect("a section of this file");
            let shape: Vec<usize> = section.shape().iter().map(|&n| n as usize).collect();
            match section.dtype() {
                $(Dtype::$dtype => {
                    let values = view.array::<$element>(section).map_err(|error| exception(py, error))?;
                    let array = PyArray1::from_slice(py, values).reshape(shape)?.into_any();
                    array.call_method1("setflags", (false,))?;
                    Ok(array)
                })*
                other => Err(exception(py, Error::format(format!("section '{name}' holds {}", other.name())))),
            }
        }
    };
}
arrays! {
    Int64 i64, I64, "int64";
    Float32 f32, F32, "float32";
    UInt8 u8, U8, "uint8";
    Int8 i8, I8, "int8";
    UInt16 u16, U16, "uint16";
    Int16 i16, I16, "int16";
    UInt32 u32, U32, "uint32";
    Int32 i32, I32, "int32";
    UInt64 u64, U64, "uint64";
    Float16 f16, F16, "float16";
    Float64 f64, F64, "float64";
}

fn bytes_of<T: nearest_core::file::HasDtype>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Writes a checked file of named arrays.
#[pyfunction]
pub fn write_file(
    py: Python<'_>,
    path: PathBuf,
    kind: &str,
    meta: &str,
    arrays: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let arrays: Vec<(String, Array<'_>)> = arrays
        .iter()
        .map(|(name, array)| Ok((name.extract()?, Array::view(&array)?)))
        .collect::<PyResult<_>>()?;
    let parts: Vec<(&str, Parts<'_>)> =
        arrays.iter().map(|(name, array)| Ok((name.as_str(), array.parts()?))).collect::<PyResult<_>>()?;
    enter(py, Some(1), None, |_| {
        replace_file(&RealFiles, &path, |out| {
            let mut file = FileWriter::new(out, kind)?;
            file.text(META, meta)?;
            file.mark_required();
            for (name, (dtype, shape, bytes)) in &parts {
                file.section(name, *dtype, shape, |out| out.write_all(bytes))?;
                file.mark_required();
            }
            file.finish().map(|_| ())
        })
    })
}

fn open_view(path: &Path, kind: Option<&str>, memory_map: bool) -> Result<FileView> {
    let bytes = RealFiles.open_bytes(path, memory_map)?;
    FileView::open(Arc::new(bytes), kind).map_err(|error| match error {
        Error::Format(text) => Error::Format(format!("{}: {text}", path.display())),
        other => other,
    })
}

/// The meta text and the arrays.
#[pyfunction]
pub fn read_file<'py>(
    py: Python<'py>,
    path: PathBuf,
    kind: &str,
    memory_map: bool,
) -> PyResult<(String, Bound<'py, PyDict>)> {
    let view = enter(py, Some(1), None, |_| open_view(&path, Some(kind), memory_map))?;
    let arrays = PyDict::new(py);
    for section in view.sections().iter().filter(|section| section.name() != META) {
        if matches!(section.dtype(), Dtype::Utf8 | Dtype::Bf16) {
            let text = format!("section '{}' holds {}", section.name(), section.dtype().name());
            return Err(exception(py, Error::format(text)));
        }
        let array = if memory_map && section.n_bytes() > 0 {
            // numpy maps the same pages; what was checked above is the layout.
            let options = PyDict::new(py);
            options.set_item("dtype", numpy_name(section.dtype()))?;
            options.set_item("mode", "r")?;
            options.set_item("offset", section.offset())?;
            options.set_item("shape", pyo3::types::PyTuple::new(py, section.shape())?)?;
            py.import("numpy")?.call_method("memmap", (&path,), Some(&options))?
        } else {
            copied(py, &view, section.name())?
        };
        arrays.set_item(section.name(), array)?;
    }
    let meta = view.text(META).map_err(|error| exception(py, error))?.to_owned();
    Ok((meta, arrays))
}

fn description<'py>(py: Python<'py>, view: &FileView) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("kind", view.kind())?;
    dict.set_item("version", view.version())?;
    dict.set_item("file_bytes", view.file_bytes())?;
    dict.set_item("meta", view.section(META).and_then(|_| view.text(META).ok()))?;
    if view.kind() == "index" {
        let spec = describe_spec(view).map_err(|error| exception(py, error))?;
        let of = PyDict::new(py);
        of.set_item("dim", spec.spec.dim)?;
        of.set_item("metric", spec.spec.metric.name())?;
        of.set_item("encoding", spec.spec.encoding.name())?;
        of.set_item(
            "structure",
            match spec.spec.structure {
                Structure::Exact => "exact",
                Structure::Lists { .. } => "lists",
                Structure::Graph { .. } => "graph",
            },
        )?;
        of.set_item("shadow", spec.spec.shadow.then_some("scalar8"))?;
        of.set_item("seed", spec.spec.seed)?;
        of.set_item("next_id", spec.next_id)?;
        dict.set_item("spec", of)?;
    }
    let sections = PyList::empty(py);
    for section in view.sections() {
        let of = PyDict::new(py);
        of.set_item("name", section.name())?;
        of.set_item("dtype", numpy_name(section.dtype()))?;
        of.set_item("shape", section.shape().to_vec())?;
        of.set_item("bytes", section.n_bytes())?;
        sections.append(of)?;
    }
    dict.set_item("sections", sections)?;
    Ok(dict)
}

/// What a file says of itself, from its table alone.
#[pyfunction]
pub fn describe(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let view = enter(py, Some(1), None, |_| open_view(&path, None, true))?;
    description(py, &view)
}

/// Checks every byte.
#[pyfunction]
pub fn verify(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let view = enter(py, Some(1), None, |_| {
        let view = open_view(&path, None, true)?;
        let checked = view.verify().and_then(|()| match view.kind() {
            "index" => nearest_core::index::verify(&view),
            _ => Ok(()),
        });
        checked.map(|()| view).map_err(|error| match error {
            Error::Format(text) => Error::Format(format!("{}: {text}", path.display())),
            other => other,
        })
    })?;
    description(py, &view)
}
