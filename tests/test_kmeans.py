"""k-means: its objective against float64, laws, and data that are easy to get wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import ArgumentError, arrays
from strategies import KINDS, make_vectors


def squared(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """All squared distances, in float64 from the differences, shape (n, k)."""
    x, c = vectors.astype(np.float64), centroids.astype(np.float64)
    return np.stack([((x - each) ** 2).sum(axis=1) for each in c], axis=1)


def cost(vectors: np.ndarray, centroids: np.ndarray) -> float:
    return float(squared(vectors, centroids).min(axis=1).mean())


def plain(vectors: np.ndarray, k: int, n_iterations: int, rng: np.random.Generator) -> float:
    """Lloyd's iterations in float64 from random vectors."""
    centroids = vectors[rng.choice(len(vectors), k, replace=False)].astype(np.float64)
    for _ in range(n_iterations):
        nearest_one = squared(vectors, centroids).argmin(axis=1)
        for place in np.unique(nearest_one):
            centroids[place] = vectors[nearest_one == place].mean(axis=0, dtype=np.float64)
    return cost(vectors, centroids)


def groups(rng: np.random.Generator, n: int, dim: int, n_groups: int, spread: float = 0.4) -> np.ndarray:
    places = rng.standard_normal((n_groups, dim))
    return (places[rng.integers(0, n_groups, n)] + spread * rng.standard_normal((n, dim))).astype(np.float32)


def same(found: nearest.KMeans, expected: nearest.KMeans) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, dim = draw(st.integers(1, 200)), draw(st.integers(1, 60))
    encoding = draw(st.sampled_from(["float32", "float16", "uint8", "int8"]))
    vectors = make_vectors(rng, n, dim, draw(st.sampled_from(KINDS)), encoding)
    return vectors.astype(encoding), draw(st.integers(1, n))


@given(problems(), st.integers(1, 6), st.booleans(), st.booleans())
def test_the_objective_is_the_cost_of_the_centroids_before(
    problem: tuple[np.ndarray, int], n_iterations: int, balanced: bool, weighted: bool
) -> None:
    vectors, k = problem
    weights = np.random.default_rng(k).integers(1, 4, len(vectors)) if weighted else np.ones(len(vectors))
    options: dict[str, Any] = {"balanced": False, "weights": weights if weighted else None}
    before = nearest.kmeans(vectors, k, n_iterations=n_iterations, **options)
    assert before.centroids.shape == (k, vectors.shape[1])
    assert before.centroids.dtype == np.float32
    assert 1 <= len(before.objective) <= n_iterations
    assert before.sizes.sum() == len(vectors)
    assert np.isfinite(before.centroids).all()
    after = nearest.kmeans(vectors, k, n_iterations=n_iterations + 1, **options)
    if balanced:
        balanced_one = nearest.kmeans(vectors, k, n_iterations=n_iterations, **{**options, "balanced": True})
        assert balanced_one.sizes.sum() == len(vectors)
    # Centroids that were moved into another cluster are put elsewhere after the last iteration than in between.
    if len(after.objective) <= n_iterations or (before.sizes == 0).any():
        return
    least = squared(vectors, before.centroids).min(axis=1)
    exact = float((weights * least).sum() / weights.sum())
    noise = 1e-12 * float((vectors.astype(np.float64) ** 2).sum(axis=1).max())
    assert exact * (1 - 1e-6) - noise <= after.objective[-1] <= exact * 1.02 + noise


@given(problems(), st.integers(0, 2**64 - 1), st.booleans(), st.booleans(), st.sampled_from([None, True]))
def test_one_seed_gives_the_same_bits(
    problem: tuple[np.ndarray, int], seed: int, spherical: bool, balanced: bool, hierarchical: bool | None
) -> None:
    vectors, k = problem
    k = min(k, 40)
    options: dict[str, Any] = {
        "seed": seed,
        "spherical": spherical,
        "balanced": balanced,
        "hierarchical": hierarchical,
        "max_points_per_centroid": 5,
        "weights": np.arange(len(vectors)) % 5 + 1,
    }
    expected = nearest.kmeans(vectors, k, n_threads=1, **options)
    for n_threads in (2, 3, None):
        same(nearest.kmeans(vectors, k, n_threads=n_threads, **options), expected)
    floats = vectors.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK_BYTES", 1000)
        for other in (floats, floats.astype(np.float64), np.asfortranarray(floats), floats[::-1][::-1]):
            same(nearest.kmeans(other, k, **options), expected)
            ids, distances = expected.assign(other)
            np.testing.assert_array_equal(ids, expected.assign(vectors).ids)
            np.testing.assert_array_equal(distances, expected.assign(vectors, n_threads=1).distances)


@given(problems())
def test_assigning_measures_exactly_and_finds_the_nearest_or_nearly(problem: tuple[np.ndarray, int]) -> None:
    vectors, k = problem
    found = nearest.kmeans(vectors, k, n_iterations=2)
    ids, distances = found.assign(vectors)
    assert ids.dtype == np.int64
    assert distances.dtype == np.float32
    truth = squared(vectors, found.centroids)
    own = truth[np.arange(len(vectors)), ids]
    np.testing.assert_allclose(distances, own, rtol=1e-6, atol=1e-37)
    noise = 1e-12 * float((vectors.astype(np.float64) ** 2).sum(axis=1).max())
    assert own.sum() <= truth.min(axis=1).sum() * 1.001 + noise * len(vectors)
    one_by_one = np.array([found.assign(vector[None]).ids[0] for vector in vectors])
    np.testing.assert_array_equal(one_by_one, ids)


@pytest.mark.parametrize(("dim", "k"), [(2, 30), (20, 50), (100, 64)])
def test_as_good_as_plain_iterations(rng: np.random.Generator, dim: int, k: int) -> None:
    vectors = groups(rng, 4000, dim, 100)
    expected = np.median([plain(vectors, k, 10, rng) for _ in range(5)])
    for options, most in ({}, 1.03), ({"balanced": True}, 1.1), ({"hierarchical": True}, 1.03):
        got = np.median(
            [cost(vectors, nearest.kmeans(vectors, k, seed=seed, **options).centroids) for seed in range(5)]
        )
        assert got <= expected * most, options


def test_at_a_fixed_point_centroids_are_means(rng: np.random.Generator) -> None:
    vectors = groups(rng, 3000, 7, 12, 0.1)
    found = nearest.kmeans(vectors, 12, n_iterations=500)
    assert len(found.objective) < 500
    ids, _ = found.assign(vectors)
    # Up to a few vectors that lie between two centroids, as near as 8 bits tell.
    assert np.abs(np.bincount(ids, minlength=12) - found.sizes).sum() < 30
    for place in range(12):
        np.testing.assert_allclose(found.centroids[place], vectors[ids == place].mean(axis=0), 0.01, 0.02)
    assert found.objective[-1] == pytest.approx(cost(vectors, found.centroids), rel=1e-3)


def test_balanced_sizes(rng: np.random.Generator) -> None:
    vectors = np.concatenate([groups(rng, 9000, 12, 5, 0.2), groups(rng, 900, 12, 200, 0.5)])
    plain_one, found = (nearest.kmeans(vectors, 100, n_iterations=15, balanced=balanced) for balanced in (False, True))
    largest = np.bincount(found.assign(vectors).ids).max() / 99
    assert largest <= 2.2 < np.bincount(plain_one.assign(vectors).ids).max() / 99
    assert found.objective[-1] < plain_one.objective[-1] * 1.25


def test_directions_alone_count_on_the_sphere(rng: np.random.Generator) -> None:
    vectors = groups(rng, 1000, 8, 12, 0.2)
    found = nearest.kmeans(vectors, 12, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, rtol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert found.objective[-1] == pytest.approx(cost(unit, found.centroids), rel=0.02)
    assert found.objective[-1] < 2
    longer = vectors * np.float32(2) ** rng.integers(-9, 9, (1000, 1)).astype(np.float32)
    other = nearest.kmeans(longer, 12, spherical=True)
    assert other.objective[-1] == pytest.approx(found.objective[-1], rel=1e-3)
    np.testing.assert_array_equal(other.assign(longer).ids, found.assign(vectors).ids)


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("value", [0.0, -3.25, 1e6, 1e15, 1e-20])
def test_copies_of_one_vector(k: int, value: float) -> None:
    found = nearest.kmeans(np.full((1000, 3), value), k)
    np.testing.assert_array_equal(found.centroids, np.full((k, 3), value, np.float32))
    assert (found.objective == 0).all()
    assert sorted(found.sizes)[:-1] == [0] * (k - 1)


def test_odd_shapes(rng: np.random.Generator) -> None:
    for n, dim in [(1, 1), (2, 1), (40, 1), (3, 4096), (250, 4096)]:
        vectors = groups(rng, n, dim, 5)
        for k in {1, min(n, 5), min(n, 40)}:
            found = nearest.kmeans(vectors, k)
            assert found.centroids.shape == (k, dim)
            if k == n:
                assert cost(vectors, found.centroids) == 0
            if k == 1:
                np.testing.assert_allclose(found.centroids[0], vectors.mean(axis=0, dtype=np.float64), 1e-5, 1e-6)
    vectors = groups(rng, 500, 6, 5)
    vectors[:, 2] = 7.5
    assert (nearest.kmeans(vectors, 5).centroids[:, 2] == 7.5).all()
    few = nearest.kmeans(vectors, 5).assign(vectors[:0])
    assert few.ids.shape == few.distances.shape == (0,)


def test_fewer_different_vectors_than_centroids(rng: np.random.Generator) -> None:
    different = groups(rng, 6, 5, 6)
    vectors = different[rng.integers(0, 6, 2000)]
    for seed in range(5):
        found = nearest.kmeans(vectors, 20, n_iterations=30, seed=seed)
        assert cost(vectors, found.centroids) == 0
        assert (found.sizes > 0).sum() == 6


def test_what_is_used_of_many_vectors(rng: np.random.Generator) -> None:
    vectors = groups(rng, 5000, 4, 10)
    found = nearest.kmeans(vectors, 10, max_points_per_centroid=20)
    assert found.sizes.sum() == 200
    heavy = nearest.kmeans(vectors, 10, weights=np.where(np.arange(5000) < 100, 1.0, 0.0))
    expected = nearest.kmeans(vectors, 10, weights=np.where(np.arange(5000) < 100, 2.5, 0.0))
    np.testing.assert_allclose(heavy.centroids, expected.centroids, rtol=1e-6)
    inside = squared(vectors[:100], heavy.centroids).min(axis=1).mean()
    assert inside < cost(vectors, heavy.centroids)


def test_it_unpacks_prints_and_pickles(rng: np.random.Generator) -> None:
    found = nearest.kmeans(groups(rng, 100, 4, 3), 3)
    centroids, objective, sizes = found
    assert (len(centroids), len(objective), len(sizes)) == (3, len(found.objective), 3)
    assert repr(found).startswith("KMeans(k=3, dim=4, objective=")
    same(pickle.loads(pickle.dumps(found)), found)


@pytest.mark.parametrize(
    ("k", "options", "text"),
    [
        (0, {}, "k must be an integer of at least 1, got 0"),
        (21, {}, "k must be at most the number of vectors, 20, got 21"),
        (2, {"n_iterations": 0}, "n_iterations"),
        (2, {"max_points_per_centroid": 0}, "max_points_per_centroid"),
        (2, {"seed": -1}, "seed"),
        (2, {"seed": True}, "seed"),
        (2, {"n_threads": 0}, "n_threads"),
        (2, {"spherical": 1}, "spherical must be True or False, got 1"),
        (2, {"balanced": None}, "balanced"),
        (2, {"hierarchical": "yes"}, "hierarchical"),
        (2, {"weights": np.ones(19)}, r"weights must have shape \(20,\)"),
        (2, {"weights": -np.ones(20)}, "weights must be finite and not negative"),
        (2, {"weights": np.full(20, np.nan)}, "weights must be finite and not negative"),
        (2, {"weights": np.zeros(20)}, "weights must not all be 0"),
    ],
)
def test_wrong_arguments(k: int, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        nearest.kmeans(np.eye(20), k, **options)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("most", [1, 256])
def test_wrong_vectors_are_found_wherever_they_are(dtype: str, most: int) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        vectors = np.ones((1000, 3), dtype)
        vectors[777, 1] = wrong
        with pytest.raises(ArgumentError, match=r"row 777"):
            nearest.kmeans(vectors, 5, max_points_per_centroid=most)
        with pytest.raises(ArgumentError, match=r"row 777"):
            nearest.kmeans(np.eye(3), 2).assign(vectors)
    vectors[777] = 0
    with pytest.raises(ArgumentError, match=r"zero.*row 777"):
        nearest.kmeans(vectors, 5, spherical=True, max_points_per_centroid=most)
    assert nearest.kmeans(vectors, 5, max_points_per_centroid=most).centroids.shape == (5, 3)
    for shape in [(3,), (0, 3), (3, 0), (2, 3, 4)]:
        with pytest.raises(ArgumentError):
            nearest.kmeans(np.ones(shape, dtype), 1)
    with pytest.raises(ArgumentError, match=r"vectors must have shape \(n, 3\)"):
        nearest.kmeans(np.eye(3), 2).assign(np.ones((4, 2), dtype))


class Stop(Exception):
    pass


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("hierarchical", [False, True])
def test_progress_rises_and_can_stop_it(rng: np.random.Generator, n_threads: int, hierarchical: bool) -> None:
    vectors = groups(rng, 100_000, 32, 500, 1.0)
    told: list[tuple[int, int]] = []

    def note(done: int, total: int, stage: str) -> None:
        if stage == "k-means":
            told.append((done, total))

    def stop(done: int, total: int, stage: str) -> None:
        if stage == "k-means":
            raise Stop

    options: dict[str, Any] = {"n_threads": n_threads, "hierarchical": hierarchical}
    nearest.kmeans(vectors, 2000, progress=note, **options)
    assert len({total for _, total in told}) == 1
    assert told == sorted(told)
    assert all(0 <= done <= total for done, total in told)
    with pytest.raises(Stop):
        nearest.kmeans(vectors, 2000, n_iterations=10_000, progress=stop, **options)


def test_ctrl_c_stops_it(run_python: Callable[..., Any]) -> None:
    run_python(
        """
import os, signal, threading
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((200_000, 32)).astype(np.float32)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    nearest.kmeans(vectors, 1000, n_iterations=1_000_000)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("was not stopped")
"""
    )


@pytest.mark.parametrize("name", ["wordnet", "photos"])
def test_real_vectors(name: str, shared_data: Callable[[str], dict[str, np.ndarray]]) -> None:
    vectors = shared_data(name)["base"][:20_000]
    found = nearest.kmeans(vectors, 100, n_iterations=8)
    floats = vectors.astype(np.float64)
    centroids = found.centroids.astype(np.float64)
    exact = (floats**2).sum(axis=1) + ((centroids**2).sum(axis=1) - 2 * floats @ centroids.T).min(axis=1)
    ids, distances = found.assign(vectors)
    assert distances.mean(dtype=np.float64) == pytest.approx(exact.mean(), rel=1e-5)
    # The objective is that before the last step.
    assert exact.mean() <= found.objective[-1] <= exact.mean() * 1.01
    assert len(np.unique(ids)) == 100
