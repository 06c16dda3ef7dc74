"""Tables of neighbors: lookup, CSR, file."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import nearest
import numpy as np
import pytest
from nearest import ArgumentError, FormatError, NeighborTable, _native
from nearest.table import Csr


@pytest.fixture
def table() -> NeighborTable:
    """Six members with k=9: five neighbors each, four places empty."""
    return nearest.knn_graph(np.float32([[0], [1], [3], [7], [7], [20]]), 9, metric="manhattan")


def test_lookup(table: NeighborTable) -> None:
    assert len(table) == 6
    assert table.k == 9
    assert table.metric == "manhattan"
    assert table.ids.shape == table.distances.shape == (6, 9)
    ids, distances = table[3]
    assert ids.tolist() == [4, 2, 1, 0, 5]
    assert distances.tolist() == [0, 4, 6, 7, 13]
    assert table[-3].ids.tolist() == table[np.int64(3)].ids.tolist() == ids.tolist()
    assert table.counts.tolist() == [5] * 6
    assert [len(row.ids) for row in table] == [5] * 6
    assert repr(table) == "NeighborTable(n=6, k=9, metric='manhattan')"
    for wrong in (6, -7):
        with pytest.raises(IndexError):
            table[wrong]
    with pytest.raises(ArgumentError, match="one member"):
        table[1:3]  # type: ignore[index]


def test_csr(table: NeighborTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    plain = table.to_csr()
    assert isinstance(plain, Csr)
    assert plain.shape == (6, 6)
    assert plain.indptr.tolist() == [0, 5, 10, 15, 20, 25, 30]
    assert plain.indices[15:20].tolist() == table[3].ids.tolist()
    assert plain.data[15:20].tolist() == table[3].distances.tolist()
    assert plain.indices.dtype == plain.indptr.dtype == np.int32


def test_csr_of_scipy(table: NeighborTable) -> None:
    pytest.importorskip("scipy")
    matrix = table.to_csr()
    assert matrix.shape == (6, 6)
    # The zero distance of the two equal members is an entry, not nothing.
    assert matrix.nnz == 30
    dense = matrix.toarray()
    expected = nearest.pairwise_distances(np.float32([[0], [1], [3], [7], [7], [20]]), metric="manhattan")
    np.testing.assert_array_equal(dense, expected)


@pytest.mark.parametrize("memory_map", [True, False])
def test_save_and_open(table: NeighborTable, memory_map: bool, tmp_path: Path) -> None:
    table.save(tmp_path / "table.nearest")
    assert [path.name for path in tmp_path.iterdir()] == ["table.nearest"]
    opened = nearest.open(tmp_path / "table.nearest", memory_map=memory_map)
    assert isinstance(opened, NeighborTable)
    assert opened == table
    assert not opened.ids.flags.writeable
    assert opened[3].ids.tolist() == [4, 2, 1, 0, 5]
    assert pickle.loads(pickle.dumps(opened)) == table
    opened.save(tmp_path / "again.nearest")
    assert (tmp_path / "again.nearest").read_bytes() == (tmp_path / "table.nearest").read_bytes()
    assert nearest.verify(str(tmp_path / "table.nearest"))["kind"] == "neighbors"


def test_an_empty_table(tmp_path: Path) -> None:
    empty = nearest.knn_graph(np.ones((0, 3)), 4)
    empty.save(tmp_path / "empty")
    assert nearest.open(tmp_path / "empty") == empty
    assert empty.to_csr().shape == (0, 0)
    assert empty.counts.shape == (0,)


@pytest.mark.parametrize(
    ("ids", "distances"),
    [
        ([[1], [2]], [[1], [1]]),
        ([[1], [-2]], [[1], [1]]),
        ([[1], [2**62]], [[1], [1]]),
        ([[1, -1], [-1, 0]], [[1, np.inf], [np.inf, 1]]),
        ([[1], [0]], [[1], [np.nan]]),
    ],
)
def test_contents_that_make_no_sense(ids: list[list[int]], distances: list[list[float]], tmp_path: Path) -> None:
    """A file whose checksums are right and whose positions are not: nothing may be looked up by them."""
    path = str(tmp_path / "table")
    arrays = {"ids": np.array(ids, np.int64), "distances": np.array(distances, np.float32)}
    _native.write_file(path, "neighbors", '{"metric": "euclidean", "k": 1}', arrays)
    with pytest.raises(FormatError):
        nearest.verify(path)
    with pytest.raises(FormatError):
        nearest.open(path, memory_map=False)
    table = nearest.open(path)
    assert table[0].ids.tolist() == [1]
    for use in (lambda: table[1], table.to_csr, lambda: pickle.dumps(table), lambda: table.save(path + "2")):
        with pytest.raises(FormatError, match="damaged"):
            use()
    assert not (tmp_path / "table2").exists()


@pytest.mark.parametrize(
    ("meta", "arrays"),
    [
        ("{}", {"ids": np.zeros((2, 1), np.int64), "distances": np.zeros((2, 1), np.float32)}),
        ("[", {"ids": np.zeros((2, 1), np.int64), "distances": np.zeros((2, 1), np.float32)}),
        ("[" * 100_000, {"ids": np.zeros((2, 1), np.int64), "distances": np.zeros((2, 1), np.float32)}),
        ('{"metric": "euclidean"}', {"ids": np.zeros((2, 1), np.int64)}),
        ('{"metric": "euclidean"}', {"ids": np.zeros((2, 1), np.int64), "distances": np.zeros((2, 2), np.float32)}),
        ('{"metric": "euclidean"}', {"ids": np.zeros((2, 1), np.int32), "distances": np.zeros((2, 1), np.float32)}),
        ('{"metric": "euclidean"}', {"ids": np.zeros(2, np.int64), "distances": np.zeros(2, np.float32)}),
    ],
)
def test_files_that_are_no_table(meta: str, arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    _native.write_file(path, "neighbors", meta, arrays)
    for use in (lambda: nearest.open(path), lambda: nearest.open(path, memory_map=False), lambda: nearest.verify(path)):
        with pytest.raises(FormatError):
            use()


def test_arrays_that_are_no_table() -> None:
    with pytest.raises(ArgumentError, match=r"one shape \(n, k\), got int64 \(2, 1\) and float32 \(1, 1\)"):
        NeighborTable(np.zeros((2, 1), np.int64), np.zeros((1, 1), np.float32))


def test_the_golden_file_opens() -> None:
    table = nearest.open(Path(__file__).parent / "golden" / "1" / "neighbors.nearest")
    assert isinstance(table, NeighborTable)
    assert (len(table), table.k) == (3, 2)
    assert [len(table[row].ids) for row in range(3)] == [2, 2, 1]
