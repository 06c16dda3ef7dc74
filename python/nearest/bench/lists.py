"""What the benchmarks of lists and graphs have in common: an index to try things on, and rows that belong together."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import Graph, Index
from . import truth
from .adapters.base import list_counts, powers
from .adapters.nearest import build_graph, build_lists
from .data import DataSet

Array = NDArray[Any]

_SAMPLE = 20_000
_ITERATIONS = 6
_BLOCK_ROWS = 1 << 15


def choice(data: DataSet) -> dict[str, Any]:
    """Lists as `lists-batch` tries them: 4 bits a dimension to look through, 8 to compare what was found again."""
    counts = list_counts(len(data.vectors))
    whole = "uint8" if data.vectors.dtype == np.uint8 else "scalar8"
    return {"n_lists": counts[len(counts) // 2], "encoding": "scalar4", "rerank": whole}


def build(data: DataSet, n_threads: int, seed: int, ids: Any = None, structure: str = "lists") -> Index:
    """An index of that kind, or a graph with its usual settings."""
    if structure == "lists":
        return build_lists(data.vectors, data.metric, **choice(data), n_threads=n_threads, seed=seed, ids=ids)
    return build_graph(data.vectors, data.metric, n_threads=n_threads, seed=seed, ids=ids)


def effort_for(index: Index, data: DataSet, recall: float, k: int, n_threads: int) -> int:
    """The least effort, of powers of two, that reaches a recall; the greatest if none does."""
    all_efforts = efforts(index, data, k)
    return next((e for e in all_efforts if recall_at(index, data, k, e, n_threads) >= recall), all_efforts[-1])


def efforts(index: Index, data: DataSet, k: int) -> list[int]:
    """Powers of two that such an index may be searched with."""
    return powers(k, 128 * k) if isinstance(index.structure, Graph) else powers(1, choice(data)["n_lists"])


def recall_at(index: Index, data: DataSet, k: int, effort: int, n_threads: int) -> float:
    """Recall of all queries of a set; ids are rows."""
    found = index.search(data.queries, k, effort=effort, n_threads=n_threads).ids
    return truth.score(data.vectors, data.queries, found, data.truth, data.metric).recall


def speed(index: Index, queries: Array, k: int, seconds: float, **options: Any) -> float:
    """Queries a second, all of them at once, again and again for at least so long."""
    index.search(queries, k, **options)
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        index.search(queries, k, **options)
        times.append(time.perf_counter() - before)
    return len(queries) / float(np.median(times))


def clusters(vectors: Array, n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Which of so many clusters each row belongs to: a few steps of k-means on a sample, by numpy alone."""
    random = np.random.default_rng(seed)
    n_clusters = min(n_clusters, len(vectors))
    sample = vectors[np.sort(random.permutation(len(vectors))[:_SAMPLE])].astype(np.float32)
    centers = sample[random.permutation(len(sample))[:n_clusters]]
    for _ in range(_ITERATIONS):
        which = _nearest_center(sample, centers)
        for number in range(len(centers)):
            members = sample[which == number]
            if len(members):
                centers[number] = members.mean(axis=0)
    return _nearest_center(vectors, centers)


def _nearest_center(vectors: Array, centers: NDArray[np.float32]) -> NDArray[np.int64]:
    half = np.square(centers).sum(axis=1) / 2
    which = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float32)
        which[start : start + len(block)] = np.argmin(half - block @ centers.T, axis=1)
    return which


def along(which: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """`n` rows that fill whole clusters, drawn one after another; of the last one only as many as are needed."""
    order = np.random.default_rng(seed).permutation(int(which.max(initial=0)) + 1)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return np.argsort(ranks[which], kind="stable")[:n]


def closeness(data: DataSet) -> NDArray[np.float32]:
    """How near each row is to the query that is nearest to it: higher is nearer, in a unit of no meaning."""
    queries = _unit(data.queries, data.metric)
    half = np.square(queries).sum(axis=1) / 2 if data.metric in ("euclidean", "sqeuclidean") else 0.0
    found = np.empty(len(data.vectors), np.float32)
    for start in range(0, len(found), _BLOCK_ROWS):
        block = _unit(data.vectors[start : start + _BLOCK_ROWS], data.metric)
        near = np.max(block @ queries.T - half, axis=1)
        near -= np.square(block).sum(axis=1) / 2
        found[start : start + len(block)] = near
    return found


def _unit(rows: Array, metric: str) -> NDArray[np.float32]:
    floats = rows.astype(np.float32)
    if metric in ("cosine", "angular"):
        floats /= np.maximum(np.linalg.norm(floats, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return floats
