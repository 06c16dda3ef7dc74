"""The neighbors of every member of a set, as a table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _native
from .errors import ArgumentError, FormatError
from .neighbors import Neighbors, count_found

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import SupportsIndex

    from numpy.typing import NDArray

FILE_KIND = "neighbors"
# Rows checked at once, so that looking through a mapped table takes little memory.
_CHECKED_ROWS = 1 << 16


class Csr(NamedTuple):
    """The arrays of a sparse matrix in compressed rows, for want of scipy.

    `scipy.sparse.csr_matrix` takes the first three; row i holds ``data[indptr[i]:indptr[i + 1]]`` in the columns
    ``indices[indptr[i]:indptr[i + 1]]``.
    """

    data: NDArray[np.float32]
    indices: NDArray[Any]
    indptr: NDArray[Any]
    shape: tuple[int, int]


class NeighborTable:
    """The k nearest others of every vector of a set: row i belongs to vector i.

    Made by `nearest.knn_graph`, kept by `save`, read back by `nearest.open`.

    Parameters
    ----------
    ids : ndarray of int64, shape (n, k)
        Row i: the positions of its neighbors, nearest first; places left empty, at the end, hold -1.
    distances : ndarray of float32, shape (n, k)
        Distances to them; places left empty hold inf.
    metric : str
        What the distances are.

    Examples
    --------
    >>> import numpy, nearest
    >>> table = nearest.knn_graph(numpy.float32([[0], [1], [3], [7]]), k=2)
    >>> table[1]
    Neighbors(ids=[0 2], distances=[1. 2.])
    >>> table
    NeighborTable(n=4, k=2, metric='euclidean')
    """

    __slots__ = ("_checked", "_distances", "_ids", "_metric")
    # No array and no scalar: numpy must not take a table apart row by row.
    __array_ufunc__ = None

    def __init__(self, ids: NDArray[np.int64], distances: NDArray[np.float32], *, metric: str = "euclidean") -> None:
        ids, distances = np.asarray(ids), np.asarray(distances)
        if ids.ndim != 2 or ids.shape != distances.shape or ids.dtype != np.int64 or distances.dtype != np.float32:
            raise ArgumentError(
                "a table is made of int64 ids and float32 distances of one shape (n, k), "
                f"got {ids.dtype} {ids.shape} and {distances.dtype} {distances.shape}"
            )
        self._ids, self._distances, self._metric = ids, distances, metric
        self._checked = True

    @property
    def ids(self) -> NDArray[np.int64]:
        """Positions of the neighbors, shape (n, k), nearest first; -1 where there are fewer."""
        return self._ids

    @property
    def distances(self) -> NDArray[np.float32]:
        """Distances to them, shape (n, k); inf where there are fewer."""
        return self._distances

    @property
    def k(self) -> int:
        """How many neighbors a row can hold."""
        return int(self._ids.shape[1])

    @property
    def metric(self) -> str:
        """What the distances are."""
        return self._metric

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many neighbors each row holds, shape (n,)."""
        return count_found(self._ids) if self._ids.size else np.zeros(len(self), np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, member: SupportsIndex) -> Neighbors:
        """The neighbors of one member, without the places left empty.

        Raises
        ------
        IndexError
            There is no such member.
        FormatError
            The table was opened from a file whose row makes no sense.
        """
        ids, distances = self._ids[member], self._distances[member]
        if ids.ndim != 1:
            raise ArgumentError(f"a table is looked up by one member, got {member!r}; table.ids takes any index")
        if not self._checked:
            _check_rows(ids[None], distances[None], len(self))
        if len(ids) and ids[-1] < 0:
            found = int(np.count_nonzero(ids >= 0))
            ids, distances = ids[:found], distances[:found]
        return Neighbors(ids, distances)

    def __iter__(self) -> Iterator[Neighbors]:
        return (self[member] for member in range(len(self)))

    def __repr__(self) -> str:
        return f"NeighborTable(n={len(self)}, k={self.k}, metric={self._metric!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeighborTable):
            return NotImplemented
        same = self._metric == other._metric and np.array_equal(self._ids, other._ids)
        return same and np.array_equal(self._distances, other._distances)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        self._check()
        return _rebuilt, (np.array(self._ids), np.array(self._distances), self._metric)

    def to_csr(self) -> Any:
        """The table as a sparse matrix of distances, as scikit-learn and UMAP take it for ``metric="precomputed"``.

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (n, n), or Csr
            With scipy installed its matrix; without, a named tuple with the same `data`, `indices`, `indptr` and
            `shape`. Entries of a row stand nearest first; the distance 0 of a duplicate is stored, not left out.
        """
        self._check()
        n = len(self)
        filled = self._ids >= 0
        # 32-bit positions wherever they suffice: half the memory, and what most of scipy's code wants.
        small = max(n, int(np.count_nonzero(filled))) <= np.iinfo(np.int32).max
        dtype: Any = np.int32 if small else np.int64
        indptr = np.zeros(n + 1, dtype)
        np.cumsum(filled.sum(axis=1), out=indptr[1:])
        parts = Csr(self._distances[filled], self._ids[filled].astype(dtype), indptr, (n, n))
        try:
            from scipy.sparse import csr_matrix
        except ImportError:
            return parts
        return csr_matrix(parts[:3], shape=parts.shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table to one file, which appears complete or not at all.

        Raises
        ------
        OSError
            No space, no permission, no such folder; the file that was there is as it was.
        """
        import json

        self._check()
        meta = json.dumps({"metric": self._metric, "k": self.k})
        arrays: dict[str, NDArray[Any]] = {
            "ids": np.ascontiguousarray(self._ids),
            "distances": np.ascontiguousarray(self._distances),
        }
        _native.write_file(os.fsdecode(path), FILE_KIND, meta, arrays)

    def _check(self) -> None:
        """Every row, once; a table that was computed here is not looked at again."""
        if not self._checked:
            for start in range(0, len(self), _CHECKED_ROWS):
                rows = slice(start, start + _CHECKED_ROWS)
                _check_rows(self._ids[rows], self._distances[rows], len(self))
            self._checked = True


def open_table(path: str, memory_map: bool) -> NeighborTable:
    """Reads a table; rows of a mapped one are checked when they are looked at."""
    import json

    text, arrays = _native.read_file(path, FILE_KIND, memory_map)
    try:
        meta = json.loads(text)
        if not (isinstance(meta, dict) and isinstance(meta.get("metric"), str)):
            raise ValueError("no metric")
        table = NeighborTable(arrays["ids"], arrays["distances"], metric=meta["metric"])
    except (ValueError, KeyError, RecursionError) as error:
        raise FormatError(f"{path} is no table of neighbors: {error}") from error
    table._checked = False
    if not memory_map:
        table._check()
    return table


def _rebuilt(ids: NDArray[np.int64], distances: NDArray[np.float32], metric: str) -> NeighborTable:
    return NeighborTable(ids, distances, metric=metric)


def _check_rows(ids: NDArray[np.int64], distances: NDArray[np.float32], n: int) -> None:
    empty = ids < 0
    wrong = (ids >= n) | (empty != (ids == -1)) | np.isnan(distances)
    wrong[:, 1:] |= empty[:, :-1] & ~empty[:, 1:]
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise FormatError(f"the table is damaged: a row holds {ids[row].tolist()} where members are 0 to {n - 1}")
