"""`build`: what it chooses, that it says so, and that it keeps what it promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import nearest
import numpy as np
import pytest
from nearest import ArgumentError, Exact, Index, Lists, tune
from strategies import METRICS_LISTED, groups, make_vectors

# --- exact -----------------------------------------------------------------------------------------------------------


def test_build(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((300, 6))
    for dtype, encoding in (("f8", "float32"), ("f4", "float32"), ("f2", "float16"), ("i8", "float32")):
        index = nearest.build((10 * vectors).astype(dtype), progress=False)
        assert (index.encoding, len(index), index.structure) == (encoding, 300, Exact())
        assert "recall is 1 by construction" in index.explanation
        assert ("came as" in index.explanation) == (encoding != "float32")
    assert nearest.build(make_vectors(rng, 9, 6, "normal", "uint8"), progress=False).encoding == "uint8"
    assert nearest.build(make_vectors(rng, 9, 6, "normal", "int8"), progress=False).encoding == "int8"
    bits = nearest.build(make_vectors(rng, 9, 24, "normal", "binary"), metric="jaccard", progress=False)
    assert (bits.encoding, bits.dim) == ("binary", 24)
    named = nearest.build(vectors, ids=[f"{i}" for i in range(300)], metric="cosine", encoding="bfloat16", seed=5)
    assert (named.encoding, named.seed, "17" in named) == ("bfloat16", 5, True)


def test_build_shadows_what_is_large(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(nearest.tune, "_SHADOW_FROM_BYTES", 1000)
    vectors = rng.standard_normal((300, 6)).astype("f4")

    def shadow(**options: Any) -> str | None:
        return nearest.build(vectors, progress=False, **options).structure.shadow

    assert shadow() == shadow(memory=300 * 6 * 5) == shadow(workload="single") == "scalar8"
    assert shadow(workload="batch") is None
    assert shadow(memory="low") is None
    assert shadow(structure=Exact()) is None
    assert shadow(memory=300 * 6 * 5 - 1) is None
    assert shadow(metric="manhattan") is None
    assert shadow(encoding="float16") == "scalar8"
    assert "no memory for an 8-bit shadow" in nearest.build(vectors, memory=7200, progress=False).explanation


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recall": 0}, ArgumentError, "recall must be a number above 0 and at most 1, got 0"),
        ({"k": 0}, ArgumentError, "k must be an integer of at least 1"),
        ({"workload": "both"}, ArgumentError, "workload must be 'single' or 'batch', got 'both'"),
        ({"memory": "high"}, ArgumentError, "memory must be a number of bytes above 0 or 'low', got 'high'"),
        ({"memory": 0}, ArgumentError, "memory must be"),
        ({"memory": 100}, NotImplementedError, "5 vectors take 80 bytes as float32, and memory=79 was given"),
        ({"structure": "forest"}, NotImplementedError, "what works: nearest.Exact(), nearest.Lists(), nearest.Graph()"),
        (
            {"structure": None},
            ArgumentError,
            "such as nearest.Exact(), nearest.Lists(1024) or nearest.Graph(), got None",
        ),
        ({"encoding": "rabitq"}, ArgumentError, "product(m, bits), rabitq(bits), got 'rabitq'"),
        (
            {"encoding": "scalar4", "metric": "manhattan"},
            NotImplementedError,
            f"encoding scalar4 {METRICS_LISTED}manhattan",
        ),
        ({"structure": Lists(), "metric": "manhattan"}, NotImplementedError, f"Lists {METRICS_LISTED}manhattan"),
        ({"queries": np.ones((0, 4)), "structure": Lists()}, ArgumentError, "queries must be at least one, got none"),
        ({"encoding": "binary"}, NotImplementedError, "hamming"),
        ({"metric": "hamming"}, ArgumentError, "vectors must be uint8"),
        ({"queries": np.ones((2, 5))}, ArgumentError, "queries must have shape (n, 4), got (2, 5)"),
        ({"ids": [1, 2]}, ArgumentError, "ids must be one a vector, 5 in all, got 2"),
        ({"n_threads": 0}, ArgumentError, "n_threads"),
        ({"progress": 1}, ArgumentError, "progress must be None, False or a function"),
        ({"vectors": np.ones(4)}, ArgumentError, "vectors must have shape (n, dim), got (4,)"),
    ],
)
def test_build_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    if arguments.get("memory") == 100:
        arguments = {"memory": 79}
    with pytest.raises(error) as refused:
        nearest.build(**{"vectors": np.ones((5, 4)), **arguments})
    assert message in str(refused.value)


def test_build_reports_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.arrays, "BLOCK_BYTES", 4 * 4 * 10)
    seen: list[tuple[int, int, str]] = []
    nearest.build(np.ones((25, 4)), progress=lambda *report: seen.append(report))
    assert seen == [(10, 25, "add"), (20, 25, "add"), (25, 25, "add")]


# --- lists -----------------------------------------------------------------------------------------------------------


def found_share(index: Index, vectors: np.ndarray, queries: np.ndarray, k: int, **options: Any) -> float:
    truth = nearest.knn(vectors, queries, k, metric=index.metric).ids
    found = index.search(queries, k, **options).ids
    return float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())


def test_batches_of_queries_get_lists() -> None:
    vectors = groups(25_000, 12, 1)

    def chosen(**options: Any) -> str:
        index = nearest.build(vectors[: options.pop("n", 25_000)], progress=False, **options)
        return f"{index.structure!r} {index.encoding} {index.rerank}"

    assert chosen() == chosen(workload="batch", recall=1) == "Exact() float32 None"
    assert chosen(workload="batch", n=19_000) == "Exact() float32 None"
    assert chosen(workload="batch", metric="manhattan") == "Exact() float32 None"
    assert chosen(workload="batch").startswith("Lists(288) scalar8")
    assert chosen(workload="batch", encoding="float32") == "Lists(288) float32 None"
    assert chosen(workload="batch", encoding="scalar4") == "Lists(288) scalar4 scalar8"
    assert chosen(structure=Lists(50), encoding="product(3, 8)") == "Lists(50) product(3, 8) scalar8"
    assert chosen(structure=Lists(50, spill=1), encoding="scalar4", memory="low") == "Lists(50, spill=1.0) scalar4 None"
    assert chosen(encoding="rabitq(2)") == "Exact() rabitq(2) scalar8"
    assert chosen(structure=Exact(), workload="batch") == "Exact() float32 None"


def test_single_queries_get_shorter_codes_than_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.tune, "_LISTS_FROM_BYTES", 25_000 * 48)
    vectors = groups(25_000, 48, 1)
    whole = np.round(10 * vectors + 128).clip(0, 255).astype("u1")

    def chosen(vectors: np.ndarray, **options: Any) -> str:
        index = nearest.build(vectors, progress=False, **options)
        return f"{index.structure!r} {index.encoding} {index.rerank}"

    assert chosen(vectors, recall=0.7) == "Lists(416) rabitq(2) scalar8"
    assert chosen(vectors, recall=0.9) == "Lists(416) scalar4 scalar8"
    assert chosen(whole, recall=0.9) == "Lists(416) scalar4 uint8"
    assert chosen(vectors, recall=1) == "Exact() float32 None"
    assert chosen(vectors[:24_999]) == "Exact() float32 None"
    assert chosen(vectors, metric="manhattan") == "Exact() float32 None"


def test_it_says_what_it_chose_and_why() -> None:
    vectors = groups(21_000, 12, 1)
    index = nearest.build(vectors, workload="batch", recall=0.9, progress=False)
    for words in (
        "scalar8 kept 9",
        "of the 10 nearest in a sample, and lists lose the rest",
        "nearest of 256 lists",
        "measured on 1,000 queries against 20,000 vectors: recall 0.9 at effort",
        "searches that say nothing aim at recall 0.9",
        "distances are those of the scalar8 codes, which get() reads too",
    ):
        assert words in index.explanation
    assert index.stats()["explanation"] == index.explanation
    # Why is known to who built it; the rest is in the file.
    again = pickle.loads(pickle.dumps(index))
    assert "kept" not in again.explanation
    assert "searches that say nothing aim at recall 0.9" in again.explanation
    whole = nearest.build(np.round(10 * vectors + 128).clip(0, 255).astype("u1"), workload="batch", progress=False)
    assert whole.encoding == "uint8"
    assert "came as uint8, which lists keep without loss" in whole.explanation


def test_codes_are_refused_that_lose_too_much() -> None:
    # Half of the numbers of a vector are all that tells it from thousands of others.
    rng = np.random.default_rng(3)
    vectors = np.repeat(groups(220, 12, 2), 100, axis=0) + 0.001 * rng.standard_normal((22_000, 12)).astype("f4")
    index = nearest.build(vectors, workload="batch", progress=False)
    assert (index.encoding, index.rerank) == ("float32", None)
    assert "too few for recall 0.95; no short code kept the neighbors" in index.explanation
    low = nearest.build(vectors, workload="batch", memory="low", progress=False)
    assert low.encoding == "float32"
    half = nearest.build(vectors.astype("f2"), workload="batch", memory="low", progress=False)
    assert half.encoding in ("float16", "scalar8", "rabitq(6)", "rabitq(5)", "scalar4")
    assert found_share(index, vectors, vectors[::200] + 0.0001, 10) > 0.9


def test_a_graph_has_fewer_links_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_GRAPH_FROM_BYTES", 0)
    n, dim = 20_000, 64
    vectors, queries = groups(n, dim, 3), groups(200, dim, 4)

    def built(a_vector: int | None, **options: Any) -> Index:
        memory = None if a_vector is None else n * a_vector
        index = nearest.build(vectors, memory=memory, progress=False, **({"recall": 0.9} | options))
        used = sum(value for name, value in index.stats().items() if name.endswith("_bytes"))
        assert memory is None or used <= 1.1 * memory
        return index

    def chosen(a_vector: int | None, **options: Any) -> str:
        index = built(a_vector, **options)
        return f"{index.structure!r} {index.encoding} {index.rerank}"

    assert chosen(None) == chosen(250) == "Graph() scalar4 scalar8"
    assert chosen(210) == "Graph() scalar8 None"
    assert chosen(150) == "Graph(16) scalar8 None"
    assert chosen(210, encoding="scalar4") == "Graph(16) scalar4 scalar8"
    assert chosen(100, recall=0.8).startswith("Lists(")
    assert found_share(built(150), vectors, queries, 10, recall=0.9) > 0.87


def test_memory_is_kept_to() -> None:
    vectors = groups(25_000, 32, 1)
    assert nearest.build(vectors, memory=4_100_000, progress=False).structure == Exact()
    index = nearest.build(vectors, memory=1_600_000, recall=0.8, progress=False)
    stats = index.stats()
    assert isinstance(index.structure, Lists)
    assert sum(value for name, value in stats.items() if name.endswith("_bytes")) <= 1.15 * 1_600_000
    assert found_share(index, vectors, groups(300, 32, 7), 10) > 0.75
    with pytest.raises(NotImplementedError, match=r"25,000 vectors of 32 numbers at recall 0.99 do not fit memory"):
        nearest.build(vectors, memory=900_000, recall=0.99, progress=False)
    low = nearest.build(vectors, memory="low", workload="batch", recall=0.8, progress=False)
    fast = nearest.build(vectors, workload="batch", recall=0.8, progress=False)

    def bytes_of(index: Index) -> int:
        return sum(value for name, value in index.stats().items() if name.endswith("_bytes"))

    assert bytes_of(low) < bytes_of(fast)


def test_bytes_are_told_beforehand() -> None:
    vectors = groups(30_000, 64, 1)
    whole = (10 * vectors + 128).round().clip(0, 255).astype("u1")
    for data, options in (
        (vectors, {}),
        (vectors, {"encoding": "float16"}),
        (vectors, {"encoding": "scalar4"}),
        (vectors, {"encoding": "product(16, 8)", "memory": "low"}),
        (whole, {}),
    ):
        index = nearest.build(data, structure=Lists(100), progress=False, **options)
        held = sum(value for name, value in index.stats().items() if name.endswith("_bytes"))
        told = len(data) * nearest.tune.row_bytes(index.encoding, index.rerank, Lists(100), 64)
        assert 0.8 < held / told < 1.25, options


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_the_recall_asked_for_is_reached(metric: str) -> None:
    vectors, queries = groups(40_000, 16, 1), groups(3000, 16, 2)
    index = nearest.build(vectors, metric=metric, workload="batch", progress=False)
    for k in (1, 10, 100):
        share = found_share(index, vectors, queries, k, recall=0.95)
        assert 0.94 <= share <= 0.985, k
        assert abs(found_share(index, vectors, queries, k) - share) < 0.01
        assert found_share(index, vectors, queries, k, recall=0.8) < share
    few = index.search(queries, 10, recall=0.8, explain=True).explanation
    many = index.search(queries, 10, recall=0.96, explain=True).explanation
    assert few is not None
    assert many is not None
    assert few["effort"] < many["effort"] < 512
    assert few["n_compared"] < many["n_compared"]
    assert 0.78 < few["recall"] < 0.9
    assert not few["unlike"]


def test_recall_on_real_data(shared_data: Callable[[str], dict[str, np.ndarray]]) -> None:
    data = shared_data("wordnet")
    base, queries = data["base"][:40_000], data["queries"][:2000].astype("f4")
    index = nearest.build(base, metric="cosine", workload="batch", progress=False)
    for k in (1, 10, 100):
        assert 0.93 <= found_share(index, base, queries, k, recall=0.95) <= 0.985
    other = np.random.default_rng(1).standard_normal(queries.shape).astype("f4")
    with pytest.warns(nearest.RecallWarning, match="farther from the vectors"):
        index.search(other, 10, recall=0.95)


def test_queries_that_are_given_are_measured_on() -> None:
    vectors, queries = groups(21_000, 12, 1), groups(400, 12, 9)
    index = nearest.build(vectors, queries=queries.astype("f8"), workload="batch", progress=False)
    calibration = index.calibration
    assert calibration is not None
    assert (calibration.n_queries, calibration.n_vectors, calibration.recall) == (400, 21_000, 0.95)
    # Others are held out while it is measured, and are there in the end.
    index = nearest.build(vectors, k=7, recall=0.8, workload="batch", progress=False)
    calibration = index.calibration
    assert calibration is not None
    assert (calibration.n_queries, calibration.n_vectors) == (1000, 20_000)
    assert sorted(calibration.curves) == [1, 7, 10, 100]
    assert len(index) == 21_000
    assert index.ids.tolist() == list(range(21_000))
    found = index.search(vectors[::100], 1, effort=30).ids[:, 0]
    assert (found == np.arange(0, 21_000, 100)).mean() > 0.9


IDS: dict[str, Callable[[int], Any]] = {
    "none": lambda n: None,
    "numbers": lambda n: np.random.default_rng(1).permutation(10 * n)[:n],
    "texts": lambda n: [f"id {i}" for i in range(n)],
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "u1", "i1", "i4"])
def test_any_input(kind: str, dtype: str) -> None:
    values = 10 * groups(3000, 8, 1) + (128 if dtype == "u1" else 0)
    vectors = values.round().clip(0 if dtype == "u1" else -128, 255 if dtype == "u1" else 127).astype(dtype)
    ids = IDS[kind](len(vectors))
    index = nearest.build(vectors, ids=ids, structure=Lists(40), metric="cosine", progress=False)
    expected = np.arange(3000) if ids is None else ids
    assert index.ids.tolist() == list(expected)
    # What is compared in the end: integers as they are.
    assert (index.rerank or index.encoding) in {"u1": "uint8", "i1": "int8"}.get(dtype, ("scalar8", "float32"))
    some = vectors[:50].astype("f4")
    found = index.search(some, 1, effort=40).ids[:, 0]
    assert (found == np.asarray(expected)[:50]).mean() > 0.9
    # Where it is not in one piece.
    strided = np.asfortranarray(vectors)[:, ::-1]
    other = nearest.build(strided, ids=ids, structure=Lists(40), metric="cosine", progress=False)
    assert len(other) == 3000


def test_vectors_in_several_places() -> None:
    pa = pytest.importorskip("pyarrow")
    vectors = groups(3000, 8, 1)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    chunks = pa.chunked_array([rows[:1000], rows[1000:1001], rows[1001:]])
    index = nearest.build(chunks, structure=Lists(20), progress=False)
    assert pickle.dumps(index) == pickle.dumps(nearest.build(vectors, structure=Lists(20), progress=False))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9, 40, 300])
@pytest.mark.parametrize("encoding", ["auto", "float32", "scalar4", "product(2, 4)", "rabitq(1)"])
def test_few_vectors(n: int, encoding: str) -> None:
    vectors = groups(n, 6, 1)
    for structure in (Lists(), Lists(64, spill=1), Exact()):
        index = nearest.build(vectors, structure=structure, encoding=encoding, progress=False)
        found = index.search(vectors, 400)
        assert found.counts.tolist() == [n] * n
        assert all(sorted(row[:n].tolist()) == list(range(n)) for row in found.ids)
        index.add(groups(50, 6, 2))
        assert index.search(np.zeros(6), 400).ids.shape == (n + 50,)


def test_the_same_seed_gives_the_same_bytes() -> None:
    vectors = groups(22_000, 12, 1)
    options: dict[str, Any]
    for options in ({"encoding": "product(4, 4)"}, {"memory": "low", "recall": 0.8}):
        made = [
            pickle.dumps(nearest.build(vectors, workload="batch", n_threads=n, seed=seed, progress=False, **options))
            for n, seed in ((1, 0), (3, 0), (2, 1))
        ]
        assert made[0] == made[1] != made[2], options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((24_000, 3), np.nan), "vectors must be finite, got NaN in row 24000, dimension 3"),
        (lambda x: x.__setitem__(slice(24_000, 24_900), np.inf), "got inf in row 24000, dimension 0"),
        (
            lambda x: x.__setitem__(24_999, 0),
            "must not be zero under the metric cosine, got a zero vector in row 24999",
        ),
    ],
)
def test_errors_name_the_place_among_all_vectors(change: Callable[[np.ndarray], Any], message: str) -> None:
    vectors = groups(25_000, 8, 1)
    change(vectors)
    for encoding in ("auto", "scalar4"):
        with pytest.raises(ArgumentError) as refused:
            nearest.build(vectors, metric="cosine", workload="batch", encoding=encoding, progress=False)
        assert message.replace("NaN", "nan").lower() in str(refused.value).lower()


def test_ids_that_come_twice() -> None:
    vectors = groups(150_000, 2, 1)
    for ids in (np.arange(150_000) % 140_000, [f"{i % 140_000}" for i in range(150_000)]):
        with pytest.raises(ArgumentError, match="ids must differ, got 0 again at position 140000"):
            nearest.build(vectors, ids=ids, structure=Lists(32), encoding="scalar8", progress=False)
    with pytest.raises(ArgumentError, match="ids must be one a vector, 150000 in all, got 3"):
        nearest.build(vectors, ids=[1, 2, 3], structure=Lists(32), encoding="scalar8", progress=False)


def test_lists_report_progress_and_can_be_stopped() -> None:
    vectors = groups(120_000, 16, 1)
    seen: list[tuple[int, int, str]] = []
    nearest.build(vectors, workload="batch", progress=lambda *report: seen.append(report))
    assert "add" in {stage for _, _, stage in seen}
    assert all(0 <= done <= total for done, total, _ in seen)

    def stop(done: int, total: int, stage: str) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        nearest.build(vectors, workload="batch", progress=stop)


def test_ctrl_c_stops_a_build(run_python: Callable[..., Any]) -> None:
    run_python(
        """
import os, signal, threading, time
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((400_000, 64)).astype("f4")
for delay in (0.2, 0.6):
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    try:
        nearest.build(vectors, workload="batch", encoding="scalar4", progress=False)
    except KeyboardInterrupt:
        assert time.monotonic() - begin < delay + 3
    else:
        raise SystemExit("a signal was lost")
"""
    )
