"""Exact search of arrays: `nearest.knn` against brute force, and the laws that exactness brings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import ArgumentError, _native, arrays
from oracle import BITS, METRICS, NUMBERS, distances, same_neighbors
from strategies import Case, cases, make_vectors


def same_bits(found: nearest.Neighbors, expected: nearest.Neighbors) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances.view(np.uint32), expected.distances.view(np.uint32))
    np.testing.assert_array_equal(found.counts, expected.counts)


@given(cases(), st.integers(1, 40))
def test_equals_brute_force(case: Case, k: int) -> None:
    found = nearest.knn(case.vectors, case.queries, k, metric=case.metric)
    truth = distances(case.queries, case.vectors, case.metric)
    same_neighbors(found.ids, found.distances, truth, case.metric, k)
    assert found.counts.tolist() == [min(k, len(case.vectors))] * len(case.queries)


@given(cases(), st.integers(1, 20), st.sampled_from([1, 2, 3]), st.integers(1, 9))
def test_threads_and_batches_change_no_bit(case: Case, k: int, n_threads: int, batch: int) -> None:
    whole = nearest.knn(case.vectors, case.queries, k, metric=case.metric)
    same_bits(nearest.knn(case.vectors, case.queries, k, metric=case.metric, n_threads=n_threads), whole)
    for start in range(0, len(case.queries), batch):
        rows = slice(start, start + batch)
        part = nearest.knn(case.vectors, case.queries[rows], k, metric=case.metric, n_threads=n_threads)
        np.testing.assert_array_equal(part.ids, whole.ids[rows])
        np.testing.assert_array_equal(part.distances, whole.distances[rows])
    for row, query in enumerate(case.queries):
        one = nearest.knn(case.vectors, query, k, metric=case.metric, n_threads=n_threads)
        np.testing.assert_array_equal(one.ids, whole.ids[row, : len(one.ids)])
        np.testing.assert_array_equal(one.distances, whole.distances[row, : len(one.ids)])


@given(cases(), st.integers(1, 20), st.integers(1, 50), st.integers(1, 4))
def test_conversion_in_blocks_changes_no_bit(case: Case, k: int, rows: int, query_rows: int) -> None:
    if case.metric in BITS:
        return
    whole = nearest.knn(case.vectors, case.queries, k, metric=case.metric)
    width = 4 * case.dim
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK_BYTES", min(rows, query_rows) * width)
        same_bits(
            nearest.knn(case.vectors.astype(np.float64), case.queries.astype(">f4"), k, metric=case.metric), whole
        )
        if len(case.queries):
            one = nearest.knn(case.vectors.astype(np.float64), case.queries[0], k, metric=case.metric)
            np.testing.assert_array_equal(one.ids, whole.ids[0, : len(one.ids)])
            assert len(one.ids) == min(k, len(case.vectors))


@given(cases(min_n=1), st.integers(0, 2**32 - 1))
def test_permuted_vectors_give_permuted_ids(case: Case, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(case.vectors))
    k = len(case.vectors)
    found = nearest.knn(case.vectors, case.queries, k, metric=case.metric)
    permuted = nearest.knn(case.vectors[order], case.queries, k, metric=case.metric)
    np.testing.assert_array_equal(permuted.distances, found.distances)
    for row in range(len(case.queries)):
        for value in np.unique(found.distances[row]):
            tied = found.distances[row] == value
            assert set(order[permuted.ids[row, tied]]) == set(found.ids[row, tied])


@given(cases(min_n=2))
def test_ties_stand_in_order_of_position(case: Case) -> None:
    twice = np.concatenate([case.vectors, case.vectors])
    found = nearest.knn(twice, case.queries, len(twice), metric=case.metric)
    for ids, row in zip(found.ids, found.distances, strict=True):
        assert (np.lexsort((ids, row)) == np.arange(len(ids))).all()


@given(st.sampled_from(NUMBERS), st.integers(0, 2**32 - 1))
def test_element_types_agree(metric: str, seed: int) -> None:
    vectors = make_vectors(np.random.default_rng(seed), 70, 37, "grid", "int8")
    queries = vectors[:5] + np.float32(0.5)
    expected = nearest.knn(vectors.astype(np.float32), queries, 9, metric=metric)
    for dtype in ("f8", "f2", "i1", "i2", "i8"):
        same_bits(nearest.knn(vectors.astype(dtype), queries.astype("f8"), 9, metric=metric), expected)
    if metric not in ("cosine", "angular"):  # masked vectors may be zero
        unsigned = vectors.view(np.uint8) & 7
        expected = nearest.knn(unsigned.astype(np.float32), queries, 9, metric=metric)
        same_bits(nearest.knn(unsigned, queries, 9, metric=metric), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_no_vectors_and_no_queries(metric: str) -> None:
    dtype = np.uint8 if metric in BITS else np.float32
    none, some = np.empty((0, 3), dtype), np.ones((2, 3), dtype)
    assert nearest.knn(none, some[0], metric=metric).ids.shape == (0,)
    assert nearest.knn(none, some, 4, metric=metric).ids.tolist() == [[-1] * 4] * 2
    assert nearest.knn(some, none, 4, metric=metric).ids.shape == (0, 4)
    assert nearest.knn(none, none, 4, metric=metric).distances.shape == (0, 4)
    assert nearest.knn(none.astype("f8") if dtype == np.float32 else none, some, metric=metric).counts.tolist() == [
        0,
        0,
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_every_length(metric: str) -> None:
    for dim in range(1, 131):
        rng = np.random.default_rng(dim)
        vectors = make_vectors(rng, 11, dim, "normal", "binary" if metric in BITS else "float32")
        found = nearest.knn(vectors, vectors[:3], 4, metric=metric)
        same_neighbors(found.ids, found.distances, distances(vectors[:3], vectors, metric), metric, 4)


def test_k_may_be_huge_for_one_query() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert len(nearest.knn(vectors, vectors[0], 2**62).ids) == 3
    with pytest.raises(MemoryError, match=r"k=4611686018427387904 give a result of .* bytes, and .* are available"):
        nearest.knn(vectors, vectors, 2**62)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        ({"k": -3}, "k must be an integer of at least 1, got -3"),
        ({"k": 2.0}, "k must be an integer of at least 1, got 2.0"),
        ({"k": True}, "k must be an integer of at least 1, got True"),
        ({"k": None}, "k must be an integer of at least 1, got None"),
        ({"k": 2**63}, "k must be an integer of at least 1"),
        ({"n_threads": 0}, "n_threads must be an integer of at least 1, got 0"),
        ({"n_threads": "2"}, "n_threads must be an integer of at least 1, got '2'"),
        ({"metric": "l2"}, "metric must be one of euclidean, sqeuclidean,"),
        ({"metric": None}, "metric must be one of"),
        ({"metric": "hamming"}, "vectors must be uint8, bits packed by numpy.packbits, got float32"),
        ({"queries": np.ones((2, 3))}, "queries must have shape (n, 4) or (4,), got (2, 3)"),
        ({"queries": np.ones((1, 2, 4))}, "queries must have shape (n, 4) or (4,), got (1, 2, 4)"),
        ({"vectors": np.ones(4)}, "vectors must have shape (n, dim), got (4,)"),
        ({"vectors": np.ones((3, 0))}, "vectors must have shape (n, dim), got (3, 0)"),
        ({"queries": np.float32([1, np.nan, 0, 0])}, "queries"),
        ({"vectors": np.float32([[1, np.inf, 0, 0]])}, "vectors"),
        ({"vectors": np.float64([[1, np.nan, 0, 0]])}, "vectors"),
        ({"metric": "cosine", "queries": np.zeros(4)}, "queries"),
        ({"metric": "angular", "vectors": np.zeros((2, 4))}, "vectors"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    good = {"vectors": np.ones((5, 4), np.float32), "queries": np.ones((2, 4), np.float32), "k": 2}
    nearest.knn(**good)
    with pytest.raises(ArgumentError) as refused:
        nearest.knn(**{**good, **change})
    assert message in str(refused.value)


def test_far_from_the_origin_everything_finds_itself(rng: np.random.Generator) -> None:
    """What a float32 dot product cannot tell apart: Faiss finds 5 % here."""
    vectors = (100 + 0.1 * rng.standard_normal((12_000, 64))).astype(np.float32)
    expected = nearest.knn(vectors, vectors[:1000], 3, n_threads=1)
    same_neighbors(
        expected.ids[:20], expected.distances[:20], distances(vectors[:20], vectors, "euclidean"), "euclidean", 3
    )
    for n_threads in (1, 2):
        everything = nearest.knn(vectors, vectors, 3, n_threads=n_threads)
        np.testing.assert_array_equal(everything.ids[:, 0], np.arange(12_000))
        same_bits(nearest.knn(vectors, vectors[:1000], 3, n_threads=n_threads), expected)
        for batch in (1, 7):
            for start in range(0, 210, batch):
                found = nearest.knn(vectors, vectors[start : start + batch], 3, n_threads=n_threads)
                np.testing.assert_array_equal(found.ids, expected.ids[start : start + batch])
                np.testing.assert_array_equal(found.distances, expected.distances[start : start + batch])
        single = nearest.knn(vectors, vectors[5], 3, n_threads=n_threads)
        np.testing.assert_array_equal(single.distances, expected.distances[5])


LEVELS = """
import hashlib, json, sys
import numpy as np, nearest
from nearest import _native
sys.path.insert(0, {tests!r})
from strategies import KINDS, make_vectors
from oracle import BITS, METRICS
digest = hashlib.sha256()
for metric in METRICS:
    for encoding in ("binary",) if metric in BITS else ("float32", "float16", "bfloat16", "int8", "uint8"):
        for kind in ("normal",) if metric in BITS else KINDS:
            for dim in (1, 7, 16, 33, 64, 129):
                rng = np.random.default_rng(dim)
                vectors = make_vectors(rng, 150, dim, kind, encoding)
                queries = make_vectors(rng, 20, dim, kind, "binary" if metric in BITS else "float32")
                index = nearest.Index(dim, metric=metric, encoding=encoding)
                index.add(vectors)
                found = [index.search(queries, 10), index.search(queries[0], 10)]
                found.append(nearest.knn(vectors, queries, 9, metric=metric))
                for part in (part for each in found for part in each):
                    digest.update(np.ascontiguousarray(part).tobytes())
                table = nearest.knn_graph(vectors, 5, metric=metric)
                digest.update(table.ids.tobytes() + table.distances.tobytes())
                digest.update(nearest.pairwise_distances(vectors[:40], metric=metric).tobytes())
print(json.dumps([_native.kernels()["level"], digest.hexdigest()]))
"""


def test_every_kernel_level_gives_the_same_bits(run_python: Callable[..., Any]) -> None:
    program = LEVELS.format(tests=os.path.dirname(__file__))
    digests = {}
    for level in _native.kernels()["available"]:
        used, digest = json.loads(run_python(program, NEAREST_KERNELS=level).stdout)
        assert used == level
        digests[level] = digest
    required = os.environ.get("NEAREST_REQUIRE_KERNELS")
    assert required is None or required in digests, f"this CPU lacks {required}: {list(digests)}"
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("name", ["wordnet", "photos"])
def test_real_data(name: str, shared_data: Callable[[str], dict[str, np.ndarray]]) -> None:
    data = shared_data(name)
    metric = str(data["metric"])
    base, queries, gt = data["base"], data["queries"], data["gt"]
    found = nearest.knn(base, queries, 100, metric=metric)
    some = slice(0, 20)
    truth = distances(queries[some], base, metric)
    same_neighbors(found.ids[some], found.distances[some], truth, metric, 100)
    # By distance, since gt has its own order within ties.
    true_distances = np.take_along_axis(truth, gt[some].astype(np.int64), axis=1)
    np.testing.assert_allclose(np.sort(true_distances, axis=1), found.distances[some], rtol=2e-6, atol=1e-6)
    assert nearest.recall(found.ids, gt, 10) > 0.99
    same_bits(
        nearest.knn(base, queries[:50], 100, metric=metric, n_threads=1),
        nearest.Neighbors(found.ids[:50], found.distances[:50]),
    )
