"""Exact neighbors and distances of arrays, without an index."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _native, arrays
from .errors import ArgumentError
from .neighbors import Neighbors, neighbors
from .params import BINARY_METRICS, metric_named
from .progress import shown
from .table import NeighborTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix
    from .progress import Progress

# Results computed between two reports of progress.
_TILE_BYTES = 256 << 20
# Queries merged at once, so that the working copies stay small.
_MERGED_ROWS = 1 << 16
# From so many products of two numbers on, some ten seconds of two threads, lists find the neighbors of all sooner than
# they are compared with one another; they go with all metrics but these.
_APPROXIMATE_FROM = 4 * 10**12
_UNLISTED = ("manhattan", *BINARY_METRICS)


def knn(
    vectors: ArrayLike,
    queries: ArrayLike,
    k: int = 10,
    *,
    metric: str = "euclidean",
    n_threads: int | None = None,
) -> Neighbors:
    """Find the `k` nearest vectors of each query, exactly.

    Parameters
    ----------
    vectors : array_like of shape (n, dim)
        Anything numpy can view. float32, float16, int8 and uint8 are read where they lie; everything else is converted
        to float32 in blocks. For hamming and jaccard: uint8, as `numpy.packbits` packs bits.
    queries : array_like of shape (n_queries, dim) or (dim,)
        Likewise.
    k : int
        Neighbors per query, at least 1; more than there are vectors is no error.
    metric : str
        euclidean, sqeuclidean, cosine, angular, inner_product, manhattan; hamming or jaccard for bits.
    n_threads : int, optional
        All that this process may run on by default. The answer has the same bits for any number.

    Returns
    -------
    Neighbors
        `ids` are positions in `vectors`. For many queries both arrays have shape (n_queries, k), with -1 and inf in
        places left empty; for one, exactly the neighbors found. Nearest first, ties by position.

    Raises
    ------
    ArgumentError
        A `ValueError`: wrong shape or dtype, NaN or infinity, a zero vector under cosine or angular, ``k < 1``.
    MemoryError
        The result does not fit in memory.

    Examples
    --------
    >>> import numpy, nearest
    >>> vectors = numpy.float32([[0, 0], [3, 4], [0, 1]])
    >>> nearest.knn(vectors, [0, 0], k=2)
    Neighbors(ids=[0 2], distances=[0. 1.])
    """
    metric_named(metric)
    k = arrays.count(k, "k")
    n_threads = arrays.threads(n_threads)
    base = arrays.matrix(vectors, "vectors", bits=0 if metric in BINARY_METRICS else None)
    asked = _same_width(queries, "queries", base, metric, one=True)
    if asked.ndim == 2:
        arrays.check_result(len(asked), k)
    dtype, query_dtype = _dtypes(base, metric)
    if asked.ndim == 1 or arrays.is_small(asked, query_dtype):
        asked = arrays.ready(asked, query_dtype, "queries")
    if arrays.is_ready(base, dtype) and arrays.is_ready(asked, query_dtype):
        return neighbors(
            _native.knn(cast("NDArray[Any]", base), cast("NDArray[Any]", asked), k, metric, n_threads, None)
        )
    if asked.ndim == 1:
        # One query finds at most what there is; many leave empty places.
        best = _Best(1, min(k, len(base)))
        _knn_in_blocks(best, base, arrays.rows(asked), metric, n_threads, dtype, query_dtype)
        return Neighbors(best.ids[0], best.distances[0])
    best = _Best(len(asked), k)
    _knn_in_blocks(best, base, asked, metric, n_threads, dtype, query_dtype)
    return Neighbors(best.ids, best.distances)


def _same_width(values: ArrayLike, name: str, base: Matrix, metric: str, *, one: bool = False) -> Matrix:
    width = base.shape[1]
    return arrays.matrix(values, name, width, bits=8 * width if metric in BINARY_METRICS else None, one=one)


def _dtypes(base: Matrix, metric: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """What vectors and queries are handed over as."""
    if metric in BINARY_METRICS:
        return arrays.UINT8, arrays.UINT8
    return arrays.native_dtype(base.dtype), arrays.FLOAT32


class _Best:
    """The nearest so far of every query, while blocks of vectors go by."""

    def __init__(self, n_queries: int, k: int) -> None:
        self.ids = np.full((n_queries, k), -1, np.int64)
        self.distances = np.full((n_queries, k), np.inf, np.float32)

    def merge(self, first: int, ids: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """Adds what the queries from `first` on found in a later block; ids as well count from the first block on."""
        k = self.ids.shape[1]
        for start in range(0, len(ids), _MERGED_ROWS):
            new = slice(start, start + _MERGED_ROWS)
            old = slice(first + start, first + min(start + _MERGED_ROWS, len(ids)))
            both_ids = np.concatenate([self.ids[old], ids[new]], axis=1)
            both = np.concatenate([self.distances[old], distances[new]], axis=1)
            # Empty places last, also behind a distance that overflowed to inf. Stable, and what came earlier has the
            # earlier positions: ties stay in order of position.
            order = np.lexsort((both, both_ids < 0), axis=1)[:, :k]
            self.ids[old] = np.take_along_axis(both_ids, order, axis=1)
            self.distances[old] = np.take_along_axis(both, order, axis=1)


def _knn_in_blocks(
    best: _Best,
    base: Matrix,
    asked: Matrix,
    metric: str,
    n_threads: int | None,
    dtype: np.dtype[Any],
    query_dtype: np.dtype[Any],
) -> None:
    """`knn` for what must be converted."""
    k = best.ids.shape[1]
    base = base if len(base) else np.empty(base.shape, dtype)
    for start, block in arrays.pieces(base, dtype, "vectors"):
        for first, some in arrays.pieces(asked, query_dtype, "queries"):
            # Without any vectors queries are checked all the same.
            few = max(1, min(k, len(block)))
            with arrays.counted_from(max(start, first)):
                ids, distances, _ = _native.knn(block, some, few, metric, n_threads, None)
            if len(block):
                best.merge(first, ids + start, distances)


def knn_graph(
    vectors: ArrayLike,
    k: int = 15,
    *,
    metric: str = "euclidean",
    exact: bool = False,
    recall: float = 0.95,
    n_threads: int | None = None,
    progress: Any = None,
) -> NeighborTable:
    """Find the `k` nearest others of every vector.

    Parameters
    ----------
    vectors : array_like of shape (n, dim)
        As for `knn`.
    k : int
        Neighbors per vector, at least 1, the vector itself left out (its duplicates are not).
    metric : str
        As for `knn`.
    exact : bool
        True promises the true neighbors. False allows an approximate table that reaches about `recall`, where that is
        faster: from n² · dim of 4 · 10¹² on (177 000 vectors of 128 dimensions), on the metrics that go with `Lists`.
    recall : float
        What an approximate table has to reach, above 0 and at most 1: the share of the true neighbors that are in it.
    n_threads : int, optional
        As for `knn`.
    progress : {None, False} or callable
        None shows a bar on a terminal after a second, a function gets (done, total, stage).

    Returns
    -------
    NeighborTable
        Row i: the nearest others of vector i; empty places only where there are fewer than `k`.

    Raises
    ------
    ArgumentError
        As for `knn`.
    MemoryError
        The table does not fit in memory.

    Notes
    -----
    Exact: vectors that need no conversion, or fit one block of 64 MiB after it, have each pair computed once. Larger
    ones are converted block by block, twice as much work, rather than copied as a whole. Approximate: vectors are put
    into inverted lists, as they are, and looked up there; distances are right.

    Examples
    --------
    >>> import numpy, nearest
    >>> table = nearest.knn_graph(numpy.float32([[0], [1], [3], [7]]), k=2, exact=True)
    >>> table.ids
    array([[1, 2],
           [0, 2],
           [1, 0],
           [2, 1]])
    """
    metric_named(metric)
    k = arrays.count(k, "k")
    n_threads = arrays.threads(n_threads)
    arrays.share(recall, "recall")
    if not isinstance(exact, (bool, np.bool_)):
        raise ArgumentError(f"exact must be True or False, got {exact!r}")
    base = arrays.matrix(vectors, "vectors", bits=0 if metric in BINARY_METRICS else None)
    arrays.check_result(len(base), k)
    dtype, query_dtype = _dtypes(base, metric)
    with shown(progress) as report:
        if not exact and recall < 1 and _is_approximated(base, metric):
            # Here, since it builds an index, which looks up exact neighbors in turn.
            from .neighbor_lists import approximate_neighbors

            ids, distances = approximate_neighbors(vectors, base, k, metric, recall, n_threads, report)
            return NeighborTable(ids, distances, metric=metric)
        if not arrays.is_ready(base, dtype) and not arrays.is_small(base, dtype):
            best = _Best(len(base), k)
            _knn_graph_in_blocks(best, base, metric, n_threads, dtype, query_dtype, report)
            return NeighborTable(best.ids, best.distances, metric=metric)
        whole = arrays.ready(base, dtype, "vectors")
        ids, distances = _native.knn_graph(whole, k, metric, n_threads, report)
    return NeighborTable(ids, distances, metric=metric)


def _is_approximated(base: Matrix, metric: str) -> bool:
    """Whether lists find the neighbors of all sooner than they can be compared with one another."""
    n, dim = base.shape
    return metric not in _UNLISTED and n * n * dim >= _APPROXIMATE_FROM


def _knn_graph_in_blocks(
    best: _Best,
    base: Matrix,
    metric: str,
    n_threads: int | None,
    dtype: np.dtype[Any],
    query_dtype: np.dtype[Any],
    report: Progress | None,
) -> None:
    n, k = best.ids.shape
    rows = arrays.block_rows(base.shape[1], query_dtype)
    done = 0
    for start, block in arrays.blocks(base, dtype, "vectors", rows):
        for first, some in arrays.blocks(base, query_dtype, "vectors", rows):
            own = first == start
            with arrays.counted_from(max(start, first)):
                ids, distances, _ = _native.knn(block, some, min(k + own, len(block)), metric, n_threads, None)
            if own:
                # The vector itself goes; where duplicates with lower positions pushed it out, the last one does.
                itself = ids == np.arange(len(some))[:, None]
                itself[:, -1] |= ~itself.any(axis=1)
                ids = ids[~itself].reshape(len(some), -1)
                distances = distances[~itself].reshape(len(some), -1)
            best.merge(first, ids + start, distances)
            done += len(block) * len(some)
            if report is not None:
                report(done, n * n, "neighbors")


def pairwise_distances(
    vectors: ArrayLike,
    other: ArrayLike | None = None,
    *,
    metric: str,
    out: str | os.PathLike[str] | None = None,
    n_threads: int | None = None,
    progress: Any = None,
) -> NDArray[np.float32]:
    """Compute the distances of all pairs.

    Parameters
    ----------
    vectors : array_like of shape (n, dim)
        As for `knn`.
    other : array_like of shape (m, dim), optional
        What to compare them with; the vectors themselves if left out.
    metric : str
        As for `knn`.
    out : path, optional
        A ``.npy`` file for a result larger than memory. It is written in tiles under another name beside and renamed at
        the end: after an error or Ctrl-C there is nothing new, and a file that was there before is as it was.
    n_threads : int, optional
        As for `knn`.
    progress : {None, False} or callable
        As for `knn_graph`.

    Returns
    -------
    ndarray of float32, shape (n, m)
        With `out`, a read-only memory map of the file.

    Raises
    ------
    ArgumentError
        As for `knn`.
    MemoryError
        Without `out`: the result does not fit in memory; the text says how much there is.
    OSError
        With `out`: the disk cannot hold it (ENOSPC, before anything is computed), no permission, no such folder.

    Examples
    --------
    >>> import numpy, nearest
    >>> nearest.pairwise_distances(numpy.float32([[0, 0], [3, 4]]), metric="euclidean")
    array([[0., 5.],
           [5., 0.]], dtype=float32)
    """
    metric_named(metric)
    n_threads = arrays.threads(n_threads)
    left = arrays.matrix(vectors, "vectors", bits=0 if metric in BINARY_METRICS else None)
    right = left if other is None else _same_width(other, "other", left, metric)
    # Both sides as one type; a mixture as float32, which holds all the others.
    dtype = arrays.native_dtype(left.dtype) if left.dtype == right.dtype else arrays.FLOAT32
    shape = (len(left), len(right))
    if out is None:
        needed = shape[0] * shape[1] * 4
        available = _native.available_bytes()
        if needed > available:
            raise MemoryError(
                f"the distances of {shape[0]:,} x {shape[1]:,} pairs take {needed:,} bytes, and {available:,} are "
                "available; out='distances.npy' writes them to disk"
            )
        result = np.empty(shape, np.float32)
        with shown(progress) as report:
            _fill(result, left, right, dtype, metric, n_threads, report)
        return result
    if not isinstance(out, (str, os.PathLike)):
        raise ArgumentError(f"out must be the path of a .npy file, got {type(out).__name__}")
    path = os.fspath(out)
    with _new_array_file(path, shape) as result, shown(progress) as report:
        _fill(result, left, right, dtype, metric, n_threads, report)
    mode: Any = "r" if result.size else None  # nothing cannot be mapped
    return cast("NDArray[np.float32]", np.load(path, mmap_mode=mode))


def _fill(
    out: NDArray[np.float32],
    left: Matrix,
    right: Matrix,
    dtype: np.dtype[Any],
    metric: str,
    n_threads: int | None,
    report: Progress | None,
) -> None:
    """All distances into `out`, in tiles of whole rows where `right` can be handed over in one piece."""
    n, m = out.shape
    if not n or not m:
        return
    if arrays.is_small(right, dtype):
        right = arrays.ready(right, dtype, "other")
    whole = cast("NDArray[Any]", right) if arrays.is_ready(right, dtype) else None
    tile: NDArray[np.float32] | None = None
    for start, block in arrays.blocks(left, dtype, "vectors", max(1, _TILE_BYTES // (4 * m))):
        rows = out[start : start + len(block)]
        if whole is not None:
            with arrays.counted_from(start):
                _native.pairwise(block, whole, metric, rows, n_threads, None)
        else:
            for column, some in arrays.blocks(right, dtype, "other"):
                # Native code writes contiguous arrays, which part of a row is not.
                if tile is None:
                    tile = np.empty(len(block) * len(some), np.float32)
                part = tile[: len(block) * len(some)].reshape(len(block), len(some))
                with arrays.counted_from(max(start, column)):
                    _native.pairwise(block, some, metric, part, n_threads, None)
                rows[:, column : column + len(some)] = part
        if report is not None:
            report(start + len(block), n, "distances")


@contextmanager
def _new_array_file(path: str, shape: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """A mapped array in a new ``.npy`` file that gets its name when the block ends well, and vanishes otherwise."""
    folder, name = os.path.split(os.path.abspath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "out must be a file, not a folder", path)
    needed, free = shape[0] * shape[1] * 4, _free_bytes(folder)
    if needed > free:
        raise OSError(errno.ENOSPC, f"out needs {needed:,} bytes, and {free:,} are free", path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            if needed:
                offset = file.tell()
                _reserve(file.fileno(), offset + needed)
                mapped = np.memmap(file, "<f4", "r+", offset, shape)
                yield np.asarray(mapped)
                mapped.flush()
            else:
                yield np.empty(shape, np.float32)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _free_bytes(folder: str) -> int:
    if hasattr(os, "statvfs"):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize
    import shutil

    return shutil.disk_usage(folder).free


def _reserve(descriptor: int, size: int) -> None:
    """Takes the space now: a disk that fills up under a map would be a signal, not an error."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # not on this system
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)
