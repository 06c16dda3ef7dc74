"""Calibrations: what they measure, what searches make of them, and when they say that they do not fit."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import ArgumentError, Calibration, CalibrationPoint, Index, Lists, RecallWarning
from nearest.calibration import measure, shares_found
from strategies import groups

DIM = 10
VECTORS, QUERIES = groups(6000, DIM, 1), groups(500, DIM, 2)


@pytest.fixture(scope="module")
def kept() -> Index:
    return nearest.build(VECTORS, structure=Lists(128), encoding="float32", progress=False)


@pytest.fixture
def index(kept: Index) -> Index:
    return kept.copy()


def curve(*points: tuple[int, float]) -> tuple[CalibrationPoint, ...]:
    return tuple(CalibrationPoint(effort, mean, mean, mean) for effort, mean in points)


def calibration(**curves: tuple[CalibrationPoint, ...]) -> Calibration:
    return Calibration(True, 100, {int(k[1:]): points for k, points in curves.items()}, "", 1000)


# --- the object ------------------------------------------------------------------------------------------------------


def test_the_effort_of_a_recall() -> None:
    one = calibration(k10=curve((1, 0.5), (4, 0.8), (16, 0.98)))
    assert one.effort(0.01) == one.effort(0.3) == 1
    assert one.effort(0.5) == 2  # what was measured is an estimate: a little more is aimed at
    assert one.effort(0.9999) == 16
    efforts = [one.effort(recall / 100) for recall in range(1, 101)]
    assert efforts == sorted(efforts)
    assert 4 < one.effort(0.9) < 16
    two = calibration(k1=curve((1, 0.9), (8, 0.99)), k100=curve((1, 0.2), (64, 0.99)))
    assert two.effort(0.95, 1) < two.effort(0.95, 10) < two.effort(0.95, 100) == two.effort(0.95, 5000)
    assert two.effort(0.95, 1) <= two.effort(0.95, 2) <= two.effort(0.95, 9) <= two.effort(0.95, 99)


def test_the_recall_of_an_effort() -> None:
    one = calibration(k10=curve((1, 0.5), (4, 0.8), (16, 0.98)))
    assert one.reached(1) == pytest.approx(0.5)
    assert one.reached(4) == pytest.approx(0.8)
    assert 0.5 < one.reached(2) < 0.8 < one.reached(9) < 0.98
    assert one.reached(1000) == one.reached(16) == pytest.approx(0.98)
    assert one.most() == one.most(100) == 0.98
    # What was aimed at is reached again.
    for recall in (0.6, 0.75, 0.9, 0.95):
        assert recall <= one.reached(one.effort(recall)) < recall + 0.1


@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.floats(0, 1)), min_size=1, max_size=12, unique_by=lambda point: point[0]
    ),
    st.floats(0.01, 1),
    st.integers(1, 5000),
)
def test_any_curve_gives_an_effort_in_it(points: list[tuple[int, float]], recall: float, k: int) -> None:
    points.sort()
    one = calibration(k1=curve(*points), k100=curve(*points[:1]))
    assert 1 <= one.effort(recall, k) <= points[-1][0]
    assert 0 <= one.reached(k) <= 1
    again = Calibration.from_json(one.to_json())
    assert again is not None
    assert (again.curves, again.n_queries, again.n_vectors, again.recall) == (one.curves, 100, 1000, None)
    assert again.effort(recall, k) == one.effort(recall, k)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "1", "{", '{"curves": {}}', '{"curves": 5, "far": {}}', "\ud800", "[" * 10_000, "1e999"],
)
def test_what_is_no_calibration_is_none(text: str) -> None:
    assert Calibration.from_json(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"curves": {"10": []}},
        {"curves": {"x": [[1, 0.5, 0.5, 0.5]]}},
        {"curves": {"10": [[1, 0.5]]}},
        {"curves": {"10": [[None, 0.5, 0.5, 0.5]]}},
        {"curves": {"0": [[1, 0.5, 0.5, 0.5]]}},
        {"curves": {"10": [[0, 0.5, 0.5, 0.5]]}},
        {"curves": {"10": [[1, "x", 0.5, 0.5]]}},
        {"curves": {"10": [[1, None, 0.5, 0.5]]}},
        {"curves": {"10": [[1, float("nan"), 0.5, 0.5]]}},
        {"curves": {"10": [[True, 0.5, 0.5, 0.5]]}},
        {"far": {"10": "x"}},
        {"far": None},
        {"middle": {"10": "x"}},
        {"middle": 5},
        {"recall": "x"},
        {"recall": -1},
        {"n_queries": None},
        {"n_vectors": "x"},
        {"n_lists": -5},
    ],
)
def test_a_damaged_calibration_is_none(change: dict[str, Any], index: Index) -> None:
    good = calibration(k10=curve((1, 0.5), (4, 0.9)))
    text = json.dumps({**json.loads(good.to_json()), **change})
    assert Calibration.from_json(text) is None
    # An index serves without.
    index._native.set_calibration(text)
    assert index.calibration is None
    assert index.search(QUERIES, 5).ids.shape == (500, 5)
    assert "explanation" in index.stats()
    with pytest.raises(ArgumentError, match="needs a calibration"):
        index.search(QUERIES, 5, recall=0.9)


def test_ties_count_for_each_other() -> None:
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.array([[0, 1, 1, 1], [0, 1, 2, 3]], np.float32)
    assert shares_found(np.array([[1, 4], [5, 7]]), truth, 2).tolist() == [1, 0.5]
    assert shares_found(np.array([[9, -1], [8, 6]]), truth, 2).tolist() == [0, 0.5]
    assert shares_found(np.array([[4], [5]]), truth, 1).tolist() == [0, 1]
    texts = truth[0].astype(str).astype(object), truth[1]
    assert shares_found(np.array([["1", "4"], ["5", ""]], dtype=object), texts, 2).tolist() == [1, 0.5]


def test_measuring() -> None:
    # A search that finds with effort e what is nearest, but for a share of 1 / (1 + e).
    n, most = 400, 300
    ids = np.arange(n * 120).reshape(n, 120)
    truth = ids, np.tile(np.arange(120, dtype=np.float32), (n, 1))
    asked: list[tuple[int, int, int]] = []

    def search(k: int, effort: int, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((k, effort, n_queries))
        hidden = np.random.default_rng(effort).random((n_queries, k)) < 1 / (1 + effort)
        return np.where(hidden, -1, ids[:n_queries, :k]), truth[1][:n_queries, :k]

    found = measure(search, truth, 5000, most, 7, 0.95)
    assert sorted(found.curves) == [1, 7, 10, 100]
    assert (found.n_queries, found.n_vectors, found.recall, found.n_lists, found.measured) == (
        400,
        5000,
        0.95,
        300,
        True,
    )
    assert all(1 <= effort <= most for _, effort, _ in asked)
    for points in found.curves.values():
        efforts = [point.effort or 0 for point in points]
        assert efforts == sorted(set(efforts))
        assert all(point.worst <= point.mean and point.lower <= point.mean for point in points)
    assert found.effort(0.9) == pytest.approx(10, abs=3)
    assert found.effort(0.95) == pytest.approx(22, abs=6)
    assert found.far[10] == found.middle[10] == 9
    assert Calibration.from_json(found.to_json()) == found
    # Of few vectors there are fewer neighbors.
    assert sorted(measure(search, (ids[:, :8], truth[1][:, :8]), 8, 5, 7, None).curves) == [1, 7]


def test_queries_that_are_all_farther_than_usual_are_unlike_those_measured() -> None:
    one = calibration(k10=curve((1, 0.5), (4, 1.0)))._replace(far={10: 9.0}, middle={10: 5.0})

    def at(*shares: tuple[float, int]) -> np.ndarray:
        return np.repeat([np.full(10, distance, np.float32) for distance, _ in shares], [n for _, n in shares], axis=0)

    assert not one.is_unlike(at((4.0, 15), (6.0, 15)))
    assert not one.is_unlike(at((5.0, 40)))
    assert not one.is_unlike(at((4.0, 4), (6.0, 36)))
    assert one.is_unlike(at((4.0, 3), (6.0, 37)))
    # What is found at little recall is farther.
    assert not one.is_unlike(at((4.0, 3), (6.0, 37)), 0.9)
    assert one.is_unlike(at((4.0, 35), (10.0, 5)))
    # Files of before have no such distance.
    kept = json.loads(one.to_json())
    del kept["middle"]
    old = Calibration.from_json(json.dumps(kept))
    assert old is not None
    assert not old.is_unlike(at((6.0, 40)))


# --- of an index -----------------------------------------------------------------------------------------------------


def test_an_exact_index_has_nothing_to_measure() -> None:
    index = Index(3)
    found = index.calibrate(k=7)
    assert not found.measured
    assert sorted(found.curves) == [1, 7, 10, 100]
    assert all(point.mean == point.lower == point.worst == 1 for (point,) in found.curves.values())
    assert "by construction" in index.calibrate(np.ones((5, 3))).explanation
    assert index.calibration is None
    untrained = Index(3, structure=Lists())
    untrained.add(np.eye(3))
    assert not untrained.calibrate().measured
    assert untrained.search(np.ones(3), recall=0.5).ids.shape == (3,)


def test_calibrating(index: Index) -> None:
    before = index.calibration
    assert before is not None
    assert before.recall == 0.95
    given_ones = index.calibrate(QUERIES, k=3)
    assert given_ones == index.calibration != before
    assert (given_ones.n_queries, given_ones.n_vectors, given_ones.recall) == (500, 6000, 0.95)
    assert sorted(given_ones.curves) == [1, 3, 10, 100]
    assert "measured on 500 queries against 6,000 vectors" in given_ones.explanation
    own = index.calibrate()
    assert (own.n_queries, own.n_vectors) == (600, 5400)
    assert len(index) == 6000
    # Its own vectors are left out while it is measured: they would find themselves at once.
    assert own.curves[1][0].mean < 0.95
    truth = nearest.knn(VECTORS, QUERIES, 10).ids
    for points in (given_ones.curves[10], own.curves[10]):
        for point in points:
            found = index.search(QUERIES, 10, effort=point.effort).ids
            share = (found[:, :, None] == truth[:, None, :]).any(axis=2).mean()
            assert share == pytest.approx(point.mean, abs=0.02)
    for bad in (np.ones((2, 3)), np.full((2, DIM), np.nan), "x"):
        with pytest.raises(ArgumentError):
            index.calibrate(bad)
    with pytest.raises(ArgumentError, match="k must be"):
        index.calibrate(k=0)
    assert index.calibration == own


def test_a_calibration_goes_with_its_index(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "x")
    for other in (
        pickle.loads(pickle.dumps(index)),
        copy.copy(index),
        copy.deepcopy(index),
        nearest.open(tmp_path / "x"),
        nearest.open(tmp_path / "x", memory_map=False),
        nearest.open(tmp_path / "x").copy(),
    ):
        assert other.calibration == index.calibration
        for recall in (None, 0.8, 0.97):
            ours, theirs = (each.search(QUERIES, 10, recall=recall) for each in (index, other))
            assert np.array_equal(ours.ids, theirs.ids)
    mapped = nearest.open(tmp_path / "x")
    assert mapped.calibrate(QUERIES).n_queries == 500
    assert mapped.calibration == index.calibration
    # A copy is one of its own.
    other = index.copy()
    other.calibrate(QUERIES)
    assert other.calibration != index.calibration


def test_searches_look_at_as_many_lists_as_the_recall_takes(index: Index) -> None:
    found = index.calibration
    assert found is not None
    for recall in (0.7, 0.95, 0.99):
        for k in (1, 4, 10, 50):
            effort = found.effort(recall, k)
            by_recall = index.search(QUERIES, k, recall=recall, explain=True)
            by_effort = index.search(QUERIES, k, effort=effort)
            assert np.array_equal(by_recall.ids, by_effort.ids)
            assert by_recall.explanation is not None
            assert by_recall.explanation["effort"] == effort
            ids = index.ids[:40]
            near = index.neighbors_of(ids, k, recall=recall)
            assert np.array_equal(near.ids, index.neighbors_of(ids, k, effort=effort).ids)
    # Without a word, as it was built.
    assert np.array_equal(index.search(QUERIES, 10).ids, index.search(QUERIES, 10, recall=0.95).ids)
    single = [index.search(query, 10).ids for query in QUERIES[:50]]
    assert np.array_equal(index.search(QUERIES[:50], 10).ids, single)
    radius = index.search_radius(QUERIES[:5], 2.0, recall=0.9)
    same = index.search_radius(QUERIES[:5], 2.0, effort=found.effort(0.9, 100))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(radius, same, strict=True))
    # All lists of vectors that are kept as they are find everything.
    assert np.array_equal(index.search(QUERIES, 10, recall=1).ids, nearest.knn(VECTORS, QUERIES, 10).ids)
    # What it was built for stays when it is measured again; a calibration that nothing was built for is not aimed at.
    again = index.calibrate(QUERIES)
    assert again.recall == 0.95
    assert np.array_equal(index.search(QUERIES, 10).ids, index.search(QUERIES, 10, recall=0.95).ids)
    by_hand = Index(DIM, structure=Lists(128), encoding="scalar8")
    by_hand.add(VECTORS)
    assert by_hand.calibrate(QUERIES).recall is None
    default = math.isqrt(127) + 1
    assert np.array_equal(by_hand.search(QUERIES, 10).ids, by_hand.search(QUERIES, 10, effort=default).ids)
    single = [by_hand.search(query, 10).ids for query in QUERIES[:50]]
    assert np.array_equal(by_hand.search(QUERIES[:50], 10, effort=default).ids, single)


def test_a_recall_needs_a_calibration() -> None:
    index = Index(DIM, structure=Lists(16))
    index.add(VECTORS)
    for search in (
        lambda: index.search(QUERIES, recall=0.9),
        lambda: index.search(QUERIES[0], recall=0.9),
        lambda: index.neighbors_of([1, 2], recall=0.9),
        lambda: index.search_radius(QUERIES, 1.0, recall=0.9),
    ):
        with pytest.raises(ArgumentError, match=r"recall=0.9 needs a calibration.*call calibrate\(\), or give effort="):
            search()
    index.calibrate()
    assert index.search(QUERIES, recall=0.9).ids.shape == (500, 10)


def test_codes_that_are_compared_with_every_query() -> None:
    index = Index(DIM, encoding="rabitq(1)", rerank="float32")
    index.add(VECTORS)
    with pytest.raises(ArgumentError) as refused:
        index.search(QUERIES, recall=0.9)
    assert str(refused.value) == "recall=0.9 needs a calibration, and this index has none: call calibrate()"
    found = index.calibrate(QUERIES)
    assert found.measured
    assert {point.effort for points in found.curves.values() for point in points} == {1}
    # What searches find, which do not compare every vector in full.
    assert found.most(10) == pytest.approx(share_found(index, QUERIES, 10), abs=0.01)
    assert 0.3 < found.most(10) < 0.999
    with pytest.warns(RecallWarning, match=r"recall 0.999 was not reached at any effort when it was measured, 0\."):
        index.search(QUERIES, recall=0.999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search(QUERIES, recall=found.most(10) - 0.01)
    with pytest.raises(ArgumentError, match="Exact takes no effort"):
        index.search(QUERIES, effort=1)


def share_found(index: Index, queries: np.ndarray, k: int, **options: Any) -> float:
    truth = nearest.knn(VECTORS, queries, k).ids
    found = index.search(queries, k, **options).ids
    return float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())


def test_all_lists_may_find_what_no_part_of_them_does() -> None:
    # Of vectors that 8 bits cannot tell apart too few are compared in full, unless all lists are looked at.
    rng = np.random.default_rng(3)
    vectors = np.repeat(groups(60, 12, 2), 100, axis=0) + 0.001 * rng.standard_normal((6000, 12)).astype("f4")
    index = nearest.build(vectors, structure=Lists(64), encoding="float32", progress=False)
    found = index.calibration
    assert found is not None
    assert found.curves[10][-2].mean < 0.9 < found.curves[10][-1].mean == 1
    assert found.effort(0.95, 10) == 64
    truth = nearest.knn(vectors, vectors[::30], 10)
    assert nearest.recall(index.search(vectors[::30], 10), truth) == 1


def test_too_little_to_measure() -> None:
    index = nearest.build(VECTORS[:300], structure=Lists(8), progress=False)
    index.remove(index.ids[2:])
    assert index.calibrate().n_queries == 1
    index.remove(index.ids[1:])
    assert index.calibrate(QUERIES).n_vectors == 1
    with pytest.raises(ArgumentError, match=r"got no queries and 1 vector$"):
        index.calibrate()
    index.remove(index.ids)
    for queries in (None, QUERIES):
        with pytest.raises(ArgumentError, match="calibrate measures on queries, or on a tenth of the vectors"):
            index.calibrate(queries)
    index.add(VECTORS[:50])
    with pytest.raises(ArgumentError, match="got 0 queries and 50 vectors"):
        index.calibrate(QUERIES[:0])
    assert index.search(QUERIES, 3).counts.tolist() == [3] * 500


# --- warnings --------------------------------------------------------------------------------------------------------


def warned(index: Index, queries: np.ndarray, k: int = 10, recall: float | None = 0.9, **options: Any) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = index.search(queries, k, recall=recall, explain=True, **options)
    assert all(each.category is RecallWarning and each.filename == __file__ for each in caught)
    assert len(caught) <= 1
    said = str(caught[0].message) if caught else ""
    explained = found.explanation
    assert explained is not None
    if recall is not None and "filter" not in options:
        assert explained["doubts"] == said
    return said


def test_queries_of_another_kind_are_noticed(index: Index) -> None:
    assert issubclass(RecallWarning, UserWarning)
    assert warned(index, QUERIES) == warned(index, QUERIES, 1) == warned(index, QUERIES, 100) == ""
    noise = np.random.default_rng(4).standard_normal(QUERIES.shape)
    for other in (2 * QUERIES, QUERIES + 2 * noise, 5 * noise):
        for k in (1, 10, 100):
            assert "these queries are farther from the vectors than those that the recall was measured on" in warned(
                index, other, k
            )
    # A few of them say nothing, nor does a search that asks for no recall, or among some of the vectors.
    assert warned(index, 2 * QUERIES[:19]) == ""
    assert warned(index, 2 * QUERIES[0]) == ""
    assert warned(index, 2 * QUERIES, recall=None) == ""
    assert warned(index, QUERIES, filter=np.arange(100)) == ""
    far_away = index.add(8 * QUERIES[:30])
    with pytest.warns(RecallWarning, match="farther"):
        index.neighbors_of(far_away, 10, recall=0.9)
    # What they reach is known once it is measured.
    index.calibrate(2 * QUERIES)
    assert warned(index, 2 * QUERIES) == ""


def test_growth_is_noticed(index: Index) -> None:
    index.add(groups(400, DIM, 5))
    assert warned(index, QUERIES) == ""
    index.add(groups(200, DIM, 6))
    assert "the index has grown from 5,400 to 6,600 vectors since its recall was measured" in warned(index, QUERIES)
    index.remove(index.ids[:200])
    assert warned(index, QUERIES) == ""
    index.add(groups(1500, DIM, 7))
    assert "has grown" in warned(index, QUERIES)
    index.calibrate()
    assert warned(index, QUERIES) == ""


def test_lists_that_were_made_anew_are_noticed() -> None:
    index = Index(DIM, structure=Lists())
    index.add(groups(17_000, DIM, 8))
    index.calibrate(QUERIES)
    n_lists = index.stats()["n_lists"]

    def effort() -> int:
        explained = index.search(QUERIES, 10, recall=0.9, explain=True).explanation
        assert explained is not None
        return int(explained["effort"])

    before = effort()
    assert warned(index, QUERIES) == ""
    # Many times as many want more lists; efforts are the same part of them.
    index.add(groups(52_000, DIM, 9))
    assert index.stats()["n_lists"] > 1.8 * n_lists
    said = warned(index, QUERIES)
    assert "the index has grown from 17,000 to 69,000" in said
    assert "the lists were made anew since the recall was measured" in said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert effort() > 1.5 * before
    index.calibrate(QUERIES)
    assert warned(index, QUERIES) == ""


def test_single_queries_go_by_the_newest_calibration(index: Index) -> None:
    def same() -> bool:
        many = index.search(QUERIES[:50], 10).ids
        return all(np.array_equal(index.search(query, 10).ids, ids) for query, ids in zip(QUERIES, many, strict=False))

    assert same()
    index.calibrate(QUERIES)
    assert same()
    index.add(groups(30_000, DIM, 8))
    assert same()
    index.remove(index.ids[:20_000])
    assert same()


def test_a_recall_that_nothing_reached_is_told() -> None:
    index = nearest.build(VECTORS, structure=Lists(16), encoding="rabitq(1)", memory="low", recall=0.5, progress=False)
    assert "recall 0.99 was not reached at any effort when it was measured, 0." in warned(index, QUERIES, recall=0.99)
    assert "was not reached" in warned(index, QUERIES, recall=1)
    assert warned(index, QUERIES, recall=0.2) == ""
