"""Tables: ``.parquet``, and Arrow's ``.arrow`` / ``.feather`` (files and streams). Needs pyarrow.

Vectors are a column of lists of one length, fixed or not. Arrow files that are not compressed are mapped.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .file_array import Contents, FileArray, extra_module, file_bytes


@contextlib.contextmanager
def _errors(path: str, kind: str) -> Iterator[None]:
    pyarrow = extra_module("pyarrow", path)
    try:
        yield
    except FormatError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not a readable {kind} file: {text}") from error


def _is_list(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _storage(pyarrow: Any, kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def _element_dtype(pyarrow: Any, kind: Any) -> np.dtype[Any] | None:
    """numpy's type of the elements of a list, or of a column of numbers or of text; None for anything else."""
    element = kind.value_type if _is_list(pyarrow, kind) else kind
    if pyarrow.types.is_string(element) or pyarrow.types.is_large_string(element):
        return np.dtype("U") if element is kind else None
    if pyarrow.types.is_floating(element) or pyarrow.types.is_integer(element):
        dtype: np.dtype[Any] = np.dtype(element.to_pandas_dtype())
        return dtype
    return None


def _values(pyarrow: Any, column: Any, dim: int | None, label: str, start: int) -> NDArray[Any]:
    """One piece of a column as an array; every list must have `dim` elements."""
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    # Offsets from a file are checked before they are followed.
    column.validate(full=True)
    if column.null_count:
        row = start + int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise FormatError(f"{label}: expected a value in every row, got null in row {row}")
    if dim is None:
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type):
            return np.array(column.to_pylist(), dtype=object)
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    if not pyarrow.types.is_fixed_size_list(column.type):
        lengths = np.diff(np.asarray(column.offsets))
        wrong = lengths != dim
        if wrong.any():
            row = int(wrong.argmax())
            raise FormatError(f"{label}: expected {dim} values in every row, got {lengths[row]} in row {start + row}")
    flat = column.flatten()
    if flat.null_count:
        raise FormatError(f"{label}: expected numbers, got a null among rows {start} to {start + len(column) - 1}")
    array: NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(column), dim)
    return array


def _first_dim(pyarrow: Any, kind: Any, pieces: Iterator[Any], label: str) -> int | None:
    """The dimension: of the type, or of the first row that there is."""
    if not _is_list(pyarrow, kind):
        return None
    if pyarrow.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for piece in pieces:
        storage = piece.storage if isinstance(piece, pyarrow.ExtensionArray) else piece
        if len(storage):
            storage.validate(full=True)
            first = storage[0]
            if not first.is_valid:
                raise FormatError(f"{label}: expected a value in every row, got null in row 0")
            return len(first.values)
    return 0


def _column(pyarrow: Any, path: str, name: str, kind: Any, n: int, pieces: Any, whole: Any = None) -> FileArray | None:
    """A column as an array. `pieces(rows)` yields its parts; `whole()` is a view of it, if one can be had."""
    storage = _storage(pyarrow, kind)
    dtype = _element_dtype(pyarrow, storage)
    if dtype is None:
        return None
    label = f"{path}:{name}"
    if dtype.kind == "U" or not _is_list(pyarrow, storage):
        return FileArray(
            path, name, (n,), dtype, stream=functools.partial(_parts, pyarrow, pieces, None, label), sized=False
        )
    dim = _first_dim(pyarrow, storage, pieces(1), label)
    stream = functools.partial(_parts, pyarrow, pieces, dim, label)
    view = whole if whole is None else functools.partial(_view, pyarrow, whole, dim, label)
    return FileArray(path, name, (n, dim or 0), dtype, view=view, stream=stream, sized=False)


def _parts(pyarrow: Any, pieces: Any, dim: int | None, label: str, n_rows: int) -> Iterator[NDArray[Any]]:
    start = 0
    with _errors(label, "table"):
        for piece in pieces(n_rows):
            yield _values(pyarrow, piece, dim, label, start)
            start += len(piece)


def _view(pyarrow: Any, whole: Any, dim: int | None, label: str) -> NDArray[Any]:
    with _errors(label, "table"):
        return _values(pyarrow, whole(), dim, label, 0)


def open_parquet(path: str) -> Contents:
    """The columns of a Parquet file that hold numbers, text, or lists of numbers."""
    file_bytes(path)
    pyarrow = extra_module("pyarrow", path)
    parquet = extra_module("pyarrow.parquet", path)
    arrays: dict[str, FileArray] = {}
    with _errors(path, "Parquet"), parquet.ParquetFile(path, memory_map=True) as file:
        for entry in file.schema_arrow:
            pieces = functools.partial(_parquet_pieces, path, entry.name)
            array = _column(pyarrow, path, entry.name, entry.type, file.metadata.num_rows, pieces)
            if array is not None:
                arrays[entry.name] = array
    return Contents("parquet", _some(arrays, path))


def _parquet_pieces(path: str, name: str, n_rows: int) -> Iterator[Any]:
    parquet = extra_module("pyarrow.parquet", path)
    with parquet.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(batch_size=n_rows, columns=[name]):
            yield batch.column(name)


def open_arrow(path: str) -> Contents:
    """The columns of an Arrow file or stream."""
    file_bytes(path)
    pyarrow = extra_module("pyarrow", path)
    ipc = extra_module("pyarrow.ipc", path)
    arrays: dict[str, FileArray] = {}
    with _errors(path, "Arrow"):
        schema = _reader(pyarrow, ipc, path, None).schema
        for position, entry in enumerate(schema):
            if _element_dtype(pyarrow, _storage(pyarrow, entry.type)) is None:
                continue
            column = _reader(pyarrow, ipc, path, position).read_all().column(0)
            pieces = functools.partial(_arrow_pieces, column)
            whole = functools.partial(column.chunk, 0) if column.num_chunks == 1 else None
            array = _column(pyarrow, path, entry.name, entry.type, len(column), pieces, whole)
            if array is not None:
                arrays[entry.name] = array
    return Contents("arrow", _some(arrays, path))


def _reader(pyarrow: Any, ipc: Any, path: str, position: int | None) -> Any:
    """Reads the file's footer, or takes it as a stream (as the datasets of Hugging Face are)."""
    options = ipc.IpcReadOptions(included_fields=None if position is None else [position])
    source = pyarrow.memory_map(path)
    if source.read(6) == b"ARROW1":
        source.seek(0)
        return ipc.open_file(source, options=options)
    source.seek(0)
    return ipc.open_stream(source, options=options)


def _arrow_pieces(column: Any, n_rows: int) -> Iterator[Any]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), n_rows):
            yield chunk.slice(start, n_rows)


def _some(arrays: dict[str, FileArray], path: str) -> dict[str, FileArray]:
    if not arrays:
        raise FormatError(f"{path}: expected a column of lists of numbers, got none")
    return arrays


def _batches(pyarrow: Any, rows: FileArray, ids: Any, n_rows: int | None) -> tuple[Any, Iterator[Any]]:
    dim = rows.shape[1]
    values = pyarrow.from_numpy_dtype(rows.dtype.newbyteorder("="))
    fields = [pyarrow.field("vector", pyarrow.list_(values, dim), nullable=False)]
    if ids is not None:
        kind = pyarrow.string() if len(ids) and isinstance(ids[0], str) else pyarrow.int64()
        fields.insert(0, pyarrow.field("id", kind, nullable=False))
    schema = pyarrow.schema(fields)

    def batches() -> Iterator[Any]:
        start = 0
        for block in rows.blocks(n_rows):
            flat = pyarrow.array(np.ascontiguousarray(block).reshape(-1))
            columns = [pyarrow.FixedSizeListArray.from_arrays(flat, dim)]
            if ids is not None:
                columns.insert(0, pyarrow.array(ids[start : start + len(block)], fields[0].type))
            start += len(block)
            yield pyarrow.record_batch(columns, schema=schema)

    return schema, batches()


def write_parquet(path: str, rows: FileArray, ids: Any = None, metric: str | None = None) -> list[str]:
    """Writes columns ``vector`` and, where given, ``id``."""
    pyarrow = extra_module("pyarrow", path)
    parquet = extra_module("pyarrow.parquet", path)
    schema, batches = _batches(pyarrow, rows, ids, None)
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return []


def write_arrow(path: str, rows: FileArray, ids: Any = None, metric: str | None = None) -> list[str]:
    """Writes columns ``vector`` and, where given, ``id``; in one piece, to be mapped, where that needs no memory."""
    pyarrow = extra_module("pyarrow", path)
    ipc = extra_module("pyarrow.ipc", path)
    schema, batches = _batches(pyarrow, rows, ids, max(1, rows.shape[0]) if rows.mapped else None)
    with ipc.new_file(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return []
