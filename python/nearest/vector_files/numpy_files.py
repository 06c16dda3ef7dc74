"""numpy's own files, ``.npy`` and ``.npz``. Never a pickle: headers are read as literals, object arrays are refused."""

from __future__ import annotations

import ast
import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .file_array import Contents, FileArray, check_memory, file_bytes, map_file, n_bytes_of

_LONGEST_HEADER = 10_000  # as numpy's own limit
_DEFLATE_RATIO = 1032  # what deflate can reach at most: 258 bytes from 2 bits
_ALIGNMENT = 64
_ZIP_EXTRA = 0xD935  # the field that zipalign pads with

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class _Header:
    n_bytes: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool


def _read_header(file: IO[bytes], label: str) -> _Header:
    start = file.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY":
        raise FormatError(f"{label}: not a .npy file: expected it to start with \\x93NUMPY, got {start[:6]!r}")
    if start[6] not in (1, 2, 3):
        raise FormatError(f"{label}: .npy version {start[6]}.{start[7]}, expected 1.0, 2.0 or 3.0")
    length_bytes = 2 if start[6] == 1 else 4
    packed = file.read(length_bytes)
    length = int.from_bytes(packed, "little")
    if len(packed) < length_bytes or length > _LONGEST_HEADER:
        raise FormatError(f"{label}: .npy header of {length} bytes, expected at most {_LONGEST_HEADER}")
    text = file.read(length)
    if len(text) < length:
        raise FormatError(f"{label}: truncated: the .npy header has {length} bytes, {len(text)} are there")
    try:
        header = ast.literal_eval(text.decode("latin1" if start[6] < 3 else "utf-8").strip())
        descr, fortran_order, shape = header["descr"], header["fortran_order"], header["shape"]
        dtype = np.lib.format.descr_to_dtype(descr)
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, RecursionError, MemoryError) as error:
        raise FormatError(f"{label}: the .npy header cannot be read: {type(error).__name__}: {error}") from error
    if (
        not isinstance(fortran_order, bool)
        or not isinstance(shape, tuple)
        or not all(type(length) is int and length >= 0 for length in shape)
    ):
        raise FormatError(f"{label}: the .npy header gives shape {shape!r}, expected a tuple of lengths ≥ 0")
    return _Header(8 + length_bytes + length, dtype, shape, fortran_order)


def _check_size(header: _Header, n_bytes: int, label: str) -> None:
    expected = n_bytes_of(header.shape, header.dtype)
    got = n_bytes - header.n_bytes
    if header.dtype.itemsize == 0:
        raise FormatError(f"{label}: expected numbers or text, got elements of 0 bytes ({header.dtype})")
    if not header.dtype.hasobject and got != expected:
        state = "truncated" if got < expected else "too long"
        raise FormatError(f"{label}: {state}: {header.shape} of {header.dtype} take {expected} bytes, got {got}")


def open_npy(path: str) -> Contents:
    """The array of a ``.npy`` file."""
    size = file_bytes(path)
    with open(path, "rb") as file:
        header = _read_header(file, path)
    _check_size(header, size, path)
    array = FileArray(path, "", header.shape, header.dtype, view=_viewer(path, header, header.n_bytes))
    return Contents("npy", {"": array})


def _viewer(path: str, header: _Header, offset: int) -> Any:
    order = "F" if header.fortran_order else "C"
    return lambda: map_file(path, header.dtype, header.shape, offset, order)


@contextlib.contextmanager
def _zip_errors(label: str) -> Iterator[None]:
    try:
        yield
    except FormatError:
        raise
    except _ZIP_ERRORS as error:
        raise FormatError(f"{label}: not a readable .npz file: {error}") from error


def open_npz(path: str) -> Contents:
    """The arrays of an ``.npz`` file. Those stored as they are can be mapped; compressed ones are streamed."""
    size = file_bytes(path)
    arrays: dict[str, FileArray] = {}
    metric = None
    with _zip_errors(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            label = f"{path}:{name}"
            _check_member(info, size, label)
            with archive.open(info) as member:
                header = _read_header(member, label)
                _check_size(header, info.file_size, label)
                if name == "metric" and header.shape == () and header.dtype.kind == "U":
                    metric = _read_text(member, header)
            arrays[name] = _member(path, info, header, size)
    if not arrays:
        raise FormatError(f"{path}: expected arrays, got a zip file without any .npy in it")
    return Contents("npz", arrays, metric)


def _check_member(info: zipfile.ZipInfo, size: int, label: str) -> None:
    stored = info.compress_type == zipfile.ZIP_STORED
    if info.flag_bits & 1:
        raise FormatError(f"{label}: is encrypted")
    if not stored and info.compress_type != zipfile.ZIP_DEFLATED:
        raise FormatError(f"{label}: expected stored or deflated data, got zip method {info.compress_type}")
    bound = info.compress_size if stored else _DEFLATE_RATIO * info.compress_size
    if not 0 <= info.header_offset <= size - info.compress_size or info.file_size > bound:
        raise FormatError(
            f"{label}: the zip directory claims {info.file_size} bytes from {info.compress_size} at "
            f"{info.header_offset}, which a file of {size} bytes cannot hold"
        )


def _read_text(member: IO[bytes], header: _Header) -> str | None:
    n_bytes = n_bytes_of((), header.dtype)
    if not 0 < n_bytes <= 256:
        return None
    return str(np.frombuffer(member.read(n_bytes), header.dtype)[0])


def _member(path: str, info: zipfile.ZipInfo, header: _Header, size: int) -> FileArray:
    name = info.filename.removesuffix(".npy")
    if info.compress_type == zipfile.ZIP_STORED:
        with open(path, "rb") as file:
            file.seek(info.header_offset)
            local = file.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise FormatError(f"{path}:{name}: no zip entry at byte {info.header_offset}")
        n_name, n_extra = struct.unpack("<HH", local[26:30])
        offset = info.header_offset + 30 + n_name + n_extra
        if offset + info.compress_size > size:
            raise FormatError(f"{path}:{name}: truncated: ends at byte {offset + info.compress_size} of {size}")
        view = _viewer(path, header, offset + header.n_bytes)
        return FileArray(path, name, header.shape, header.dtype, view=view)
    return FileArray(
        path, name, header.shape, header.dtype, stream=lambda n_rows: _inflate(path, info.filename, header, n_rows)
    )


def _inflate(path: str, member_name: str, header: _Header, n_rows: int) -> Iterator[NDArray[Any]]:
    label = f"{path}:{member_name.removesuffix('.npy')}"
    if not header.shape or 0 in header.shape:
        return
    with _zip_errors(label), zipfile.ZipFile(path) as archive, archive.open(member_name) as member:
        member.read(header.n_bytes)
        if header.fortran_order:
            # Columns come first: no block of rows is complete before the end.
            check_memory(n_bytes_of(header.shape, header.dtype), label)
            values = _read_exactly(member, n_bytes_of(header.shape, header.dtype), header.dtype, label)
            whole = values.reshape(header.shape, order="F")
            for start in range(0, len(whole), n_rows):
                yield whole[start : start + n_rows]
            return
        for start in range(0, header.shape[0], n_rows):
            shape = (min(n_rows, header.shape[0] - start), *header.shape[1:])
            yield _read_exactly(member, n_bytes_of(shape, header.dtype), header.dtype, label).reshape(shape)
        member.read(1)  # at the end, zipfile compares the checksum


def _read_exactly(member: IO[bytes], n_bytes: int, dtype: np.dtype[Any], label: str) -> NDArray[Any]:
    parts = bytearray()
    while len(parts) < n_bytes:
        part = member.read(n_bytes - len(parts))
        if not part:
            raise FormatError(f"{label}: truncated: expected {n_bytes} more bytes, got {len(parts)}")
        parts += part
    return np.frombuffer(parts, dtype)


def write_npy(path: str, rows: FileArray, ids: Any = None, metric: str | None = None) -> list[str]:
    """Writes one array, block by block."""
    with open(path, "wb") as file:
        _write_header(file, rows)
        for block in rows.blocks():
            file.write(np.ascontiguousarray(block).data)
    return ["ids"] if ids is not None else []


def _write_header(file: IO[bytes], rows: FileArray) -> None:
    descr = np.lib.format.dtype_to_descr(rows.dtype.newbyteorder("="))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": rows.shape})


def write_npz(path: str, rows: FileArray, ids: Any = None, metric: str | None = None) -> list[str]:
    """Writes arrays ``vectors`` and, where given, ``ids`` and ``metric``; not compressed, to be mapped."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        members = {"vectors": rows}
        if ids is not None:
            members["ids"] = _of_ids(ids)
        for name, array in members.items():
            with archive.open(_aligned_entry(archive, name), "w", force_zip64=True) as file:
                _write_header(file, array)
                for block in array.blocks():
                    file.write(np.ascontiguousarray(block).data)
        if metric is not None:
            with archive.open("metric.npy", "w") as file:
                np.lib.format.write_array(file, np.array(metric), allow_pickle=False)
    return []


def _of_ids(ids: Any) -> FileArray:
    array = np.asarray(ids) if len(ids) else np.empty(0, np.int64)
    if array.dtype.kind == "O":
        array = array.astype(str)
    return FileArray("", "ids", array.shape, array.dtype, view=lambda: array)


def _aligned_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy")
    assert archive.fp is not None
    # The local header: 30 bytes, the name, our padding field, and 20 bytes that force_zip64 adds.
    start = archive.fp.tell() + 30 + len(entry.filename) + 4 + 20
    padding = -start % _ALIGNMENT
    entry.extra = struct.pack("<HH", _ZIP_EXTRA, padding) + bytes(padding)
    return entry
