"""An array that lies in a file: shape and type are known and checked against the file's size, nothing was read."""

from __future__ import annotations

import functools
import importlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, FormatError

BLOCK_BYTES = 16 << 20
"""Files are read and written in blocks of about this size."""

_LONGEST_ROW = 2**31 - 1


@dataclass(frozen=True)
class FileArray:
    """An array in a file.

    Attributes
    ----------
    path, name : str
        The file, and the array's name in it ("" where a file holds only one).
    shape : tuple of int
        Checked against the size of the file, unless `sized` is False.
    dtype : numpy.dtype
        As it lies in the file. An object dtype stands for a pickle, which is never read.
    view : callable, optional
        Maps the file into memory. None where the format has to be decoded.
    stream : callable, optional
        Yields blocks of so many rows, where there is no `view`.
    sized : bool
        Whether the bytes in the file bound the shape. If not, rows are counted as they come.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    view: Callable[[], NDArray[Any]] | None = None
    stream: Callable[[int], Iterator[NDArray[Any]]] | None = None
    sized: bool = True

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.path}:{self.name}" if self.name else self.path

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return n_bytes_of(self.shape, self.dtype)

    @property
    def mapped(self) -> bool:
        """Whether reading it costs no memory."""
        return self.view is not None and self.dtype.isnative and not self.dtype.hasobject

    @functools.cached_property
    def _viewed(self) -> NDArray[Any]:
        assert self.view is not None
        return self.view()

    def blocks(self, n_rows: int | None = None) -> Iterator[NDArray[Any]]:
        """The array in order, in this machine's byte order, `n_rows` rows at a time (default: about 16 MiB)."""
        if self.dtype.hasobject:
            raise FormatError(
                f"{self.label}: holds Python objects, which only unpickling could read, and a pickle may run any code; "
                "expected numbers (save it with a numeric dtype)"
            )
        if n_rows is None:
            n_rows = max(1, BLOCK_BYTES // max(1, n_bytes_of(self.shape[1:], self.dtype)))
        n_seen = 0
        for block in self._raw_blocks(n_rows):
            n_seen += len(block)
            yield block.astype(block.dtype.newbyteorder("="), copy=False)
        if n_seen != self.shape[0]:
            raise FormatError(f"{self.label}: expected {self.shape[0]} rows, got {n_seen}")

    def _raw_blocks(self, n_rows: int) -> Iterator[NDArray[Any]]:
        if self.view is not None:
            for start in range(0, len(self._viewed), n_rows):
                yield self._viewed[start : start + n_rows]
        elif self.stream is not None:
            yield from self.stream(n_rows)

    def read(self, memory_map: bool = True) -> NDArray[Any]:
        """The array: a read-only map of the file where `memory_map` is true and the format allows it, else a copy."""
        if memory_map and self.mapped:
            return self._viewed
        check_memory(self.n_bytes, self.label)
        if not self.sized:
            return self._gather()
        array = np.empty(self.shape, self.dtype.newbyteorder("="))
        start = 0
        for block in self.blocks():
            if start + len(block) > len(array):
                raise FormatError(f"{self.label}: expected {len(array)} rows, got more")
            array[start : start + len(block)] = block
            start += len(block)
        return array

    def _gather(self) -> NDArray[Any]:
        blocks = list(self.blocks())
        array = np.empty(self.shape, self.dtype.newbyteorder("="))
        stop = len(array)
        while blocks:
            block = blocks.pop()
            array[stop - len(block) : stop] = block
            stop -= len(block)
        return array


@dataclass(frozen=True)
class Contents:
    """What a file holds: arrays by name, and the metric if it states one."""

    kind: str
    arrays: dict[str, FileArray]
    metric: str | None = None
    notes: list[str] = field(default_factory=list)


def in_memory(array: NDArray[Any]) -> FileArray:
    """An array that is already here, to be handled like one in a file."""
    return FileArray("", "", array.shape, array.dtype, view=lambda: array)


def n_bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array, in integers that do not overflow."""
    n = dtype.itemsize
    for length in shape:
        n *= length
    return n


def file_bytes(path: str) -> int:
    """The size of a plain file that can be opened; an OSError else, and a FormatError for pipes and devices."""
    # Not blocking, so that opening a pipe returns and can be refused.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "expected a file, got a folder", path)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: expected a file, got a pipe or a device")
    if status.st_size == 0:
        raise FormatError(f"{path}: the file is empty (0 bytes)")
    return status.st_size


def map_file(path: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, order: Any = "C") -> NDArray[Any]:
    """A read-only map of part of a file; the caller has checked that the bytes are there."""
    if n_bytes_of(shape, dtype) == 0:
        return np.empty(shape, dtype)
    try:
        return np.memmap(path, dtype, "r", offset, shape, order)
    except ValueError as error:
        # The file became shorter since it was checked.
        raise FormatError(f"{path}: cannot be mapped: {error}") from error


def check_shape(shape: tuple[int, ...], label: str) -> None:
    """Refuses what is not a table of vectors."""
    if len(shape) != 2:
        raise FormatError(f"{label}: expected vectors of shape (n, dim), got shape {shape}")
    if shape[0] < 0 or not 1 <= shape[1] <= _LONGEST_ROW:
        raise FormatError(f"{label}: expected vectors of 1 to {_LONGEST_ROW} dimensions, got shape {shape}")


def check_numbers(dtype: np.dtype[Any], label: str) -> None:
    """Refuses what is no plain number of at most 8 bytes."""
    if dtype.hasobject:
        return  # refused on reading, with a text of its own
    if dtype.kind == "b":
        raise FormatError(f"{label}: expected numbers, got booleans; pack bits with numpy.packbits(vectors, axis=1)")
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise FormatError(f"{label}: expected float16, float32, float64 or integers, got {dtype}")


def check_memory(n_bytes: int, label: str) -> None:
    """Refuses what cannot fit in memory, before it is asked for."""
    native = importlib.import_module("nearest._native")
    available = native.available_bytes()
    if n_bytes > available:
        raise MemoryError(f"{label}: {n_bytes} bytes do not fit in memory ({available} bytes available)")


def extra_module(name: str, path: str) -> Any:
    """An optional module, or an error that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"{path}: this kind of file needs {package}: pip install nearest[io]", name=name) from error


def cast(block: NDArray[Any], dtype: np.dtype[Any], label: str) -> NDArray[Any]:
    """`block` as `dtype`: floats are rounded, but a value that does not fit at all is refused."""
    if block.dtype == dtype:
        return block
    with np.errstate(all="ignore"):
        result = block.astype(dtype)
        wrong = result.astype(np.float64) != block if dtype.kind in "iu" else np.isinf(result) & np.isfinite(block)
    if dtype.kind in "iu" and not wrong.any() and block.dtype.kind in "iu":
        wrong = result.astype(block.dtype) != block
    if wrong.any():
        value = block[wrong].flat[0]
        raise ArgumentError(f"{label}: {dtype} cannot hold the value {value} ({block.dtype})")
    return result
