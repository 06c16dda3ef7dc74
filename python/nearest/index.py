"""An index: vectors with ids, searched, changed and kept in a file."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native, arrays
from .calibration import N_QUERIES, Calibration, RecallWarning, exact_calibration, measure
from .errors import ArgumentError
from .neighbors import Neighbors, neighbors
from .params import Exact, Graph, Lists, check_pair, encoding_named, is_short, metric_named, structure_of
from .progress import shown
from .table import FILE_KIND as TABLE_KIND
from .table import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias
    from uuid import UUID

    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix
    from .params import Structure
    from .progress import Progress

    Id: TypeAlias = int | str | UUID | np.integer[Any]
    IdsLike: TypeAlias = Iterable[Id] | NDArray[Any]
    Filter: TypeAlias = IdsLike | Iterable[bool] | Callable[[NDArray[Any]], ArrayLike] | None

# What makes a search of one query cheap: names looked up once, and a tuple made without calling Python.
_ndarray, _new, _FLOAT32, _UINT8 = np.ndarray, tuple.__new__, arrays.FLOAT32, arrays.UINT8
# Candidates that a walk keeps where nothing is said and nothing was measured.
_WALK_EFFORT = 64
# Queries of a search that are looked at once more to explain it.
_EXPLAINED = 1000
# Larger k take the way that looks at how large the result gets.
_USUAL_K = 1 << 16
# More than there can be of anything.
_MOST_EFFORT = 1 << 32


class Index:
    """Vectors with ids that can be searched and changed.

    Parameters
    ----------
    dim : int
        Numbers a vector; bits a vector for ``encoding="binary"``.
    metric : str
        euclidean, sqeuclidean, cosine, angular, inner_product, manhattan; hamming or jaccard for bits. Lower is nearer,
        always.
    structure : Exact, Lists or Graph, optional
        What a search looks at; ``Exact()`` if left out.
    encoding : str
        How vectors are stored. As they are: float32, float16, bfloat16, int8, uint8 or binary; the integer kinds
        refuse values that they cannot hold. Or as short codes, trained on the first vectors (at least 1 024; until
        then vectors are kept as they are): scalar8 and scalar4 (8 and 4 bits a dimension), ``product(m, bits)`` (m
        parts of 4 or 8 bits) and ``rabitq(bits)`` (1 to 8 bits a dimension).
    rerank : str, optional
        A second encoding, for short ones, that candidates are compared again with and `get` reads from: float32,
        float16, bfloat16 or another short one. None: the distances are those of the codes.
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

    __slots__ = (
        "__weakref__",
        "_bits",
        "_calibrated",
        "_efforts",
        "_most_effort",
        "_native",
        "_query_dtype",
        "_query_shape",
        "_reason",
        "_snapshot",
        "_width",
    )

    def __init__(
        self,
        dim: int,
        *,
        metric: str = "euclidean",
        structure: Structure | None = None,
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
            rerank = encoding_named(rerank, "rerank")
            if not is_short(encoding):
                raise NotImplementedError(
                    f"rerank goes with short encodings; {encoding} vectors are kept and compared as they are, got "
                    f"rerank={rerank!r}"
                )
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
            raise ArgumentError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
        shadow = chosen.shadow if isinstance(chosen, Exact) else None
        native = None
        if isinstance(chosen, Lists):
            native = "lists", chosen.n_lists or 0, round(100 * chosen.spill)
        elif isinstance(chosen, Graph):
            native = "graph", chosen.degree, chosen.ef_build
        self._take(_native.Index(dim, metric, native, encoding, rerank, shadow, int(seed)))

    def _take(self, native: _native.Index) -> Index:
        self._native = native
        self._snapshot = native.snapshot
        self._reason = ""
        self._efforts: dict[int, _native.Knobs] = {}
        # Where everything is compared there is none.
        self._most_effort = 0 if native.structure is None else _MOST_EFFORT
        self._calibrated: tuple[str, Calibration | None] | None = None
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
    def rerank(self) -> str | None:
        """How vectors are stored a second time, to compare candidates again."""
        return self._native.rerank

    @property
    def structure(self) -> Structure:
        """What a search looks at."""
        native = self._native.structure
        if native is None:
            return Exact(shadow=self._native.shadow)
        kind, first, second = native
        return Graph(first, ef_build=second) if kind == "graph" else Lists(first or None, spill=second / 100)

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
        snapshot = self._snapshot()
        if not self._is_approximate or not snapshot.is_trained:
            parts.append(f"{self.structure!r} compares every query with every vector: recall is 1 by construction")
            if self._is_approximate:
                parts[-1] = (
                    "there are too few vectors to make lists, codes or links: every query is compared with all of "
                    f"them, and recall is 1 ({self.structure!r}, {self.encoding})"
                )
        elif self._native.structure is None:
            parts.append(
                f"every query is compared with the {self.encoding} codes of all vectors"
                + (f", and the best candidates again with their {self.rerank} form" if self.rerank else "")
            )
        elif self._is_graph:
            parts.append(f"a query walks along the links of vectors, up to {self._native.structure[1]} each")
        else:
            parts.append(
                f"a query is compared with the vectors of the nearest of {snapshot.stats()['n_lists']:,} lists"
            )
        calibration = self.calibration
        if calibration is not None:
            parts.append(calibration.explanation)
            if calibration.recall is not None:
                parts.append(f"searches that say nothing aim at recall {calibration.recall:g}")
        if self._native.shadow:
            parts.append("the 8-bit shadow only rules vectors out within its proved bound")
        rounded = {"float16": "float16", "bfloat16": "bfloat16"}.get(self.encoding)
        if rounded:
            parts.append(f"distances are those of the vectors as stored, rounded to {rounded}")
        elif is_short(self.encoding) and self.rerank is None and snapshot.is_trained:
            parts.append(f"distances are those of the {self.encoding} codes, which get() reads too")
        return "; ".join(parts)

    @property
    def calibration(self) -> Calibration | None:
        """What recall was measured at what effort; None where nothing was, or nothing has to be."""
        text = self._snapshot().calibration
        if text is None:
            return None
        known = self._calibrated
        if known is None or known[0] != text:
            known = self._calibrated = (text, Calibration.from_json(text))
        return known[1]

    @property
    def _is_approximate(self) -> bool:
        """Whether what is found depends on codes or lists."""
        return self._native.structure is not None or is_short(self._native.encoding)

    @property
    def _is_graph(self) -> bool:
        """Whether efforts are candidates of a walk."""
        structure = self._native.structure
        return structure is not None and structure[0] == "graph"

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
            `n_vectors`, `dim`, `metric`, `structure`, `encoding`, `rerank`, `id_kind` (none, implicit, int or text),
            `read_only`, `seed`, `explanation`; `n_removed`, places that removed vectors still take; bytes in memory,
            without those of a map, by part (`vectors_bytes`, `ids_bytes` and so on).

            `Lists`: `n_lists`, `n_entries` (vectors in lists, those in two of them twice, and removed ones),
            `largest_list`, and `drift`, how much farther from their lists vectors are than those that these were
            made for. `Graph`: `n_links`, `n_hubs` (vectors that walks start from), `n_waiting` (for links), and
            `unreachable`, vectors with links that no walk can come to: always 0.
        """
        snapshot = self._snapshot()
        return {
            "n_vectors": len(snapshot),
            "dim": self.dim,
            "metric": self.metric,
            "structure": repr(self.structure),
            "encoding": self.encoding,
            "rerank": self.rerank,
            "id_kind": snapshot.id_kind,
            "read_only": self.read_only,
            "seed": self.seed,
            **snapshot.stats(),
            "explanation": self.explanation,
        }

    # --- changing it ---

    def add(self, vectors: ArrayLike, ids: IdsLike | Id | None = None, *, progress: Any = None) -> NDArray[Any]:
        """Add vectors, all of them or, after an error or Ctrl-C, none.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            Anything numpy can view; what is not stored as it is gets converted in blocks. For ``encoding="binary"``
            uint8 of shape (n, ceil(dim / 8)), as `numpy.packbits` packs bits.
        ids : sequence of int or of str, optional
            One a vector: integers from 0 to 2**63 - 1, or text (`uuid.UUID` becomes its text). The first `add` fixes
            which. None gives 0, 1, 2, …, which cost no memory.
        progress : {None, False} or callable
            None shows a bar on a terminal after a second, False nothing; a callable gets (done, total, stage).

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
        with shown(progress) as report:
            return self._add(vectors, ids, replace=False, report=report)

    def upsert(self, vectors: ArrayLike, ids: IdsLike | Id, *, progress: Any = None) -> None:
        """Add vectors, replacing those that have the same ids, in one instant: no search sees both or neither.

        Parameters
        ----------
        vectors : array_like of shape (n, dim) or (dim,)
            As for `add`.
        ids : sequence of int or of str
            One a vector, each at most once.
        progress : {None, False} or callable
            None shows a bar on a terminal after a second, False nothing; a callable gets (done, total, stage).

        Raises
        ------
        ArgumentError, ReadOnlyError
            As for `add`.
        """
        if ids is None:
            raise ArgumentError("upsert needs ids, got None; add() makes new ones")
        with shown(progress) as report:
            self._add(vectors, ids, replace=True, report=report)

    def _add(
        self,
        vectors: Any,
        ids: Any,
        *,
        replace: bool,
        n_threads: int | None = None,
        report: Progress | None = None,
        held: NDArray[np.int64] | None = None,
    ) -> NDArray[Any]:
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
        dtype = self._taken_as(matrix.dtype)
        stage = self._native.stage()
        try:
            for start, block in arrays.blocks(matrix, dtype, "vectors"):
                if self._bits is not None:
                    arrays.check_spare_bits(block, self._bits, "vectors", start)
                stage.append(block, None if named is None else named[start : start + len(block)], n_threads, None)
                if report is not None:
                    report(start + len(block), n, "add")
            if held is not None:
                stage.hold(held)
            return arrays.ids_array(stage.commit(replace, n_threads, report))
        finally:
            # Lists may have been made anew, and then an effort means something else.
            self._efforts.clear()
            # A kept traceback keeps this frame, and a living stage keeps other writers out.
            del stage

    def _taken_as(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """What vectors of `dtype` are converted to before they are added."""
        rerank = self._native.rerank
        coded = is_short(self.encoding) and (rerank is None or rerank == "float16" or is_short(rerank))
        # What waits for lists is kept as float32; what is coded at once is read as it is.
        if dtype == np.float16 and coded and self._native.snapshot().is_trained:
            return dtype
        return arrays.native_dtype(dtype, self.encoding)

    def merge(self, other: Index, *, progress: Any = None) -> NDArray[Any]:
        """Add all vectors of another index, with their ids: all of them or, after an error or Ctrl-C, none.

        Shards of a set that is too large for one machine are built apart, with ids of their own, and merged here.
        Those that come from an `empty_copy` of one index of lists have the same lists and codes: these are taken over
        as they are, fast and without loss. Vectors of other shards, and of graphs, are coded, and linked, anew.

        Parameters
        ----------
        other : Index
            Of the same dim and metric; it is not changed, and may be memory-mapped. Where it keeps only short codes,
            and lists of its own, the vectors that these stand for are added (see `get`), so that what codes lose is
            lost twice: build such shards from an `empty_copy`, or calibrate what was merged with `queries` of your own.
        progress : {None, False} or callable
            None shows a bar on a terminal after a second, False nothing; a callable gets (done, total, stage).

        Returns
        -------
        ndarray of int64, or of object holding str, shape (n,)
            The ids that were added.

        Raises
        ------
        ArgumentError
            Another dim or metric, ids that are there already or of the other kind.
        ReadOnlyError
            As for `add`.
        """
        if not isinstance(other, Index):
            raise ArgumentError(f"merge takes a nearest.Index, got {type(other).__name__}")
        if (other.dim, other.metric) != (self.dim, self.metric):
            raise ArgumentError(
                f"merge takes an index of dim {self.dim} and metric {self.metric}, got {other.dim} and {other.metric}"
            )
        snapshot = other._snapshot()
        ids = snapshot.ids()
        with shown(progress) as report:
            stage = self._native.stage()
            try:
                if not stage.append_from(snapshot):
                    step = arrays.block_rows(self._width, arrays.FLOAT32)
                    for start in range(0, len(snapshot), step):
                        part = ids[start : start + step]
                        stage.append(arrays.ready(snapshot.get(part), self._query_dtype, "vectors"), part, None, None)
                        if report is not None:
                            report(start + len(part), len(snapshot), "add")
                return arrays.ids_array(stage.commit(False, None, report))
            finally:
                self._efforts.clear()
                del stage

    def empty_copy(self) -> Index:
        """An index without vectors whose lists and codes are those of this one, to build shards that `merge` well.

        Graphs are merged by linking anew whatever they come from: this is for `Lists`. Lists and codes are made from
        the first vectors that an index gets, or from all that `build` is given. Shards that share them are as good
        together as one index of all vectors, if what they were made from is like all of these: a random sample is.

        Returns
        -------
        Index

        Examples
        --------
        >>> import numpy, nearest
        >>> vectors = numpy.random.default_rng(0).normal(size=(4_000, 8)).astype("float32")
        >>> whole = nearest.build(vectors[::2], ids=range(0, 4_000, 2), structure=nearest.Lists(32), encoding="scalar4")
        >>> shard = whole.empty_copy()
        >>> _ = shard.add(vectors[1::2], range(1, 4_000, 2))
        >>> len(whole.merge(shard)), len(whole)
        (2000, 4000)
        """
        return Index._of(self._native.empty_copy())

    def remove(self, ids: IdsLike | Id, *, progress: Any = None) -> int:
        """Remove the vectors with these ids; ids that are not there are no error.

        Parameters
        ----------
        ids : sequence of int or of str, or one of them
            Of the kind that the index has.
        progress : {None, False} or callable
            None shows a bar on a terminal after a second, False nothing; a callable gets (done, total, stage).

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        ArgumentError, ReadOnlyError
            Ids of the other kind, negative or no ids at all; a memory-mapped index.
        """
        with shown(progress) as report:
            try:
                return self._native.remove(self._stored_ids(ids, self._snapshot()), report)
            finally:
                self._efforts.clear()

    def get(self, ids: IdsLike | Id) -> NDArray[Any]:
        """The vectors with these ids, in the order asked for.

        Returns
        -------
        ndarray, shape (n, dim), or (dim,) for a single id
            As stored: float32 (exactly what a float16 or bfloat16 holds), int8, uint8 or packed bits. Where only short
            codes are kept, the float32 vectors that these stand for: `rerank` if there is one, else `encoding` says how
            near they are; under cosine and angular they have length 1.

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
            The recall wanted, above 0 and at most 1: picks the effort from the calibration, and warns
            (`RecallWarning`) if the queries are unlike those it was measured on. An exact index gives 1 whatever is
            asked. Fewer than 20 queries are never called unlike, nor those of a search with a filter.
        effort : int, optional
            `Lists`: how many lists are looked at. `Graph`: about how many candidates a walk keeps, see there. An exact
            index takes none. Without it and `recall`, an index that was built for a recall aims at that one, without
            warnings; another looks at the root of its number of lists, or keeps 64 candidates.
        rerank_k : int, optional
            How many candidates are compared again, at least `k`; for graphs, for short encodings with `rerank`, and
            for lists of vectors that are kept as they are. By default chosen by what the codes lose. A walk keeps at
            least as many.
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
            and (effort is None or (type(effort) is int and 0 < effort <= self._most_effort))
            and recall is rerank_k is None
            and explain is False
        ):
            snapshot = self._snapshot()
            if effort is None:
                # What depends on a calibration is looked up once.
                knobs = self._efforts.get(k) or self._knobs(snapshot, k, None, None, None)
            else:
                knobs = effort, None
            ids, distances, _ = snapshot.search(queries, k, knobs, None, n_threads, None)
            return _new(Neighbors, (ids, distances))

        k = arrays.count(k, "k")
        n_threads = arrays.threads(n_threads)
        matrix = self._matrix(queries, "queries", one=True)
        snapshot = self._snapshot()
        knobs = self._knobs(snapshot, k, recall, effort, rerank_k)
        allowed = arrays.as_filter(filter, snapshot)
        found = self._search(snapshot, matrix, k, knobs, allowed, n_threads)
        if recall is not None and allowed is None:
            self._warn(snapshot, found, float(recall))
        if explain:
            n_queries = 1 if matrix.ndim == 1 else len(matrix)
            some = arrays.rows(matrix)[:_EXPLAINED]
            found._explanation = self._explain(
                snapshot, allowed, n_queries, n_threads, knobs, found, recall, self._ready(some, 0)
            )
        return found

    def _search(
        self,
        snapshot: _native.Snapshot,
        matrix: Matrix,
        k: int,
        knobs: _native.Knobs,
        allowed: arrays.Allowed,
        n_threads: int | None,
    ) -> Neighbors:
        dtype = self._query_dtype
        if matrix.ndim == 1:
            query = self._ready(matrix, 0)
            # No vector can be found twice, so there is no place for more.
            return neighbors(snapshot.search(query, min(k, max(1, len(snapshot))), knobs, allowed, n_threads, None))
        arrays.check_result(len(matrix), k)
        if arrays.is_ready(matrix, dtype) or arrays.is_small(matrix, dtype):
            return neighbors(snapshot.search(self._ready(matrix, 0), k, knobs, allowed, n_threads, None))
        parts = []
        for start, block in arrays.blocks(matrix, dtype, "queries"):
            with arrays.counted_from(start):
                parts.append(snapshot.search(self._ready(block, start), k, knobs, allowed, n_threads, None))
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
        n_threads = arrays.threads(n_threads)
        one = arrays.is_one_id(ids)
        snapshot = self._snapshot()
        knobs = self._knobs(snapshot, k, recall, effort, rerank_k)
        members = self._stored_ids(ids, snapshot)
        allowed = arrays.as_filter(filter, snapshot)
        if one:
            k = min(k, max(1, len(snapshot)))
        arrays.check_result(len(members), k)
        n_threads = 1 if len(members) == 1 else n_threads
        found = neighbors(snapshot.neighbors_of(members, k, knobs, allowed, n_threads, None))
        if one:
            n = int(found.counts[0])
            found = Neighbors(found.ids[0, :n], found.distances[0, :n])
        if recall is not None and allowed is None:
            self._warn(snapshot, found, float(recall))
        if explain:
            some = snapshot.get(members[:_EXPLAINED]).astype(self._query_dtype)
            found._explanation = self._explain(snapshot, allowed, len(members), n_threads, knobs, found, recall, some)
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
        recall : float, optional
            Picks the effort that found so much of the 100 nearest when it was measured; nothing was measured of
            distances.
        effort : int, optional
            `Lists`: how many lists are looked at. `Graph`: about how many candidates a walk keeps at first; it goes on
            with more as long as all of them are within the radius.
        rerank_k : int, optional
            At least 100. A walk keeps at least as many at first; whatever may be within the radius is compared again.
        filter, n_threads
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
        n_threads = arrays.threads(n_threads)
        matrix = arrays.rows(self._matrix(queries, "queries", one=True))
        snapshot = self._snapshot()
        knobs = self._knobs(snapshot, 100, recall, effort, rerank_k)
        allowed = arrays.as_filter(filter, snapshot)
        found = []
        for start, block in arrays.pieces(matrix, self._query_dtype, "queries"):
            with arrays.counted_from(start):
                found += snapshot.search_radius(
                    self._ready(block, start), float(radius), knobs, allowed, n_threads, None
                )
        return [Neighbors(ids, distances) for ids, distances in found]

    def calibrate(self, queries: ArrayLike | None = None, k: int = 10, *, progress: Any = None) -> Calibration:
        """Measure what recall searches reach at what effort, and keep it with the index.

        Parameters
        ----------
        queries : array_like of shape (n_queries, dim), optional
            What to measure on: queries like those to come, not vectors of the index. None takes a tenth of its
            vectors, 1 000 at most, and leaves them out while it measures: a graph is linked anew without them, which
            takes as long as linking it did. An exact index has nothing to measure and only checks them.
        k : int
            A further `k` to measure recall for, beside 1, 10 and 100.
        progress : {None, False} or callable
            None shows a bar on a terminal after a second, False nothing; a callable gets (done, total, stage).

        Returns
        -------
        Calibration
            For an exact index recall 1 at no effort, by construction; `measured` is False.

        Raises
        ------
        ArgumentError
            As for `search`; too few vectors or queries to measure anything.

        Notes
        -----
        The truth is found among the vectors as they are kept: where only codes are, it is that of the codes. A
        memory-mapped index can be measured and cannot keep what was found. The recall that searches aim at where they
        say nothing, if the index was built for one, stays.
        """
        k = arrays.count(k, "k")
        matrix = None if queries is None else self._matrix(queries, "queries")
        snapshot = self._snapshot()
        if not self._is_approximate or not snapshot.is_trained:
            return exact_calibration(k)
        n = len(snapshot)
        if n < (2 if matrix is None else 1) or (matrix is not None and not len(matrix)):
            raise ArgumentError(
                "calibrate measures on queries, or on a tenth of the vectors and the others: got "
                f"{'no' if matrix is None else len(matrix)} queries and {n} vector{'' if n == 1 else 's'}"
            )
        known = self.calibration
        with shown(progress) as report:
            if matrix is None:
                ids = arrays.ids_array(snapshot.ids())
                chosen = np.random.default_rng(self.seed).choice(n, size=min(N_QUERIES, max(1, n // 10)), replace=False)
                held = self._stored_ids(ids[np.sort(chosen)], snapshot)
                values = snapshot.get(held).astype(np.float32)
                snapshot = snapshot.without(held, report)
            else:
                values = arrays.ready(matrix, self._query_dtype, "queries")
            return self._calibrate(snapshot, values, None, k, None if known is None else known.recall, report=report)

    def _calibrate(
        self,
        snapshot: _native.Snapshot,
        queries: NDArray[np.float32],
        truth: tuple[NDArray[Any], NDArray[np.float32]] | None,
        k: int,
        recall: float | None,
        n_threads: int | None = None,
        report: Progress | None = None,
    ) -> Calibration:
        """Measures on a snapshot that does not hold the queries, and keeps what was found."""
        n = len(snapshot)
        most = self._most(snapshot)
        if truth is None:
            largest = min(max(100, k), max(1, n))
            found = snapshot.search(queries, largest, (most, None), None, n_threads, report)
            truth = (found[0], found[1])

        def search(known: int, effort: int, n_queries: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
            knobs = (None if self._native.structure is None else effort), None
            return snapshot.search(queries[:n_queries], known, knobs, None, n_threads, report)[:2]

        calibration = measure(search, truth, n, most, k, recall, is_walk=self._is_graph)
        if not self.read_only:
            self._native.set_calibration(calibration.to_json())
            self._efforts.clear()
        return calibration

    def _knobs(self, snapshot: _native.Snapshot, k: int, recall: Any, effort: Any, rerank_k: Any) -> _native.Knobs:
        """The effort and number of candidates that a search takes, checked."""
        if recall is not None:
            recall = arrays.share(recall, "recall")
        approximate = self._native.structure is not None
        if effort is not None:
            if not approximate:
                raise ArgumentError(f"Exact takes no effort: it compares everything, got effort={effort!r}")
            effort = min(arrays.count(effort, "effort"), _MOST_EFFORT)
            if recall is not None:
                raise ArgumentError(
                    f"effort and recall both say how hard to try, got {effort!r} and {recall!r}: give one"
                )
        if rerank_k is not None:
            if not approximate and self._native.rerank is None:
                raise ArgumentError(
                    f"rerank_k goes with lists, graphs and rerank: there are no candidates to compare again, got "
                    f"rerank_k={rerank_k!r}"
                )
            rerank_k = arrays.count(rerank_k, "rerank_k")
            if rerank_k < k:
                raise ArgumentError(f"rerank_k must be at least k={k}, got {rerank_k}")
        if not snapshot.is_trained or effort is not None or (recall is None and not approximate):
            if effort is recall is rerank_k is None and not approximate:
                self._efforts[k] = (None, None)
            return effort, rerank_k
        calibration = self.calibration
        if recall is None:
            if calibration is not None and calibration.recall is not None:
                effort = self._effort(calibration, snapshot, calibration.recall, k)
            if rerank_k is None and len(self._efforts) < 1000:
                self._efforts[k] = (effort, None)
            return effort, rerank_k
        if calibration is None:
            raise ArgumentError(
                f"recall={recall!r} needs a calibration, and this index has none: call calibrate()"
                f"{', or give effort=' if approximate else ''}"
            )
        return (self._effort(calibration, snapshot, recall, k) if approximate else None), rerank_k

    def _most(self, snapshot: _native.Snapshot) -> int:
        """The largest effort: all lists, or all vectors."""
        if self._is_graph:
            return max(1, len(snapshot))
        n_lists: int = snapshot.stats()["n_lists"]
        return n_lists

    def _effort(self, calibration: Calibration, snapshot: _native.Snapshot, recall: float, k: int) -> int:
        """What reached that recall when it was measured: as large a part of the lists, or as many candidates."""
        if recall == 1.0:
            return self._most(snapshot)
        effort = calibration.effort(recall, k)
        n_lists = calibration.n_lists
        return max(1, round(effort * self._most(snapshot) / n_lists)) if n_lists else effort

    def _warn(self, snapshot: _native.Snapshot, found: Neighbors, recall: float) -> None:
        calibration = self.calibration
        if calibration is None or not snapshot.is_trained:
            return
        text = self._doubts(calibration, snapshot, found, recall)
        if text:
            warnings.warn(text, RecallWarning, stacklevel=3)

    def _doubts(
        self, calibration: Calibration, snapshot: _native.Snapshot, found: Neighbors, recall: float | None
    ) -> str:
        """Why a search may reach less than was measured, or than was asked for; empty where nothing says so."""
        doubts = []
        k = found.distances.shape[-1]
        # All lists of vectors that are kept as they are find everything, whatever was measured.
        is_whole = recall == 1.0 and self._keeps_vectors
        if recall is not None and k and not is_whole and calibration.most(k) < recall:
            doubts.append(
                f"recall {recall:g} was not reached at any effort when it was measured, {calibration.most(k):g} at most"
            )
        if calibration.n_lists and calibration.n_lists != snapshot.stats().get("n_lists"):
            doubts.append("the lists were made anew since the recall was measured: calibrate() measures it again")
        if calibration.is_unlike(found.distances, 1.0 if recall is None else recall):
            doubts.append(
                "these queries are farther from the vectors than those that the recall was measured on: "
                "calibrate(queries) "
                "with queries like these says what they reach"
            )
        if len(snapshot) > 1.2 * calibration.n_vectors:
            doubts.append(
                f"the index has grown from {calibration.n_vectors:,} to {len(snapshot):,} vectors since its recall was "
                "measured: calibrate() measures it again"
            )
        return "; ".join(doubts)

    @property
    def _keeps_vectors(self) -> bool:
        """Whether candidates are compared by their vectors in the end, and not by codes of them."""
        return not (is_short(self.encoding) and (self.rerank is None or is_short(self.rerank)))

    def _matrix(self, values: Any, name: str, *, one: bool = False) -> Matrix:
        return arrays.matrix(values, name, self._width, bits=self._bits, one=one)

    def _ready(self, queries: Matrix, start: int) -> NDArray[Any]:
        """Queries as the native module takes them; all of them are converted, so they are known to be few."""
        ready = arrays.ready(queries, self._query_dtype, "queries")
        if self._bits is not None:
            arrays.check_spare_bits(ready, self._bits, "queries", start)
        return ready

    def _explain(
        self,
        snapshot: _native.Snapshot,
        allowed: arrays.Allowed,
        n_queries: int,
        n_threads: int | None,
        knobs: _native.Knobs,
        found: Neighbors,
        recall: float | None,
        some: NDArray[Any],
    ) -> dict[str, Any]:
        """What a search did; `some` are the first of its queries."""
        n = matches = len(snapshot)
        if isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_:
            matches = int(np.count_nonzero(allowed))
        elif allowed is not None:
            matches = sum(map(snapshot.contains, set(allowed if isinstance(allowed, list) else allowed.tolist())))
        exact = not self._is_approximate or not snapshot.is_trained
        explained: dict[str, Any] = {
            "structure": repr(self.structure),
            "exact": exact,
            "recall": 1.0 if exact else None,
            "n_vectors": n,
            "n_queries": n_queries,
            "n_compared": matches,
            "filter_share": None if allowed is None else (matches / n if n else 0.0),
            # A single query never waits for a pool.
            "n_threads": 1 if n_queries == 1 else n_threads or _native.default_n_threads(),
            "kernels": _native.kernels()["level"],
        }
        if not exact:
            calibration = self.calibration
            k = found.distances.shape[-1]
            if not self._is_graph:
                stats = snapshot.stats()
                effort = knobs[0] or math.isqrt(stats["n_lists"] - 1) + 1
                explained["effort"] = min(effort, stats["n_lists"])
                explained["n_compared"] = round(stats["n_entries"] * explained["effort"] / stats["n_lists"])
            else:
                effort = explained["effort"] = min(max(knobs[0] or _WALK_EFFORT, k), n)
                explained |= self._walked(snapshot, some, k, knobs, allowed, n_threads)
                if explained["path"] == "all" and self._keeps_vectors:
                    return {**explained, "exact": True, "recall": 1.0}
            if calibration is not None and allowed is None and k:
                explained["recall"] = calibration.reached(effort, k)
                explained["unlike"] = calibration.is_unlike(found.distances, explained["recall"])
                explained["doubts"] = self._doubts(calibration, snapshot, found, recall)
        return explained

    @staticmethod
    def _walked(
        snapshot: _native.Snapshot,
        queries: NDArray[Any],
        k: int,
        knobs: _native.Knobs,
        allowed: arrays.Allowed,
        n_threads: int | None,
    ) -> dict[str, Any]:
        """How a graph was searched: the path taken, and what a query cost on average."""
        looked = snapshot.looked(queries, max(1, k), knobs, allowed, n_threads) if len(queries) else None
        if looked is None:
            return {"path": "all"}
        n_walks, n_scans = looked.pop("n_walks"), looked.pop("n_scans")
        path = "walk" if not n_scans else "scan" if not n_walks else "walk or scan"
        return {"path": path, **{name: number / len(queries) for name, number in looked.items()}}

    # --- keeping it ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, which appears complete or not at all.

        Removed vectors are not in it: the links of a graph lead around them, so that what is opened may find a few
        other neighbors than this index, whose walks still pass through them.

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
