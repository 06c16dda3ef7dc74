"""`Lists` and short encodings as users meet them: parameters, searches, changes, what they say of themselves."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nearest import ArgumentError, Exact, Index, Lists, ReadOnlyError, UnknownIdError
from oracle import distances, same_neighbors
from strategies import METRICS_LISTED, Case, cases, groups, make_vectors

METRICS = ("euclidean", "sqeuclidean", "cosine", "angular", "inner_product")
ALL = 1 << 30
# Encodings, each with one to compare candidates again.
KINDS: list[tuple[str, str | None]] = [
    ("float32", None),
    ("float16", None),
    ("uint8", None),
    ("scalar8", None),
    ("scalar4", "scalar8"),
    ("rabitq(3)", None),
    ("product(4, 8)", "float16"),
]


def made(encoding: str = "float32", rerank: str | None = None, n: int = 3000, **options: Any) -> Index:
    index = Index(8, encoding=encoding, rerank=rerank, **{"structure": Lists(32), **options})
    index.add(vectors_of(encoding, n))
    return index


def vectors_of(encoding: str, n: int = 3000, seed: int = 1) -> np.ndarray:
    vectors = groups(n, 8, seed)
    if encoding == "int8":
        return (10 * vectors).round().clip(-128, 127).astype("i1")
    return (10 * vectors + 128).round().clip(0, 255).astype("u1") if encoding == "uint8" else vectors


# --- what they are ---------------------------------------------------------------------------------------------------


def test_lists_are_a_value() -> None:
    assert repr(Lists()) == "Lists()"
    assert repr(Lists(1024)) == "Lists(1024)"
    assert repr(Lists(256, spill=1)) == "Lists(256, spill=1.0)"
    assert repr(Lists(spill=0)) == "Lists(spill=0.0)"
    assert Lists(5) == Lists(n_lists=np.int64(5)) == Lists(5, spill=0.4) != Lists(6)
    assert Lists(5, spill=0.5) != Lists(5) != 5
    assert Lists() != Exact()
    assert len({Lists(5), Lists(5, spill=0.4), Lists(), Lists(5, spill=0.1)}) == 3
    for value in (Lists(), Lists(7, spill=0.25)):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
        assert eval(repr(value)) == value
    assert (Lists(7, spill=0.25).n_lists, Lists(7, spill=0.25).spill) == (7, 0.25)
    # Hundredths are kept.
    assert Lists(7, spill=1 / 3) == Lists(7, spill=0.33)
    with pytest.raises(AttributeError):
        Lists().n_lists = 5  # type: ignore[misc]


@pytest.mark.parametrize("n_lists", [0, -1, (1 << 20) + 1, 2.5, "16", True, [4]])
def test_numbers_of_lists_refused(n_lists: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        Lists(n_lists)
    assert str(refused.value) == f"n_lists must be an integer from 1 to 1048576, or None, got {n_lists!r}"


@pytest.mark.parametrize("spill", [-0.1, 1.01, 40, "0.4", True, None, float("nan")])
def test_spills_refused(spill: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        Lists(spill=spill)
    assert str(refused.value) == f"spill must be a number from 0 to 1, got {spill!r}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": "manhattan"}, NotImplementedError, f"Lists {METRICS_LISTED}manhattan"),
        ({"metric": "hamming", "encoding": "binary"}, NotImplementedError, f"Lists {METRICS_LISTED}hamming"),
        (
            {"metric": "manhattan", "encoding": "scalar4", "structure": None},
            NotImplementedError,
            f"encoding scalar4 {METRICS_LISTED}manhattan",
        ),
        ({"metric": "jaccard", "encoding": "scalar4"}, NotImplementedError, "works with encoding='binary', got"),
        ({"rerank": "float16"}, NotImplementedError, "rerank goes with short encodings; float32 vectors are kept and"),
        ({"encoding": "uint8", "rerank": "scalar8"}, NotImplementedError, "got rerank='scalar8'"),
        ({"encoding": "scalar4", "rerank": "binary"}, NotImplementedError, "rerank can be any encoding of numbers"),
        ({"encoding": "scalar4", "rerank": "float64"}, ArgumentError, "rerank must be one of float32, float16"),
        ({"encoding": "product(9, 8)"}, ArgumentError, "product(9, 8) needs at least 9 dimensions, got 8"),
        ({"encoding": "scalar4", "rerank": "product(9, 8)"}, ArgumentError, "needs at least 9 dimensions, got 8"),
        ({"encoding": "product(0, 8)"}, ArgumentError, "m in 1..=65535"),
        ({"encoding": "product(2, 5)"}, ArgumentError, "encoding must be one of"),
        ({"encoding": "rabitq(9)"}, ArgumentError, "encoding must be one of"),
        ({"encoding": "scalar"}, ArgumentError, "encoding must be one of"),
        (
            {"structure": Lists},
            ArgumentError,
            "structure must be a value such as nearest.Exact(), nearest.Lists(1024) or nearest.Graph()",
        ),
        ({"structure": "lists"}, ArgumentError, "got 'lists'"),
    ],
)
def test_parameters_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        Index(**{"dim": 8, "structure": Lists(4), **arguments})
    assert message in str(refused.value)


@pytest.mark.parametrize(("written", "kept"), [("product( 4,8 )", "product(4, 8)"), (" rabitq( 2 )", "rabitq(2)")])
def test_encodings_are_written_in_one_way(written: str, kept: str) -> None:
    assert Index(8, encoding=written).encoding == kept
    assert Index(8, encoding="scalar4", rerank=written).rerank == kept


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_properties(encoding: str, rerank: str | None) -> None:
    index = made(encoding, rerank, seed=9)
    assert (index.encoding, index.rerank, index.structure, index.seed) == (encoding, rerank, Lists(32), 9)
    assert repr(index) == (
        f"Index(dim=8, metric='euclidean', structure=Lists(32), encoding={encoding!r}): 3,000 vectors"
    )
    stats = index.stats()
    assert (stats["n_vectors"], stats["n_lists"], stats["n_removed"]) == (3000, 32, 0)
    assert (stats["structure"], stats["encoding"], stats["rerank"]) == ("Lists(32)", encoding, rerank)
    assert 3000 <= stats["n_entries"] <= 4500
    assert 3000 / 32 <= stats["largest_list"] <= 3000
    assert stats["drift"] == pytest.approx(1, abs=0.3)
    # Every row has at least its number, scale and bias in a list.
    assert stats["lists_bytes"] >= 12 * stats["n_entries"]
    # Of what only the lists hold, the number of a list is kept by row.
    kept = {"float32": 32, "float16": 16, "scalar8": 16}.get(rerank or encoding, 4)
    kept = 4 if rerank is None and encoding in ("uint8", "scalar8", "rabitq(3)") else kept
    assert kept * 3000 <= stats["vectors_bytes"] <= 1.5 * kept * 3000 + 4096
    assert "lists_bytes" in index._repr_html_()


def test_what_an_index_says_of_itself() -> None:
    index = Index(8, encoding="scalar4", structure=Lists(32))
    waiting = "there are too few vectors to make lists, codes or links: every query is compared with all of them, and r"
    assert waiting in index.explanation
    index.add(vectors_of("scalar4", 1000))
    assert waiting in index.explanation
    assert "n_lists" not in index.stats()
    found = index.search(np.ones(8), explain=True).explanation
    assert found is not None
    assert (found["exact"], found["recall"], found["n_compared"]) == (True, 1.0, 1000)
    index.add(vectors_of("scalar4", 100))
    assert "a query is compared with the vectors of the nearest of 32 lists" in index.explanation
    assert "distances are those of the scalar4 codes, which get() reads too" in index.explanation
    found = index.search(np.ones(8), explain=True, effort=8).explanation
    assert found is not None
    assert (found["exact"], found["recall"], found["effort"]) == (False, None, 8)
    assert found["n_compared"] < index.stats()["n_entries"] / 2
    assert index.search(np.ones(8), explain=True, effort=99).explanation["effort"] == 32  # type: ignore[index]
    codes = made("rabitq(3)", "scalar8", structure=Exact())
    assert "every query is compared with the rabitq(3) codes of all vectors, and the best" in codes.explanation
    assert "rounded to float16" in made("float16").explanation


# --- knobs -----------------------------------------------------------------------------------------------------------

SEARCHES: dict[str, Callable[..., Any]] = {
    "search": lambda index, **knobs: index.search(np.ones((3, 8)), 10, **knobs),
    "search one": lambda index, **knobs: index.search(np.ones(8), 10, **knobs),
    "neighbors_of": lambda index, **knobs: index.neighbors_of([1, 2], 10, **knobs),
    "search_radius": lambda index, **knobs: index.search_radius(np.ones((3, 8)), 1.0, **knobs),
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"effort": 0}, "effort must be an integer of at least 1, got 0"),
        ({"effort": -5}, "effort must be an integer of at least 1, got -5"),
        ({"effort": 2.5}, "effort must be an integer of at least 1, got 2.5"),
        ({"effort": "5"}, "effort must be an integer"),
        ({"effort": True}, "effort must be an integer"),
        ({"recall": 0}, "recall must be a number above 0 and at most 1, got 0"),
        ({"recall": 1.5}, "recall must be a number above 0 and at most 1, got 1.5"),
        ({"recall": "high"}, "recall must be a number"),
        ({"recall": 0.9}, "recall=0.9 needs a calibration, and this index has none: call calibrate(), or give effort="),
        ({"recall": 0.9, "effort": 3}, "effort and recall both say how hard to try, got 3 and 0.9: give one"),
        ({"rerank_k": 0}, "rerank_k must be an integer of at least 1, got 0"),
        ({"rerank_k": 9}, "rerank_k must be at least k="),
        ({"rerank_k": "many"}, "rerank_k must be an integer"),
    ],
)
def test_knobs_refused(name: str, knobs: dict[str, Any], message: str, listed: Index) -> None:
    with pytest.raises(ArgumentError) as refused:
        SEARCHES[name](listed, **knobs)
    assert message in str(refused.value)


@pytest.fixture(scope="module")
def listed() -> Index:
    return made("scalar4", "scalar8")


@pytest.mark.parametrize("name", SEARCHES)
def test_knobs_that_nothing_uses(name: str) -> None:
    exact, codes = made(structure=Exact()), made("scalar4", structure=Exact())
    for index in (exact, codes):
        with pytest.raises(ArgumentError, match="Exact takes no effort: it compares everything, got effort=5"):
            SEARCHES[name](index, effort=5)
        with pytest.raises(ArgumentError, match="rerank_k goes with lists, graphs and rerank"):
            SEARCHES[name](index, rerank_k=500)
    SEARCHES[name](exact, recall=0.9)
    SEARCHES[name](made("scalar4", "scalar8", structure=Exact()), rerank_k=500)
    # Lists that wait for vectors take what they will use.
    SEARCHES[name](made(n=500), effort=3, rerank_k=500)


def test_more_effort_finds_more(listed: Index) -> None:
    vectors, queries = vectors_of("scalar4"), groups(200, 8, 2)
    truth = nearest.knn(vectors, queries, 10)

    def share(**knobs: Any) -> float:
        found = listed.search(queries, 10, **knobs).ids
        return float((found[:, :, None] == truth.ids[:, None, :]).any(axis=2).mean())

    by_effort = [share(effort=effort, rerank_k=100) for effort in (1, 2, 8, 32)]
    assert by_effort == sorted(by_effort)
    assert by_effort[0] < 0.9 < by_effort[-1]
    by_rerank = [share(effort=32, rerank_k=rerank_k) for rerank_k in (10, 20, 100)]
    assert by_rerank == sorted(by_rerank)
    assert by_rerank[0] < by_rerank[-1]


# --- searches --------------------------------------------------------------------------------------------------------


@given(cases(min_n=1), st.integers(1, 40), st.integers(1, 9), st.sampled_from([0.0, 0.4, 1.0]))
def test_all_lists_are_an_exact_search(case: Case, k: int, n_lists: int, spill: float) -> None:
    assume(case.metric in METRICS)
    structure = Lists(n_lists, spill=spill)
    index = nearest.build(case.vectors, metric=case.metric, encoding=case.encoding, structure=structure, progress=False)
    truth = distances(case.queries, case.vectors, case.metric)
    found = index.search(case.queries, k, effort=ALL)
    same_neighbors(found.ids, found.distances, truth, case.metric, k)
    # Whatever is looked at, exactly min(k, n) are found, in order, each once.
    for knobs in ({}, {"effort": 1}, {"effort": 2, "rerank_k": k + 3}):
        few = index.search(case.queries, k, **knobs)
        assert (few.counts == min(k, len(case.vectors))).all()
        for ids, row in zip(few.ids, few.distances, strict=True):
            assert len(set(ids[ids >= 0].tolist())) == min(k, len(case.vectors))
            assert (np.diff(row[ids >= 0]) >= 0).all()
        assert (few.distances >= found.distances).all()


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_filters(encoding: str, rerank: str | None, metric: str) -> None:
    index = made(encoding, rerank, metric=metric)
    index.remove(index.ids[::7])
    queries = vectors_of(encoding, 20, 3).astype("f4")
    rng = np.random.default_rng(3)
    for share in (0.9, 0.1, 0.01, 0.0):
        mask = rng.random(len(index)) < share
        allowed = index.ids[mask]
        for k in (1, 10, 5000):
            for knobs in ({}, {"effort": 1}, {"effort": ALL}):
                found = index.search(queries, k, filter=mask, **knobs)
                assert (found.counts == min(k, len(allowed))).all()
                there = found.ids[found.ids >= 0]
                assert np.isin(there, allowed).all()
                again = index.search(queries, k, filter=lambda ids, allowed=allowed: np.isin(ids, allowed), **knobs)
                assert np.array_equal(again.ids, found.ids)
                assert np.array_equal(index.search(queries, k, filter=allowed, **knobs).ids, found.ids)


def test_filters_keep_the_recall() -> None:
    vectors, queries = groups(12_000, 16, 1), groups(60, 16, 2)
    index = nearest.build(vectors, structure=Lists(96), progress=False)

    def share(effort: int, mask: np.ndarray) -> float:
        kept = np.flatnonzero(mask)
        found = index.search(queries, 10, effort=effort, filter=mask).ids
        true = kept[nearest.knn(vectors[kept], queries, 10).ids]
        return float((found[:, :, None] == true[:, None, :]).any(axis=2).mean())

    effort = next(effort for effort in range(1, 97) if share(effort, np.ones(12_000, np.bool_)) >= 0.955)
    assert effort < 30
    rng = np.random.default_rng(4)
    nearness = -np.min(np.square(vectors[:, None] - queries[None]).sum(axis=2), axis=1)
    for by in (rng.random(12_000), vectors[:, 0], nearness):
        for kept in (0.5, 0.1, 0.03):
            assert share(effort, by < np.quantile(by, kept)) >= 0.955


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_batches_are_one_by_one(encoding: str, rerank: str | None) -> None:
    index = made(encoding, rerank)
    queries = vectors_of(encoding, 150, 4).astype("f4") + 0.25
    for knobs in ({}, {"effort": 3}, {"effort": 9, "rerank_k": 40}):
        many = index.search(queries, 7, **knobs)
        for n_threads in (1, 2, 5):
            again = index.search(queries, 7, n_threads=n_threads, **knobs)
            assert np.array_equal(again.ids, many.ids)
            assert np.array_equal(again.distances, many.distances)
        for i in range(0, 150, 7):
            one = index.search(queries[i], 7, **knobs)
            assert np.array_equal(one.ids, many.ids[i])
            assert np.array_equal(one.distances, many.distances[i])
        assert np.array_equal(index.search(np.asfortranarray(queries.astype("f8")), 7, **knobs).ids, many.ids)


def test_neighbors_of_and_radius() -> None:
    index = made()
    vectors = vectors_of("float32")
    exact = Index(8)
    exact.add(vectors)
    ids = np.arange(0, 3000, 100)
    assert np.array_equal(index.neighbors_of(ids, 5, effort=ALL).ids, exact.neighbors_of(ids, 5).ids)
    for knobs in ({}, {"effort": 1}):
        near = index.neighbors_of(ids, 5, **knobs)
        assert (near.ids != ids[:, None]).all()
        assert (near.counts == 5).all()
    assert index.neighbors_of(7, 3).ids.shape == (3,)
    for radius in (0.0, 1.5, 3.0):
        ours, theirs = index.search_radius(vectors[:9], radius, effort=ALL), exact.search_radius(vectors[:9], radius)
        for mine, other in zip(ours, theirs, strict=True):
            assert np.array_equal(mine.ids, other.ids)
        for some, all_of_them in zip(index.search_radius(vectors[:9], radius), theirs, strict=True):
            assert np.isin(some.ids, all_of_them.ids).all()
            assert (some.distances <= radius).all()
    with pytest.raises(UnknownIdError):
        index.neighbors_of([5000])


@pytest.mark.parametrize(("encoding", "limit"), [("scalar8", 0.02), ("scalar4", 0.25), ("rabitq(1)", 1.1)])
def test_get_gives_what_codes_stand_for(encoding: str, limit: float) -> None:
    vectors = vectors_of(encoding)
    for metric in ("euclidean", "cosine"):
        index = made(encoding, metric=metric)
        got = index.get(index.ids)
        assert got.dtype == np.float32
        expected = vectors
        if metric == "cosine":
            expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        lost = np.linalg.norm(got - expected, axis=1)
        spread = np.linalg.norm(expected - expected.mean(axis=0), axis=1)
        assert np.sqrt((lost**2).mean() / (spread**2).mean()) < limit
        assert np.array_equal(index.get([5, 5, 2]), got[[5, 5, 2]])
        assert index.get(5).shape == (8,)
    # What candidates are compared with again is what is read.
    for rerank, dtype in (("float32", np.float32), ("float16", np.float16)):
        kept = made(encoding, rerank)
        assert np.array_equal(kept.get(kept.ids), vectors.astype(dtype).astype(np.float32))
    whole = Index(8, encoding=encoding, rerank="uint8", structure=Lists(32))
    whole.add(vectors_of("uint8"))
    assert np.array_equal(whole.get(whole.ids), vectors_of("uint8"))
    assert whole.get(whole.ids).dtype == np.uint8


# --- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_changes(encoding: str, rerank: str | None) -> None:
    vectors = vectors_of(encoding, 4000)
    index = Index(8, encoding=encoding, rerank=rerank, structure=Lists(16))
    names = [f"id {i}" for i in range(4000)]
    for start in range(0, 3000, 500):
        index.add(vectors[start : start + 500], names[start : start + 500])
    assert index.remove(names[:1000]) == 1000
    index.upsert(vectors[3000:], names[500:1500])
    assert len(index) == 2500
    assert ("id 499" in index, "id 500" in index, "id 2999" in index) == (False, True, True)

    def nearest_to(i: int) -> str:
        return str(index.search(vectors[i].astype("f4"), 1, effort=ALL).ids[0])

    if (rerank or encoding) in ("float32", "float16", "uint8", "scalar8"):
        # A vector that took the place of another is found by what it is now.
        assert nearest_to(3000) == "id 500"
        assert nearest_to(2500) == "id 2500"
        assert nearest_to(10) != "id 10"
    for bad, message in (
        (lambda: index.add(vectors[:2], ["id 700", "new"]), "1 of 2 ids are in the index already"),
        (lambda: index.add(vectors[:2], ["new", "new"]), "ids must differ"),
        (lambda: index.add(vectors[:2].astype("f4") * np.nan, ["new", "newer"]), "must be finite"),
        (lambda: index.add(vectors[:2, :5], ["new", "newer"]), "must have shape"),
    ):
        before = pickle.dumps(index)
        with pytest.raises(ArgumentError, match=message):
            bad()
        assert pickle.dumps(index) == before


@pytest.mark.parametrize("by_group", [False, True])
@pytest.mark.parametrize(("encoding", "rerank"), [("uint8", None), ("scalar4", "scalar8")])
def test_change_after_change_costs_nothing(encoding: str, rerank: str | None, by_group: bool) -> None:
    n = 8000
    vectors, queries = vectors_of(encoding, n), vectors_of(encoding, 60, 2).astype("f4")
    index = Index(8, encoding=encoding, rerank=rerank, structure=Lists(48))
    index.add(vectors, np.arange(n))
    before, n_entries = index.search(queries, 10, effort=4), index.stats()["n_entries"]
    order = np.argsort(vectors[:, 0], kind="stable") if by_group else np.random.default_rng(5).permutation(n)
    for start in (0, 1600, 3200, 4800, 6400, 0):
        changed = order[start : start + 1600]
        assert index.remove(changed) == 1600
        assert index.stats()["n_entries"] < 1.15 * 0.8 * n_entries
        index.add(vectors[changed], changed)
        assert index.stats()["n_entries"] < 1.15 * n_entries
        after = index.search(queries, 10, effort=4)
        assert (after.ids == before.ids).mean() > 0.995


def test_few_vectors_wait_for_lists() -> None:
    index = Index(8, encoding="scalar4", structure=Lists(10))
    vectors = vectors_of("scalar4", 1100)
    index.add(vectors[:1023])
    assert np.array_equal(index.get(index.ids), vectors[:1023])
    assert np.array_equal(index.search(vectors[:50], 5).ids, nearest.knn(vectors[:1023], vectors[:50], 5).ids)
    index.add(vectors[1023])
    assert index.stats()["n_lists"] == 10
    assert not np.array_equal(index.get(index.ids), vectors[:1024])
    many = Index(8, structure=Lists(100))
    many.add(vectors)
    assert "n_lists" not in many.stats()


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_an_index_is_the_same_wherever_it_goes(encoding: str, rerank: str | None, tmp_path: Path) -> None:
    index = made(encoding, rerank)
    index.remove(index.ids[::3])
    index.save(tmp_path / "x")
    assert nearest.verify(tmp_path / "x")["kind"] == "index"
    queries = vectors_of(encoding, 30, 5).astype("f4")
    for other in (
        pickle.loads(pickle.dumps(index)),
        index.copy(),
        copy.copy(index),
        copy.deepcopy(index),
        nearest.open(tmp_path / "x"),
        nearest.open(tmp_path / "x", memory_map=False),
    ):
        assert (other.structure, other.encoding, other.rerank) == (index.structure, encoding, rerank)
        assert np.array_equal(other.ids, index.ids)
        assert np.array_equal(other.get(other.ids), index.get(index.ids))
        for knobs in ({}, {"effort": 2}, {"effort": ALL}, {"filter": index.ids[::4]}):
            ours, theirs = index.search(queries, 9, **knobs), other.search(queries, 9, **knobs)
            assert np.array_equal(ours.ids, theirs.ids)
            assert np.array_equal(ours.distances, theirs.distances)
        assert pickle.dumps(other) == pickle.dumps(index)
    mapped = nearest.open(tmp_path / "x")
    for change in (
        lambda: mapped.add(queries),
        lambda: mapped.remove([1]),
        lambda: mapped.upsert(queries[:1], [1]),
        lambda: mapped.merge(index),
    ):
        with pytest.raises(ReadOnlyError, match="memory_map=False"):
            change()


@pytest.mark.parametrize("encoding", ["float32", "float16", "uint8", "int8", "scalar4", "product(4, 8)"])
@pytest.mark.parametrize("rerank", [None, "scalar8", "float16"])
def test_shards_of_one_kind_are_merged_without_loss(encoding: str, rerank: str | None, tmp_path: Path) -> None:
    if rerank and "(" not in encoding and not encoding.startswith("scalar"):
        pytest.skip("only short codes are compared again")
    vectors, queries = vectors_of(encoding, 6000, 1), vectors_of(encoding, 50, 2)
    first = Index(8, encoding=encoding, rerank=rerank, structure=Lists(40))
    first.add(vectors[:2000])
    shards = [first.empty_copy() for _ in range(2)]
    for i, shard in enumerate(shards):
        assert len(shard) == 0
        shard.add(vectors[2000 * (i + 1) :][:2000], np.arange(2000 * (i + 1), 2000 * (i + 2)))
    # An empty one is kept in a file as any other.
    first.empty_copy().save(tmp_path / "empty")
    assert len(nearest.open(tmp_path / "empty")) == 0
    shards[1].remove(np.arange(5000, 5100))
    shards[1].save(tmp_path / "shard")
    merged, added = first.copy(), first.copy()
    for shard in (shards[0], nearest.open(tmp_path / "shard")):
        assert merged.merge(shard).tolist() == shard.ids.tolist()
    rest = np.concatenate([np.arange(2000, 5000), np.arange(5100, 6000)])
    added.add(vectors[rest], rest)
    # As if all vectors had been added to one index.
    assert merged.ids.tolist() == added.ids.tolist()
    assert np.array_equal(merged.get(rest), added.get(rest))
    for effort in (3, 40):
        one, other = (index.search(queries.astype("f4"), 10, effort=effort) for index in (merged, added))
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.distances, other.distances)
    before = pickle.dumps(merged)
    with pytest.raises(ArgumentError, match="are in the index already"):
        merged.merge(shards[0])
    assert pickle.dumps(merged) == before


def test_an_empty_copy_of_what_has_no_lists_is_an_empty_index() -> None:
    for index in (Index(4, encoding="uint8"), Index(4, structure=Lists(8)), Index(4, encoding="scalar4")):
        other = index.empty_copy()
        assert (other.structure, other.encoding, len(other)) == (index.structure, index.encoding, 0)
        other.add(np.eye(4, dtype="uint8"))
        assert other.search(np.eye(4, dtype="f4")[1], 1).ids.tolist() == [1]
        assert len(index) == 0


def test_shards_are_merged(tmp_path: Path) -> None:
    vectors, queries = groups(9000, 8, 1), groups(100, 8, 2)
    names = [f"row {i}" for i in range(9000)]
    truth = nearest.knn(vectors, queries, 10).ids
    shards = [
        nearest.build(vectors[i : i + 3000], ids=names[i : i + 3000], structure=Lists(40), encoding="float32")
        for i in range(0, 9000, 3000)
    ]
    shards[1].save(tmp_path / "shard")
    whole = shards[0].copy()
    for shard in (nearest.open(tmp_path / "shard"), shards[2]):
        before = pickle.dumps(shard)
        added = whole.merge(shard)
        assert added.tolist() == shard.ids.tolist()
        assert pickle.dumps(shard) == before
    assert whole.ids.tolist() == names
    assert np.array_equal(whole.get(names), vectors)
    assert whole.search(queries, 10, effort=ALL).ids.tolist() == [[names[i] for i in row] for row in truth]
    some = whole.search(queries, 10, effort=10).ids
    share = np.mean([len(set(found) & {names[i] for i in row}) for found, row in zip(some, truth, strict=True)]) / 10
    assert share > 0.9
    before = pickle.dumps(whole)
    for other, message in (
        (whole, "are in the index already"),
        (shards[1], "are in the index already"),
        (Index(9), "merge takes an index of dim 8 and metric euclidean, got 9 and euclidean"),
        (Index(8, metric="cosine"), "got 8 and cosine"),
        (vectors, "merge takes a nearest.Index, got ndarray"),
        (made(), "text"),
    ):
        with pytest.raises(ArgumentError, match=message):
            whole.merge(other)  # type: ignore[arg-type]
        assert pickle.dumps(whole) == before
    assert whole.merge(Index(8)).tolist() == []
    # Codes give what they stand for; integers and bits what they are.
    for encoding in ("uint8", "scalar8", "float16"):
        into, other = made(encoding, n=2000), Index(8, encoding=encoding, structure=Lists(32))
        other.add(vectors_of(encoding, 2000, 6), np.arange(5000, 7000))
        into.merge(other)
        off = np.abs(into.get(other.ids).astype("f4") - other.get(other.ids).astype("f4")).max()
        assert off <= (0.2 if encoding == "scalar8" else 0)
    bits, more = (Index(20, metric="hamming", encoding="binary") for _ in range(2))
    rng = np.random.default_rng(1)
    bits.add(make_vectors(rng, 30, 20, "normal", "binary"))
    more.add(make_vectors(rng, 30, 20, "normal", "binary"), np.arange(30, 60))
    bits.merge(more)
    assert np.array_equal(bits.get(more.ids), more.get(more.ids))


def test_readers_beside_a_writer() -> None:
    index = Index(8, encoding="scalar4", rerank="float32", structure=Lists(8))
    vectors, stop, wrong = groups(20_000, 8, 1), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                n = len(index)
                found = index.search(vectors[:20], 5)
                assert (found.counts >= min(5, n)).all()
                # Those that stay are there all the time, before and after lists are made, and made anew.
                if n:
                    assert set(index.search(vectors[:20], 1, effort=ALL).ids[:, 0].tolist()) == set(range(20))
            except BaseException as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 20_000, 500):
        index.add(vectors[start : start + 500])
        if start % 1500 == 1000:
            index.remove(np.arange(start - 500, start))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[0]
    assert index.stats()["n_lists"] == 8


def test_ctrl_c_undoes_a_change(run_python: Callable[..., Any]) -> None:
    run_python(
        """
import os, signal, threading
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((300_000, 64)).astype("f4")
for structure, encoding in ((nearest.Lists(256), "float32"), (nearest.Exact(), "scalar4")):
    index = nearest.Index(64, structure=structure, encoding=encoding, rerank=None)
    index.add(vectors[:1000])
    before = index._native.to_bytes()
    for delay in (0.05, 0.3, 0.6):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            index.add(vectors)
            timer.join()
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("a signal was lost")
        if len(index) != 1000:  # it was done before the signal came
            break
        assert index._native.to_bytes() == before
    index.add(vectors[:5000])
    assert index.search(vectors[:10], 1, n_threads=1).counts.tolist() == [1] * 10
"""
    )


@pytest.mark.parametrize("level", ["portable", "avx2", "avx512"])
def test_other_kernels_open_the_same_file(
    level: str, run_python: Callable[..., Any], tmp_path: Path, listed: Index
) -> None:
    if level not in nearest._native.kernels()["available"]:
        pytest.skip(f"this CPU has no {level}")
    listed.save(tmp_path / "x")
    made().save(tmp_path / "y")
    np.save(tmp_path / "q.npy", groups(50, 8, 2))
    run_python(
        """
import numpy as np, nearest
queries = np.load("q.npy")
found = [nearest.open(path).search(queries, 10, effort=effort) for path in "xy" for effort in (5, 1 << 30)]
np.savez("found.npz", *[array for each in found for array in each], values=nearest.open("x").get(range(100)))
""",
        NEAREST_KERNELS=level,
    )
    with np.load(tmp_path / "found.npz") as found:
        assert np.array_equal(found["values"], listed.get(np.arange(100)))
        exact = made().search(groups(50, 8, 2), 10, effort=ALL)
        assert np.array_equal(found["arr_6"], exact.ids)
        assert np.array_equal(found["arr_7"], exact.distances)
        for i, index in ((0, listed), (4, made())):
            ours = index.search(groups(50, 8, 2), 10, effort=5).ids
            assert (found[f"arr_{i}"][:, :, None] == ours[:, None, :]).any(axis=2).mean() > 0.99
