"""The oracle itself: its metrics by hand, and that its comparison sees what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import distances, same_neighbors

BY_HAND = {
    "euclidean": [5, 0],
    "sqeuclidean": [25, 0],
    "cosine": [1 - 24 / 25, 0],
    "angular": [np.arccos(24 / 25), 0],
    "inner_product": [-24, -25],
    "manhattan": [7, 0],
}


@pytest.mark.parametrize("metric", BY_HAND)
def test_metrics_by_hand(metric: str) -> None:
    query = np.array([[3.0, 4.0]])
    vectors = np.array([[3.0, 4.0], [3.0, 4.0]])
    vectors[0] = [4.0, 3.0] if metric in ("cosine", "angular", "inner_product") else [0.0, 0.0]
    np.testing.assert_allclose(distances(query, vectors, metric), [BY_HAND[metric]], atol=1e-7)


def test_metrics_of_bits_by_hand() -> None:
    bits = np.packbits([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], axis=1)
    np.testing.assert_array_equal(distances(bits[:1], bits, "hamming"), [[0, 2, 2]])
    np.testing.assert_allclose(distances(bits[:1], bits, "jaccard"), [[0, 2 / 3, 1]])
    assert distances(bits[2:], bits[2:], "jaccard") == 0


TRUTH = np.array([[0.0, 1.0, 1.0, 1.0 + 1e-8, 2.0]])


@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 2, 1], [0, 3, 1], [0, 2, 3]])
def test_any_of_equally_distant_ones_will_do(ids: list[int]) -> None:
    same_neighbors(np.array([ids]), np.float32([[0, 1, 1]]), TRUTH, "euclidean", 3)


@pytest.mark.parametrize(
    ("ids", "found", "message"),
    [
        ([0, 1, 4], [0, 1, 2], "farther than the k-th"),
        ([1, 2, 3], [1, 1, 1], "missed"),
        ([0, 1, 1], [0, 1, 1], "comes twice"),
        ([1, 0, 2], [1, 0, 1], "not sorted"),
        ([0, 1, 2], [0, 1, 1.001], "reported"),
        ([0, 1, -1], [0, 1, np.inf], "found, expected 3|of 5"),
        ([0, 1, 5], [0, 1, 1], "of 5"),
    ],
)
def test_what_is_wrong_is_seen(ids: list[int], found: list[float], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        same_neighbors(np.array([ids]), np.float32([found]), TRUTH, "euclidean", 3)


def test_empty_places() -> None:
    truth = np.array([[np.inf, 1.0, np.inf]])
    same_neighbors(np.array([[1, -1]]), np.float32([[1, np.inf]]), truth, "euclidean", 2)
    with pytest.raises(AssertionError, match="expected 1"):
        same_neighbors(np.array([[1, 0]]), np.float32([[1, np.inf]]), truth, "euclidean", 2)
