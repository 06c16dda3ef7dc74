"""Files of vectors: npy, npz, fvecs / bvecs / ivecs, fbin / u8bin / i8bin, HDF5, Parquet and Arrow. Never a pickle.

The kind is told by the suffix. Each header is checked against the size of the file before anything is allocated, and
what can be mapped is mapped. A file of several arrays is asked for one of them as ``file.npz:base``; asked without, it
gives the one that its name or its shape tells.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..errors import ArgumentError, FormatError
from . import arrow, hdf5, numpy_files, raw
from .file_array import (
    Contents,
    FileArray,
    cast,
    check_numbers,
    check_shape,
    file_bytes,
    in_memory,
    n_bytes_of,
)
from .writing import replacing

__all__ = [
    "Contents",
    "FileArray",
    "in_memory",
    "is_vector_file",
    "open_file",
    "open_vectors",
    "read_ids",
    "read_truth",
    "read_vectors",
    "replacing",
    "supported",
    "write_vectors",
]

PathLike = str | os.PathLike[str]


class _Format(NamedTuple):
    open: Callable[[str], Contents]
    # Returns what the format had no place for.
    write: Callable[[str, FileArray, Any, str | None], list[str]]
    several: bool  # several arrays, told apart by name


def _vecs(suffix: str) -> _Format:
    return _Format(
        lambda path: raw.open_vecs(path, suffix),
        lambda path, rows, ids, metric: _plain(raw.write_vecs, path, rows, raw.VECS[suffix], suffix, ids),
        False,
    )


def _bin(suffix: str) -> _Format:
    return _Format(
        lambda path: raw.open_bin(path, suffix),
        lambda path, rows, ids, metric: _plain(raw.write_bin, path, rows, raw.BIN[suffix], suffix, ids),
        False,
    )


def _plain(
    write: Callable[[str, FileArray, np.dtype[Any], str], None],
    path: str,
    rows: FileArray,
    dtype: np.dtype[Any],
    suffix: str,
    ids: Any,
) -> list[str]:
    write(path, rows, dtype, f"{rows.label or 'vectors'} as {suffix}")
    return ["ids"] if ids is not None else []


_HDF5 = _Format(hdf5.open_hdf5, hdf5.write_hdf5, True)
_ARROW = _Format(arrow.open_arrow, arrow.write_arrow, True)

FORMATS: dict[str, _Format] = {
    ".npy": _Format(numpy_files.open_npy, numpy_files.write_npy, False),
    ".npz": _Format(numpy_files.open_npz, numpy_files.write_npz, True),
    ".fvecs": _vecs(".fvecs"),
    ".bvecs": _vecs(".bvecs"),
    ".ivecs": _vecs(".ivecs"),
    ".fbin": _bin(".fbin"),
    ".u8bin": _bin(".u8bin"),
    ".i8bin": _bin(".i8bin"),
    ".hdf5": _HDF5,
    ".h5": _HDF5,
    ".parquet": _Format(arrow.open_parquet, arrow.write_parquet, True),
    ".arrow": _ARROW,
    ".feather": _ARROW,
}
TEXT_SUFFIXES = (".txt", ".ids")

# What arrays are called, in the order in which they are looked for: ours, those of ../shared/data, ann-benchmarks'.
NAMES = {
    "vectors": ("vectors", "base", "train", "vector", "embedding", "embeddings"),
    "queries": ("queries", "test"),
    "truth": ("gt", "neighbors", "ids"),
    "ids": ("ids", "id"),
}


def supported() -> str:
    """The suffixes that can be read, for messages."""
    return ", ".join(FORMATS)


def _suffix(path: str) -> str:
    return PurePath(path).suffix.lower()


def _split(path: PathLike, dataset: str | None, column: str | None) -> tuple[str, str | None]:
    """The path and the array's name of ``file.npz:base``, unless a file has just that name."""
    text = os.fspath(path)
    if dataset is not None and column is not None and dataset != column:
        raise ArgumentError(f"dataset and column mean the same, got {dataset!r} and {column!r}")
    name = dataset if dataset is not None else column
    left, colon, right = text.rpartition(":")
    if colon and right and _suffix(left) in FORMATS and FORMATS[_suffix(left)].several and not os.path.exists(text):
        if name is not None and name != right:
            raise ArgumentError(f"{text}: names an array already, got {name!r} too")
        return left, right
    return text, name


def is_vector_file(path: PathLike) -> bool:
    """Whether the suffix says that this is a file of vectors."""
    return _suffix(_split(path, None, None)[0]) in FORMATS


def open_file(path: PathLike) -> Contents:
    """All arrays of a file, checked against its size and not yet read.

    Raises
    ------
    FormatError
        The suffix is unknown, or the bytes are not such a file.
    OSError
        The file is missing, a folder, or may not be read.
    """
    text = _split(path, None, None)[0]
    if _suffix(text) not in FORMATS:
        file_bytes(text)  # a missing file is missing, whatever it is called
        raise FormatError(f"{text}: unknown kind of file {_suffix(text)!r}, expected one of {supported()}")
    return FORMATS[_suffix(text)].open(text)


def open_vectors(
    path: PathLike, *, dataset: str | None = None, column: str | None = None, role: str = "vectors"
) -> FileArray:
    """The vectors in a file, to be read whole or in blocks.

    Parameters
    ----------
    path : path
        May end in ``:name`` for files of several arrays.
    dataset, column : str, optional
        The name of the array (npz, HDF5) or column (Parquet, Arrow); two words for the same.
    role : {"vectors", "queries", "truth"}
        Which array is meant when none is named.

    Returns
    -------
    FileArray
        Of shape (n, dim) and a numeric type.

    Raises
    ------
    FormatError
        As `open_file`, or the array is missing, ambiguous, or no table of numbers.
    OSError
        As `open_file`.
    """
    text, name = _split(path, dataset, column)
    contents = open_file(text)
    array = _choose(contents, text, name, role)
    check_numbers(array.dtype, array.label)
    check_shape(array.shape, array.label)
    return array


def _choose(contents: Contents, path: str, name: str | None, role: str) -> FileArray:
    arrays = contents.arrays
    listing = ", ".join(f"{array.name} {array.shape} {array.dtype}" for array in arrays.values())
    if name is not None:
        if not FORMATS[_suffix(path)].several:
            raise ArgumentError(f"{path}: holds one array without a name, got the name {name!r}")
        if name not in arrays:
            raise FormatError(f"{path}: expected an array {name!r}, the file holds {listing}")
        return arrays[name]
    for wanted in NAMES[role]:
        if wanted in arrays:
            return arrays[wanted]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    tables = [array for array in arrays.values() if len(array.shape) == 2 and array.dtype.kind in "fiu"]
    if len(tables) == 1:
        return tables[0]
    raise FormatError(f"{path}: which array is meant? Name it as {path}:NAME; the file holds {listing}")


def read_vectors(
    path: PathLike,
    *,
    dataset: str | None = None,
    column: str | None = None,
    memory_map: bool = True,
    role: str = "vectors",
) -> NDArray[Any]:
    """The vectors in a file, as an array.

    Parameters
    ----------
    path, dataset, column, role
        As for `open_vectors`.
    memory_map : bool
        Map the file where its format allows it: npy, npz that is not compressed, the fvecs and fbin families, HDF5 that
        is neither chunked nor compressed, Arrow that is not compressed. A map is read-only, may be strided, and
        takes memory only as the system finds it free. Checksums inside npz files are not compared then.

    Returns
    -------
    ndarray of shape (n, dim)
        Of the type that lies in the file, in this machine's byte order.

    Raises
    ------
    FormatError, OSError
        As `open_vectors`.
    MemoryError
        It has to be decoded and does not fit in memory.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "vectors.fvecs")
    >>> write_vectors(path, np.eye(3, dtype=np.float32))
    []
    >>> read_vectors(path).shape
    (3, 3)
    """
    return open_vectors(path, dataset=dataset, column=column, role=role).read(memory_map)


def write_vectors(
    path: PathLike,
    vectors: ArrayLike | FileArray,
    *,
    ids: Any = None,
    metric: str | None = None,
    dtype: DTypeLike | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> list[str]:
    """Write vectors to a file of the kind that its suffix says: beside it, then renamed.

    Parameters
    ----------
    path : path
        Replaced as a whole, or left as it was.
    vectors : array_like of shape (n, dim), or FileArray
        A FileArray is copied block by block.
    ids : int64 array or list of str, optional
        Kept by npz, Parquet, Arrow and (integers only) HDF5.
    metric : str, optional
        Kept by npz and HDF5.
    dtype : dtype, optional
        Convert to this. Files of one fixed type convert by themselves. Floats are rounded; a value that the type cannot
        hold (out of range, or no integer) is an error.
    progress : callable, optional
        Called with (rows done, rows in all, "write").

    Returns
    -------
    list of str
        What the format had no place for: ``["ids"]`` or nothing.
    """
    text = os.fspath(path)
    if _suffix(text) not in FORMATS:
        raise ArgumentError(f"{text}: unknown kind of file {_suffix(text)!r}, expected one of {supported()}")
    rows = vectors if isinstance(vectors, FileArray) else in_memory(np.asarray(vectors))
    label = rows.label or "vectors"
    check_numbers(rows.dtype, label)
    check_shape(rows.shape, label)
    rows = _converted(rows, np.dtype(dtype) if dtype is not None else None, progress)
    expected = n_bytes_of(rows.shape, rows.dtype) if _suffix(text) != ".parquet" else 0
    with replacing(text) as temporary:
        free = shutil.disk_usage(os.path.dirname(temporary)).free
        if expected > free:
            raise OSError(28, f"No space left on device: {expected} bytes to write, {free} free", text)
        return FORMATS[_suffix(text)].write(temporary, rows, ids, metric)


def _converted(
    rows: FileArray, dtype: np.dtype[Any] | None, progress: Callable[[int, int, str], object] | None
) -> FileArray:
    """The same array, converted and counted on its way."""
    if progress is None and (dtype is None or dtype == rows.dtype):
        return rows
    target = rows.dtype if dtype is None else dtype
    check_numbers(target, "dtype")

    def stream(n_rows: int) -> Iterator[NDArray[Any]]:
        n_done = 0
        for block in rows.blocks(n_rows):
            yield cast(block, target.newbyteorder("="), rows.label or "vectors")
            n_done += len(block)
            if progress is not None:
                progress(n_done, rows.shape[0], "write")

    return FileArray(rows.path, rows.name, rows.shape, target, stream=stream, sized=rows.sized)


def read_ids(
    path: PathLike, *, dataset: str | None = None, column: str | None = None, text: bool = False
) -> NDArray[np.int64] | list[str]:
    """Ids from a file: lines of text, or an array or column of integers or text.

    Parameters
    ----------
    path : path
        ``.txt`` or ``.ids``: one id a line, UTF-8. Otherwise as for `open_vectors`; shape (n,) or (n, 1).
    text : bool
        Take integers as text too. Lines are integers if every one of them is written as one (``7``, not ``07``).

    Returns
    -------
    int64 array or list of str
    """
    name_of, name = _split(path, dataset, column)
    if _suffix(name_of) in TEXT_SUFFIXES:
        return _read_lines(name_of, text)
    if _suffix(name_of) not in FORMATS:
        file_bytes(name_of)
        raise FormatError(
            f"{name_of}: unknown kind of file {_suffix(name_of)!r}, expected one of {', '.join(TEXT_SUFFIXES)} "
            f"(one id a line), {supported()}"
        )
    array = _choose(open_file(name_of), name_of, name, "ids")
    if array.dtype.kind not in "iuUO":
        raise FormatError(f"{array.label}: expected ids (integers or text), got {array.dtype}")
    if len(array.shape) != 1 and (len(array.shape) != 2 or array.shape[1] != 1):
        raise FormatError(f"{array.label}: expected ids of shape (n,), got {array.shape}")
    if array.dtype.kind == "U":
        return [str(value) for block in array.blocks() for value in block.reshape(-1)]
    values = np.asarray(array.read()).reshape(-1)
    if values.dtype == np.uint64 and len(values) and values.max() > np.uint64(2**63 - 1):
        raise FormatError(f"{array.label}: expected ids below 2^63, got {values.max()}")
    integers = values.astype(np.int64)
    return [str(value) for value in integers.tolist()] if text else integers


def _read_lines(path: str, text: bool) -> NDArray[np.int64] | list[str]:
    file_bytes(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected UTF-8, got byte {content[error.start]:#x} at {error.start}") from error
    lines = [line.removesuffix("\r") for line in lines]
    if lines[-1] == "":
        lines.pop()
    if "" in lines:
        raise FormatError(f"{path}: expected an id in every line, got an empty line {lines.index('') + 1}")
    if not text and all(re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", line) for line in lines):
        numbers = [int(line) for line in lines]
        if all(-(2**63) <= number < 2**63 for number in numbers):
            return np.array(numbers, np.int64)
    return lines


def read_truth(path: PathLike, *, dataset: str | None = None) -> NDArray[np.int64]:
    """Ids of true neighbors, shape (n_queries, k), nearest first.

    Reads ``.ivecs``, a 2-D integer ``.npy``, and files with an array ``gt``, ``neighbors`` (ann-benchmarks) or ``ids``
    (what ``nearest search -o`` writes).
    """
    array = open_vectors(path, dataset=dataset, role="truth")
    if array.dtype.kind not in "iu":
        raise FormatError(f"{array.label}: expected ids of true neighbors (integers), got {array.dtype}")
    return np.asarray(array.read()).astype(np.int64)
