"""HDF5 files, laid out as ann-benchmarks does: ``train``, ``test``, ``neighbors``, ``distances``. Needs h5py.

Only data that lie in the file itself are read: links to other files, external storage and virtual data sets are
refused, since a file from elsewhere must not choose which of our files is opened.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .file_array import Contents, FileArray, extra_module, file_bytes, map_file, n_bytes_of

_MOST_OBJECTS = 1000
# Deflate reaches 1032, and a shuffle filter adds nothing; other filters are held to the same.
_MOST_COMPRESSION = 1032

METRICS = {
    "euclidean": "euclidean",
    "angular": "cosine",  # the benchmark's «angular» is 1 − cos, which is our cosine
    "hamming": "hamming",
    "jaccard": "jaccard",
    "dot": "inner_product",
    "ip": "inner_product",
}
_WRITTEN = {"euclidean": "euclidean", "sqeuclidean": "euclidean", "cosine": "angular", "inner_product": "dot"}


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise FormatError(f"{path}: not a readable HDF5 file: {error}") from error


def open_hdf5(path: str) -> Contents:
    """The data sets of an HDF5 file."""
    size = file_bytes(path)
    h5py = extra_module("h5py", path)
    arrays: dict[str, FileArray] = {}
    with _errors(path), h5py.File(path, "r") as file:
        found: list[Any] = []

        def visit(name: str, item: Any) -> bool | None:
            if isinstance(item, h5py.Dataset):
                found.append((name, item))
            return True if len(found) >= _MOST_OBJECTS else None

        file.visititems(visit)  # follows no soft or external links
        for name, item in found:
            array = _array(path, name, item, size)
            if array is not None:
                arrays[name] = array
        metric = file.attrs.get("distance")
    if isinstance(metric, bytes):
        metric = metric.decode("utf-8", "replace")
    if not arrays:
        raise FormatError(f"{path}: expected data sets (train, test, …), got an HDF5 file without any")
    return Contents("hdf5", arrays, METRICS.get(str(metric)) if metric is not None else None)


def _array(path: str, name: str, item: Any, size: int) -> FileArray | None:
    if item.shape is None:
        return None
    label = f"{path}:{name}"
    shape, dtype = tuple(int(length) for length in item.shape), item.dtype
    array = FileArray(path, name, shape, dtype)
    if dtype.kind not in "fiub" or not shape:
        return array
    if item.external or item.is_virtual:
        raise FormatError(f"{label}: its data lie in other files, which are not opened")
    n_bytes = n_bytes_of(shape, dtype)
    stored = int(item.id.get_storage_size())
    contiguous = item.chunks is None
    if stored > size or n_bytes > (stored if contiguous else _MOST_COMPRESSION * stored):
        raise FormatError(f"{label}: {shape} of {dtype} take {n_bytes} bytes, the file holds {stored} for them")
    offset = item.id.get_offset() if contiguous else None
    if offset is not None:
        if offset + n_bytes > size:
            raise FormatError(f"{label}: truncated: ends at byte {offset + n_bytes} of {size}")
        return FileArray(path, name, shape, dtype, view=functools.partial(map_file, path, dtype, shape, int(offset)))
    return FileArray(path, name, shape, dtype, stream=functools.partial(_stream, path, name))


def _stream(path: str, name: str, n_rows: int) -> Iterator[NDArray[Any]]:
    h5py = extra_module("h5py", path)
    with _errors(path), h5py.File(path, "r") as file:
        data = file[name]
        # Whole chunks at a time: each is decoded once.
        if data.chunks:
            n_rows = max(1, n_rows // data.chunks[0]) * data.chunks[0]
        for start in range(0, data.shape[0], n_rows):
            yield data[start : start + n_rows]


def write_hdf5(path: str, rows: FileArray, ids: Any = None, metric: str | None = None) -> list[str]:
    """Writes the data set ``train`` as it is, uncompressed, so that it can be mapped."""
    h5py = extra_module("h5py", path)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("train", rows.shape, rows.dtype.newbyteorder("="))
        start = 0
        for block in rows.blocks():
            data[start : start + len(block)] = block
            start += len(block)
        if metric in _WRITTEN:
            file.attrs["distance"] = _WRITTEN[metric]
        file.attrs["dimension"] = rows.shape[1]
        file.attrs["type"] = "dense"
        file.attrs["point_type"] = "float" if np.dtype(rows.dtype).kind == "f" else "int"
        if ids is not None and not isinstance(ids, list):
            file.create_dataset("ids", data=np.asarray(ids, np.int64))
            return []
    return ["ids"] if ids is not None else []
