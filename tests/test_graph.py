"""`Graph` as users meet it: parameters, searches, changes, what it says of itself."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nearest
import numpy as np
import pytest
from nearest import ArgumentError, Exact, Graph, Index, Lists, ReadOnlyError
from strategies import METRICS_LISTED, groups

CODES_WALKED = "Graph goes with scalar8, scalar4 and all encodings that keep numbers as they are, got encoding="
KINDS: list[tuple[str, str | None]] = [
    ("float32", None),
    ("float16", None),
    ("uint8", None),
    ("int8", None),
    ("scalar8", None),
    ("scalar4", "scalar8"),
    ("scalar4", "float16"),
]


def vectors_of(encoding: str, n: int = 4000, seed: int = 1) -> np.ndarray:
    vectors = groups(n, 16, seed)
    if encoding == "int8":
        return (10 * vectors).round().clip(-128, 127).astype("i1")
    return (10 * vectors + 128).round().clip(0, 255).astype("u1") if encoding == "uint8" else vectors


def made(encoding: str = "float32", rerank: str | None = None, n: int = 4000, **options: Any) -> Index:
    index = Index(16, encoding=encoding, rerank=rerank, **{"structure": Graph(), **options})
    index.add(vectors_of(encoding, n))
    return index


def share(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())


# --- what it is ------------------------------------------------------------------------------------------------------


def test_a_graph_is_a_value() -> None:
    assert repr(Graph()) == "Graph()"
    assert repr(Graph(16, ef_build=96)) == "Graph(16, ef_build=96)"
    assert Graph(np.int64(16)) == Graph(degree=16) == Graph(16, ef_build=48) != Graph(17)
    assert Graph() != Lists()
    assert Graph() != Exact()
    assert Graph() != 32
    assert len({Graph(), Graph(32), Graph(32, ef_build=49)}) == 2
    for value in (Graph(), Graph(7, ef_build=1024)):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
        assert eval(repr(value)) == value
    with pytest.raises(AttributeError):
        Graph().degree = 5  # type: ignore[misc]


@pytest.mark.parametrize("degree", [0, 1, -1, 257, 2.5, "16", True, None])
def test_degrees_refused(degree: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        Graph(degree)
    assert str(refused.value) == f"degree must be an integer from 2 to 256, got {degree!r}"


@pytest.mark.parametrize("ef_build", [0, 1, 1025, 2.5, "16", None])
def test_ef_builds_refused(ef_build: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        Graph(ef_build=ef_build)
    assert str(refused.value) == f"ef_build must be an integer from 2 to 1024, got {ef_build!r}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "manhattan"}, f"Graph {METRICS_LISTED}manhattan"),
        ({"metric": "hamming", "encoding": "binary"}, f"Graph {METRICS_LISTED}hamming"),
        ({"encoding": "rabitq(2)"}, f"{CODES_WALKED}rabitq(2)"),
        ({"encoding": "product(4, 8)"}, f"{CODES_WALKED}product(4, 8)"),
        ({"encoding": "scalar4", "rerank": "product(4, 4)"}, "but product and binary, got rerank=product(4, 4)"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NotImplementedError) as refused:
        Index(16, **{"structure": Graph(), **arguments})
    assert message in str(refused.value)


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_properties(encoding: str, rerank: str | None) -> None:
    index = made(encoding, rerank, structure=Graph(20, ef_build=40), seed=9)
    assert (index.encoding, index.rerank, index.seed) == (encoding, rerank, 9)
    assert index.structure == Graph(20, ef_build=40)
    stats = index.stats()
    assert (stats["n_vectors"], stats["n_waiting"], stats["unreachable"]) == (4000, 0, 0)
    assert 4000 < stats["n_links"] <= 20 * 4000
    assert 1 < stats["n_hubs"] <= 256
    # Links, scales, and the codes that walks compare unless these are the vectors.
    walked = {"scalar8": 0, "uint8": 0, "int8": 0}.get(encoding if rerank is None else "", 8)
    assert 4000 * (80 + 2 + walked) <= stats["graph_bytes"] <= 1.2 * 4000 * (80 + 2 + walked) + 20_000
    assert "graph_bytes" in index._repr_html_()


def test_what_an_index_says_of_itself() -> None:
    index = Index(16, structure=Graph(24))
    index.add(vectors_of("float32", 1000))
    assert "there are too few vectors to make lists, codes or links: every query is" in index.explanation
    assert "n_links" not in index.stats()
    assert index.search(np.ones(16), explain=True).explanation["exact"] is True  # type: ignore[index]
    index.add(vectors_of("float32", 9000, 2))
    assert "a query walks along the links of vectors, up to 24 each" in index.explanation
    explained = index.search(np.ones(16), explain=True).explanation
    assert explained is not None
    assert (explained["exact"], explained["structure"], explained["recall"]) == (False, "Graph(24)", None)
    assert (explained["path"], explained["effort"]) == ("walk", 64)
    # About 64, as many as are not much farther than the tenth.
    assert 10 <= explained["n_followed"] <= explained["n_compared"] < 4000
    assert 10 <= explained["n_reranked"] <= explained["n_compared"]
    assert explained["n_rounds"] >= 10
    paths = {
        "scan": {"filter": index.ids[::10]},
        "walk": {"filter": index.ids[index.ids % 10 != 0], "effort": 10},
        "all": {"effort": 10_000},
    }
    for path, options in paths.items():
        explained = index.search(np.ones((3, 16)), explain=True, **options).explanation
        assert explained is not None
        assert explained["path"] == path
    explained = index.neighbors_of([1, 2], explain=True).explanation
    assert explained is not None
    assert explained["path"] == "walk"


# --- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "angular", "inner_product"])
@pytest.mark.parametrize("encoding", ["float32", "uint8"])
def test_all_candidates_are_an_exact_search(metric: str, encoding: str) -> None:
    vectors, queries = vectors_of(encoding), vectors_of(encoding, 50, 2).astype("f4") + 0.25
    index = Index(16, metric=metric, structure=Graph(), encoding=encoding)
    index.add(vectors)
    truth = nearest.knn(vectors, queries, 10, metric=metric)
    found = index.search(queries, 10, effort=4000)
    assert np.array_equal(found.ids, truth.ids)
    assert np.array_equal(found.distances, truth.distances)
    few = index.search(queries, 10, effort=40)
    assert share(few.ids, truth.ids) > (0.85 if metric == "inner_product" else 0.95)
    assert (few.distances >= truth.distances).all()


def test_more_effort_finds_more() -> None:
    vectors, queries = groups(20_000, 32, 1), groups(300, 32, 2)
    index = Index(32, structure=Graph(8, ef_build=12), encoding="scalar4", rerank="scalar8")
    index.add(vectors)
    truth = nearest.knn(vectors, queries, 10).ids
    shares = [share(index.search(queries, 10, effort=effort).ids, truth) for effort in (10, 20, 80, 400)]
    assert shares == sorted(shares)
    assert shares[0] < 0.95 < shares[-1]


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_batches_are_one_by_one(encoding: str, rerank: str | None) -> None:
    index = made(encoding, rerank)
    index.remove(index.ids[::100])
    index.add(vectors_of(encoding, 100, 5))
    queries = vectors_of(encoding, 100, 4).astype("f4") + 0.25
    for knobs in ({}, {"effort": 30}, {"effort": 30, "rerank_k": 40}, {"filter": index.ids[::3]}):
        many = index.search(queries, 7, **knobs)
        for n_threads in (1, 2, 5):
            again = index.search(queries, 7, n_threads=n_threads, **knobs)
            assert np.array_equal(again.ids, many.ids)
            assert np.array_equal(again.distances, many.distances)
        for i in range(0, 100, 7):
            one = index.search(queries[i], 7, **knobs)
            assert np.array_equal(one.ids, many.ids[i])
            assert np.array_equal(one.distances, many.distances[i])


def test_filters_keep_the_recall() -> None:
    vectors, queries = groups(12_000, 16, 1), groups(60, 16, 2)
    index = Index(16, structure=Graph())
    index.add(vectors)
    rng = np.random.default_rng(4)
    nearness = -np.min(np.square(vectors[:, None] - queries[None]).sum(axis=2), axis=1)
    for by in (rng.random(12_000), vectors[:, 0], nearness):
        for kept in (0.9, 0.5, 0.1, 0.01, 0.001):
            mask = by < np.quantile(by, kept)
            allowed = np.flatnonzero(mask)
            truth = allowed[nearest.knn(vectors[allowed], queries, min(10, len(allowed))).ids]
            found = index.search(queries, 10, filter=mask)
            assert (found.counts == min(10, len(allowed))).all()
            assert share(found.ids[:, : truth.shape[1]], truth) >= 0.95


# --- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_changes_are_seen_at_once(encoding: str, rerank: str | None) -> None:
    index = made(encoding, rerank)
    vectors = vectors_of(encoding)
    new = vectors_of(encoding, 3000, 7)
    for start in range(0, 3000, 50):
        ids = index.add(new[start : start + 50])
        found = index.search(new[start].astype("f4"), 20).ids
        assert ids[0] in found
    stats = index.stats()
    assert (stats["n_vectors"], stats["unreachable"]) == (7000, 0)
    assert 0 < stats["n_waiting"] < 1024
    # Half of what was there goes: nobody finds it, everything else is.
    index.remove(np.arange(0, 4000, 2))
    stats = index.stats()
    assert (stats["n_vectors"], stats["unreachable"]) == (5000, 0)
    found = index.search(vectors[:400:2].astype("f4"), 10)
    assert not np.isin(found.ids, np.arange(0, 4000, 2)).any()
    kept = vectors[1:400:2]
    own = index.search(kept.astype("f4"), 10).ids
    assert np.mean([np.isin(i, row).any() for i, row in zip(range(1, 400, 2), own, strict=True)]) > 0.98
    index.upsert(vectors[:100], np.arange(100) + 4000)
    assert np.array_equal(index.get([4000]), index.get(index.search(vectors[0].astype("f4"), 1).ids))


@pytest.fixture
def one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("change", ["add", "upsert", "merge", "remove", "calibrate"])
def test_changes_say_how_far_they_are_and_stop_when_told(change: str, one_cpu: None) -> None:
    # On one processor the parts of this take ten times as long as it is between two looks at the caller.
    n = 40_000
    vectors, others = vectors_of("float32", n), vectors_of("float32", n // 2, seed=2)
    index = nearest.build(vectors, structure=Graph(), progress=False)
    shard = Index(16)
    shard.add(others, range(n, n + n // 2))
    changes: dict[str, Callable[[Any], object]] = {
        "add": lambda progress: index.add(others, progress=progress),
        "upsert": lambda progress: index.upsert(others, range(0, n, 2), progress=progress),
        "merge": lambda progress: index.merge(shard, progress=progress),
        "remove": lambda progress: index.remove(range(0, n, 3), progress=progress),
        "calibrate": lambda progress: index.calibrate(progress=progress),
    }

    class Stop(Exception):
        pass

    def stop(done: int, total: int, stage: str) -> None:
        if stage != "add":
            raise Stop

    before = index.copy(), index.calibration
    with pytest.raises(Stop):
        changes[change](stop)
    assert index.calibration == before[1]
    assert (index.ids == before[0].ids).all()
    for found, known in zip(index.search(others[:50]), before[0].search(others[:50]), strict=True):
        assert (found == known).all()

    told: list[tuple[int, int, str]] = []
    changes[change](lambda *report: told.append(report))
    assert all(0 <= done <= total for done, total, _ in told)
    assert {stage for *_, stage in told} & {"searching", "linking"}
    assert len(index) == {"add": n + n // 2, "merge": n + n // 2, "remove": n - len(range(0, n, 3))}.get(change, n)
    assert share(index.search(vectors[1:1000:6]).ids[:, :1], np.arange(1, 1000, 6)[:, None]) >= 0.99
    with pytest.raises(
        ArgumentError, match=r"progress must be None, False or a function of \(done, total, stage\), got 1"
    ):
        changes[change](1)


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_files(encoding: str, rerank: str | None, tmp_path: Path) -> None:
    index = made(encoding, rerank)
    index.add(vectors_of(encoding, 500, 8))
    path = tmp_path / "graph.nearest"
    index.save(path)
    described = nearest.verify(path)
    assert described["spec"]["structure"] == "graph"
    queries = vectors_of(encoding, 60, 3).astype("f4")
    expected = index.search(queries, 10)
    for opened in (nearest.open(path), nearest.open(path, memory_map=False), pickle.loads(pickle.dumps(index))):
        assert opened.structure == index.structure
        assert opened.stats()["n_waiting"] == index.stats()["n_waiting"] == 500
        found = opened.search(queries, 10)
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.distances, expected.distances)
    mapped = nearest.open(path)
    with pytest.raises(ReadOnlyError):
        mapped.add(vectors_of(encoding, 1))
    changed = mapped.copy()
    changed.add(vectors_of(encoding, 1000, 9))
    assert changed.stats()["n_waiting"] == 0
    assert changed.stats()["unreachable"] == 0


def test_merging_shards() -> None:
    vectors = groups(6000, 16, 1)
    first = nearest.build(vectors[:3000], structure=Graph(), encoding="scalar4", progress=False)
    second = first.empty_copy()
    second.add(vectors[3000:], np.arange(3000, 6000))
    first.merge(second)
    assert len(first) == 6000
    assert first.stats()["unreachable"] == 0
    queries = groups(100, 16, 2)
    assert share(first.search(queries, 10, effort=100).ids, nearest.knn(vectors, queries, 10).ids) > 0.9


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, 30, 200, 1023])
def test_few_vectors_make_a_graph(n: int, metric: str) -> None:
    vectors, queries = groups(max(1, n), 5, 1)[:n], groups(20, 5, 2)
    for encoding in ("float32", "scalar4"):
        index = nearest.build(vectors, structure=Graph(), metric=metric, encoding=encoding, progress=False)
        found = index.search(queries, 10)
        assert (found.counts == min(10, n)).all()
        stats = index.stats()
        assert (stats.get("n_waiting", 0), stats.get("unreachable", 0)) == (0, 0)
        if encoding == "float32" and n:
            truth = nearest.knn(vectors, queries, min(10, n), metric=metric).ids
            assert share(found.ids[:, : min(10, n)], truth) >= 0.9


# --- building --------------------------------------------------------------------------------------------------------


def test_recall_that_was_asked_for_is_reached() -> None:
    vectors, queries = groups(30_000, 48, 1), groups(2000, 48, 3)
    index = nearest.build(vectors, structure=Graph(16), recall=0.9, progress=False)
    assert index.structure == Graph(16)
    assert (index.encoding, index.rerank) == ("scalar4", "scalar8")
    assert "and walks lose the rest" in index.explanation
    assert index.stats()["n_waiting"] == 0
    calibration = index.calibration
    assert calibration is not None
    assert (calibration.n_lists, calibration.recall) == (0, 0.9)
    for k in (1, 10, 100):
        truth = nearest.knn(vectors, queries, k).ids
        reached = share(index.search(queries, k).ids, truth)
        assert reached > 0.88
        assert share(index.search(queries, k, recall=0.95).ids, truth) >= max(0.93, reached - 0.01)
    # Of what is there already, one measures as well as of what never was.
    again = index.calibrate()
    for k in (1, 10, 100):
        assert 0.5 < again.effort(0.9, k) / calibration.effort(0.9, k) < 2


def test_single_queries_over_many_vectors_get_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.tune, "_GRAPH_FROM_BYTES", 1 << 18)
    vectors = groups(12_000, 32, 1)
    built = nearest.build(vectors, progress=False)
    assert (built.structure, built.encoding, built.rerank) == (Graph(), "scalar4", "scalar8")
    whole = (10 * vectors + 128).round().clip(0, 255).astype("u1")
    built = nearest.build(whole, progress=False)
    assert (built.structure, built.encoding, built.rerank) == (Graph(), "uint8", None)
    assert "the vectors came as uint8, which a graph keeps without loss" in built.explanation
    for options in (
        {"recall": 1.0},
        {"metric": "manhattan"},
        {"memory": "low"},
        {"workload": "batch"},
        {"encoding": "rabitq(4)"},
    ):
        assert not isinstance(nearest.build(vectors, progress=False, **options).structure, Graph)
    # What a graph takes is told beforehand.
    needed = int(12_000 * nearest.tune.row_bytes("scalar4", "scalar8", Graph(), 32))
    small = nearest.build(vectors, progress=False, memory=needed)
    assert small.structure == Graph()
    held = sum(value for name, value in small.stats().items() if name.endswith("_bytes"))
    assert held < 1.2 * needed
