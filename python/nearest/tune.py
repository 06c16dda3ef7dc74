"""Building an index of all the data: what to build, why, and what recall it reaches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays
from .calibration import KS, N_QUERIES, queries_for
from .distances import knn
from .errors import ArgumentError
from .index import Index
from .params import (
    BINARY_METRICS,
    Exact,
    Graph,
    Lists,
    check_pair,
    encoding_named,
    is_short,
    metric_named,
    structure_of,
)
from .progress import shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix
    from .index import IdsLike
    from .params import Structure
    from .progress import Progress

# Smaller sets are read from the cache, where a shadow saves nothing.
_SHADOW_FROM_BYTES = 32 << 20
# From so many vectors on, lists answer batches faster than looking at everything; single queries, from so many bytes of
# 8-bit codes on, of which memory brings some 20 a nanosecond: below that, a millisecond or two suffices for everything.
_LISTS_FROM = 20_000
_LISTS_FROM_BYTES = 32 << 20
# A graph is worth its links from less than half a millisecond on.
_GRAPH_FROM, _GRAPH_FROM_BYTES = 10_000, 8 << 20
_UNLISTABLE = ("manhattan", *BINARY_METRICS)
# Vectors of a list, and vectors at least, that lists and codes are trained on.
_TRAINING_PER_LIST, _TRAINING_ROWS = 64, 16_384
# What the native module reads where it lies, so that a sample need not be copied.
_READ_IN_PLACE = tuple(np.dtype(name) for name in ("float32", "float16", "int8", "uint8"))
# Bytes of codes on their way into lists.
_FILL_BYTES = 128 << 20
# Vectors that nothing but their own encoding is chosen for.
_LEAST_ROWS = 100
# Vectors and queries that codes are tried out on.
_TRIAL_ROWS, _TRIAL_QUERIES = 20_000, 300
# Codes from the cheapest on: (encoding, rerank). The first that keeps the neighbors is taken.
_COMPACT = (("scalar4", None), ("rabitq(5)", None), ("rabitq(6)", None), ("scalar8", None))
_BATCH = (("scalar8", None), ("scalar8", "float16"))
# One query alone waits for memory, so that the fewer bits it reads the better; what is short is compared again by more.
_SINGLE = ("rabitq(2)", "scalar4")
# Codes that a walk can compare, and what its candidates are compared with again.
_WALKED = (("scalar4", "scalar8"), ("scalar8", "float16"))
_WALKED_COMPACT = (("scalar4", None), ("scalar8", None))
# Links that are enough where memory is short.
_COMPACT_DEGREE = 16
# What is missing to a recall of 1 may be lost to codes up to this share; lists or walks lose the rest.
_LOST_TO_CODES = 0.5
_LOSERS: dict[type, str] = {Lists: "and lists lose the rest", Graph: "and walks lose the rest"}


def build(
    vectors: ArrayLike,
    *,
    ids: IdsLike | None = None,
    metric: str = "euclidean",
    recall: float = 0.95,
    k: int = 10,
    memory: int | str | None = None,
    workload: str = "single",
    structure: Structure | str = "auto",
    encoding: str = "auto",
    queries: ArrayLike | None = None,
    n_threads: int | None = None,
    seed: int = 0,
    progress: Any = None,
) -> Index:
    """Build an index of all the data, chosen for the recall, memory and workload that are asked for.

    Where vectors are many, queries that come one at a time walk through a graph (`Graph`; from 8 million numbers on),
    and batches are answered by inverted lists (`Lists`; from 20 000 vectors on), with codes tried out on a sample.
    Where the `memory` has no room for a graph of 32 links a vector, it has 16, or there are lists; ``"low"`` makes
    lists. Else it is an exact index, in the encoding of the data, with a shadow where that makes single queries faster.
    What is not exact is calibrated, on `queries` or on 1 000 vectors that are held out while it is measured.
    `Index.explanation` says what was chosen and why.

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
        Bytes that the index may take, or as few as the recall allows. None: what is fastest.
    workload : {"single", "batch"}
        Whether queries come one at a time or many at once.
    structure : {"auto"}, Exact, Lists or Graph
        What a search looks at.
    encoding : str
        ``"auto"``, or as for `Index`; short codes but scalar8 get a rerank of scalar8, unless `memory` is ``"low"``.
    queries : array_like of shape (n_queries, dim), optional
        What searches will be like, to measure recall on, and not vectors of the index; an exact index only checks their
        shape.
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
    >>> vectors = numpy.random.default_rng(0).normal(size=(30_000, 8)).astype("float32")
    >>> index = nearest.build(vectors, workload="batch", recall=0.9)
    >>> index.structure, index.encoding
    (Lists(320), 'scalar8')
    >>> nearest.recall(index.search(vectors[:100]), nearest.knn(vectors, vectors[:100])) > 0.85
    True
    """
    metric = metric_named(metric)
    recall = arrays.share(recall, "recall")
    k = arrays.count(k, "k")
    n_threads = arrays.threads(n_threads)
    if workload not in ("single", "batch"):
        raise ArgumentError(f"workload must be 'single' or 'batch', got {workload!r}")
    budget = None if memory is None or memory == "low" else _bytes(memory)
    binary = metric in BINARY_METRICS
    matrix = arrays.matrix(vectors, "vectors", bits=0 if binary else None)
    n, width = matrix.shape
    asked = None
    if queries is not None:
        asked = arrays.matrix(queries, "queries", width, bits=8 * width if binary else None)
        if not len(asked):
            raise ArgumentError("queries must be at least one, got none")
    chosen = structure_of(structure, ("auto",))
    if encoding != "auto":
        encoding = encoding_named(encoding)
        check_pair(metric, encoding)

    name = matrix.dtype.name
    own = "binary" if binary else name if name in ("float16", "bfloat16", "int8", "uint8") else "float32"
    n_bytes = n * width * {"float32": 4, "float16": 2, "bfloat16": 2}.get(own, 1)
    listable = metric not in _UNLISTABLE and encoding != "binary"
    scarce = budget is not None and encoding == "auto" and n_bytes > budget
    why: list[str] = []
    if chosen is None and listable and recall < 1:
        large = n >= _GRAPH_FROM and n * width >= _GRAPH_FROM_BYTES
        if workload == "single" and large and memory != "low":
            chosen = _graph_within(budget, own, encoding, n, width)
            if chosen is None:
                why.append("no graph goes with that encoding or memory")
            elif chosen == Graph():
                why.append("queries that come one at a time walk fastest through a graph")
            else:
                why.append(f"memory={budget:,} leaves room for {chosen.degree} links a vector")
        if chosen is None and n >= _LISTS_FROM and (workload == "batch" or scarce or n * width >= _LISTS_FROM_BYTES):
            chosen = Lists()
            if workload == "batch" or budget is not None or memory == "low":
                why.append("batches share the work on lists" if workload == "batch" else "lists take least memory")
    with shown(progress) as report:
        if isinstance(chosen, (Lists, Graph)) or (is_short(encoding) and encoding != "auto"):
            plan = _Plan(vectors, matrix, metric, recall, k, workload, seed, n_threads, report)
            plan.reasons += why
            return plan.build(chosen, encoding, own, budget, memory == "low", ids, asked)
        return _build_exact(
            matrix, ids, metric, memory, budget, workload, chosen, encoding, own, n_threads, seed, report
        )


def _build_exact(
    matrix: Matrix,
    ids: IdsLike | None,
    metric: str,
    memory: Any,
    budget: int | None,
    workload: str,
    chosen: Structure | None,
    encoding: str,
    own: str,
    n_threads: int | None,
    seed: int,
    report: Progress | None,
) -> Index:
    n, width = matrix.shape
    reasons = []
    if encoding == "auto":
        encoding = own
        if encoding not in ("float32", "binary"):
            reasons.append(f"the vectors came as {encoding} and are kept so")
    vector_bytes = width * {"float32": 4, "float16": 2, "bfloat16": 2}.get(encoding, 1)
    if chosen is None:
        can = vector_bytes > width and metric != "manhattan"
        if can and workload == "single" and memory != "low" and n * vector_bytes >= _SHADOW_FROM_BYTES:
            if budget is None or n * (vector_bytes + width) <= budget:
                chosen = Exact(shadow="scalar8")
                reasons.append(f"an 8-bit shadow, {width / vector_bytes:.0%} more memory, makes single queries faster")
            else:
                reasons.append("there is no memory for an 8-bit shadow")
        chosen = chosen or Exact()
    shadow = isinstance(chosen, Exact) and chosen.shadow is not None
    needed = n * (vector_bytes + (width if shadow else 0))
    if budget is not None and needed > budget:
        raise NotImplementedError(
            f"{n:,} vectors take {needed:,} bytes as {encoding}, and memory={budget:,} was given; smaller encodings "
            f"that work: {', '.join(_smaller(encoding, metric)) or 'none'}"
        )
    dim = 8 * width if metric in BINARY_METRICS else width
    index = Index(dim, metric=metric, structure=chosen, encoding=encoding, seed=seed)
    index._add(matrix, ids, replace=False, n_threads=n_threads, report=report)
    index._reason = "; ".join(reasons)
    return index


class _Plan:
    """The making of an index of lists, links or codes."""

    def __init__(
        self,
        vectors: ArrayLike,
        matrix: Matrix,
        metric: str,
        recall: float,
        k: int,
        workload: str,
        seed: int,
        n_threads: int | None,
        report: Progress | None,
    ) -> None:
        self.vectors, self.workload = vectors, workload
        self.matrix, self.metric, self.recall, self.k = matrix, metric, recall, k
        self.seed, self.n_threads, self.report = seed, n_threads, report
        self.n, self.width = matrix.shape
        self.random = np.random.default_rng(seed)
        self.reasons: list[str] = []

    def build(
        self,
        chosen: Structure | None,
        encoding: str,
        own: str,
        budget: int | None,
        low: bool,
        ids: IdsLike | None,
        queries: Matrix | None,
    ) -> Index:
        structure = chosen or Exact()
        # An error before anything is tried out.
        Index(self.width, metric=self.metric, structure=structure, encoding=own if encoding == "auto" else encoding)
        if isinstance(structure, Lists) and structure.n_lists is None:
            n_lists = min(lists_for(self.n, self.workload), max(1, self.n))
            structure = Lists(n_lists, spill=structure.spill)
        self.held = self._held_out(queries)
        try:
            index = self._trained(structure, encoding, own, budget, low)
        except ArgumentError:
            # What is wrong with a vector of a sample is told with its place among all of them.
            self._check()
            raise
        added = self._fill(index, ids)
        if isinstance(structure, (Lists, Graph)) and self.n:
            self._calibrate(index, added, queries)
        if isinstance(structure, Graph):
            index._native.link(self.n_threads, self.report)
        index._reason = "; ".join(self.reasons)
        return index

    def _trained(self, structure: Structure, encoding: str, own: str, budget: int | None, low: bool) -> Index:
        """The index, ready for the vectors."""
        rerank = None
        if encoding == "auto":
            encoding, rerank = self._encoding(own, structure, budget, low)
        elif is_short(encoding) and not low and encoding != "scalar8":
            rerank = "scalar8"
        needed = math.ceil(self.n * row_bytes(encoding, rerank, structure, self.width))
        if budget is not None and needed > budget:
            raise NotImplementedError(
                f"{self.n:,} vectors take some {needed:,} bytes as {encoding}{f' and {rerank}' if rerank else ''} with "
                f"{structure!r}, and memory={budget:,} was given; encoding='auto' takes what fits"
            )
        index = Index(
            self.width, metric=self.metric, structure=structure, encoding=encoding, rerank=rerank, seed=self.seed
        )
        if self.n:
            n_lists = structure.n_lists if isinstance(structure, Lists) and structure.n_lists else 1
            rows, matrix = self._sample(n_lists), self.matrix
            if isinstance(matrix, arrays.Chunks) or not self._is_read_in_place(matrix):
                index._native.train(self.n, self._rows(rows), None, self.n_threads, self.report)
            else:
                index._native.train(self.n, matrix, rows, self.n_threads, self.report)
        return index

    @staticmethod
    def _is_read_in_place(matrix: NDArray[Any]) -> bool:
        return matrix.dtype in _READ_IN_PLACE and arrays.is_ready(matrix, matrix.dtype)

    def _check(self) -> None:
        """Raises what is wrong with the first vector that cannot be added."""
        index = Index(self.width, metric=self.metric)
        for start, block in arrays.blocks(self.matrix, arrays.FLOAT32, "vectors"):
            with arrays.counted_from(start):
                index._native.stage().append(block, None, self.n_threads, None)

    def _fill(self, index: Index, ids: IdsLike | None) -> NDArray[Any]:
        """Adds all vectors: to lists a part at a time, since what is on its way there takes memory beside them."""
        named = None if ids is None else arrays.as_ids(ids)
        if named is not None and len(named) != self.n:
            raise ArgumentError(f"ids must be one a vector, {self.n} in all, got {len(named)}")
        if named is not None:
            arrays.check_differ(named)
        if isinstance(index.structure, Graph):
            # All links are chosen at once, but for those of the vectors that it is measured on.
            return index._add(
                self.matrix, named, replace=False, n_threads=self.n_threads, report=self.report, held=self.held
            )
        n_bytes = row_bytes(index.encoding, index.rerank, Lists(spill=1.0), self.width)
        step = max(1 << 16, int(_FILL_BYTES / n_bytes))
        added = []
        for start in range(0, max(1, self.n), step):
            part = slice(start, min(self.n, start + step))
            own = None if named is None else named[part]
            with arrays.counted_from(start):
                added.append(index._add(self.matrix[part], own, replace=False, n_threads=self.n_threads))
            if self.report is not None:
                self.report(part.stop, self.n, "add")
        return added[0] if len(added) == 1 else np.concatenate(added)

    def _held_out(self, queries: Matrix | None) -> NDArray[np.int64]:
        """Positions of vectors that nothing is trained on, which serve as queries."""
        if queries is not None:
            return np.empty(0, np.int64)
        count = min(N_QUERIES, self.n // 10)
        return np.sort(self.random.choice(self.n, size=count, replace=False))

    def _rows(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Some vectors, as the native module takes them."""
        matrix = self.matrix
        rows = matrix.take(positions) if isinstance(matrix, arrays.Chunks) else matrix[positions]
        dtype = rows.dtype if rows.dtype in _READ_IN_PLACE else arrays.FLOAT32
        return arrays.ready(rows, dtype, "vectors")

    def _sample(self, n_lists: int) -> NDArray[np.int64]:
        """Positions of vectors to train on."""
        others = self.n - len(self.held)
        count = min(others, max(_TRAINING_ROWS, _TRAINING_PER_LIST * n_lists))
        positions = (
            np.sort(self.random.choice(others, size=count, replace=False)) if count < others else np.arange(others)
        )
        # Skip those held out: the i-th of the others lies behind all held-out ones that are not after it.
        before = self.held - np.arange(len(self.held))
        sample: NDArray[np.int64] = positions + np.searchsorted(before, positions, side="right")
        return sample

    def _encoding(self, own: str, structure: Structure, budget: int | None, low: bool) -> tuple[str, str | None]:
        """The cheapest codes that keep the neighbors."""
        if self.n < _LEAST_ROWS:
            self.reasons.append("there are too few vectors to try codes out on")
            return own, None
        lists, walked = isinstance(structure, Lists), isinstance(structure, Graph)
        keeper = "a graph keeps" if walked else "lists keep"
        whole = own in ("uint8", "int8") and not low
        choices: tuple[tuple[str, str | None], ...] = _WALKED if walked else _BATCH
        if low or budget is not None:
            choices = (*(() if low else _WALKED[:1]), *_WALKED_COMPACT) if walked else _COMPACT
            if walked and budget is not None:
                choices = tuple(one for one in choices if self.n * row_bytes(*one, structure, self.width) <= budget)
        elif whole and walked:
            choices = ()
        elif self.workload == "single" and lists:
            choices = (*((short, own if whole else "scalar8") for short in _SINGLE), *(() if whole else _BATCH))
        elif whole:
            choices = ()
        # Integers take no more bytes whole than their codes of 8 bits.
        if whole and budget is not None and self.n * row_bytes(own, None, structure, self.width) <= budget:
            choices = ()
        # The vectors as they came in the end.
        for encoding, rerank in (*choices, (own, None)):
            size = self.n * row_bytes(encoding, rerank, structure, self.width)
            if budget is not None and size > budget:
                break
            if not choices:
                self.reasons.append(f"the vectors came as {own}, which {keeper} without loss")
                return encoding, rerank
            if not is_short(encoding):
                self.reasons.append(
                    "no short code kept the neighbors of the sample, so that vectors are kept as they are"
                )
                return encoding, rerank
            kept = self.self_test(encoding, rerank)
            wanted = 1 - (1 - self.recall) * _LOST_TO_CODES
            text = f"{encoding}{f' and {rerank}' if rerank else ''} kept {kept:.1%} of the {self.k} nearest in a sample"
            if kept >= wanted:
                self.reasons.append(f"{text}, {_LOSERS.get(type(structure), 'which is enough')}")
                return encoding, rerank
            self.reasons.append(f"{text}, too few for recall {self.recall:g}")
        raise NotImplementedError(
            f"{self.n:,} vectors of {self.width} numbers at recall {self.recall:g} do not fit memory={budget:,}: "
            f"{'; '.join(self.reasons) or 'the smallest codes take more'}; less recall or more memory works"
        )

    def self_test(self, encoding: str, rerank: str | None) -> float:
        """The share of the true neighbors that codes find among all vectors of a sample."""
        queries, rows, truth = self._trial()
        index = Index(self.width, metric=self.metric, encoding=encoding, rerank=rerank, seed=self.seed)
        index._native.train(len(rows), rows, None, self.n_threads, None)
        index._add(rows, None, replace=False, n_threads=self.n_threads)
        found = index._native.snapshot().search(queries, truth.shape[1], (None, None), None, self.n_threads, None)[0]
        return float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())

    def _trial(self) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64]]:
        if not hasattr(self, "_kept_trial"):
            size = min(self.n, _TRIAL_ROWS + _TRIAL_QUERIES)
            positions = self.random.choice(self.n, size=size, replace=False)
            n_queries = min(_TRIAL_QUERIES, max(1, size // 4))
            queries = self._rows(positions[:n_queries]).astype(np.float32)
            rows = self._rows(positions[n_queries:])
            truth = knn(rows, queries, min(self.k, len(rows)), metric=self.metric, n_threads=self.n_threads).ids
            self._kept_trial = queries, rows, truth
        return self._kept_trial

    def _calibrate(self, index: Index, ids: NDArray[Any], queries: Matrix | None) -> None:
        snapshot = index._native.snapshot()
        if queries is None:
            if not len(self.held):
                return
            values = self._rows(self.held).astype(np.float32)
            held_ids = ids[self.held]
            snapshot = snapshot.without(held_ids.tolist() if held_ids.dtype == object else held_ids, self.report)
        else:
            values = arrays.ready(queries, arrays.FLOAT32, "queries")
        truth = self._truth(values, ids, len(snapshot))
        index._calibrate(snapshot, values, truth, self.k, self.recall, self.n_threads, self.report)

    def _truth(
        self, queries: NDArray[np.float32], ids: NDArray[Any], n: int
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The true neighbors among the vectors that are not held out."""
        # Many neighbors are measured on few of the queries.
        ks = {*KS, self.k}
        n_large = queries_for(max(ks), len(queries))
        positions, distances = self._nearest_kept(queries[:n_large], min(max(ks), n))
        if n_large < len(queries):
            of_all = max(k for k in ks if queries_for(k, len(queries)) == len(queries))
            few = self._nearest_kept(queries[n_large:], min(of_all, n))
            n_columns = min(few[0].shape[1], positions.shape[1])
            rest = np.zeros((len(queries) - n_large, positions.shape[1]), positions.dtype)
            beyond = np.full(rest.shape, np.inf, distances.dtype)
            rest[:, :n_columns], beyond[:, :n_columns] = (found[:, :n_columns] for found in few)
            positions, distances = np.concatenate([positions, rest]), np.concatenate([distances, beyond])
        return ids[positions], distances

    def _nearest_kept(self, queries: NDArray[np.float32], wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and distances of at least so many neighbors among the vectors that are not held out."""
        extra = 8 + math.ceil(4 * wanted * len(self.held) / max(1, self.n))
        while True:
            found = knn(
                self.vectors, queries, min(self.n, wanted + extra), metric=self.metric, n_threads=self.n_threads
            )
            positions, distances = found
            if not len(self.held):
                return positions, distances
            kept = ~np.isin(positions, self.held)
            enough = int(kept.sum(axis=1).min())
            if enough >= wanted or wanted + extra >= self.n:
                # Those that are kept first, in their order.
                order = np.argsort(~kept, axis=1, kind="stable")[:, :enough]
                return np.take_along_axis(positions, order, axis=1), np.take_along_axis(distances, order, axis=1)
            extra *= 4


def _graph_within(budget: int | None, own: str, encoding: str, n: int, dim: int) -> Graph | None:
    """The usual graph, or one of fewer links, if it goes with the encoding and into the memory."""
    if encoding == "auto":
        # Codes that nothing is compared with again take least of what keeps nearly all neighbors.
        codes: tuple[str, str | None] = (own, None) if own in ("uint8", "int8") else _WALKED_COMPACT[-1]
    else:
        codes = encoding, "scalar8" if encoding == "scalar4" else None
    if is_short(codes[0]) and codes[0] not in ("scalar8", "scalar4"):
        return None
    graphs = (Graph(), Graph(_COMPACT_DEGREE))
    return next((one for one in graphs if budget is None or n * row_bytes(*codes, one, dim) <= budget), None)


def lists_for(n: int, workload: str) -> int:
    """How many lists suit `n` vectors.

    Single queries go to small lists, since they share none. Batches are as fast with half or twice as many (photos,
    recall 0.95, thousand queries a second: 512 lists 82, 1 024 lists 85, 2 048 lists 82), and fewer are built faster:
    k-means takes time in proportion to their square.
    """
    per_root = 1.75 if workload == "batch" else 2.5
    return min(1 << 20, max(32, -(-int(per_root * math.sqrt(n)) // 32) * 32))


def row_bytes(encoding: str, rerank: str | None, structure: Structure, dim: int) -> float:
    """Bytes of one vector: in the lists or beside its links, and beside these."""
    short = is_short(encoding)
    if isinstance(structure, Graph):
        links = 4 * structure.degree + 8
        if encoding in ("uint8", "int8"):
            return links + dim
        kept = rerank if short else encoding
        beside = 0 if kept is None else code_bytes(kept, dim) + (8 if is_short(kept) else 0)
        return links + code_bytes(encoding if short else "scalar4", dim) + beside
    copies = 1 + (structure.spill if isinstance(structure, Lists) else 0.0)
    in_lists = code_bytes(encoding if short or encoding in ("uint8", "int8") else "scalar8", dim) + 12
    if encoding in ("uint8", "int8"):
        return copies * in_lists + 4
    if not short:
        return copies * in_lists + code_bytes(encoding, dim)
    beside = 4 if rerank is None else code_bytes(rerank, dim) + (8 if is_short(rerank) else 0)
    return copies * in_lists + beside


def code_bytes(encoding: str, dim: int) -> int:
    """Bytes of one vector, or of its code."""
    whole = {"float32": 4 * dim, "float16": 2 * dim, "bfloat16": 2 * dim, "int8": dim, "uint8": dim, "scalar8": dim}
    if encoding in whole:
        return whole[encoding]
    if encoding == "scalar4":
        return -(-dim // 2)
    numbers = [int(number) for number in encoding[encoding.index("(") + 1 : -1].split(",")]
    return -(-(numbers[0] * numbers[1] if len(numbers) == 2 else numbers[0] * dim) // 8)


def _bytes(memory: object) -> int:
    if isinstance(memory, (int, np.integer)) and not isinstance(memory, bool) and memory > 0:
        return int(memory)
    raise ArgumentError(f"memory must be a number of bytes above 0 or 'low', got {memory!r}")


def _smaller(encoding: str, metric: str) -> tuple[str, ...]:
    smaller = {
        "float32": ("float16", "bfloat16", "int8", "uint8"),
        "float16": ("int8", "uint8"),
        "bfloat16": ("int8", "uint8"),
    }
    short = () if metric in _UNLISTABLE else ("scalar8", "scalar4", "rabitq(1)")
    return smaller.get(encoding, ()) + short
