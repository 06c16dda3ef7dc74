"""An index: vectors with ids, searched, changed and kept in a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native, arrays
from .errors import ArgumentError
from .evaluation import Calibration, exact_calibration
from .neighbors import Neighbors, neighbors
from .params import BINARY_METRICS, Exact, check_pair, encoding_named, metric_named, structure_of
from .progress import shown
from .table import FILE_KIND as TABLE_KIND
from .table import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias
    from uuid import UUID

    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix
    from .progress import Progress

    Id: TypeAlias = int | str | UUID | np.integer[Any]
    IdsLike: TypeAlias = Iterable[Id] | NDArray[Any]
    Filter: TypeAlias = IdsLike | Iterable[bool] | Callable[[NDArray[Any]], ArrayLike] | None

# What makes a search of one query cheap: names looked up once, and a tuple made without calling Python.
_ndarray, _new, _FLOAT32, _UINT8 = np.ndarray, tuple.__new__, arrays.FLOAT32, arrays.UINT8
# Larger k take the way that looks at how large the result gets.
_USUAL_K = 1 << 16
# Smaller sets are read from the cache, where a shadow saves nothing.
_SHADOW_FROM_BYTES = 32 << 20


class Index:
    """Vectors with ids that can be searched and changed.

    Parameters
    ----------
    dim : int
        Numbers a vector; bits a vector for ``encoding="binary"``.
    metric : str
        euclidean, sqeuclidean, cosine, angular, inner_product, manhattan; hamming or jaccard for bits. Lower is nearer,
        always.
    structure : Exact, optional
        What a search looks at; ``Exact()`` if left out, which is all there is for now.
    encoding : str
        How vectors are stored: float32, float16, bfloat16, int8, uint8 or binary. Searches are exact for the vectors as
        stored; the integer kinds refuse values that they cannot hold.
    rerank : None
        A second encoding to compare candidates again with: nothing for an exact structure, and refused.
    seed : int
        For structures that draw random numbers; kept with the index.

    Notes
    -----
    Searches never wait for changes and see the index as it was when they began; changes are complete or have not
    happened, and queue behind each other. All methods may be called from any thread.

    Examples
    --------
    >>> import numpy, nearest
    >>> index = nearest.Index(2)
    >>> index.add(numpy.float32([[0, 0], [3, 4], [0, 1]]), ids=["a", "b", "c"])
    array(['a', 'b', 'c'], dtype=object)
    >>> index.search(numpy.float32([0, 0]), k=2)
    Neighbors(ids=['a' 'c'], distances=[0. 1.])
    >>> index.remove(["a"])
    1
    >>> index
    Index(dim=2, metric='euclidean', structure=Exact(), encoding='float32'): 2 vectors, text ids
    """

    __slots__ = ("__weakref__", "_bits", "_native", "_query_dtype", "_query_shape", "_reason", "_snapshot", "_width")

    def __init__(
        self,
        dim: int,
        *,
        metric: str = "euclidean",
        structure: Exact | None = None,
        encoding: str = "float32",
        rerank: str | None = None,
        seed: int = 0,
    ) -> None:
        dim = arrays.count(dim, "dim")
        metric = metric_named(metric)
        encoding = encoding_named(encoding)
        check_pair(metric, encoding)
        chosen = structure_of(structure) or Exact()
        if rerank is not None:
            raise NotImplementedError(
                f"rerank compares the candidates of an approximate search again; Exact has none, got rerank={rerank!r}"
            )
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ArgumentError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
        self._take(_native.Index(dim, metric, encoding, chosen.shadow, int(seed)))

    def _take(self, native: _native.Index) -> Index:
        self._native = native
        self._snapshot = native.snapshot
        self._reason = ""
        binary = native.encoding == "binary"
        # None for vectors of numbers, else how many bits.
        self._bits = native.dim if binary else None
        self._width = -(-native.dim // 8) if binary else native.dim
        # Queries that have this shape and dtype go straight in; where spare bits are to be looked at, none does.
        self._query_dtype = _UINT8 if binary else _FLOAT32
        self._query_shape = None if binary and native.dim % 8 else (self._width,)
        return self

    @classmethod
    def _of(cls, native: _native.Index) -> Index:
        return cls.__new__(cls)._take(native)

    # --- what it is ---

    @property
    def dim(self) -> int:
        """Numbers a vector; bits a vector for ``encoding="binary"``."""
        return self._native.dim

    @property
    def metric(self) -> str:
        """What distances are."""
        return self._native.metric

    @property
    def encoding(self) -> str:
        """How vectors are stored."""
        return self._native.encoding

    @property
    def structure(self) -> Exact:
        """What a search looks at."""
        return Exact(shadow=self._native.shadow)

    @property
    def seed(self) -> int:
        """For structures that draw random numbers."""
        return self._native.seed

    @property
    def read_only(self) -> bool:
        """Whether it is a memory-mapped file, which cannot be changed."""
        return self._native.read_only

    @property
    def ids(self) -> NDArray[Any]:
        """All ids, in the order that a filter mask has: int64, or an object array of str."""
        return arrays.ids_array(self._snapshot().ids())

    @property
    def explanation(self) -> str:
        """Why the index is as it is, and what recall to expect, in words."""
        parts = [self._reason] if self._reason else []
        parts.append(f"{self.structure!r} compares every query with every vector: recall is 1 by construction")
        if self._native.shadow:
            parts.append("the 8-bit shadow only rules vectors out within its proved bound")
        rounded = {"float16": "float16", "bfloat16": "bfloat16"}.get(self.encoding)
        if rounded:
            parts.append(f"distances are those of the vectors as stored, rounded to {rounded}")
        return "; ".join(parts)

    def __len__(self) -> int:
        return len(self._snapshot())

    def __contains__(self, id: object) -> bool:
        one = arrays.one_id(id)
        return one is not None and self._snapshot().contains(one)

    def __repr__(self) -> str:
        snapshot = self._snapshot()
        n = len(snapshot)
        kind = {"text": ", text ids", "int": ", integer ids"}.get(snapshot.id_kind, "")
        return (
            f"Index(dim={self.dim}, metric={self.metric!r}, structure={self.structure!r}, encoding={self.encoding!r}): "
            f"{n:,} vector{'' if n == 1 else 's'}{kind}{', read-only' if self.read_only else ''}"
        )

    def _repr_html_(self) -> str:
        from html import escape

        stats = self.stats()
        rows = [
            (name, stats[name])
            for name in ("n_vectors", "dim", "metric", "structure", "encoding", "id_kind", "read_only")
        ]
        rows += [(name, _size(value)) for name, value in stats.items() if name.endswith("_bytes")]
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:right'>{escape(f'{value:,}' if type(value) is int else str(value))}</td></tr>"
            for name, value in rows
        )
        return f"<table><caption>nearest.Index</caption><tbody>{cells}</tbody></table>"

    def stats(self) -> dict[str, Any]:
        """What the index holds: parameters, counts, and bytes by part (`…_bytes`).

        Returns
        -------
        dict
            `n_vectors`, `dim`, `metric`, `structure`, `encoding`, `id_kind` (none, implicit, int or text), `read_only`,
            `seed`, `explanation`, and the counts and bytes of the native module.
        """
        snapshot = self._snapshot()
        return {
            "n_vectors": len(snapshot),
            "dim": self.dim,
            "metric": self.metric,
            "structure": repr(self.structure),
            "encoding": self.encoding,
            "id_kind": snapshot.id_kind,
            "read_only": self.read_only,
            "seed": self.seed,
            **snapshot.stats(),
            "explanation": self.explanation,
        }

    # --- changing it ---

    def add(self, vectors: ArrayLike, ids: IdsLike | Id | None = None) -> NDArray[Any]:
        """Add vectors, all of them or, after an error or Ctrl-C, none.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            Anything numpy can view; what is not stored as it is gets converted in blocks. For ``encoding="binary"``
            uint8 of shape (n, ceil(dim / 8)), as `numpy.packbits` packs bits.
        ids : sequence of int or of str, optional
            One a vector: integers from 0 to 2**63 - 1, or text (`uuid.UUID` becomes its text). The first `add` fixes
            which. None gives 0, 1, 2, …, which cost no memory.

        Returns
        -------
        ndarray of int64, or of object holding str, shape (n,)
            The ids.

        Raises
        ------
        ArgumentError
            A `ValueError`: wrong shape or dtype, NaN or infinity, a value that the encoding cannot hold, a zero vector
            under cosine or angular; an id that is there already, comes twice, is negative or of the other kind.
        ReadOnlyError
            The index is a memory-mapped file; ``nearest.open(path, memory_map=False)`` gives one that can be changed.
        """
        return self._add(vectors, ids, replace=False, report=None)

    def upsert(self, vectors: ArrayLike, ids: IdsLike | Id) -> None:
        """Add vectors, replacing those that have the same ids, in one instant: no search sees both or neither.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            As for `add`.
        ids : sequence of int or of str
            One a vector, each at most once.

        Raises
        ------
        ArgumentError, ReadOnlyError
            As for `add`.
        """
        if ids is None:
            raise ArgumentError("upsert needs ids, got None; add() makes new ones")
        self._add(vectors, ids, replace=True, report=None)

    def _add(self, vectors: Any, ids: Any, *, replace: bool, report: Progress | None) -> NDArray[Any]:
        matrix = self._matrix(vectors, "vectors", one=True)
        if matrix.ndim == 1:
            matrix = arrays.rows(matrix)
            ids = [ids] if arrays.is_one_id(ids) else ids
        n = len(matrix)
        named: arrays.Ids | None = None
        if ids is not None:
            named = arrays.as_ids(ids)
            if len(named) != n:
                raise ArgumentError(f"ids must be one a vector, {n} in all, got {len(named)}")
            if not n:
                # Neither kind of ids is chosen by none of them.
                named = None
        dtype = arrays.native_dtype(matrix.dtype, self.encoding)
        stage = self._native.stage()
        try:
            for start, block in arrays.blocks(matrix, dtype, "vectors"):
                if self._bits is not None:
                    arrays.check_spare_bits(block, self._bits, "vectors", start)
                stage.append(block, None if named is None else named[start : start + len(block)])
                if report is not None:
                    report(start + len(block), n, "add")
            return arrays.ids_array(stage.commit(replace))
        finally:
            # A kept traceback keeps this frame, and a living stage keeps other writers out.
            del stage

    def remove(self, ids: IdsLike | Id) -> int:
        """Remove the vectors with these ids; ids that are not there are no error.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        ArgumentError, ReadOnlyError
            Ids of the other kind, negative or no ids at all; a memory-mapped index.
        """
        return self._native.remove(self._stored_ids(ids, self._snapshot()))

    def get(self, ids: IdsLike | Id) -> NDArray[Any]:
        """The vectors with these ids, in the order asked for.

        Returns
        -------
        ndarray, shape (n, dim), or (dim,) for a single id
            As stored: float32 (exactly what a float16 or bfloat16 holds), int8, uint8 or packed bits.

        Raises
        ------
        UnknownIdError
            A `KeyError` and a `ValueError`: an id is not there.
        """
        snapshot = self._snapshot()
        vectors = snapshot.get(self._stored_ids(ids, snapshot))
        return vectors[0] if arrays.is_one_id(ids) else vectors

    def _stored_ids(self, ids: Any, snapshot: _native.Snapshot) -> arrays.Ids:
        stored = arrays.as_ids([ids] if arrays.is_one_id(ids) else ids)
        # None at all are of any kind.
        return stored if len(stored) or snapshot.id_kind != "text" else []

    # --- searching it ---

    def search(
        self,
        queries: ArrayLike,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: int | None = None,
        rerank_k: int | None = None,
        filter: Filter = None,
        n_threads: int | None = None,
        explain: bool = False,
    ) -> Neighbors:
        """Find the `k` nearest vectors of each query.

        Parameters
        ----------
        queries : array_like of shape (n_queries, dim) or (dim,)
            Anything numpy can view; converted to float32 if it is not that. Packed bits for ``encoding="binary"``.
        k : int
            Neighbors per query, at least 1; more than there are vectors is no error.
        recall : float, optional
            The recall wanted, above 0 and at most 1. An exact index gives 1 whatever is asked.
        effort, rerank_k : int, optional
            Knobs of approximate structures; an exact index takes neither.
        filter : array of ids, boolean mask or callable, optional
            Which vectors may be found: ids (those that are not there are ignored); a mask in the order of `Index.ids`;
            or a function that is called once with the array of all ids and returns such a mask. The function sees the
            ids of the very state that is searched, whatever other threads change. Exactly min(k, matches) are found.
        n_threads : int, optional
            All that this process may run on by default; 1 starts no thread. The answer has the same bits for any
            number.
        explain : bool
            Attach how the search went, as `Neighbors.explanation`.

        Returns
        -------
        Neighbors
            For one query arrays of exactly the neighbors found; for many of shape (n_queries, k), with -1 (``""``) and
            inf in places left empty. Nearest first, ties by id.

        Raises
        ------
        ArgumentError
            A `ValueError`: wrong shape or dtype, NaN or infinity, a zero vector under cosine or angular, ``k < 1``, a
            mask of another length, a knob that the structure does not use.
        MemoryError
            The result does not fit in memory.
        """
        if (
            type(queries) is _ndarray
            and queries.shape == self._query_shape
            and queries.dtype is self._query_dtype
            and (flags := queries.flags).c_contiguous
            and flags.aligned
            and type(k) is int
            and 0 < k <= _USUAL_K
            and filter is None
            and (n_threads is None or (type(n_threads) is int and n_threads > 0))
            and recall is effort is rerank_k is None
            and explain is False
        ):
            ids, distances, _ = self._snapshot().search(queries, k, None, n_threads, None)
            return _new(Neighbors, (ids, distances))

        k = arrays.count(k, "k")
        self._check_knobs(recall, effort, rerank_k)
        n_threads = arrays.threads(n_threads)
        matrix = self._matrix(queries, "queries", one=True)
        snapshot = self._snapshot()
        allowed = arrays.as_filter(filter, snapshot)
        found = self._search(snapshot, matrix, k, allowed, n_threads)
        if explain:
            found._explanation = self._explain(snapshot, allowed, 1 if matrix.ndim == 1 else len(matrix), n_threads)
        return found

    def _search(
        self, snapshot: _native.Snapshot, matrix: Matrix, k: int, allowed: arrays.Allowed, n_threads: int | None
    ) -> Neighbors:
        dtype = self._query_dtype
        if matrix.ndim == 1:
            query = self._ready(matrix, 0)
            # No vector can be found twice, so there is no place for more.
            return neighbors(snapshot.search(query, min(k, max(1, len(snapshot))), allowed, n_threads, None))
        arrays.check_result(len(matrix), k)
        if arrays.is_ready(matrix, dtype) or arrays.is_small(matrix, dtype):
            return neighbors(snapshot.search(self._ready(matrix, 0), k, allowed, n_threads, None))
        parts = []
        for start, block in arrays.blocks(matrix, dtype, "queries"):
            with arrays.counted_from(start):
                parts.append(snapshot.search(self._ready(block, start), k, allowed, n_threads, None))
        ids, distances, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        return neighbors((ids, distances, counts))

    def neighbors_of(
        self,
        ids: IdsLike | Id,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: int | None = None,
        rerank_k: int | None = None,
        filter: Filter = None,
        n_threads: int | None = None,
        explain: bool = False,
    ) -> Neighbors:
        """Find the `k` nearest others of stored vectors, themselves left out (their duplicates are not).

        Parameters
        ----------
        ids : sequence of ids, or one id
            Whose neighbors. One id gives the result of one query.
        k, recall, effort, rerank_k, filter, n_threads, explain
            As for `search`.

        Returns
        -------
        Neighbors
            As for `search`.

        Raises
        ------
        UnknownIdError
            A `KeyError` and a `ValueError`: an id is not there.
        ArgumentError, MemoryError
            As for `search`.
        """
        k = arrays.count(k, "k")
        self._check_knobs(recall, effort, rerank_k)
        n_threads = arrays.threads(n_threads)
        one = arrays.is_one_id(ids)
        snapshot = self._snapshot()
        members = self._stored_ids(ids, snapshot)
        allowed = arrays.as_filter(filter, snapshot)
        if one:
            k = min(k, max(1, len(snapshot)))
        arrays.check_result(len(members), k)
        n_threads = 1 if len(members) == 1 else n_threads
        found = neighbors(snapshot.neighbors_of(members, k, allowed, n_threads, None))
        if one:
            n = int(found.counts[0])
            found = Neighbors(found.ids[0, :n], found.distances[0, :n])
        if explain:
            found._explanation = self._explain(snapshot, allowed, len(members), n_threads)
        return found

    def search_radius(
        self,
        queries: ArrayLike,
        radius: float,
        *,
        recall: float | None = None,
        effort: int | None = None,
        rerank_k: int | None = None,
        filter: Filter = None,
        n_threads: int | None = None,
    ) -> list[Neighbors]:
        """Find all vectors within a distance of each query.

        Parameters
        ----------
        queries : array_like of shape (n_queries, dim) or (dim,)
            As for `search`.
        radius : float
            In the unit of the metric, inclusive.
        recall, effort, rerank_k, filter, n_threads
            As for `search`.

        Returns
        -------
        list of Neighbors
            One a query (a list of one for a 1-D query), nearest first, ties by id.

        Raises
        ------
        ArgumentError, MemoryError
            As for `search`; a radius that is no number.
        """
        if isinstance(radius, (bool, np.bool_, str)) or not hasattr(radius, "__float__") or np.isnan(float(radius)):
            raise ArgumentError(f"radius must be a number, got {radius!r}")
        self._check_knobs(recall, effort, rerank_k)
        n_threads = arrays.threads(n_threads)
        matrix = arrays.rows(self._matrix(queries, "queries", one=True))
        snapshot = self._snapshot()
        allowed = arrays.as_filter(filter, snapshot)
        found = []
        for start, block in arrays.pieces(matrix, self._query_dtype, "queries"):
            with arrays.counted_from(start):
                found += snapshot.search_radius(self._ready(block, start), float(radius), allowed, n_threads, None)
        return [Neighbors(ids, distances) for ids, distances in found]

    def calibrate(self, queries: ArrayLike | None = None, k: int = 10) -> Calibration:
        """State the recall of searches.

        Parameters
        ----------
        queries : array_like of shape (n_queries, dim), optional
            What to measure on. An exact index has nothing to measure and only checks them.
        k : int
            A further `k` to state recall for, beside 1, 10 and 100.

        Returns
        -------
        Calibration
            For an exact index recall 1 at no effort, by construction; `measured` is False.
        """
        k = arrays.count(k, "k")
        if queries is not None:
            self._matrix(queries, "queries")
        return exact_calibration(k)

    def _check_knobs(self, recall: Any, effort: Any, rerank_k: Any) -> None:
        if effort is not None:
            raise ArgumentError(f"Exact takes no effort: it compares everything, got effort={effort!r}")
        if rerank_k is not None:
            raise ArgumentError(
                f"Exact takes no rerank_k: it has no candidates to compare again, got rerank_k={rerank_k!r}"
            )
        if recall is not None:
            arrays.share(recall, "recall")

    def _matrix(self, values: Any, name: str, *, one: bool = False) -> Matrix:
        return arrays.matrix(values, name, self._width, bits=self._bits, one=one)

    def _ready(self, queries: Matrix, start: int) -> NDArray[Any]:
        """Queries as the native module takes them; all of them are converted, so they are known to be few."""
        ready = arrays.ready(queries, self._query_dtype, "queries")
        if self._bits is not None:
            arrays.check_spare_bits(ready, self._bits, "queries", start)
        return ready

    def _explain(
        self, snapshot: _native.Snapshot, allowed: arrays.Allowed, n_queries: int, n_threads: int | None
    ) -> dict[str, Any]:
        n = compared = len(snapshot)
        if isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_:
            compared = int(np.count_nonzero(allowed))
        elif allowed is not None:
            compared = sum(map(snapshot.contains, set(allowed if isinstance(allowed, list) else allowed.tolist())))
        return {
            "structure": repr(self.structure),
            "exact": True,
            "recall": 1.0,
            "n_vectors": n,
            "n_queries": n_queries,
            "n_compared": compared,
            "filter_share": None if allowed is None else (compared / n if n else 0.0),
            # A single query never waits for a pool.
            "n_threads": 1 if n_queries == 1 else n_threads or _native.default_n_threads(),
            "kernels": _native.kernels()["level"],
        }

    # --- keeping it ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, which appears complete or not at all.

        Raises
        ------
        OSError
            No space, no permission, no such folder; the file that was there is as it was.
        """
        self._native.save(os.fsdecode(path))

    def copy(self) -> Index:
        """An independent copy in memory that can be changed, also of a memory-mapped index."""
        copied = self._of(_native.Index.from_bytes(self._native.to_bytes()))
        copied._reason = self._reason
        return copied

    def __copy__(self) -> Index:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Index:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._native.to_bytes(),)


def _unpickled(data: bytes) -> Index:
    return Index._of(_native.Index.from_bytes(data))


def build(
    vectors: ArrayLike,
    *,
    ids: IdsLike | None = None,
    metric: str = "euclidean",
    recall: float = 0.95,
    k: int = 10,
    memory: int | str | None = None,
    workload: str = "single",
    structure: Exact | str = "auto",
    encoding: str = "auto",
    queries: ArrayLike | None = None,
    n_threads: int | None = None,
    seed: int = 0,
    progress: Any = None,
) -> Index:
    """Build an index of all the data, chosen for the recall, memory and workload that are asked for.

    For now the choice is always an exact index, which satisfies every recall; what is chosen is its encoding (that of
    the data, if it is float16, int8 or uint8) and whether it keeps a shadow. `Index.explanation` says why.

    Parameters
    ----------
    vectors : array_like of shape (n, dim)
        As for `Index.add`; packed bits, eight a byte, for hamming and jaccard.
    ids : sequence of int or of str, optional
        As for `Index.add`.
    metric : str
        As for `Index`.
    recall : float
        The recall that searches shall reach, above 0 and at most 1.
    k : int
        For how many neighbors.
    memory : int or "low", optional
        Bytes that the index may take, or as few as without loss. None: what is fastest.
    workload : {"single", "batch"}
        Whether queries come one at a time or many at once.
    structure : {"auto"} or Exact
        What a search looks at.
    encoding : str
        ``"auto"``, or as for `Index`.
    queries : array_like of shape (n_queries, dim), optional
        What searches will be like, to measure recall on; an exact index only checks their shape.
    n_threads : int, optional
        All that this process may run on by default.
    seed : int
        As for `Index`.
    progress : {None, False} or callable
        None shows a bar on a terminal after a second, a function gets (done, total, stage).

    Returns
    -------
    Index

    Raises
    ------
    ArgumentError
        A `ValueError`, as for `Index.add`.
    NotImplementedError
        Nothing that is there fits the `memory`, or a structure or encoding that is not there yet; the text names what
        works.

    Examples
    --------
    >>> import numpy, nearest
    >>> index = nearest.build(numpy.eye(3, dtype=numpy.uint8), metric="manhattan")
    >>> index
    Index(dim=3, metric='manhattan', structure=Exact(), encoding='uint8'): 3 vectors
    """
    metric = metric_named(metric)
    arrays.share(recall, "recall")
    arrays.count(k, "k")
    arrays.threads(n_threads)
    if workload not in ("single", "batch"):
        raise ArgumentError(f"workload must be 'single' or 'batch', got {workload!r}")
    budget = None if memory is None or memory == "low" else _bytes(memory)
    binary = metric in BINARY_METRICS
    matrix = arrays.matrix(vectors, "vectors", bits=0 if binary else None)
    n, width = matrix.shape
    if queries is not None:
        arrays.matrix(queries, "queries", width, bits=8 * width if binary else None)

    reasons = []
    if encoding == "auto":
        name = matrix.dtype.name
        encoding = "binary" if binary else name if name in ("float16", "bfloat16", "int8", "uint8") else "float32"
        if encoding not in ("float32", "binary"):
            reasons.append(f"the vectors came as {name} and are kept so")
    encoding = encoding_named(encoding)
    check_pair(metric, encoding)
    row_bytes = width * {"float32": 4, "float16": 2, "bfloat16": 2}.get(encoding, 1)
    chosen = structure_of(structure, ("auto",))
    if chosen is None:
        can = row_bytes > width and metric != "manhattan"
        if can and workload == "single" and memory != "low" and n * row_bytes >= _SHADOW_FROM_BYTES:
            if budget is None or n * (row_bytes + width) <= budget:
                chosen = Exact(shadow="scalar8")
                reasons.append(f"an 8-bit shadow, {width / row_bytes:.0%} more memory, makes single queries faster")
            else:
                reasons.append("there is no memory for an 8-bit shadow")
        chosen = chosen or Exact()
    needed = n * (row_bytes + (width if chosen.shadow else 0))
    if budget is not None and needed > budget:
        raise NotImplementedError(
            f"{n:,} vectors take {needed:,} bytes as {encoding}, and memory={budget:,} was given; smaller encodings "
            f"that work: {', '.join(_smaller(encoding)) or 'none'} (less than a byte a dimension is not there yet)"
        )
    index = Index(8 * width if binary else width, metric=metric, structure=chosen, encoding=encoding, seed=seed)
    with shown(progress) as report:
        index._add(matrix, ids, replace=False, report=report)
    index._reason = "; ".join(reasons)
    return index


def _bytes(memory: object) -> int:
    if isinstance(memory, (int, np.integer)) and not isinstance(memory, bool) and memory > 0:
        return int(memory)
    raise ArgumentError(f"memory must be a number of bytes above 0 or 'low', got {memory!r}")


def _smaller(encoding: str) -> tuple[str, ...]:
    smaller = {
        "float32": ("float16", "bfloat16", "int8", "uint8"),
        "float16": ("int8", "uint8"),
        "bfloat16": ("int8", "uint8"),
    }
    return smaller.get(encoding, ())


def open(path: str | os.PathLike[str], *, memory_map: bool = True) -> Any:
    """Open what `Index.save` or `NeighborTable.save` wrote.

    Parameters
    ----------
    path : path
        The file.
    memory_map : bool
        True opens any size in milliseconds, shares its pages with other processes, and gives an index that cannot be
        changed. False reads everything into memory and checks every byte.

    Returns
    -------
    Index or NeighborTable
        Whichever the file holds. To type checkers `Any`: the caller knows what was saved.

    Raises
    ------
    FormatError
        A `ValueError`: the bytes are not a file that this version can open.
    OSError
        No such file, a folder, no permission.
    """
    name = os.fsdecode(path)
    if not isinstance(memory_map, (bool, np.bool_)):
        raise ArgumentError(f"memory_map must be True or False, got {memory_map!r}")
    if _native.describe(name)["kind"] == TABLE_KIND:
        return open_table(name, bool(memory_map))
    return Index._of(_native.Index.open(name, bool(memory_map)))


def verify(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Check every byte of a file.

    Parameters
    ----------
    path : path
        The file of an index or a table.

    Returns
    -------
    dict
        `kind`, `version`, `file_bytes`, `meta` and `sections` (name, dtype, shape, bytes).

    Raises
    ------
    FormatError
        A `ValueError` that names what is damaged.
    OSError
        As for `open`.
    """
    name = os.fsdecode(path)
    described = _native.verify(name)
    if described["kind"] == TABLE_KIND:
        open_table(name, True)._check()
    return described


def _size(n_bytes: int) -> str:
    if n_bytes < 1024:
        return f"{n_bytes} B"
    size = float(n_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
