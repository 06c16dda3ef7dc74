"""All pairs: `knn_graph` and `pairwise_distances`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nearest
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import ArgumentError
from nearest import arrays as conversions
from nearest import distances as module
from oracle import BITS, METRICS, close, distances, same_neighbors
from strategies import Case, cases, groups, make_vectors

# --- knn_graph -------------------------------------------------------------------------------------------------------


@given(cases(max_n=90), st.integers(1, 20))
def test_graph_equals_brute_force(case: Case, k: int) -> None:
    table = nearest.knn_graph(case.vectors, k, metric=case.metric, exact=True, progress=False)
    truth = distances(case.vectors, case.vectors, case.metric)
    np.fill_diagonal(truth, np.inf)
    same_neighbors(table.ids, table.distances, truth, case.metric, k)


@given(cases(max_n=90), st.integers(1, 12))
def test_graph_is_knn_without_the_vector_itself(case: Case, k: int) -> None:
    """With the same bits, and ties by position as well."""
    table = nearest.knn_graph(case.vectors, k, metric=case.metric, progress=False)
    n = len(case.vectors)
    everything = nearest.knn(case.vectors, _as_queries(case), max(n, 1), metric=case.metric)
    for row in range(n):
        others = everything.ids[row] != row
        found = min(k, n - 1)
        np.testing.assert_array_equal(table.ids[row, :found], everything.ids[row][others][:found])
        np.testing.assert_array_equal(table.distances[row, :found], everything.distances[row][others][:found])


def _as_queries(case: Case) -> np.ndarray:
    return case.vectors if case.metric in BITS else case.vectors.astype(np.float32)


@given(cases(max_n=60), st.integers(1, 12), st.integers(1, 25))
def test_graph_in_blocks_has_the_same_bits(case: Case, k: int, rows: int) -> None:
    whole = nearest.knn_graph(case.vectors, k, metric=case.metric, n_threads=1, progress=False)
    strided = np.repeat(case.vectors, 2, axis=1)[:, ::2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversions, "BLOCK_BYTES", rows * case.vectors.shape[1] * 4)
        assert nearest.knn_graph(strided, k, metric=case.metric, progress=False) == whole


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_graph_has_the_same_bits_for_any_threads(n_threads: int, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((1500, 24)).astype(np.float32)
    expected = nearest.knn_graph(vectors, 15, progress=False)
    assert nearest.knn_graph(vectors, 15, n_threads=n_threads, progress=False) == expected


def test_graph_of_many_duplicates() -> None:
    vectors = np.ones((40, 5), np.float32)
    table = nearest.knn_graph(vectors, 3, progress=False)
    assert all(row not in table.ids[row] for row in range(40))
    assert table.ids[0].tolist() == [1, 2, 3]
    assert table.ids[39].tolist() == [0, 1, 2]


@pytest.mark.parametrize("metric", METRICS)
def test_graph_of_none_and_one(metric: str) -> None:
    dtype = np.uint8 if metric in BITS else np.float32
    assert len(nearest.knn_graph(np.ones((0, 3), dtype), 4, metric=metric)) == 0
    one = nearest.knn_graph(np.ones((1, 3), dtype), 4, metric=metric)
    assert one.ids.tolist() == [[-1] * 4]
    assert np.isinf(one.distances).all()
    assert len(one[0].ids) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be"),
        ({"recall": 0}, "recall must be a number above 0 and at most 1, got 0"),
        ({"recall": 1.5}, "recall must be a number above 0 and at most 1, got 1.5"),
        ({"recall": "high"}, "recall must be a number above 0 and at most 1, got 'high'"),
        ({"exact": 1}, "exact must be True or False, got 1"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"progress": True}, "progress must be None, False or a function of (done, total, stage), got True"),
        ({"vectors": np.ones(3)}, "vectors must have shape (n, dim), got (3,)"),
        ({"vectors": np.float32([[np.nan, 1]])}, "vectors"),
    ],
)
def test_graph_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        nearest.knn_graph(**{"vectors": np.ones((5, 4), np.float32), **change})
    assert message in str(refused.value)


def test_graph_too_large_for_memory() -> None:
    with pytest.raises(MemoryError, match=r"give a result of .* bytes, and .* are available"):
        nearest.knn_graph(np.ones((1000, 2), np.float32), 10**15)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_progress_and_its_errors(in_blocks: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((3000, 8))
    if in_blocks:
        monkeypatch.setattr(conversions, "BLOCK_BYTES", 1000 * 8 * 4)
    seen: list[tuple[int, int, str]] = []
    nearest.knn_graph(vectors, 3, progress=lambda *report: seen.append(report))
    assert all(0 <= done <= total and isinstance(stage, str) for done, total, stage in seen)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    if in_blocks:
        assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_an_approximate_table(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest.distances, "_APPROXIMATE_FROM", 1 << 20)
    vectors = groups(6000, 16, 1)
    for data in (vectors, (10 * vectors + 128).round().clip(0, 255).astype("u1")):
        truth = nearest.knn_graph(data, 15, metric=metric, exact=True, progress=False)
        seen: list[tuple[int, int, str]] = []

        def told(*report: Any, seen: list[Any] = seen) -> None:
            seen.append(report)

        table = nearest.knn_graph(data, 15, metric=metric, recall=0.9, n_threads=2, progress=told)
        assert seen[-1] == (6000, 6000, "neighbors")
        assert (table.metric, table.ids.shape) == (metric, (6000, 15))
        assert nearest.recall(table.ids, truth.ids) >= 0.88
        assert (table.distances >= truth.distances).all()
        assert (np.diff(table.distances, axis=1) >= 0).all()
        assert (table.ids != np.arange(6000)[:, None]).all()
        # What is promised, or not asked for less than, is exact.
        assert nearest.knn_graph(data, 15, metric=metric, recall=1.0, progress=False) == truth


# --- pairwise_distances ----------------------------------------------------------------------------------------------


@given(cases(max_n=50), st.sampled_from([1, 2]))
def test_pairs_equal_brute_force(case: Case, n_threads: int) -> None:
    found = nearest.pairwise_distances(
        _as_queries(case), case.queries, metric=case.metric, n_threads=n_threads, progress=False
    )
    truth = distances(_as_queries(case), case.queries, case.metric)
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert (np.abs(found - truth) <= close(truth, case.metric)).all()


@given(cases(max_n=40))
def test_pairs_are_what_knn_reports(case: Case) -> None:
    pairs = nearest.pairwise_distances(case.queries, _as_queries(case), metric=case.metric, progress=False)
    found = nearest.knn(case.vectors, case.queries, max(1, len(case.vectors)), metric=case.metric)
    if len(case.vectors):
        np.testing.assert_array_equal(np.take_along_axis(pairs, found.ids, axis=1), found.distances)


@given(cases(max_n=40))
def test_pairs_with_itself_are_symmetric(case: Case) -> None:
    pairs = nearest.pairwise_distances(case.vectors, metric=case.metric, progress=False)
    np.testing.assert_array_equal(pairs, pairs.T)
    np.testing.assert_array_equal(
        pairs, nearest.pairwise_distances(case.vectors, case.vectors.copy(), metric=case.metric, progress=False)
    )


@given(cases(max_n=40), st.integers(1, 15), st.integers(1, 3000))
def test_pairs_in_tiles_have_the_same_bits(case: Case, rows: int, tile: int) -> None:
    whole = nearest.pairwise_distances(case.vectors, metric=case.metric, progress=False)
    strided = np.repeat(case.vectors, 2, axis=1)[:, ::2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversions, "BLOCK_BYTES", rows * case.vectors.shape[1] * 4)
        patch.setattr(module, "_TILE_BYTES", tile)
        for vectors in (case.vectors, strided):
            np.testing.assert_array_equal(
                nearest.pairwise_distances(vectors, metric=case.metric, progress=False), whole
            )


def test_pairs_of_mixed_types(rng: np.random.Generator) -> None:
    bytes_, floats = make_vectors(rng, 7, 5, "normal", "uint8"), make_vectors(rng, 6, 5, "normal")
    found = nearest.pairwise_distances(bytes_, floats, metric="sqeuclidean")
    np.testing.assert_array_equal(found, nearest.pairwise_distances(bytes_.astype("f4"), floats, metric="sqeuclidean"))


def test_pairs_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((300, 12)).astype(np.float32)
    expected = nearest.pairwise_distances(vectors, metric="cosine")
    reports: list[tuple[int, int, str]] = []
    for tile in (module._TILE_BYTES, 5000):
        monkeypatch.setattr(module, "_TILE_BYTES", tile)
        found = nearest.pairwise_distances(
            vectors, metric="cosine", out=tmp_path / "pairs.npy", progress=lambda *report: reports.append(report)
        )
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.load(tmp_path / "pairs.npy"), expected)
        assert reports[-1] == (300, 300, "distances")
        assert os.listdir(tmp_path) == ["pairs.npy"]
    assert os.stat(tmp_path / "pairs.npy").st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pairs_of_nothing_in_a_file(tmp_path: Path) -> None:
    found = nearest.pairwise_distances(
        np.ones((0, 3)), np.ones((4, 3)), metric="euclidean", out=str(tmp_path / "pairs.npy")
    )
    assert found.shape == np.load(tmp_path / "pairs.npy").shape == (0, 4)


class Stop(Exception):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("there_before", [False, True])
def test_nothing_is_left_after_an_error(
    error: type[BaseException], there_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TILE_BYTES", 1000)
    path = tmp_path / "pairs.npy"
    if there_before:
        path.write_bytes(b"mine")

    def stop(done: int, total: int, stage: str) -> None:
        if done > total // 2:
            raise error

    with pytest.raises(error):
        nearest.pairwise_distances(np.ones((100, 3)), metric="euclidean", out=path, progress=stop)
    assert os.listdir(tmp_path) == (["pairs.npy"] if there_before else [])
    assert not there_before or path.read_bytes() == b"mine"


def test_the_disk_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda folder: 39_999)
    monkeypatch.setattr(module, "_fill", None)  # would fail if it began
    with pytest.raises(OSError, match=r"needs 40,000 bytes, and 39,999 are free") as refused:
        nearest.pairwise_distances(np.ones((100, 3)), metric="euclidean", out=tmp_path / "pairs.npy")
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.filename == str(tmp_path / "pairs.npy")
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        nearest.pairwise_distances(np.ones((100, 3)), metric="euclidean", out=tmp_path / "pairs.npy")
    assert os.listdir(tmp_path) == []


def test_a_real_disk_that_is_too_small(tmp_path: Path) -> None:
    n = int((os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize // 4) ** 0.5) + 5000
    with pytest.raises(OSError, match=r"needs .* bytes, and .* are free"):
        nearest.pairwise_distances(np.ones((n, 1), np.int8), metric="euclidean", out=tmp_path / "pairs.npy")
    assert os.listdir(tmp_path) == []


def test_memory_is_asked_first() -> None:
    with pytest.raises(MemoryError, match=r"take 400,000,000,000,000 bytes, and .* out='distances.npy' writes them"):
        nearest.pairwise_distances(np.ones((10_000_000, 1), np.int8), metric="euclidean")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"out": np.empty((2, 2))}, ArgumentError, "out must be the path of a .npy file, got ndarray"),
        ({"out": "."}, IsADirectoryError, "out must be a file, not a folder"),
        ({"out": "nowhere/pairs.npy"}, FileNotFoundError, "nowhere"),
        ({"other": np.ones((2, 5))}, ArgumentError, "other must have shape (n, 4), got (2, 5)"),
        ({"other": np.ones(4)}, ArgumentError, "other must have shape (n, 4), got (4,)"),
        ({"metric": "jaccard"}, ArgumentError, "vectors must be uint8"),
        (
            {"metric": "jaccard", "vectors": np.ones((2, 4), np.uint8), "other": np.ones((2, 4))},
            ArgumentError,
            "32 bits",
        ),
        ({"other": np.float32([[1, 2, 3, np.nan]])}, ArgumentError, "other"),
        ({"vectors": np.float32([[1, 2, 3, np.nan]]), "out": "pairs.npy"}, ArgumentError, "vectors"),
        ({"metric": "cosine", "other": np.zeros((2, 4))}, ArgumentError, "other"),
    ],
)
def test_pairs_bad_input(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as refused:
        nearest.pairwise_distances(**{"vectors": np.ones((5, 4), np.float32), "metric": "euclidean", **change})
    assert message in str(refused.value)
    assert os.listdir(tmp_path) == []


def test_a_metric_must_be_named() -> None:
    with pytest.raises(TypeError, match="metric"):
        nearest.pairwise_distances(np.ones((2, 2)))  # type: ignore[call-arg]


def test_ctrl_c_leaves_nothing(run_python: Callable[..., Any], tmp_path: Path) -> None:
    run_python(
        """
import os, signal, threading
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((30_000, 400)).astype(np.float32)
def stop(done, total, stage):
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    nearest.pairwise_distances(vectors, metric="manhattan", out="pairs.npy", progress=stop)
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("was not stopped")
assert os.listdir() == [], os.listdir()
"""
    )
