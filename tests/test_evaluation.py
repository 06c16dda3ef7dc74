"""Recall."""

from __future__ import annotations

from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import ArgumentError, Neighbors, recall


def neighbors(ids: Any, distances: Any) -> Neighbors:
    return Neighbors(np.array(ids), np.array(distances, np.float32))


TRUTH = neighbors([[0, 1, 2], [3, 4, 5]], [[0, 1, 2], [0, 1, 1]])


def test_by_distance_ties_count() -> None:
    assert recall(TRUTH, TRUTH) == 1
    # 9 is as near as 4 and 5; 8 is farther than the third.
    assert recall(neighbors([[0, 1, 8], [3, 9, 4]], [[0, 1, 2.5], [0, 1, 1]]), TRUTH) == pytest.approx(5 / 6)
    assert recall(neighbors([[0, 1, 8], [3, 9, 4]], [[0, 1, 2.5], [0, 1, 1]]), TRUTH, k=2) == 1
    assert recall(neighbors([[7, 8, 9]] * 2, [[5, 5, 5]] * 2), TRUTH) == 0


def test_by_id() -> None:
    assert recall(TRUTH.ids, TRUTH) == recall(TRUTH, TRUTH.ids) == recall(TRUTH.ids.tolist(), TRUTH.ids) == 1
    assert recall([[2, 1, 0], [9, 3, 4]], TRUTH) == pytest.approx(5 / 6)
    # The same ids in another row are not found.
    assert recall(TRUTH.ids[::-1], TRUTH.ids) == 0
    assert recall(TRUTH.ids.astype(np.int32), TRUTH.ids.astype(np.uint64)) == 1


def test_one_query() -> None:
    truth = neighbors([0, 1, 2, 3], [0, 1, 2, 3])
    assert recall(neighbors([0, 1], [0, 1]), truth) == 0.5
    assert recall(neighbors([0, 1], [0, 1]), truth, k=2) == 1
    assert recall([0, 9], truth.ids, k=2) == 0.5
    # There were only four to find.
    assert recall(truth, truth, k=10) == 1


def test_an_id_that_comes_twice_counts_once() -> None:
    assert recall(neighbors([[0, 0, 0], [3, 3, 4]], [[0, 0, 0], [0, 0, 1]]), TRUTH) == pytest.approx((1 + 2) / 6)
    assert recall([[0, 0, 0], [3, 3, 4]], TRUTH) == pytest.approx((1 + 2) / 6)


def test_empty_places() -> None:
    inf = np.inf
    truth = neighbors([[0, 1, -1]], [[0, 1, inf]])
    assert recall(truth, truth) == 1
    assert recall(neighbors([[0, -1, -1]], [[0, inf, inf]]), truth) == 0.5
    assert recall([[0, -1, -1]], truth.ids) == 0.5
    nothing = neighbors([[-1, -1]], [[inf, inf]])
    assert recall(nothing, nothing) == recall(nothing.ids, nothing.ids) == 1


def test_text_ids() -> None:
    truth = np.array([["a", "b"], ["c", ""]], object)
    assert recall(truth, truth) == 1
    assert recall([["b", "x"], ["c", ""]], truth) == 0.75
    with pytest.raises(ArgumentError, match="ids of one kind"):
        recall([[1, 2], [3, 4]], truth)


def test_found_may_be_narrower_than_truth() -> None:
    assert recall(TRUTH.ids[:, :2], TRUTH.ids) == 1
    with pytest.raises(ArgumentError, match=r"truth must have at least k=3 columns, got shape \(2, 2\)"):
        recall(TRUTH.ids, TRUTH.ids[:, :2])
    # Asked for three, two came.
    assert recall(TRUTH.ids[:, :2], TRUTH.ids, k=3) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("found", "truth", "k", "message"),
    [
        ([[1]], [[1], [2]], None, r"of the same queries, got shapes \(1, 1\) and \(2, 1\)"),
        ([1], [[1]], None, "of the same queries"),
        ([[1.5]], [[1]], None, "found must be Neighbors or ids of shape"),
        ([[1]], [[[1]]], None, "truth must be Neighbors or ids of shape"),
        ([[1]], [[1]], 0, "k must be an integer of at least 1"),
        (np.empty((0, 1), int), np.empty((0, 1), int), 1, "at least one query"),
    ],
)
def test_bad_input(found: Any, truth: Any, k: int | None, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        recall(found, truth, k)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_equals_sets(seed: int, k: int, n_queries: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth = ([rng.permutation(12)[:k] for _ in range(n_queries)] for _ in range(2))
    expected = np.mean([len(set(a) & set(b)) / k for a, b in zip(found, truth, strict=True)])
    assert recall(np.array(found), np.array(truth)) == pytest.approx(expected)


def test_rounded_truth_counts(rng: np.random.Generator) -> None:
    """Distances that another library computed in float32 are as good as ours."""
    vectors = rng.standard_normal((500, 32)).astype(np.float32)
    found = nearest.knn(vectors, vectors[:50] + 1, 10)
    nudged = np.nextafter(found.distances, np.float32(0))
    assert recall(found, Neighbors(found.ids, nudged)) == 1
