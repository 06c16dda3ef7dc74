"""The true neighbors, in float64 and nothing but numpy, and how answers are held against them.

Only ids are believed: distances are computed here, in the same way for everyone, so that no library's rounding, and no
library's idea of a distance, tilts a comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Progress = Callable[[int, int], object]

BITS = ("hamming", "jaccard")
# Distances that were rounded elsewhere to float32 differ by less; what differs by less is one distance.
_ROUNDING = 3e-7
# As `nearest.recall` has it.
_RECALL_ROUNDING = 1e-6
_BLOCK_BYTES = 256 << 20


def distances_to(vectors: Array, query: Array, ids: NDArray[np.int64], metric: str) -> Float64:
    """Distances from one query to the vectors with these ids, shape (len(ids),), straight from their definition."""
    if metric in BITS:
        q, x = np.unpackbits(query), np.unpackbits(vectors[ids], axis=1)
        both = np.count_nonzero(q & x, axis=1).astype(np.float64)
        either = np.count_nonzero(q | x, axis=1).astype(np.float64)
        if metric == "hamming":
            return np.asarray(either - both)
        return 1 - np.where(either > 0, both / np.maximum(either, 1), 1.0)
    q, x = query.astype(np.float64), vectors[ids].astype(np.float64)
    if metric == "manhattan":
        return np.asarray(np.abs(x - q).sum(axis=1))
    if metric in ("euclidean", "sqeuclidean"):
        squared = np.square(x - q).sum(axis=1)
        return np.asarray(squared if metric == "sqeuclidean" else np.sqrt(squared))
    products = (x * q).sum(axis=1)
    if metric == "inner_product":
        return np.asarray(-products)
    if metric not in ("cosine", "angular"):
        raise ArgumentError(f"unknown metric {metric!r}")
    norms = np.sqrt(np.square(x).sum(axis=1) * np.square(q).sum())
    cosine = np.clip(products / np.maximum(norms, np.finfo(np.float64).tiny), -1, 1)
    return np.asarray(1 - cosine if metric == "cosine" else np.arccos(cosine))


def canonical_distances(vectors: Array, queries: Array, ids: NDArray[np.int64], metric: str) -> Float64:
    """Distances of what was found, shape (n_queries, k); inf for ids that are no vector's."""
    distances = np.full(ids.shape, np.inf)
    for row, (query, found) in enumerate(zip(queries, ids, strict=True)):
        there = (found >= 0) & (found < len(vectors))
        distances[row, there] = distances_to(vectors, query, found[there], metric)
    return distances


class _Products:
    """Approximate distances from a block of queries to a block of vectors, by one matrix product in float64.

    `bound` limits how far they are from those of the definition. They are of the cheap kind: squared, or not rooted.
    """

    def __init__(self, queries: Array, metric: str) -> None:
        self.metric = metric
        self.bits = metric in BITS
        self.queries = self._numbers(queries)
        self.squares = np.square(self.queries).sum(axis=1)[:, None]

    def _numbers(self, rows: Array) -> Float64:
        numbers = (np.unpackbits(rows, axis=1) if self.bits else rows).astype(np.float64)
        if self.metric in ("cosine", "angular"):
            norms = np.sqrt(np.square(numbers).sum(axis=1))
            numbers /= np.maximum(norms, np.finfo(np.float64).tiny)[:, None]
        return numbers

    def distances(self, rows: Array, out: Float64) -> float:
        """Into `out`; returns the bound."""
        numbers = self._numbers(rows)
        if self.metric == "manhattan":
            for query, to in zip(self.queries, out, strict=True):
                to[:] = np.abs(numbers - query).sum(axis=1)
            return float(1e-15 * numbers.shape[1] * out.max(initial=0))
        np.matmul(self.queries, numbers.T, out=out)
        squares = np.square(numbers).sum(axis=1)
        if self.metric in ("inner_product", "cosine", "angular"):
            np.negative(out, out=out)
        elif self.metric == "jaccard":
            np.divide(out, np.maximum(self.squares + squares - out, 1), out=out)
            # Two empty sets are alike.
            out[(self.squares == 0) & (squares == 0)[None, :]] = 1
            np.negative(out, out=out)
        else:
            out *= -2
            out += self.squares
            out += squares
        # A few roundings for each of the dim terms, whatever their order.
        size = np.sqrt(self.squares.max(initial=0) * squares.max(initial=0))
        size = max(size, self.squares.max(initial=0), squares.max(initial=0), 1.0 if self.metric == "jaccard" else 0.0)
        return float(8 * np.finfo(np.float64).eps * numbers.shape[1] * size)


def exact_neighbors(
    vectors: Array, queries: Array, k: int, metric: str, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Ids of the `k` nearest by float64 distance, ties by id, shape (n_queries, min(k, n)).

    A matrix product says who can be among them; the definition of the distance decides.
    """
    n = len(vectors)
    k = min(k, n)
    found = np.empty((len(queries), k), np.int64)
    if not k:
        return found
    at_once = max(1, _BLOCK_BYTES // (8 * n))
    dim = vectors.shape[1] * (8 if metric in BITS else 1)
    block = max(1, _BLOCK_BYTES // 4 // (8 * dim))
    for first in range(0, len(queries), at_once):
        some = _Products(queries[first : first + at_once], metric)
        cheap = np.empty((len(some.queries), n))
        bound = 0.0
        for start in range(0, n, block):
            rows = vectors[start : start + block]
            part = np.empty((len(cheap), len(rows)))
            bound = max(bound, some.distances(rows, part))
            cheap[:, start : start + block] = part
        for row, distances in enumerate(cheap):
            limit = np.partition(distances, k - 1)[k - 1] + 2 * bound
            candidates = np.flatnonzero(distances <= limit)
            exact = distances_to(vectors, queries[first + row], candidates, metric)
            found[first + row] = candidates[np.lexsort((candidates, exact))[:k]]
        if progress is not None:
            progress(min(first + at_once, len(queries)), len(queries))
    return found


def _slack(distances: Float64, metric: str, share: float) -> Float64:
    """How far apart distances may be that count as one."""
    # 1 - cos loses what is below 1e-16 of 1, and the angle the root of that; a product what is below its terms.
    size = np.abs(distances[np.isfinite(distances)]).max(initial=0)
    floor = {"cosine": 1e-12, "jaccard": 1e-12, "angular": 4e-8, "inner_product": 1e-9 * size}
    return np.asarray(share * np.abs(distances) + floor.get(metric, 0.0))


class Score(NamedTuple):
    """How good answers are.

    Attributes
    ----------
    recall : float
        The share of the true `k` that was found, by distance: what is no farther than the k-th true neighbor counts.
    recall_low, recall_high : float
        The 95 % interval of its mean over queries.
    recall_worst : float
        The mean over the worst twentieth of the queries.
    n_wrong : int
        Queries whose answer is not the true one, up to ties: neighbors with other distances.
    excess : float
        The most by which a neighbor found is farther than the true one of the same rank, as a share of its distance.
    """

    recall: float
    recall_low: float
    recall_high: float
    recall_worst: float
    n_wrong: int
    excess: float


def score(vectors: Array, queries: Array, found: NDArray[np.int64], truth: NDArray[np.int64], metric: str) -> Score:
    """How good the ids `found` (n_queries, k) are, given the true ones (n_queries, at least k)."""
    n_queries, k = found.shape
    k_true = min(k, len(vectors))
    if len(truth) != n_queries or truth.shape[1] < k_true:
        raise ArgumentError(f"truth must have shape ({n_queries}, at least {k_true}), got {truth.shape}")
    if not n_queries:
        raise ArgumentError("a score needs at least one query, got none")
    true = np.sort(canonical_distances(vectors, queries, truth[:, :k_true].astype(np.int64), metric), axis=1)
    distances = canonical_distances(vectors, queries, _once(found), metric)
    limit = true[:, -1:]
    near = distances <= limit + _slack(limit, metric, _RECALL_ROUNDING)
    recalls = np.minimum(near.sum(axis=1), k_true) / k_true
    ranked = np.sort(distances, axis=1)[:, :k_true]
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(ranked > true, (ranked - true) / np.abs(true), 0.0)
    wrong = np.abs(ranked - true) > _slack(true, metric, _ROUNDING)
    half = 1.96 * float(np.std(recalls)) / np.sqrt(n_queries)
    mean = float(np.mean(recalls))
    worst = np.sort(recalls)[: max(1, n_queries // 20)]
    return Score(
        recall=mean,
        recall_low=max(0.0, mean - half),
        recall_high=min(1.0, mean + half),
        recall_worst=float(np.mean(worst)),
        n_wrong=int(wrong.any(axis=1).sum()),
        excess=float(excess.max(initial=0)),
    )


def _once(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same ids, -1 where one stood further left in its row."""
    ids = ids.copy()
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, np.bool_)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = np.empty_like(repeated)
    np.put_along_axis(again, order, repeated, axis=1)
    ids[again] = -1
    return ids
