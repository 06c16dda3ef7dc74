"""The plain files of benchmarks: ``.fvecs`` / ``.bvecs`` / ``.ivecs`` and ``.fbin`` / ``.u8bin`` / ``.i8bin``.

The first kind (of the TEXMEX corpus) has before each row its dimension as a little-endian int32; the second (of the
billion-scale benchmarks) has a header of two uint32, count and dimension, and then the rows.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .file_array import BLOCK_BYTES, Contents, FileArray, cast, file_bytes, map_file

VECS: dict[str, np.dtype[Any]] = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}
BIN: dict[str, np.dtype[Any]] = {".fbin": np.dtype("<f4"), ".u8bin": np.dtype("u1"), ".i8bin": np.dtype("i1")}


def open_vecs(path: str, suffix: str) -> Contents:
    """Rows that each carry their dimension. The first is checked here, the others when the file is read."""
    dtype = VECS[suffix]
    size = file_bytes(path)
    with open(path, "rb") as file:
        head = file.read(4)
    if len(head) < 4:
        raise FormatError(f"{path}: truncated: expected a dimension in the first 4 bytes, got {len(head)} bytes")
    (dim,) = struct.unpack("<i", head)
    if dim < 1:
        raise FormatError(f"{path}: expected a dimension ≥ 1 in the first 4 bytes, got {dim}")
    row_bytes = 4 + dim * dtype.itemsize
    if row_bytes > size:
        raise FormatError(f"{path}: a row of dimension {dim} takes {row_bytes} bytes, the file has {size}")
    if size % row_bytes:
        raise FormatError(
            f"{path}: expected a multiple of {row_bytes} bytes (rows of dimension {dim}), got {size}: "
            f"{size // row_bytes} rows and {size % row_bytes} bytes"
        )
    shape = (size // row_bytes, dim)
    return Contents(
        suffix[1:], {"": FileArray(path, "", shape, dtype, view=functools.partial(_map_vecs, path, dtype, shape))}
    )


def _map_vecs(path: str, dtype: np.dtype[Any], shape: tuple[int, int]) -> NDArray[Any]:
    n, dim = shape
    raw = map_file(path, np.dtype("u1"), (n, 4 + dim * dtype.itemsize), 0)
    step = max(1, BLOCK_BYTES // raw.shape[1])
    expected = np.frombuffer(struct.pack("<i", dim), np.uint8)
    for start in range(0, n, step):
        wrong = (raw[start : start + step, :4] != expected).any(axis=1)
        if wrong.any():
            row = start + int(wrong.argmax())
            (got,) = struct.unpack("<i", raw[row, :4].tobytes())
            raise FormatError(f"{path}: expected dimension {dim} in every row, got {got} in row {row}")
    return raw[:, 4:].view(dtype)


def write_vecs(path: str, rows: FileArray, dtype: np.dtype[Any], label: str) -> None:
    """Writes each row after its dimension."""
    head = np.frombuffer(struct.pack("<i", rows.shape[1]), np.uint8)
    with open(path, "wb") as file:
        for block in rows.blocks():
            block = np.ascontiguousarray(cast(block, dtype, label))
            raw = np.empty((len(block), 4 + block.shape[1] * dtype.itemsize), np.uint8)
            raw[:, :4] = head
            raw[:, 4:] = block.view(np.uint8)
            file.write(raw.data)


def open_bin(path: str, suffix: str) -> Contents:
    """A header of count and dimension, then the rows."""
    dtype = BIN[suffix]
    size = file_bytes(path)
    with open(path, "rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise FormatError(f"{path}: truncated: expected a header of 8 bytes, got {len(head)}")
    n, dim = struct.unpack("<II", head)
    expected = 8 + n * dim * dtype.itemsize
    if dim < 1:
        raise FormatError(f"{path}: expected a dimension ≥ 1 in bytes 4 to 8, got {dim}")
    if size != expected:
        state = "truncated" if size < expected else "too long"
        raise FormatError(f"{path}: {state}: a header of {n} × {dim} means {expected} bytes, got {size}")
    view = functools.partial(map_file, path, dtype, (n, dim), 8)
    return Contents(suffix[1:], {"": FileArray(path, "", (n, dim), dtype, view=view)})


def write_bin(path: str, rows: FileArray, dtype: np.dtype[Any], label: str) -> None:
    """Writes the header and the rows."""
    if max(rows.shape) >= 2**32:
        raise FormatError(f"{label}: its header holds counts below 2^32, got {rows.shape}")
    with open(path, "wb") as file:
        file.write(struct.pack("<II", *rows.shape))
        for block in rows.blocks():
            file.write(np.ascontiguousarray(cast(block, dtype, label)).data)
