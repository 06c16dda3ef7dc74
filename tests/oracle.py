"""Brute force in float64, and how its answers are compared with others."""

from __future__ import annotations

import numpy as np

NUMBERS = ("euclidean", "sqeuclidean", "cosine", "angular", "inner_product", "manhattan")
BITS = ("hamming", "jaccard")
METRICS = NUMBERS + BITS


def distances(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """All of them, shape (n_queries, n), as DESIGN.md defines the metrics; bits are packed."""
    return np.array([_to_one(query, vectors, metric) for query in queries]).reshape(len(queries), len(vectors))


def _to_one(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    if metric in BITS:
        q, x = np.unpackbits(query) > 0, np.unpackbits(vectors, axis=1) > 0
        both, either = (x & q).sum(axis=1), (x | q).sum(axis=1)
        return either - both + 0.0 if metric == "hamming" else 1 - np.where(either, both / np.maximum(either, 1), 1.0)
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "manhattan":
        return np.abs(x - q).sum(axis=1)
    if metric in ("euclidean", "sqeuclidean"):
        squared = ((x - q) ** 2).sum(axis=1)
        return squared if metric == "sqeuclidean" else np.sqrt(squared)
    if metric == "inner_product":
        return -(x @ q)
    cosine = np.clip((x @ q) / (np.linalg.norm(x, axis=1) * np.linalg.norm(q)), -1, 1)
    return 1 - cosine if metric == "cosine" else np.arccos(cosine)


def close(truth: np.ndarray, metric: str) -> np.ndarray:
    """How far apart equal distances may be: a few roundings of float32, and what cancellation leaves."""
    # 1 - cos loses what is below 1e-16 of 1, and the angle the root of that; a dot product what is below its terms.
    floor = {"cosine": 1e-14, "angular": 4e-8, "inner_product": 1e-7 * np.abs(truth[np.isfinite(truth)]).max(initial=0)}
    return 3e-7 * np.abs(truth) + floor.get(metric, 1e-37)


def same_neighbors(ids: np.ndarray, found: np.ndarray, truth: np.ndarray, metric: str, k: int) -> None:
    """Asserts that `ids` and `found` (n_queries, k) are k nearest by `truth`, the distances to all (n_queries, n).

    Within a group of near-equal distances any members and any order will do. What must not be found has distance inf.
    """
    assert ids.shape == found.shape == (len(truth), k)
    for query, (row, row_distances, exact) in enumerate(zip(ids, found, truth, strict=True)):
        n_found = min(k, np.isfinite(exact).sum())
        assert (row[n_found:] == -1).all(), f"query {query}: {(row >= 0).sum()} found, expected {n_found}"
        assert np.isinf(row_distances[n_found:]).all(), f"query {query}: empty places hold {row_distances[n_found:]}"
        row, row_distances = row[:n_found], row_distances[:n_found]
        assert ((row >= 0) & (row < len(exact))).all(), f"query {query}: {row} of {len(exact)}"
        assert len(set(row.tolist())) == n_found, f"query {query}: an id comes twice in {row}"
        assert (np.diff(row_distances) >= 0).all(), f"query {query}: not sorted: {row_distances}"
        slack = close(exact, metric)
        wrong = np.abs(row_distances - exact[row]) > slack[row]
        assert not wrong.any(), f"query {query}: {row_distances[wrong]} reported, {exact[row][wrong]} expected"
        if n_found:
            farthest = np.partition(exact, n_found - 1)[n_found - 1]
            too_far = exact[row] > farthest + 2 * close(farthest, metric)
            assert not too_far.any(), f"query {query}: {row[too_far]} is farther than the k-th"
            nearer = np.flatnonzero(exact < farthest - 2 * close(farthest, metric))
            assert np.isin(nearer, row).all(), f"query {query}: missed {np.setdiff1d(nearer, row)}"
