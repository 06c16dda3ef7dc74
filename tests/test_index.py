"""`Index`, `open`, `verify`: behaviour, against the oracle and against a dict."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nearest import ArgumentError, Exact, FormatError, Index, ReadOnlyError, UnknownIdError
from oracle import BITS, METRICS, distances, same_neighbors
from strategies import ENCODINGS, Case, cases, make_vectors

# --- search ----------------------------------------------------------------------------------------------------------


def index_of(case: Case, **options: Any) -> Index:
    index = Index(case.dim, metric=case.metric, encoding=case.encoding, **options)
    index.add(case.vectors)
    return index


def may_have_shadow(case: Case) -> bool:
    return case.encoding in ("float32", "float16", "bfloat16") and case.metric != "manhattan"


@given(cases(), st.integers(1, 40), st.sampled_from([None, 1, 2]), st.sampled_from([None, "scalar8"]))
def test_equals_brute_force(case: Case, k: int, n_threads: int | None, shadow: str | None) -> None:
    if not may_have_shadow(case):
        shadow = None
    index = index_of(case, structure=Exact(shadow=shadow))
    found = index.search(case.queries, k, n_threads=n_threads)
    same_neighbors(found.ids, found.distances, distances(case.queries, case.vectors, case.metric), case.metric, k)
    assert found.counts.tolist() == [min(k, len(case.vectors))] * len(case.queries)
    for row, query in enumerate(case.queries):
        one = index.search(query, k, n_threads=n_threads)
        assert one.counts.tolist() == [len(one.ids)]
        np.testing.assert_array_equal(one.ids, found.ids[row, : len(one.ids)])
        np.testing.assert_array_equal(one.distances.view("u4"), found.distances[row, : len(one.ids)].view("u4"))


@given(cases(encodings=("float32", "float16", "bfloat16")).filter(may_have_shadow), st.integers(1, 20))
def test_a_shadow_changes_no_bit(case: Case, k: int) -> None:
    plain, shadowed = index_of(case), index_of(case, structure=Exact(shadow="scalar8"))
    for queries in (case.queries, *case.queries):
        for a, b in zip(plain.search(queries, k), shadowed.search(queries, k), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_shadow_on_real_data(shared_data: Callable[[str], dict[str, np.ndarray]]) -> None:
    data = shared_data("wordnet")
    base, queries = data["base"][:50_000].astype(np.float32), data["queries"][:40].astype(np.float32)
    plain = nearest.build(base, metric="cosine", structure=Exact(), progress=False)
    shadowed = nearest.build(base, metric="cosine", structure=Exact(shadow="scalar8"), progress=False)
    batch = plain.search(queries, 10)
    for row, query in enumerate(queries):
        for index in (plain, shadowed):
            found = index.search(query, 10)
            np.testing.assert_array_equal(found.ids, batch.ids[row])
            np.testing.assert_array_equal(found.distances, batch.distances[row])
    assert shadowed.structure == Exact(shadow="scalar8")


@given(cases(min_n=1), st.integers(1, 20))
def test_neighbors_of_are_a_search_without_the_vector_itself(case: Case, k: int) -> None:
    index = index_of(case)
    n = len(index)
    members = np.arange(n)[:: max(1, n // 7)]
    found = index.neighbors_of(members, k)
    stored = case.vectors[members] if case.metric in BITS else index.get(members).astype(np.float32)
    everything = index.search(stored, n)
    for row, member in enumerate(members):
        others = everything.ids[row] != member
        count = min(k, n - 1)
        assert found.counts[row] == count
        np.testing.assert_array_equal(found.ids[row, :count], everything.ids[row][others][:count])
        np.testing.assert_array_equal(found.distances[row, :count], everything.distances[row][others][:count])
        one = index.neighbors_of(int(member), k)
        np.testing.assert_array_equal(one.ids, found.ids[row, :count])


@given(cases(), st.floats(0, 1), st.sampled_from([1, 2]))
def test_radius_is_inclusive(case: Case, share: float, n_threads: int) -> None:
    index = index_of(case)
    n = max(1, len(index))
    everything = index.search(case.queries, n)
    for row, query in enumerate(case.queries):
        radius = float(everything.distances[row][int(share * (n - 1))])
        within = everything.distances[row] <= radius
        within &= everything.ids[row] >= 0
        (found,) = index.search_radius(query, radius, n_threads=n_threads)
        np.testing.assert_array_equal(found.ids, everything.ids[row][within])
        np.testing.assert_array_equal(found.distances, everything.distances[row][within])
    several = index.search_radius(case.queries, 0.0)
    assert len(several) == len(case.queries)


def test_radius_arguments() -> None:
    index = Index(2)
    index.add([[0, 0], [3, 4]])
    assert index.search_radius([0, 0], 5)[0].ids.tolist() == [0, 1]
    assert index.search_radius([0, 0], np.float32(4.999))[0].ids.tolist() == [0]
    assert index.search_radius([0, 0], -1)[0].ids.tolist() == []
    assert index.search_radius([0, 0], np.inf)[0].ids.tolist() == [0, 1]
    assert [len(found.ids) for found in index.search_radius([[0, 0], [9, 9]], 1)] == [1, 0]
    for radius in (np.nan, None, "1", True):
        with pytest.raises(ArgumentError, match="radius must be a number, got"):
            index.search_radius([0, 0], radius)  # type: ignore[arg-type]


# --- filters ---------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "mask": lambda ids, mask: mask,
    "list of bool": lambda ids, mask: mask.tolist(),
    "strided mask": lambda ids, mask: np.repeat(mask, 3)[::3],
    "ids": lambda ids, mask: ids[mask],
    "list of ids": lambda ids, mask: ids[mask].tolist(),
    "set of ids": lambda ids, mask: set(ids[mask].tolist()),
    "ids twice, and unknown ones": lambda ids, mask: _and_unknown(ids[mask].tolist() * 2),
    "function": lambda ids, mask: lambda given: mask if np.array_equal(given, ids) else None,
}


def _and_unknown(ids: list[Any]) -> list[Any]:
    return [*ids, "unknown" if ids and isinstance(ids[0], str) else 10**15] if ids else []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["implicit", "int", "text"])
@pytest.mark.parametrize("passing", [0, 0.001, 0.02, 0.5, 1])
def test_filters(form: str, kind: str, passing: float, rng: np.random.Generator) -> None:
    n, k = 1000, 10
    vectors, queries = rng.standard_normal((n, 8)).astype("f4"), rng.standard_normal((5, 8)).astype("f4")
    index = Index(8)
    index.add(vectors, {"implicit": None, "int": rng.permutation(5 * n)[:n], "text": [f"t{i}" for i in range(n)]}[kind])
    index.remove(index.ids[rng.permutation(n)[:100]])
    kept = index.get(index.ids)
    mask = np.zeros(len(index), bool)
    mask[rng.permutation(len(index))[: int(passing * len(index))]] = True
    given = FORMS[form](index.ids, mask)

    truth = np.where(mask, distances(queries, kept, "euclidean"), np.inf)
    positions = {id: row for row, id in enumerate(index.ids.tolist())}
    found = index.search(queries, k, filter=given, n_threads=2)
    rows = np.array([[positions.get(id, -1) for id in row] for row in found.ids.tolist()])
    same_neighbors(rows, found.distances, truth, "euclidean", k)
    assert found.counts.tolist() == [min(k, mask.sum())] * 5
    if kind == "text":
        assert (found.ids[rows < 0] == "").all()
    one = index.search(queries[0], k, filter=given)
    assert one.ids.tolist() == found.ids[0, : len(one.ids)].tolist()
    assert len(one.ids) == min(k, mask.sum())

    member = index.ids[0]
    others = index.neighbors_of(member, k, filter=given)
    assert member not in others.ids.tolist()
    assert len(others.ids) == min(k, mask[1:].sum())
    (within,) = index.search_radius(queries[0], 1e9, filter=given)
    assert sorted(within.ids.tolist()) == sorted(index.ids[mask].tolist())


def test_a_filter_function_is_called_once() -> None:
    index = Index(2)
    index.add(np.ones((5, 2)), list("abcde"))
    calls = []

    def allowed(ids: np.ndarray) -> np.ndarray:
        calls.append(ids.tolist())
        return ids > "b"

    assert index.search(np.ones((3, 2)), 4, filter=allowed).ids.tolist() == [["c", "d", "e", ""]] * 3
    assert calls == [list("abcde")]


def test_filters_of_other_libraries() -> None:
    pandas = pytest.importorskip("pandas")
    index = Index(1)
    index.add([[0], [1], [2], [3]])
    mask = [False, True, False, True]
    for allowed in (pandas.Series([1, 3]), pandas.Series(mask), pandas.array(mask)):
        assert index.search([0], 9, filter=allowed).ids.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([True], "a filter mask must have shape (4,), in the order of index.ids, got (1,)"),
        (np.ones((4, 1), bool), "a filter mask must have shape (4,), in the order of index.ids, got (4, 1)"),
        (lambda ids: ids, "the filter function must return a boolean mask of shape (4,)"),
        (lambda ids: np.ones(3, bool), "the filter function must return a boolean mask of shape (4,)"),
        (lambda ids: None, "the filter function must return a boolean mask"),
        ([0.5], "filter must be integers or text, got float"),
        (np.array([0.5]), "filter must be integers or text, got float64"),
        ([-1], "filter must be from 0"),
        (["a"], "integer"),
        (5, "filter must have one axis"),
        ("a", "filter must have one axis"),
        ([True, 1, 2, 3], "filter must be integers or text, got bool"),
    ],
)
def test_filters_refused(given: Any, message: str) -> None:
    index = Index(1)
    index.add([[0], [1], [2], [3]])
    for use in (
        lambda: index.search([0], filter=given),
        lambda: index.search([[0]], filter=given),
        lambda: index.neighbors_of(1, filter=given),
        lambda: index.search_radius([0], 1, filter=given),
    ):
        with pytest.raises(ArgumentError) as refused:
            use()
        assert message in str(refused.value)


def test_an_error_in_a_filter_function_comes_through() -> None:
    index = Index(1)
    index.add([[0]])
    with pytest.raises(ZeroDivisionError):
        index.search([0], filter=lambda ids: 1 / 0)


# --- changes ---------------------------------------------------------------------------------------------------------


class Model(RuleBasedStateMachine):
    """An index against a dict of its vectors; small numbers, so that distances are exact and ties are many."""

    dim = 3

    @initialize(
        kind=st.sampled_from(["implicit", "int", "text"]), encoding=st.sampled_from(["float32", "uint8", "float16"])
    )
    def start(self, kind: str, encoding: str) -> None:
        self.kind = kind
        self.index = Index(self.dim, metric="sqeuclidean", encoding=encoding)
        self.model: dict[Any, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def vectors(self, n: int) -> np.ndarray:
        return self.rng.integers(0, 4, (n, self.dim)).astype(np.float32)

    def name(self, number: int) -> Any:
        return f"id {number}" if self.kind == "text" else number

    @rule(numbers=st.lists(st.integers(0, 40), max_size=8, unique=True), convert=st.booleans())
    def add(self, numbers: list[int], convert: bool) -> None:
        vectors = self.vectors(len(numbers))
        given = vectors.astype(np.float64) if convert else vectors
        if self.kind == "implicit":
            ids = self.index.add(given).tolist()
            assert not set(ids) & set(self.model)
        else:
            ids = [self.name(number) for number in numbers]
            if set(ids) & set(self.model):
                with pytest.raises(ArgumentError):
                    self.index.add(given, ids)
                return
            assert self.index.add(given, ids).tolist() == ids
        self.model.update(zip(ids, vectors, strict=True))

    @precondition(lambda self: self.kind != "implicit")
    @rule(numbers=st.lists(st.integers(0, 40), max_size=8, unique=True))
    def upsert(self, numbers: list[int]) -> None:
        ids, vectors = [self.name(number) for number in numbers], self.vectors(len(numbers))
        assert self.index.upsert(vectors, ids) is None
        self.model.update(zip(ids, vectors, strict=True))

    @precondition(lambda self: self.kind == "implicit" and self.model)
    @rule(data=st.data())
    def upsert_of_what_is_there(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.model)), max_size=4, unique=True))
        vectors = self.vectors(len(ids))
        self.index.upsert(vectors, ids)
        self.model.update(zip(ids, vectors, strict=True))

    @rule(numbers=st.lists(st.integers(0, 40), max_size=8))
    def remove(self, numbers: list[int]) -> None:
        ids = [self.name(number) for number in numbers]
        expected = sum(self.model.pop(id, None) is not None for id in ids)
        assert self.index.remove(ids) == expected

    @rule(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=5))
    def get(self, numbers: list[int]) -> None:
        ids = [self.name(number) for number in numbers]
        if all(id in self.model for id in ids):
            np.testing.assert_array_equal(self.index.get(ids), [self.model[id] for id in ids])
            np.testing.assert_array_equal(self.index.get(ids[0]), self.model[ids[0]])
        else:
            with pytest.raises(UnknownIdError):
                self.index.get(ids)
            with pytest.raises(UnknownIdError):
                self.index.neighbors_of(ids)

    @rule(how=st.sampled_from(["pickle", "copy", "file"]))
    def come_back(self, how: str) -> None:
        if how == "pickle":
            self.index = pickle.loads(pickle.dumps(self.index))
        elif how == "copy":
            self.index = self.index.copy()
        else:
            path = os.path.join(os.environ["PYTEST_SCRATCH"], "index")
            self.index.save(path)
            mapped = nearest.open(path)
            assert mapped.ids.tolist() == self.index.ids.tolist()
            self.index = nearest.open(path, memory_map=False)

    @rule(k=st.integers(1, 12), seed=st.integers(0, 99), filtered=st.booleans())
    def search(self, k: int, seed: int, filtered: bool) -> None:
        queries = np.random.default_rng(seed).integers(0, 4, (3, self.dim)).astype(np.float32)
        live = {id: vector for id, vector in self.model.items() if not filtered or ord(str(id)[-1]) % 2}
        allowed = list(live) if filtered else None
        found = self.index.search(queries, k, filter=allowed)
        for query, ids, row in zip(queries, found.ids, found.distances, strict=True):
            ranked = sorted((float(((vector - query) ** 2).sum()), id) for id, vector in live.items())
            count = min(k, len(ranked))
            assert row[:count].tolist() == [distance for distance, _ in ranked[:count]]
            assert ids[:count].tolist() == [id for _, id in ranked[:count]], "ties by id"
            assert (ids[count:] == ("" if self.kind == "text" and self.index.ids.dtype == object else -1)).all()

    @invariant()
    def same_contents(self) -> None:
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.model)
        assert set(self.index.ids.tolist()) == set(self.model)
        assert all(id in self.index for id in self.model)
        assert self.name(10**6) not in self.index


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SCRATCH", str(tmp_path))


TestModel = Model.TestCase


def test_add_gives_ids() -> None:
    index = Index(2)
    assert index.add(np.ones((2, 2))).tolist() == [0, 1]
    assert index.add(np.ones(2)).tolist() == [2]
    assert index.add(np.ones((0, 2))).tolist() == []
    assert index.ids.tolist() == [0, 1, 2]
    assert index.ids.dtype == np.int64
    assert index.stats()["id_kind"] == "implicit"
    named = Index(2)
    assert named.add(np.ones(2), "a").tolist() == ["a"]
    assert named.add(np.ones((0, 2)), []).tolist() == []
    assert named.add([[1, 1], [2, 2]], ["b", "c"]).tolist() == ["b", "c"]
    assert named.get("c").tolist() == [2, 2]
    assert named.get([]).shape == named.get(np.empty(0, int)).shape == (0, 2)
    assert named.remove([]) == 0
    assert named.remove("c") == named.remove(["b", "x", "b"]) == 1
    assert named.ids.tolist() == ["a"]


def test_the_first_ids_fix_their_kind() -> None:
    index = Index(1)
    index.add([[0]], ["a"])
    for use in (
        lambda: index.add([[1]], [1]),
        lambda: index.upsert([[1]], [1]),
        lambda: index.add([[1]]),
        lambda: index.get([1]),
        lambda: index.remove([1]),
        lambda: index.neighbors_of([1]),
    ):
        with pytest.raises(ArgumentError, match=r"text|ids"):
            use()
    assert 1 not in index
    numbered = Index(1)
    numbered.add([[0]], [7])
    for use in (lambda: numbered.add([[1]], ["a"]), lambda: numbered.get(["a"]), lambda: numbered.remove(["a"])):
        with pytest.raises(ArgumentError, match=r"integer|ids"):
            use()
    assert "a" not in numbered
    assert numbered.ids.tolist() == [7]


@pytest.mark.parametrize("id", [None, 1.0, -1, 2**63, 2**100, True, "", b"a", (), np.float32(1), [1]])
def test_what_is_no_id_is_not_in_the_index(id: Any) -> None:
    for ids in ([1, 2], ["1", "2"]):
        index = Index(1)
        index.add([[0], [1]], ids)
        assert id not in index


BAD: dict[str, tuple[Callable[[Index], Any], type[Exception], str]] = {
    "add: an id is there": (lambda i: i.add(np.ones((2, 2)), [9, 1]), ArgumentError, "1"),
    "add: an id twice": (lambda i: i.add(np.ones((2, 2)), [9, 9]), ArgumentError, "9"),
    "add: negative": (lambda i: i.add(np.ones((1, 2)), [-1]), ArgumentError, "-1"),
    "add: text to integers": (lambda i: i.add(np.ones((1, 2)), ["a"]), ArgumentError, "integer"),
    "add: too few ids": (lambda i: i.add(np.ones((2, 2)), [9]), ArgumentError, "one a vector, 2 in all, got 1"),
    "add: shape": (
        lambda i: i.add(np.ones((2, 3)), [8, 9]),
        ArgumentError,
        "vectors must have shape (n, 2) or (2,), got (2, 3)",
    ),
    "add: NaN in the second block": (lambda i: i.add([[1, 1], [1, np.nan]], [8, 9]), ArgumentError, "row 1"),
    "upsert: an id twice": (lambda i: i.upsert(np.ones((2, 2)), [1, 1]), ArgumentError, "1"),
    "upsert: without ids": (lambda i: i.upsert(np.ones((2, 2)), None), ArgumentError, "upsert needs ids, got None"),
    "upsert: infinity": (lambda i: i.upsert([[np.inf, 0]], [1]), ArgumentError, ""),
    "remove: float": (lambda i: i.remove([1.0]), ArgumentError, "got float"),
    "remove: bool": (lambda i: i.remove([True]), ArgumentError, "got bool"),
    "remove: negative": (lambda i: i.remove(-1), ArgumentError, "-1"),
    "get: unknown": (lambda i: i.get([1, 99]), UnknownIdError, "99"),
    "get: unknown, as KeyError": (lambda i: i.get(99), KeyError, "99"),
    "get: float": (lambda i: i.get(1.0), ArgumentError, "got float"),
    "neighbors_of: unknown": (lambda i: i.neighbors_of([99]), UnknownIdError, "99"),
    "search: k": (lambda i: i.search([0, 0], 0), ArgumentError, "k must be an integer of at least 1, got 0"),
    "search: k, fast": (
        lambda i: i.search(np.zeros(2, "f4"), -1),
        ArgumentError,
        "k must be an integer of at least 1, got -1",
    ),
    "search: shape": (
        lambda i: i.search([[0, 0, 0]]),
        ArgumentError,
        "queries must have shape (n, 2) or (2,), got (1, 3)",
    ),
    "search: NaN": (lambda i: i.search(np.float32([np.nan, 0])), ArgumentError, ""),
    "search: NaN in a batch": (lambda i: i.search(np.float32([[0, 0], [np.nan, 0]])), ArgumentError, "row 1"),
    "search: NaN in a block": (
        lambda i: i.search([[0, 0], [np.nan, 0]]),
        ArgumentError,
        "row 0, dimension 0 (counted from row 1)",
    ),
    "search: effort": (
        lambda i: i.search([0, 0], effort=5),
        ArgumentError,
        "Exact takes no effort: it compares everything, got effort=5",
    ),
    "search: rerank_k": (
        lambda i: i.search([0, 0], rerank_k=15),
        ArgumentError,
        "rerank_k goes with lists, graphs and rerank",
    ),
    "search: recall": (
        lambda i: i.search([0, 0], recall=0),
        ArgumentError,
        "recall must be a number above 0 and at most 1, got 0",
    ),
    "search: threads": (
        lambda i: i.search([0, 0], n_threads=0),
        ArgumentError,
        "n_threads must be an integer of at least 1",
    ),
    "search: result too large": (lambda i: i.search(np.zeros((100, 2)), 10**15), MemoryError, "ask for a smaller k"),
    "radius: effort": (lambda i: i.search_radius([0, 0], 1, effort=5), ArgumentError, "Exact takes no effort"),
    "neighbors_of: effort": (lambda i: i.neighbors_of(1, effort=5), ArgumentError, "Exact takes no effort"),
    "calibrate: shape": (
        lambda i: i.calibrate(np.zeros((3, 3))),
        ArgumentError,
        "queries must have shape (n, 2), got (3, 3)",
    ),
    "save: a folder": (lambda i: i.save(os.environ["PYTEST_SCRATCH"]), OSError, ""),
    "save: no such folder": (lambda i: i.save("/nowhere/at/all/index"), OSError, "/nowhere/at/all"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    call, error, message = BAD[name]
    index = Index(2)
    index.add([[1, 0], [0, 1], [2, 2]], [1, 2, 3])
    before = index._native.to_bytes()
    monkeypatch.setattr(nearest.arrays, "BLOCK_BYTES", 8)
    with pytest.raises(error) as refused:
        call(index)
    assert message in str(refused.value)
    assert not str(refused.value).startswith(("'", '"')), "a KeyError shows its text in quotes"
    assert index._native.to_bytes() == before
    assert index.search([1, 0], 3).ids.tolist() == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []
    # Nor is anything locked.
    assert index.add([[5, 5]], [5]).tolist() == [5]


def test_a_zero_vector_has_no_angle() -> None:
    for metric in ("cosine", "angular"):
        index = Index(2, metric=metric)
        index.add([[1, 0]])
        with pytest.raises(ArgumentError, match="zero"):
            index.add([[1, 1], [0, 0]])
        with pytest.raises(ArgumentError, match="zero"):
            index.search([0.0, 0.0])
        assert len(index) == 1


def test_a_cancelled_add_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.arrays, "BLOCK_BYTES", 8)
    index = Index(2)
    index.add(np.ones((3, 2)))

    def stop(done: int, total: int, stage: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # with the traceback kept, the next writer must still get in
        index._add(np.ones((9, 2)), None, replace=False, report=stop)
    assert len(index) == 3
    assert index.add(np.ones((2, 2))).tolist() == [3, 4]
    assert kept.traceback


# --- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 0}, ArgumentError, "dim must be an integer of at least 1, got 0"),
        ({"dim": 2.5}, ArgumentError, "dim must be an integer of at least 1, got 2.5"),
        ({"metric": "l2"}, ArgumentError, "metric must be one of euclidean, sqeuclidean, cosine"),
        ({"encoding": "float64"}, ArgumentError, "encoding must be one of float32, float16, bfloat16, int8"),
        ({"encoding": "rabitq(9)"}, ArgumentError, "encoding must be one of float32, float16"),
        ({"encoding": "product"}, ArgumentError, "product(m, bits), rabitq(bits), got 'product'"),
        (
            {"encoding": "binary"},
            NotImplementedError,
            "works with metric 'hamming' or 'jaccard', got metric='euclidean'",
        ),
        ({"metric": "jaccard"}, NotImplementedError, "works with encoding='binary', got encoding='float32'"),
        (
            {"structure": "forest"},
            NotImplementedError,
            "'forest' is not there yet; what works: nearest.Exact(), nearest.Lists(), nearest.Graph()",
        ),
        (
            {"structure": Exact},
            ArgumentError,
            "structure must be a value such as nearest.Exact(), nearest.Lists(1024) or nearest.Graph()",
        ),
        ({"structure": 5}, ArgumentError, "or nearest.Graph(), got 5"),
        ({"rerank": "float32"}, NotImplementedError, "got rerank='float32'"),
        ({"seed": -1}, ArgumentError, "seed must be an integer from 0 to 2**64 - 1, got -1"),
        ({"seed": 0.5}, ArgumentError, "seed must be an integer from 0"),
    ],
)
def test_parameters_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        Index(**{"dim": 3, **arguments})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("encoding", "metric"),
    [("int8", "euclidean"), ("uint8", "cosine"), ("float32", "manhattan"), ("binary", "jaccard")],
)
def test_a_shadow_that_cannot_be(encoding: str, metric: str) -> None:
    with pytest.raises(NotImplementedError, match=r"shadow .*goes with|goes with .*shadow"):
        Index(8, metric=metric, encoding=encoding, structure=Exact(shadow="scalar8"))


def test_exact() -> None:
    assert Exact() == Exact(None) != Exact("scalar8")
    assert len({Exact(), Exact(None), Exact("scalar8")}) == 2
    assert repr(Exact("scalar8")) == "Exact(shadow='scalar8')"
    assert pickle.loads(pickle.dumps(Exact("scalar8"))) == Exact("scalar8")
    with pytest.raises(ArgumentError, match="shadow must be None or 'scalar8', got 'scalar4'"):
        Exact("scalar4")
    with pytest.raises(AttributeError):
        Exact().shadow = "scalar8"  # type: ignore[misc]


@pytest.mark.parametrize("encoding", [*ENCODINGS, "binary"])
def test_properties(encoding: str, rng: np.random.Generator) -> None:
    metric = "jaccard" if encoding == "binary" else "manhattan"
    index = Index(20, metric=metric, encoding=encoding, seed=7)
    index.add(make_vectors(rng, 5, 20, "grid", encoding))
    assert (index.dim, index.metric, index.encoding, index.seed) == (20, metric, encoding, 7)
    assert index.structure == Exact()
    assert not index.read_only
    assert len(index) == 5
    assert repr(index) == (f"Index(dim=20, metric={metric!r}, structure=Exact(), encoding={encoding!r}): 5 vectors")
    assert "recall is 1 by construction" in index.explanation
    assert ("rounded to" in index.explanation) == (encoding in ("float16", "bfloat16"))
    stats = index.stats()
    assert stats["n_vectors"] == 5
    assert stats["metric"] == metric
    assert any(name.endswith("_bytes") and value > 0 for name, value in stats.items())
    html = index._repr_html_()
    assert html.startswith("<table>")
    assert encoding in html
    assert "B</td>" in html


def test_an_empty_index(tmp_path: Path) -> None:
    for metric in METRICS:
        index = Index(16, metric=metric, encoding="binary" if metric in BITS else "float32")
        query = np.ones(2, np.uint8) if metric in BITS else np.ones(16)
        index.save(tmp_path / "empty")
        for each in (index, nearest.open(tmp_path / "empty"), pickle.loads(pickle.dumps(index))):
            assert len(each) == 0
            assert each.ids.tolist() == []
            assert each.search(query).ids.shape == (0,)
            assert each.search(query[None], 3).ids.tolist() == [[-1, -1, -1]]
            assert each.search_radius(query, 9)[0].ids.shape == (0,)
            assert each.search(query, filter=lambda ids: ids > 3).ids.shape == (0,)
            assert 0 not in each
            with pytest.raises(UnknownIdError):
                each.get(0)
        assert index.remove([1, 2]) == 0


def test_explain(rng: np.random.Generator) -> None:
    index = Index(4)
    index.add(rng.standard_normal((100, 4)), np.arange(100) * 2)
    assert index.search(np.ones(4)).explanation is None
    explained = index.search(np.ones((3, 4)), recall=0.9, explain=True).explanation
    assert explained is not None
    assert explained["exact"] is True
    assert explained["recall"] == 1
    assert (explained["n_vectors"], explained["n_compared"], explained["n_queries"]) == (100, 100, 3)
    assert explained["filter_share"] is None
    for allowed in ([0, 2, 2, 4, 1, 10**9], np.arange(100) < 3, lambda ids: ids < 6):
        explained = index.search(np.ones(4), filter=allowed, explain=True).explanation
        assert explained is not None
        assert explained["n_compared"] == 3
        assert explained["filter_share"] == 0.03
    assert index.neighbors_of(4, explain=True).explanation["n_queries"] == 1  # type: ignore[index]


def test_calibration() -> None:
    index = Index(3)
    calibration = index.calibrate(k=7)
    assert not calibration.measured
    assert sorted(calibration.curves) == [1, 7, 10, 100]
    assert all(point.mean == point.lower == point.worst == 1 for (point,) in calibration.curves.values())
    assert "by construction" in index.calibrate(np.ones((5, 3))).explanation


def test_neighbors(rng: np.random.Generator) -> None:
    index = Index(2)
    index.add([[0, 0], [3, 4]], ["a", "b"])
    one = index.search([0, 0])
    assert repr(one) == "Neighbors(ids=['a' 'b'], distances=[0. 5.])"
    ids, distances = one
    assert (ids.tolist(), distances.tolist()) == (["a", "b"], [0, 5])
    assert ids.dtype == object
    many = index.search([[0, 0]], 3)
    assert many.ids.tolist() == [["a", "b", ""]]
    assert many.distances.tolist() == [[0, 5, np.inf]]
    assert many.counts.tolist() == [2]
    assert repr(many).splitlines()[0] == "Neighbors(n_queries=1, k=3,"
    again = pickle.loads(pickle.dumps(many))
    assert again.ids.tolist() == many.ids.tolist()
    assert again.counts.tolist() == [2]
    assert len(repr(nearest.knn(rng.standard_normal((500, 2)), rng.standard_normal((500, 2)), 90))) < 2000


# --- files -----------------------------------------------------------------------------------------------------------


@given(cases(), st.integers(1, 12), st.sampled_from(["implicit", "int", "text"]))
def test_saving_and_opening_change_nothing(case: Case, k: int, kind: str) -> None:
    index = Index(case.dim, metric=case.metric, encoding=case.encoding, seed=3)
    n = len(case.vectors)
    index.add(case.vectors, {"implicit": None, "int": range(5, 5 + n), "text": [f"ä{i}" for i in range(n)]}[kind])
    index.remove(index.ids[::3])
    path = os.path.join(os.environ["PYTEST_SCRATCH"], "index")
    index.save(path)
    expected = index.search(case.queries, k)
    for other in (
        nearest.open(path),
        nearest.open(path, memory_map=False),
        pickle.loads(pickle.dumps(index)),
        copy.copy(index),
        copy.deepcopy(nearest.open(path)),
    ):
        assert other.ids.tolist() == index.ids.tolist()
        assert (other.dim, other.metric, other.encoding, other.seed) == (index.dim, index.metric, index.encoding, 3)
        np.testing.assert_array_equal(other.get(other.ids), index.get(index.ids))
        found = other.search(case.queries, k)
        assert found.ids.tolist() == expected.ids.tolist()
        np.testing.assert_array_equal(found.distances.view("u4"), expected.distances.view("u4"))
    assert nearest.verify(path)["kind"] == nearest.verify(Path(path))["kind"] != "neighbors"


def test_a_shadow_is_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    index = Index(8, structure=Exact(shadow="scalar8"))
    index.add(rng.standard_normal((50, 8)))
    index.save(tmp_path / "index")
    for other in (nearest.open(tmp_path / "index"), index.copy(), nearest.open(tmp_path / "index", memory_map=False)):
        assert other.structure == Exact(shadow="scalar8")
        assert "bound" in other.explanation


def test_a_mapped_index_is_read_only(tmp_path: Path, rng: np.random.Generator) -> None:
    index = Index(4)
    index.add(rng.standard_normal((20, 4)))
    index.save(tmp_path / "index")
    before = (tmp_path / "index").read_bytes()
    mapped = nearest.open(tmp_path / "index")
    assert mapped.read_only
    assert repr(mapped).endswith(", read-only")
    for change in (
        lambda: mapped.add(np.ones((1, 4))),
        lambda: mapped.upsert(np.ones((1, 4)), [0]),
        lambda: mapped.remove([0]),
    ):
        with pytest.raises(ReadOnlyError, match="memory_map=False"):
            change()
    assert (tmp_path / "index").read_bytes() == before
    own = mapped.copy()
    assert not own.read_only
    assert own.add(np.ones((1, 4))).tolist() == [20]
    assert not nearest.open(tmp_path / "index", memory_map=False).read_only
    # The file may go while it is mapped, and be replaced by a save of what is mapped.
    mapped.save(tmp_path / "index")
    assert len(mapped) == len(nearest.open(tmp_path / "index")) == 20


def test_files_refused(tmp_path: Path) -> None:
    index = Index(4)
    index.add(np.ones((20, 4)))
    index.save(tmp_path / "index")
    whole = (tmp_path / "index").read_bytes()
    for name, content in {
        "empty": b"",
        "short": whole[: len(whole) // 2],
        "other": b"PK\3\4" + bytes(4000),
        "text": b"hello",
        "one byte more": whole + b"\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        if name != "one byte more":
            with pytest.raises(FormatError):
                nearest.open(tmp_path / name)
        with pytest.raises(FormatError):
            nearest.verify(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        nearest.open(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        nearest.verify(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"."):
        nearest.open(tmp_path)
    with pytest.raises(ArgumentError, match="memory_map must be True or False, got 'r'"):
        nearest.open(tmp_path / "index", memory_map="r")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        nearest.open(5)  # type: ignore[arg-type]


def test_every_flipped_byte_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    index = Index(4)
    index.add(rng.standard_normal((20, 4)), [f"text {i}" for i in range(20)])
    index.save(tmp_path / "index")
    whole = bytearray((tmp_path / "index").read_bytes())
    for place in rng.permutation(len(whole))[:300].tolist():
        damaged = whole.copy()
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(FormatError):
            nearest.verify(tmp_path / "damaged")
        with pytest.raises(FormatError):
            nearest.open(tmp_path / "damaged", memory_map=False)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    index = Index(4)
    index.add(np.ones((2, 4)))
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        index.save(tmp_path / "index")
