"""Every kind of file there and back, and every way in which one can be wrong: an error that names expected and got."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nearest import vector_files
from nearest.errors import ArgumentError, FormatError
from nearest.vector_files import FileArray, open_file, open_vectors, read_ids, read_truth, read_vectors, write_vectors

EXTRAS = {".hdf5": "h5py", ".h5": "h5py", ".parquet": "pyarrow", ".arrow": "pyarrow", ".feather": "pyarrow"}
FREE = [".npy", ".npz", ".hdf5", ".h5", ".parquet", ".arrow", ".feather"]
FIXED = {
    ".fvecs": np.float32,
    ".bvecs": np.uint8,
    ".ivecs": np.int32,
    ".fbin": np.float32,
    ".u8bin": np.uint8,
    ".i8bin": np.int8,
}
DTYPES = [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64]


def need(suffix: str) -> None:
    if suffix in EXTRAS:
        pytest.importorskip(EXTRAS[suffix])


def some_vectors(dtype: Any, n: int = 37, dim: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 100, (n, dim)).astype(dtype)


def npy_bytes(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


# --- there and back ---


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize(("suffix", "dtype"), [(s, d) for s in FREE for d in DTYPES] + list(FIXED.items()))
def test_there_and_back(tmp_path: Path, suffix: str, dtype: Any, memory_map: bool) -> None:
    need(suffix)
    vectors = some_vectors(dtype)
    path = tmp_path / f"vectors{suffix}"
    assert write_vectors(path, vectors) == []
    found = read_vectors(path, memory_map=memory_map)
    assert found.dtype == vectors.dtype
    np.testing.assert_array_equal(found, vectors)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", list(vector_files.FORMATS))
def test_blocks_are_the_whole(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    vectors = some_vectors(FIXED.get(suffix, np.float32))
    path = tmp_path / f"vectors{suffix}"
    write_vectors(path, vectors)
    for n_rows in (1, 4, 37, 100):
        blocks = list(open_vectors(path).blocks(n_rows))
        assert all(len(block) <= max(n_rows, 1) for block in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks), vectors)


@pytest.mark.parametrize("suffix", [*FIXED, ".npy", ".npz", ".hdf5", ".arrow"])
def test_what_can_be_mapped_is_mapped(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    path = tmp_path / f"vectors{suffix}"
    write_vectors(path, some_vectors(FIXED.get(suffix, np.float32), n=2000, dim=64))
    tracemalloc.start()
    try:
        vectors = read_vectors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not vectors.flags.writeable
    assert peak < 100_000
    assert not np.shares_memory(vectors, read_vectors(path, memory_map=False))


def test_stored_npz_is_mapped_where_rows_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    write_vectors(path, some_vectors(np.float32), ids=["a"] * 37, metric="cosine")
    vectors = read_vectors(path)
    assert isinstance(vectors.base, np.memmap) or isinstance(vectors, np.memmap)
    assert vectors.flags.aligned
    with np.load(path, allow_pickle=False) as arrays:  # and numpy reads it
        np.testing.assert_array_equal(arrays["vectors"], vectors)
        assert str(arrays["metric"]) == "cosine"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_several_arrays(tmp_path: Path, save: Callable[..., None]) -> None:
    base, queries = some_vectors(np.float16), some_vectors(np.float16, n=3)
    path = tmp_path / "words.npz"
    save(path, base=base, queries=queries, metric="cosine", gt=np.arange(6, dtype=np.int32).reshape(3, 2))
    np.testing.assert_array_equal(read_vectors(path), base)
    np.testing.assert_array_equal(read_vectors(path, role="queries"), queries)
    np.testing.assert_array_equal(read_vectors(f"{path}:queries"), queries)
    np.testing.assert_array_equal(read_vectors(path, dataset="queries"), queries)
    np.testing.assert_array_equal(read_truth(path), [[0, 1], [2, 3], [4, 5]])
    assert open_file(path).metric == "cosine"
    with pytest.raises(FormatError, match=r"expected an array 'train', the file holds base \(37, 5\) float16"):
        read_vectors(path, dataset="train")
    with pytest.raises(ArgumentError, match="names an array already"):
        read_vectors(f"{path}:queries", dataset="base")


def test_one_array_of_any_name_needs_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", whatever=some_vectors(np.float32))
    assert read_vectors(tmp_path / "a.npz").shape == (37, 5)
    np.savez(tmp_path / "b.npz", one=some_vectors(np.float32), two=some_vectors(np.float32))
    with pytest.raises(FormatError, match=r"which array is meant\? Name it as .*b\.npz:NAME"):
        read_vectors(tmp_path / "b.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_fortran_order_and_foreign_byte_order(tmp_path: Path, compressed: bool) -> None:
    vectors = some_vectors(np.float32)
    for name, array in (("f", np.asfortranarray(vectors)), ("b", vectors.astype(">f4"))):
        if compressed:
            path = tmp_path / f"{name}.npz"
            np.savez_compressed(path, vectors=array)
        else:
            path = tmp_path / f"{name}.npy"
            np.save(path, array)
        found = read_vectors(path)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vectors)
        np.testing.assert_array_equal(np.concatenate(list(open_vectors(path).blocks(10))), vectors)


@pytest.mark.parametrize("suffix", [s for s in vector_files.FORMATS if s not in (".parquet",)])
def test_no_rows_is_no_error(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    path = tmp_path / f"none{suffix}"
    empty = np.empty((0, 5), FIXED.get(suffix, np.float32))
    write_vectors(path, empty)
    if suffix in (".fvecs", ".bvecs", ".ivecs"):
        # They say their dimension in each row: without rows, nothing says it.
        with pytest.raises(FormatError, match=r"the file is empty \(0 bytes\)"):
            read_vectors(path)
    else:
        assert read_vectors(path).shape == (0, 5)


def test_hdf5_as_ann_benchmarks_lays_it_out(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    train, test = some_vectors(np.float32), some_vectors(np.float32, n=3)
    for name, options in (
        ("plain", {}),
        ("packed", {"compression": "gzip", "shuffle": True, "chunks": (10, 5)}),
        ("chunked", {"chunks": (10, 5)}),
    ):
        path = tmp_path / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            file.create_dataset("train", data=train, **options)
            file.create_dataset("test", data=test)
            file.create_dataset("neighbors", data=np.zeros((3, 2), np.int32))
            file.create_dataset("distances", data=np.zeros((3, 2), np.float32))
            file.attrs["distance"] = "angular"
        np.testing.assert_array_equal(read_vectors(path), train)
        np.testing.assert_array_equal(read_vectors(path, role="queries"), test)
        assert read_truth(path).shape == (3, 2)
        # What the benchmarks call angular is 1 - cos.
        assert open_file(path).metric == "cosine"
        assert open_vectors(path).mapped == (name == "plain")


def test_hdf5_with_a_user_block_is_mapped_at_the_right_place(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.create_dataset("train", data=some_vectors(np.float32))
    np.testing.assert_array_equal(read_vectors(tmp_path / "a.h5"), some_vectors(np.float32))


def test_hdf5_opens_no_other_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file.create_dataset("train", data=some_vectors(np.float32))
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["train"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "train")
        file.create_dataset("test", data=some_vectors(np.float32))
    with pytest.raises(FormatError, match="expected an array 'train'"):
        read_vectors(tmp_path / "link.h5", dataset="train")
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("train", (10, 5), np.float32, external=[(str(tmp_path / "secret.raw"), 0, 200)])
    with pytest.raises(FormatError, match="its data lie in other files"):
        read_vectors(tmp_path / "external.h5")
    layout = h5py.VirtualLayout((37, 5), np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "train", (37, 5))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("train", layout)
    with pytest.raises(FormatError, match="its data lie in other files"):
        read_vectors(tmp_path / "virtual.h5")


def test_hdf5_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train", (10**9, 100), np.float32, chunks=(1000, 100))  # no chunk was ever written
    with pytest.raises(FormatError, match=r"take 400000000000 bytes, the file holds 0 for them"):
        read_vectors(tmp_path / "a.h5")


def tables(pyarrow: Any) -> dict[str, Any]:
    lists = some_vectors(np.float32).tolist()
    return {
        "fixed": pyarrow.array(lists, pyarrow.list_(pyarrow.float32(), 5)),
        "list": pyarrow.array(lists, pyarrow.list_(pyarrow.float32())),
        "large": pyarrow.array(lists, pyarrow.large_list(pyarrow.float32())),
        "tensor": pyarrow.ExtensionArray.from_storage(
            pyarrow.fixed_shape_tensor(pyarrow.float32(), (5,)),
            pyarrow.array(lists, pyarrow.list_(pyarrow.float32(), 5)),
        ),
        "sliced": pyarrow.array([[9.0] * 5, *lists], pyarrow.list_(pyarrow.float32())).slice(1),
    }


@pytest.mark.parametrize("kind", ["fixed", "list", "large", "tensor", "sliced"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".stream", ".lz4"])
def test_tables_of_lists(tmp_path: Path, suffix: str, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    ids = [f"doc {i}" for i in range(37)]
    table = pyarrow.table({"id": ids, "number": list(range(37)), "embedding": tables(pyarrow)[kind]})
    path = tmp_path / ("t.parquet" if suffix == ".parquet" else "t.arrow")
    if suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=10)
    else:
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4" if suffix == ".lz4" else None)
        new = pyarrow.ipc.new_stream if suffix == ".stream" else pyarrow.ipc.new_file
        with new(str(path), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=10)
    for found in (read_vectors(path), read_vectors(path, column="embedding"), read_vectors(f"{path}:embedding")):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, some_vectors(np.float32))
    assert read_ids(path) == ids
    np.testing.assert_array_equal(read_ids(f"{path}:number"), np.arange(37))


def test_tables_that_are_no_vectors(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    floats = pyarrow.list_(pyarrow.float32())
    cases: list[tuple[Any, str]] = [
        (pyarrow.array([[1, 2], [3]], floats), "expected 2 values in every row, got 1 in row 1"),
        (pyarrow.array([[1, 2], None], floats), "expected a value in every row, got null in row 1"),
        (pyarrow.array([[1, 2], [3, None]], floats), "expected numbers, got a null"),
        (pyarrow.array([[], []], floats), r"1 to .* dimensions, got shape \(2, 0\)"),
        (pyarrow.array([], floats), r"dimensions, got shape \(0, 0\)"),
        (pyarrow.array([1.0, 2.0]), r"expected vectors of shape \(n, dim\), got shape \(2,\)"),
        (pyarrow.array([[["a"]], [["b"]]]), "expected a column of lists of numbers, got none"),
    ]
    for number, (column, message) in enumerate(cases):
        for suffix in ("parquet", "arrow"):
            path = tmp_path / f"{number}.{suffix}"
            table = pyarrow.table({"v": column})
            if suffix == "parquet":
                parquet.write_table(table, path)
            else:
                with pyarrow.ipc.new_file(str(path), table.schema) as writer:
                    writer.write_table(table)
            with pytest.raises(FormatError, match=message):
                read_vectors(path)


# --- what is wrong ---

GOOD_NPY = npy_bytes(some_vectors(np.float32))
GOOD_FVECS = b"".join(struct.pack("<i5f", 5, *row) for row in some_vectors(np.float32))
GOOD_FBIN = struct.pack("<II", 37, 5) + some_vectors(np.float32).tobytes()

BAD: list[tuple[str, str, bytes, str]] = [
    ("npy empty", ".npy", b"", r"the file is empty \(0 bytes\)"),
    ("npy no magic", ".npy", b"hello, world", r"expected it to start with \\x93NUMPY, got b'hello,'"),
    ("npy short", ".npy", b"\x93NUMPY", "not a .npy file"),
    ("npy version", ".npy", b"\x93NUMPY\x09\x00\x00\x00", "version 9.0, expected 1.0, 2.0 or 3.0"),
    ("npy header cut", ".npy", GOOD_NPY[:50], "truncated: the .npy header has 118 bytes, 40 are there"),
    ("npy huge header", ".npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "header of 4294967295 bytes, expected at most"),
    ("npy data cut", ".npy", GOOD_NPY[:-1], "truncated: .* take 740 bytes, got 739"),
    ("npy too long", ".npy", GOOD_NPY + b"x", "too long: .* take 740 bytes, got 741"),
    ("npy no literal", ".npy", npy_with_header("{'descr': __import__('os')}"), "header cannot be read: ValueError"),
    ("npy nested", ".npy", npy_with_header("[" * 9000), "header cannot be read"),
    ("npy no dict", ".npy", npy_with_header("[1, 2]"), "header cannot be read"),
    ("npy no keys", ".npy", npy_with_header("{'descr': '<f4'}"), "header cannot be read: KeyError"),
    (
        "npy bad dtype",
        ".npy",
        npy_with_header("{'descr': '<q9', 'fortran_order': False, 'shape': (1, 2)}"),
        "cannot be read",
    ),
    (
        "npy negative",
        ".npy",
        npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5)}", bytes(20)),
        r"gives shape \(-1, 5\), expected a tuple of lengths ≥ 0",
    ),
    (
        "npy huge",
        ".npy",
        npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 5)}", bytes(20)),
        "truncated: .* take 1999999999999999999980 bytes, got 20",
    ),
    (
        "npy no bytes",
        ".npy",
        npy_with_header("{'descr': '<U0', 'fortran_order': False, 'shape': (10000000000, 5)}"),
        "got elements of 0 bytes",
    ),
    ("npy zero dim", ".npy", npy_bytes(np.empty((5, 0), np.float32)), r"1 to \d+ dimensions, got shape \(5, 0\)"),
    ("npy 1-D", ".npy", npy_bytes(np.zeros(5)), r"expected vectors of shape \(n, dim\), got shape \(5,\)"),
    ("npy 3-D", ".npy", npy_bytes(np.zeros((2, 2, 2))), r"expected vectors of shape \(n, dim\), got shape \(2, 2, 2\)"),
    ("npy complex", ".npy", npy_bytes(np.zeros((2, 2), complex)), "got complex128"),
    ("npy bool", ".npy", npy_bytes(np.zeros((2, 2), bool)), "got booleans; pack bits with numpy.packbits"),
    ("npy text", ".npy", npy_bytes(np.array([["a"]])), "expected float16, float32, float64 or integers, got <U1"),
    ("npy records", ".npy", npy_bytes(np.zeros((2, 2), [("x", "f4")])), "expected float16"),
    ("npy pickle", ".npy", npy_bytes(np.array([[1, "a"]], object), allow_pickle=True), "a pickle may run any code"),
    ("bare pickle", ".npy", pickle.dumps([1.0]), "not a .npy file"),
    ("npz empty", ".npz", b"", "the file is empty"),
    ("npz no zip", ".npz", b"hello, world" * 10, "not a readable .npz file"),
    ("fvecs empty", ".fvecs", b"", "the file is empty"),
    ("fvecs short", ".fvecs", b"\x01\x00", "expected a dimension in the first 4 bytes, got 2 bytes"),
    (
        "fvecs negative",
        ".fvecs",
        struct.pack("<i", -5) + bytes(20),
        "expected a dimension ≥ 1 in the first 4 bytes, got -5",
    ),
    ("fvecs zero", ".fvecs", struct.pack("<i", 0) * 4, "expected a dimension ≥ 1 in the first 4 bytes, got 0"),
    ("fvecs huge", ".fvecs", struct.pack("<i", 2**31 - 1) + bytes(20), "takes 8589934592 bytes, the file has 24"),
    ("fvecs cut", ".fvecs", GOOD_FVECS[:-1], "expected a multiple of 24 bytes .* got 887: 36 rows and 23 bytes"),
    (
        "fvecs ragged",
        ".fvecs",
        GOOD_FVECS[:48] + struct.pack("<i", 6) + GOOD_FVECS[52:],
        "expected dimension 5 in every row, got 6 in row 2",
    ),
    ("bvecs cut", ".bvecs", struct.pack("<i", 3) + b"ab", "takes 7 bytes, the file has 6"),
    ("ivecs zero", ".ivecs", bytes(8), "got 0"),
    ("fbin empty", ".fbin", b"", "the file is empty"),
    ("fbin short", ".fbin", b"\x01\x00\x00", "expected a header of 8 bytes, got 3"),
    ("fbin zero dim", ".fbin", struct.pack("<II", 5, 0), "expected a dimension ≥ 1 in bytes 4 to 8, got 0"),
    ("fbin huge", ".fbin", struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(8), "truncated: a header of .* means 7378"),
    ("fbin cut", ".fbin", GOOD_FBIN[:-1], "truncated: a header of 37 × 5 means 748 bytes, got 747"),
    ("fbin too long", ".fbin", GOOD_FBIN + b"xy", "too long: a header of 37 × 5 means 748 bytes, got 750"),
    ("u8bin cut", ".u8bin", struct.pack("<II", 2, 3) + b"abcde", "means 14 bytes, got 13"),
    ("i8bin long", ".i8bin", struct.pack("<II", 1, 3) + b"abcde", "means 11 bytes, got 13"),
    ("hdf5 empty", ".hdf5", b"", "the file is empty"),
    ("hdf5 other", ".hdf5", b"hello, world", "not a readable HDF5 file"),
    ("parquet empty", ".parquet", b"", "the file is empty"),
    ("parquet other", ".parquet", b"hello, world", "not a readable Parquet file"),
    ("arrow other", ".arrow", b"hello, world", "not a readable Arrow file"),
    ("arrow cut", ".arrow", b"ARROW1\x00\x00abc", "not a readable Arrow file"),
    ("unknown", ".vectors", b"hello", r"unknown kind of file '.vectors', expected one of .npy, .npz, .fvecs"),
    ("no suffix", "", b"hello", "unknown kind of file '', expected one of .npy"),
    ("pickle", ".pkl", pickle.dumps([1.0]), "unknown kind of file '.pkl'"),
]


@pytest.mark.parametrize(("suffix", "content", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_file(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    need(suffix)
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message) as caught:
            read_vectors(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 20_000_000  # importing h5py or pyarrow may be part of it


@pytest.mark.parametrize("suffix", [*vector_files.FORMATS, ".unknown"])
def test_missing_folder_pipe_and_permission(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / f"missing{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        read_vectors(tmp_path / f"folder{suffix}")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(FormatError, match="expected a file, got a pipe or a device"):
        read_vectors(tmp_path / f"pipe{suffix}")
    if os.geteuid() != 0:
        (tmp_path / f"closed{suffix}").write_bytes(b"x")
        (tmp_path / f"closed{suffix}").chmod(0)
        with pytest.raises(PermissionError):
            read_vectors(tmp_path / f"closed{suffix}")


def zip_of(name: str, content: bytes, compress_type: int = zipfile.ZIP_STORED) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, compress_type)
    return bytearray(file.getvalue())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of("a.txt", b"hello"), "expected arrays, got a zip file without any .npy"),
        (zip_of("a.npy", b"hello"), "not a .npy file"),
        (zip_of("a.npy", GOOD_NPY[:-4]), "truncated: .* take 740 bytes, got 736"),
        (zip_of("a.npy", npy_bytes(np.array([[None]]), allow_pickle=True)), "a pickle may run any code"),
        (zip_of("a.npy", GOOD_NPY, zipfile.ZIP_BZIP2), "expected stored or deflated data, got zip method 12"),
        (zip_of("a.npy", GOOD_NPY)[:-30], "not a readable .npz file"),
    ],
)
def test_bad_npz(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_vectors(tmp_path / "bad.npz")


def test_npz_whose_directory_lies_about_sizes(tmp_path: Path) -> None:
    header = npy_bytes(np.zeros((1, 5), np.float32)).replace(b"(1, 5), }          ", b"(400000000, 5), }  ")
    assert len(header) == 128 + 20
    content = zip_of("a.npy", header, zipfile.ZIP_DEFLATED)
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "bomb.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"claims 4000000000 bytes from \d+"):
        read_vectors(tmp_path / "bomb.npz")


def test_damaged_compressed_npz(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", vectors=np.random.default_rng(0).normal(size=(100, 10)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"not a readable \.npz file"):
        read_vectors(tmp_path / "a.npz")


def test_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.hdf5").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"this kind of file needs h5py: pip install nearest\[io\]"):
        read_vectors(tmp_path / "a.hdf5")


def test_more_than_fits_in_memory_is_refused_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", some_vectors(np.float32))
    monkeypatch.setattr("nearest._native.available_bytes", lambda: 100)
    assert read_vectors(tmp_path / "a.npy").shape == (37, 5)
    with pytest.raises(MemoryError, match=r"740 bytes do not fit in memory \(100 bytes available\)"):
        read_vectors(tmp_path / "a.npy", memory_map=False)


# --- any bytes ---

extremes = st.sampled_from([0, 1, 2, 5, 6, 37, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1])


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with a few bytes changed, a number in its head replaced, cut or lengthened."""
    content = bytearray(good)
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        place = 4 * draw(st.integers(0, 3))
        content[place : place + 4] = struct.pack("<I", draw(extremes))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content) + draw(st.binary(max_size=8))


def plain_vecs(content: bytes) -> np.ndarray[Any, Any] | None:
    """What the bytes of .fvecs mean, read slowly; None if nothing."""
    rows, place = [], 0
    while place < len(content):
        if place + 4 > len(content):
            return None
        (dim,) = struct.unpack_from("<i", content, place)
        if dim < 1 or place + 4 + 4 * dim > len(content) or (rows and len(rows[0]) != dim):
            return None
        rows.append(np.frombuffer(content, "<f4", dim, place + 4))
        place += 4 + 4 * dim
    return np.array(rows) if rows else None


def plain_bin(content: bytes) -> np.ndarray[Any, Any] | None:
    """What the bytes of .fbin mean."""
    if len(content) < 8:
        return None
    n, dim = struct.unpack_from("<II", content)
    if dim < 1 or dim > 2**31 - 1 or len(content) != 8 + 4 * n * dim:
        return None
    return np.frombuffer(content, "<f4", offset=8).reshape(n, dim)


def read_or_refuse(path: Path, content: bytes) -> np.ndarray[Any, Any] | None:
    """The array, or None for a FormatError; any other error, or more memory than the bytes justify, fails the test."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        vectors = read_vectors(path, memory_map=False)
    except FormatError:
        vectors = None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000 + 10 * len(content)
    if vectors is not None:
        assert vectors.nbytes <= 1032 * len(content)
        np.testing.assert_array_equal(read_vectors(path), vectors)
    return vectors


@given(content=mutated(GOOD_FVECS))
def test_mutated_fvecs(tmp_path: Path, content: bytes) -> None:
    expected = plain_vecs(content)
    found = read_or_refuse(tmp_path / "a.fvecs", content)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found, expected)


@given(content=mutated(GOOD_FBIN))
def test_mutated_fbin(tmp_path: Path, content: bytes) -> None:
    expected = plain_bin(content)
    found = read_or_refuse(tmp_path / "a.fbin", content)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found, expected)


@given(content=mutated(GOOD_NPY))
@pytest.mark.filterwarnings("ignore")
def test_mutated_npy(tmp_path: Path, content: bytes) -> None:
    found = read_or_refuse(tmp_path / "a.npy", content)
    if found is not None and content[:128] == GOOD_NPY[:128]:
        np.testing.assert_array_equal(found, np.frombuffer(content, "<f4", offset=128).reshape(37, 5))


@given(content=st.one_of(mutated(bytes(zip_of("base.npy", GOOD_NPY))), mutated(bytes(zip_of("base.npy", GOOD_NPY, 8)))))
@pytest.mark.filterwarnings("ignore")
def test_mutated_npz(tmp_path: Path, content: bytes) -> None:
    read_or_refuse(tmp_path / "a.npz", content)


# --- ids and truth ---


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"1\n2\n30\n", [1, 2, 30]),
        (b"1\r\n2\r\n", [1, 2]),
        (b"1\n2", [1, 2]),
        (b"-1\n", [-1]),
        (b"9223372036854775807\n", [2**63 - 1]),
        (b"9223372036854775808\n", ["9223372036854775808"]),
        (b"01\n2\n", ["01", "2"]),
        (b"a\n1\n", ["a", "1"]),
        ("Köln\nλ x\n".encode(), ["Köln", "λ x"]),
    ],
)
def test_ids_of_lines(tmp_path: Path, content: bytes, ids: list[Any]) -> None:
    (tmp_path / "ids.txt").write_bytes(content)
    assert list(read_ids(tmp_path / "ids.txt")) == ids
    assert list(read_ids(tmp_path / "ids.txt", text=True)) == [str(id) for id in ids]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"a\n\nb\n", "got an empty line 2"),
        (b"a\n\xff\n", "expected UTF-8, got byte 0xff at 2"),
    ],
)
def test_bad_lines(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_ids(tmp_path / "ids.txt")


def test_ids_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5, dtype=np.int32))
    np.testing.assert_array_equal(read_ids(tmp_path / "a.npy"), np.arange(5))
    assert read_ids(tmp_path / "a.npy", text=True) == ["0", "1", "2", "3", "4"]
    np.save(tmp_path / "t.npy", np.array(["a", "bc"]))
    assert read_ids(tmp_path / "t.npy") == ["a", "bc"]
    for array, message in (
        (np.zeros(5), "expected ids .*, got float64"),
        (np.zeros((5, 2), np.int64), r"expected ids of shape \(n,\), got \(5, 2\)"),
        (np.array([2**63], np.uint64), r"expected ids below 2\^63, got 9223372036854775808"),
        (np.array([{}]), "a pickle may run any code"),
    ):
        np.save(tmp_path / "bad.npy", array, allow_pickle=True)
        with pytest.raises(FormatError, match=message):
            read_ids(tmp_path / "bad.npy")
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"unknown kind of file '\.doc', expected one of \.txt, \.ids"):
        read_ids(tmp_path / "a.doc")


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".arrow", ".hdf5"])
def test_ids_travel_with_vectors(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    for ids in (["a", "b", "c"], np.array([7, 5, 2**40])):
        path = tmp_path / f"v{suffix}"
        lost = write_vectors(path, some_vectors(np.float32, n=3), ids=ids)
        if suffix == ".hdf5" and isinstance(ids, list):
            assert lost == ["ids"]
        else:
            assert lost == []
            assert list(read_ids(path)) == list(ids)
        assert read_vectors(path).shape == (3, 5)


def test_truth(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.ivecs", np.arange(6, dtype=np.int32).reshape(2, 3))
    assert read_truth(tmp_path / "a.ivecs").dtype == np.int64
    np.save(tmp_path / "b.npy", np.zeros((2, 3)))
    with pytest.raises(FormatError, match="expected ids of true neighbors"):
        read_truth(tmp_path / "b.npy")


# --- writing ---


@pytest.mark.parametrize("suffix", list(vector_files.FORMATS))
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"old")

    def stream(n_rows: int) -> Any:
        yield np.ones((5, 4), FIXED.get(suffix, np.float32))
        raise KeyboardInterrupt

    rows = FileArray("source", "", (10, 4), np.dtype(FIXED.get(suffix, np.float32)), stream=stream)
    with pytest.raises(KeyboardInterrupt):
        write_vectors(path, rows)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    vectors = some_vectors(np.float32)
    with pytest.raises(FileNotFoundError) as caught:
        write_vectors(tmp_path / "no" / "v.npy", vectors)
    assert caught.value.filename == str(tmp_path / "no" / "v.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(IsADirectoryError):
        write_vectors(tmp_path / "folder.npy", vectors)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ArgumentError, match="got a pipe or a device"):
        write_vectors(tmp_path / "pipe.npy", vectors)
    with pytest.raises(ArgumentError, match=r"unknown kind of file '\.txt'"):
        write_vectors(tmp_path / "v.txt", vectors)


def test_no_space_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(OSError, match="740 bytes to write, 10 free"):
        write_vectors(tmp_path / "v.npy", some_vectors(np.float32))
    assert not list(tmp_path.iterdir())


def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "real.npy"
    target.write_bytes(b"old")
    target.chmod(0o640)
    (tmp_path / "link.npy").symlink_to(target)
    write_vectors(tmp_path / "link.npy", some_vectors(np.float32))
    assert (tmp_path / "link.npy").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert read_vectors(target).shape == (37, 5)


@pytest.mark.parametrize(
    ("value", "suffix", "message"),
    [
        (1.5, ".u8bin", "uint8 cannot hold the value 1.5"),
        (-1.0, ".u8bin", "uint8 cannot hold the value -1.0"),
        (256.0, ".bvecs", "uint8 cannot hold the value 256.0"),
        (128.0, ".i8bin", "int8 cannot hold the value 128.0"),
        (np.nan, ".i8bin", "int8 cannot hold the value nan"),
        (1e300, ".fvecs", r"float32 cannot hold the value 1e\+300"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: float, suffix: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        write_vectors(tmp_path / f"v{suffix}", np.array([[1.0, value]]))
    assert not list(tmp_path.iterdir())


def test_conversion(tmp_path: Path) -> None:
    vectors = some_vectors(np.float64)
    done: list[int] = []
    write_vectors(tmp_path / "v.npy", vectors, dtype=np.uint8, progress=lambda n, total, stage: done.append(n))
    assert read_vectors(tmp_path / "v.npy").dtype == np.uint8
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.npy"), vectors)
    assert done[-1] == 37
    with pytest.raises(ArgumentError, match="int32 cannot hold the value 9007199254740993"):
        write_vectors(tmp_path / "w.npy", np.array([[2**53 + 1]]), dtype=np.int32)
    with pytest.raises(ArgumentError, match="int64 cannot hold the value 18446744073709551615"):
        write_vectors(tmp_path / "w.npy", np.array([[2**64 - 1]], np.uint64), dtype=np.int64)


def test_a_file_can_be_copied_onto_itself(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.fvecs", some_vectors(np.float32))
    write_vectors(tmp_path / "v.fvecs", open_vectors(tmp_path / "v.fvecs"))
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.fvecs"), some_vectors(np.float32))
