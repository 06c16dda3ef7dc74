"""What the caller may hand over, and what is refused before native code sees it."""

from __future__ import annotations

import array
import gc
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nearest import ArgumentError, Index, _native, arrays, knn

X = np.arange(12, dtype=np.float32).reshape(4, 3)


class ByDlpack:
    """As torch and JAX hand over their arrays."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()


class OnTheGpu:
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("it is on the GPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


class ByArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return X


def read_only(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flags.writeable = False
    return values


def unaligned(values: np.ndarray) -> np.ndarray:
    raw = np.empty(values.nbytes + 1, np.uint8)[1:]
    shifted = raw.view(values.dtype).reshape(values.shape)
    shifted[:] = values
    assert not shifted.flags.aligned
    return shifted


FORMS: dict[str, Callable[[], Any]] = {
    "contiguous": lambda: X,
    "read-only": lambda: read_only(X),
    "strided": lambda: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda: X[::-1, ::-1].copy()[::-1, ::-1],
    "Fortran order": lambda: np.asfortranarray(X),
    "unaligned": lambda: unaligned(X),
    "big-endian": lambda: X.astype(">f4"),
    "float64": lambda: X.astype(np.float64),
    "float16": lambda: X.astype(np.float16),
    "longdouble": lambda: X.astype(np.longdouble),
    "int8": lambda: X.astype(np.int8),
    "uint8": lambda: X.astype(np.uint8),
    "int64": lambda: X.astype(np.int64),
    "uint16": lambda: X.astype(np.uint16),
    "matrix": lambda: X.view(np.matrix),
    "memory map": lambda: X.view(np.memmap),
    "masked, nothing missing": lambda: np.ma.masked_array(X, np.zeros_like(X, bool)),
    "list of lists": lambda: X.tolist(),
    "list of arrays": lambda: list(X),
    "memoryview": lambda: memoryview(X),
    "DLPack": lambda: ByDlpack(X),
    "__array__": ByArray,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_answer(form: str) -> None:
    expected = knn(X, X[:2] + 0.25, k=3)
    vectors = FORMS[form]()
    found = knn(vectors, X[:2] + 0.25, k=3)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.distances, expected.distances)

    index = Index(3)
    index.add(vectors)
    np.testing.assert_array_equal(index.get([0, 1, 2, 3]), X)
    np.testing.assert_array_equal(index.search(vectors, 1).ids[:, 0], [0, 1, 2, 3])
    one = index.search(
        FORMS[form]()[1] if not form.startswith(("DLPack", "__array__", "matrix", "memoryview")) else X[1], 2
    )
    np.testing.assert_array_equal(one.ids, index.search(X[1], 2).ids)


def test_a_buffer_is_one_vector() -> None:
    index = Index(3)
    index.add(X)
    assert index.search(array.array("f", [3, 4, 5]), 1).ids == [1]


@pytest.mark.parametrize("form", ["contiguous", "read-only", "memory map", "DLPack", "memoryview"])
def test_nothing_is_copied_that_can_be_shared(form: str) -> None:
    given = FORMS[form]()
    owner = given if isinstance(given, np.ndarray) else X
    assert np.shares_memory(arrays.view(given, "vectors"), owner)


def test_conversion_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((101, 7))
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 7 * 4 * 10)
    lengths = []
    whole = np.empty((101, 7), np.float32)
    for start, block in arrays.blocks(vectors, arrays.FLOAT32, "vectors"):
        assert block.flags.c_contiguous
        assert block.dtype == np.float32
        lengths.append(len(block))
        whole[start : start + len(block)] = block
    assert lengths == [10] * 10 + [1]
    np.testing.assert_array_equal(whole, vectors.astype(np.float32))
    index = Index(7)
    index.add(vectors)
    np.testing.assert_array_equal(index.get(index.ids), whole)
    found = index.search(vectors, 3)
    np.testing.assert_array_equal(found.ids, index.search(whole, 3).ids)
    np.testing.assert_array_equal(found.counts, np.full(101, 3))


def test_blocks_of_what_is_ready_are_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 30)
    assert all(np.shares_memory(block, X) for _, block in arrays.blocks(X, arrays.FLOAT32, "vectors"))


REFUSED: dict[str, tuple[Any, str]] = {
    "bool": (X > 1, "vectors must be real numbers, got bool; for bits use numpy.packbits"),
    "complex": (X + 1j, "vectors must be real numbers, got complex"),
    "text": (np.array([["a"]]), "vectors must be real numbers, got <U1"),
    "one text": ("abc", "vectors must be real numbers, got <U3"),
    "dates": (np.zeros((1, 3), "M8[s]"), "vectors must be real numbers, got datetime64"),
    "None": (None, "got object (NoneType)"),
    "objects": (X.astype(object), "vectors must be real numbers, got object"),
    "column of arrays": (np.array([X[0], X[:1]], dtype=object), "numpy.stack"),
    "ragged": ([[1, 2, 3], [4]], "vectors must be something that numpy can view, got list"),
    "structured": (np.zeros(3, "f4,f4"), "vectors must be real numbers"),
    "missing": (np.ma.masked_array(X, X > 3), "vectors must not have missing values"),
    "GPU": (OnTheGpu(), "got OnTheGpu: it is on the GPU"),
    "three axes": (X[None], "vectors must have shape (n, 3) or (3,), got (1, 4, 3)"),
    "other dim": (X[:, :2], "vectors must have shape (n, 3) or (3,), got (4, 2)"),
    "one of other dim": (X[0, :2], "vectors must have shape (n, 3) or (3,), got (2,)"),
    "a number": (5.0, "vectors must have shape (n, 3) or (3,), got ()"),
    "empty list": ([], "vectors must have shape (n, 3) or (3,), got (0,)"),
    "too large": (np.array([[0, 0, 0], [0, 1e300, 0]]), "must fit float32 (at most 3.403e+38), got 1e+300 in row 1"),
    "integers too large": (
        np.array([[0, 0, 1 << 40]]),
        "float32 holds integers exactly only from -16777216 to 16777216",
    ),
    "NaN": (np.array([[0, np.nan, 0]]), ""),
    "infinity": (np.array([[0, -np.inf, 0]]), ""),
    "NaN, float32": (np.array([[0, np.nan, 0]], np.float32), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    vectors, message = REFUSED[name]
    index = Index(3)
    index.add(X)
    before = index.search(X, 4)
    with pytest.raises(ArgumentError) as refused:
        index.add(vectors)
    assert isinstance(refused.value, ValueError)
    assert message in str(refused.value)
    with pytest.raises(ValueError, match=r"queries|NaN|finite|infin"):
        index.search(vectors)
    assert len(index) == 4
    np.testing.assert_array_equal(index.search(X, 4).ids, before.ids)


@pytest.mark.parametrize(
    ("encoding", "values", "message"),
    [
        ("uint8", [[300, 0]], "uint8 holds 0 to 255, got 300 in row 0"),
        ("uint8", np.int8([[0, 0], [0, -1]]), "uint8 holds 0 to 255, got -1 in row 1"),
        ("int8", np.uint8([[200, 0]]), "int8 holds -128 to 127, got 200 in row 0"),
        ("int8", np.uint64([[2**64 - 1, 0]]), "got 18446744073709551615 in row 0"),
        ("int8", [[0.5, 0]], "0.5"),
        ("uint8", [[-1.0, 0]], "-1"),
        ("float16", [[70000.0, 0]], "70000"),
    ],
)
def test_values_that_an_encoding_cannot_hold(encoding: str, values: Any, message: str) -> None:
    index = Index(2, encoding=encoding)
    index.add(np.ones((2, 2)))
    with pytest.raises(ArgumentError) as refused:
        index.add(values)
    assert message in str(refused.value)
    assert len(index) == 2


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "int8", "uint8"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i1", "u1", "i4", "u8", ">i2"])
def test_every_dtype_goes_into_every_encoding(encoding: str, dtype: str) -> None:
    index = Index(3, encoding=encoding)
    index.add(X.astype(dtype))
    np.testing.assert_array_equal(index.get([2, 0]), X[[2, 0]])
    assert index.get([0]).dtype == (encoding if encoding in ("int8", "uint8") else "float32")


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    index = Index(3, encoding="bfloat16")
    index.add(X.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(index.get(index.ids), X)


def test_bits() -> None:
    index = Index(12, metric="hamming", encoding="binary")
    bits = np.array([[1] * 12, [0] * 12], bool)
    index.add(np.packbits(bits, axis=1))
    assert index.search(np.packbits(bits[0]), 2).distances.tolist() == [0, 12]
    with pytest.raises(ArgumentError, match=r"zero bits beyond the first 12.*row 1"):
        index.add(np.uint8([[0, 0], [0, 1]]))
    with pytest.raises(ArgumentError, match="zero bits beyond the first 12"):
        index.search(np.uint8([0, 0xFF]))
    with pytest.raises(
        ArgumentError, match=r"queries must have shape \(n, 2\) or \(2,\) \(12 bits packed .*got \(3,\)"
    ):
        index.search(np.uint8([0, 0, 0]))
    with pytest.raises(ArgumentError, match=r"must be uint8, 12 bits packed by numpy.packbits, got int64"):
        index.search(np.array([0, 0]))
    assert len(index) == 2


# --- Arrow -----------------------------------------------------------------------------------------------------------


def arrow_forms() -> dict[str, Callable[[Any], Any]]:
    return {
        "fixed-size lists": lambda pa: pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3),
        "slice": lambda pa: pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(X, 2, axis=0).ravel()), 3)[1:8][0:7:1],
        "lists": lambda pa: pa.array(X.tolist(), pa.list_(pa.float32())),
        "large lists, float64": lambda pa: pa.array(X.tolist(), pa.large_list(pa.float64())),
        "one chunk": lambda pa: pa.chunked_array([pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 3)]),
        "chunks": lambda pa: pa.chunked_array(
            [pa.array(X[a:b].tolist(), pa.list_(pa.float32(), 3)) for a, b in ((0, 1), (1, 1), (1, 3), (3, 4))]
        ),
        "tensors": lambda pa: pa.FixedShapeTensorArray.from_numpy_ndarray(X),
        "table of columns": lambda pa: pa.table({name: X[:, i] for i, name in enumerate("abc")}),
        "missing elsewhere": lambda pa: pa.array([*X.tolist(), None], pa.list_(pa.float32(), 3))[:4],
    }


@pytest.mark.parametrize("form", arrow_forms())
def test_arrow(form: str) -> None:
    pa = pytest.importorskip("pyarrow")
    given = arrow_forms()[form](pa)
    expected = np.repeat(X, 2, axis=0)[1:8] if form == "slice" else X
    matrix = arrays.matrix(given, "vectors", 3)
    np.testing.assert_array_equal(matrix[:], expected)
    np.testing.assert_array_equal(matrix[1:3], expected[1:3])
    assert len(matrix[2:2]) == 0
    index = Index(3)
    index.add(given)
    np.testing.assert_array_equal(index.get(index.ids), expected)
    np.testing.assert_array_equal(index.search(given, 2).ids, index.search(expected, 2).ids)
    np.testing.assert_array_equal(knn(given, given, 2).ids, knn(expected, expected, 2).ids)


def test_arrow_without_values() -> None:
    pa = pytest.importorskip("pyarrow")
    assert arrays.matrix(pa.chunked_array([], pa.list_(pa.float32(), 3)), "vectors", 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], None], "missing vectors"),
        ([[1.0, 2.0], [1.0, None]], "missing values"),
        ([[1.0, 2.0], [1.0]], "lists of one length, got lengths 1 and 2"),
        ([["a"]], "real numbers"),
    ],
)
def test_arrow_refused(values: Any, message: str) -> None:
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(ArgumentError, match=message):
        arrays.matrix(pa.array(values), "vectors", 2)
    halves = pa.chunked_array([pa.array(values[:1]), pa.array(values[1:], pa.array(values).type)])
    with pytest.raises(ArgumentError, match=message):
        arrays.matrix(halves, "vectors", 2)


def test_arrow_memory_outlives_its_owner(rng: np.random.Generator) -> None:
    pa = pytest.importorskip("pyarrow")
    values = rng.standard_normal((20_000, 8)).astype(np.float32)
    for make in (lambda column: column, lambda column: pa.chunked_array([column])):
        kept = arrays.view(make(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel().copy()), 8)), "vectors")
        gc.collect()
        assert not kept.flags.writeable
        np.testing.assert_array_equal(kept, values)


def test_data_frames(rng: np.random.Generator) -> None:
    found = knn(X, X, 2).ids
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(knn(pandas.DataFrame(X), pandas.DataFrame(X), 2).ids, found)
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(knn(polars.DataFrame(X), polars.DataFrame(X), 2).ids, found)
    np.testing.assert_array_equal(knn(polars.Series(X), X, 2).ids, found)
    np.testing.assert_array_equal(knn(polars.Series(X.tolist()), X, 2).ids, found)


# --- ids -------------------------------------------------------------------------------------------------------------

UUID = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (range(5, 8), [5, 6, 7]),
        ([5, np.uint8(6), 7], [5, 6, 7]),
        ((5, 6, 7), [5, 6, 7]),
        (np.array([5, 6, 7], np.uint8), [5, 6, 7]),
        (np.array([5, 0, 6, 0, 7], ">i4")[::2], [5, 6, 7]),
        ([0, 1, 2**63 - 1], [0, 1, 2**63 - 1]),
        (["a", "bé", "\N{SNOWMAN}"], ["a", "bé", "\N{SNOWMAN}"]),
        (np.array(["a", "b", "c"]), ["a", "b", "c"]),
        (np.array(["a", "b", "c"], object), ["a", "b", "c"]),
        ([UUID, "b", "c"], [str(UUID), "b", "c"]),
        ({5: 0, 6: 0, 7: 0}.keys(), [5, 6, 7]),
    ],
)
def test_ids(given: Any, expected: list[Any]) -> None:
    index = Index(3)
    got = index.add(X[:3], given)
    assert got.tolist() == expected
    assert got.dtype == (object if isinstance(expected[0], str) else np.int64)
    assert index.ids.tolist() == expected
    assert index.search(X[2], 1).ids.tolist() == expected[2:]
    assert all(id in index for id in given)
    assert index.remove(given) == 3


def test_ids_of_other_libraries() -> None:
    pandas, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    assert arrays.as_ids(pandas.Series([1, 2])).tolist() == [1, 2]
    assert arrays.as_ids(pandas.Series(["a", "b"])) == ["a", "b"]
    assert arrays.as_ids(pandas.Index(["a", "b"])) == ["a", "b"]
    assert arrays.as_ids(pa.array(["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], "ids must be integers or text, got float"),
        (np.array([1.0, 2.0]), "ids must be integers or text, got float64"),
        ([True, False], "ids must be integers or text, got bool; a mask is for filter="),
        (np.array([True, False]), "ids must be integers or text, got bool; a mask"),
        ([1, "a"], "ids must be of one kind, integers or text, got both"),
        (np.array([1, "a"], object), "ids must be of one kind, integers or text, got both"),
        ([b"a", b"b"], "text is str, not bytes"),
        ([None, 1], "got NoneType"),
        ([-1, 1], "ids must be from 0 to 2**63 - 1, got -1"),
        (np.array([1, -1], np.int8), "ids must be from 0 to 2**63 - 1, got -1 at 1"),
        ([1, 2**63], f"got {2**63}"),
        (np.array([2**63, 1], np.uint64), f"got {2**63} at 0"),
        (["a", ""], "ids must not be empty text"),
        (["a", "\ud800"], "UTF-8 can hold, got '\\ud800'"),
        ([1, 2, 3], "ids must be one a vector, 2 in all, got 3"),
        ([[1], [2]], "got list"),
        (np.array([[1], [2]]), "ids must have one axis, got shape (2, 1)"),
        ("ab", "ids must have one axis"),
        ([1, 1], "1"),
        (["a", "a"], "a"),
    ],
)
def test_ids_refused(given: Any, message: str) -> None:
    for index in (Index(3), Index(3)):
        with pytest.raises(ValueError, match=r".") as refused:
            index.add(X[:2], given)
        assert message in str(refused.value)
        assert len(index) == 0
        assert index.ids.tolist() == []


def test_native_dtypes() -> None:
    """The table of what is handed over as what."""

    def name(dtype: str, encoding: str | None) -> str:
        return str(arrays.native_dtype(np.dtype(dtype), encoding).name)

    assert [name(dtype, None) for dtype in ("f4", "f2", "i1", "u1", "f8", "i4", ">f4")] == [
        "float32", "float16", "int8", "uint8", "float32", "float32", "float32",
    ]  # fmt: skip
    assert [name("i8", encoding) for encoding in ("float32", "float16", "int8", "uint8")] == [
        "float32", "float32", "int8", "uint8",
    ]  # fmt: skip
    assert [name("f2", encoding) for encoding in ("float32", "float16", "int8")] == ["float32", "float16", "float32"]


def test_available_bytes_is_plausible() -> None:
    assert _native.available_bytes() > 1 << 20
