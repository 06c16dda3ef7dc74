"""From whatever the caller has to the arrays that the native module takes.

Native code takes C-contiguous arrays of the element types it stores. Here everything that numpy can view becomes such
an array: numpy, torch, JAX, Arrow, pandas and polars by their protocols (DLPack, buffer, `__array__`, the Arrow
PyCapsule interface), without importing them. What must be converted is converted in blocks of at most 64 MiB, so there
is never a second copy of the whole. Shapes and element types are checked here; NaN, infinity, zero vectors and what an
encoding cannot hold are refused by the native module, which reads every value anyway.
"""

from __future__ import annotations

import ctypes
import operator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, SupportsFloat, cast

import numpy as np

from . import _native
from .errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    Ids: TypeAlias = NDArray[np.int64] | list[str]
    Allowed: TypeAlias = NDArray[np.bool_] | Ids | None

BLOCK_BYTES = 64 << 20

FLOAT32 = np.dtype(np.float32)
UINT8 = np.dtype(np.uint8)
INT64 = np.dtype(np.int64)
FLOAT16 = np.dtype(np.float16)
INT8 = np.dtype(np.int8)
_NATIVE = (FLOAT32, FLOAT16, INT8, UINT8)
_ENCODED: dict[str, np.dtype[Any]] = {"float16": FLOAT16, "int8": INT8, "uint8": UINT8, "binary": UINT8}

# float32 holds every integer up to here, and not the next one.
_FLOAT32_INTEGERS = 1 << 24


class Chunks:
    """Rows that lie in several places, as in an Arrow stream. A slice is copied only where it crosses a border."""

    __slots__ = ("_parts", "_starts", "dtype", "ndim", "shape")

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0] + [len(part) for part in parts])
        self.dtype = parts[0].dtype
        self.ndim = 2
        self.shape = (int(self._starts[-1]), int(parts[0].shape[1]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        pieces = []
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self._starts[part]), min(stop, int(self._starts[part + 1]))
            if start < end:
                pieces.append(self._parts[part][start - base : end - base])
                start = end
            part += 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self._parts[0][:0]

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The rows at some positions, copied."""
        out = np.empty((len(positions), self.shape[1]), self.dtype)
        parts = np.searchsorted(self._starts, positions, side="right") - 1
        for part in np.unique(parts):
            here = parts == part
            out[here] = self._parts[part][positions[here] - self._starts[part]]
        return out


if TYPE_CHECKING:
    Matrix: TypeAlias = NDArray[Any] | Chunks


# --- vectors and queries ---------------------------------------------------------------------------------------------


def view(values: Any, name: str) -> Matrix:
    """A numpy view of `values`, of whatever shape; no copy where the owner can share its memory.

    Raises
    ------
    ArgumentError
        Not an array of real numbers.
    """
    if type(values) is np.ndarray:
        array: Matrix = values
    elif isinstance(values, Chunks):
        return values
    elif isinstance(values, np.ndarray):
        if np.any(getattr(values, "mask", False)):
            raise ArgumentError(f"{name} must not have missing values, got a masked array")
        array = np.asarray(values)
    else:
        array = _view_foreign(values, name)
    kind = array.dtype.kind
    # The name last: numpy makes it up each time.
    if kind in "fiu" or array.dtype.name == "bfloat16":
        return array
    if kind == "b":
        hint = "; for bits use numpy.packbits and encoding='binary', for the numbers 0 and 1 .astype('uint8')"
    elif kind == "O" and hasattr(values, "toarray"):
        hint = " (a sparse matrix); .toarray() makes it dense"
    elif kind == "O":
        hint = f" ({type(values).__name__}); a column of arrays becomes one array by numpy.stack"
    else:
        hint = ""
    raise ArgumentError(f"{name} must be real numbers, got {array.dtype}{hint}")


def _view_foreign(values: Any, name: str) -> Matrix:
    # Data frames offer Arrow streams too, of their columns; what is wanted is the matrix, which `__array__` gives.
    if not hasattr(values, "columns"):
        for method in ("__arrow_c_array__", "__arrow_c_stream__"):
            if hasattr(values, method):
                found = _view_arrow(getattr(values, method)(), name)
                if found is not None:
                    return found
    reasons = []
    if hasattr(values, "__dlpack__"):
        try:
            return np.from_dlpack(values)
        except Exception as error:  # each library raises its own kind
            reasons.append(str(error))
    try:
        array = np.asarray(values)
    except Exception as error:
        reasons.append(str(error))
    else:
        if array.ndim or not reasons:
            return array
    raise ArgumentError(
        f"{name} must be something that numpy can view, got {type(values).__name__}: {'; '.join(reasons)}"
    )


def matrix(values: Any, name: str, width: int | None = None, *, bits: int | None = None, one: bool = False) -> Matrix:
    """A view of `values` that is known to have shape (n, width).

    Parameters
    ----------
    width : int, optional
        What the second axis must be; any length of at least 1 if None.
    bits : int, optional
        The values are packed bits, that many a vector; 0 where any number will do.
    one : bool
        Accept a single vector of shape (width,) as well, and give it back as it is.
    """
    array = view(values, name)
    if bits is not None and array.dtype != UINT8:
        raise ArgumentError(
            f"{name} must be uint8, {bits or ''} bits packed by numpy.packbits, got {array.dtype}".replace("  ", " ")
        )
    columns = array.shape[-1] if array.ndim else 0
    if (array.ndim == 2 or (one and array.ndim == 1)) and (columns > 0 if width is None else columns == width):
        return array
    wanted = "dim" if width is None else str(width)
    shape = f"(n, {wanted}) or ({wanted},)" if one else f"(n, {wanted})"
    packed = f" ({bits} bits packed by numpy.packbits)" if bits else ""
    raise ArgumentError(f"{name} must have shape {shape}{packed}, got {_shape(array.shape)}")


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def check_spare_bits(block: NDArray[Any], dim: int, name: str, start: int) -> None:
    """Refuses packed bits behind the last of `dim` ones, which would count as bits of the vector."""
    spare = -dim % 8
    if spare and block.size:
        wrong = np.flatnonzero(np.atleast_2d(block)[:, -1] & ((1 << spare) - 1))
        if wrong.size:
            raise ArgumentError(
                f"{name} must have zero bits beyond the first {dim}, as numpy.packbits leaves them; "
                f"row {start + wrong[0]} has others (packed with bitorder='little'?)"
            )


def native_dtype(dtype: np.dtype[Any], encoding: str | None = None) -> np.dtype[Any]:
    """What vectors of `dtype` are converted to: for an index of `encoding`, or for a function without one (None)."""
    if encoding is None:
        return dtype if dtype in _NATIVE else FLOAT32
    stored: np.dtype[Any] = _ENCODED.get(encoding, FLOAT32)
    # Integers are checked and narrowed here; floats for an integer encoding go as float32 and are checked natively.
    same = dtype == stored or (stored.kind in "iu" and dtype.kind in "iu")
    return stored if same else FLOAT32


def is_ready(array: Matrix, dtype: np.dtype[Any]) -> bool:
    """Whether native code can read the array where it lies."""
    if isinstance(array, Chunks) or array.dtype != dtype:
        return False
    return array.flags.c_contiguous and array.flags.aligned


def blocks(vectors: Matrix, dtype: np.dtype[Any], name: str, rows: int = 0) -> Iterator[tuple[int, NDArray[Any]]]:
    """Cuts vectors into C-contiguous blocks of `dtype`, each with the row it starts at.

    Blocks of an array that needs no conversion are views of it. The others share one buffer: a block is good until the
    next one is asked for. At most 64 MiB each, and at most `rows` rows if given, but at least one.
    """
    n, width = vectors.shape
    step = min(block_rows(width, dtype), rows or n)
    buffer: NDArray[Any] | None = None
    for start in range(0, n, max(1, step)):
        part = vectors[start : start + step]
        if is_ready(part, dtype):
            yield start, part
            continue
        if buffer is None:
            buffer = np.empty((min(step, n), width), dtype)
        yield start, _convert(part, buffer[: len(part)], name, start)


def pieces(vectors: Matrix, dtype: np.dtype[Any], name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """The whole where nothing must be converted, else its blocks."""
    if is_ready(vectors, dtype):
        yield 0, cast("NDArray[Any]", vectors)
    else:
        yield from blocks(vectors, dtype, name)


def block_rows(width: int, dtype: np.dtype[Any]) -> int:
    """How many vectors make a block."""
    return max(1, BLOCK_BYTES // (width * dtype.itemsize))


def is_small(vectors: Matrix, dtype: np.dtype[Any]) -> bool:
    """Whether all of it makes no more than one block."""
    return len(vectors) <= block_rows(vectors.shape[-1], dtype)


@contextmanager
def counted_from(start: int) -> Iterator[None]:
    """Native messages count rows of the block they were given; this says where the block starts."""
    try:
        yield
    except ArgumentError as error:
        if not start:
            raise
        raise ArgumentError(f"{error} (counted from row {start})") from None


def rows(array: Matrix) -> Matrix:
    """One vector as a matrix of one row."""
    return array if isinstance(array, Chunks) else np.atleast_2d(array)


def ready(array: Matrix, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """The array itself if it is ready, else a converted copy of the whole: for what is known to be small."""
    if not isinstance(array, Chunks) and is_ready(array, dtype):
        return array
    return _convert(array[:], np.empty(array.shape, dtype), name, 0)


def _convert(part: NDArray[Any], out: NDArray[Any], name: str, start: int) -> NDArray[Any]:
    """Copies `part` to `out`; floats are rounded, as was asked for, and what would become another value is refused."""
    if part.dtype.kind in "iu" and part.dtype != out.dtype and part.size:
        if out.dtype.kind == "f":
            low, high = -_FLOAT32_INTEGERS, _FLOAT32_INTEGERS
            why = f"float32 holds integers exactly only from {low} to {high}"
        else:
            low, high = int(np.iinfo(out.dtype).min), int(np.iinfo(out.dtype).max)
            why = f"{out.dtype} holds {low} to {high}"
        if int(part.min()) < low or int(part.max()) > high:
            wrong = (part < low) | (part > high)
            raise ArgumentError(f"{name}: {why}, got {part[wrong].flat[0]} in row {start + _first_row(wrong)}")
    try:
        with np.errstate(over="raise", under="ignore", invalid="ignore"):
            np.copyto(out, part, casting="unsafe")
    except FloatingPointError:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            wrong = np.isfinite(part) & ~np.isfinite(part.astype(out.dtype))
        raise ArgumentError(
            f"{name} must fit {out.dtype} (at most {np.finfo(out.dtype).max:.4g}), "
            f"got {part[wrong].flat[0]:.4g} in row {start + _first_row(wrong)}"
        ) from None
    return out


def _first_row(wrong: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(np.atleast_2d(wrong).any(axis=1))[0])


# --- numbers ---------------------------------------------------------------------------------------------------------


def count(value: Any, name: str) -> int:
    """An integer of at least 1 (`k`, `dim`, …)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or number >= 1 << 63 or isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} must be an integer of at least 1, got {value!r}")
    return number


def threads(value: Any) -> int | None:
    """`n_threads`, checked."""
    return None if value is None else count(value, "n_threads")


def share(value: Any, name: str) -> float:
    """A number above 0 and up to 1."""
    if isinstance(value, (bool, np.bool_, str)) or not isinstance(value, SupportsFloat) or not 0 < float(value) <= 1:
        raise ArgumentError(f"{name} must be a number above 0 and at most 1, got {value!r}")
    return float(value)


def check_result(n_queries: int, k: int) -> None:
    """Refuses a table of results that cannot fit in memory, before anything is computed."""
    needed = n_queries * k * 12
    if needed > 1 << 24 and needed > (available := _native.available_bytes()):
        raise MemoryError(
            f"{n_queries} queries with k={k} give a result of {needed:,} bytes, and {available:,} are available; "
            "ask for a smaller k or for fewer queries at once"
        )


# --- ids -------------------------------------------------------------------------------------------------------------


def as_ids(ids: Any, name: str = "ids") -> Ids:
    """Ids as the native module takes them: int64, or a list of text.

    Accepts a range, list, set or array of non-negative integers of any width, of str or of `uuid.UUID` (which becomes
    its text).
    """
    if isinstance(ids, range):
        ids = np.arange(ids.start, ids.stop, ids.step)
    elif isinstance(ids, (set, frozenset)) or type(ids).__name__ in ("dict_keys", "dict_values"):
        ids = list(ids)
    if isinstance(ids, (list, tuple)):
        return _listed_ids(ids, name)
    array = ids if isinstance(ids, np.ndarray) else _array_of_ids(ids, name)
    if array.ndim != 1:
        raise ArgumentError(f"{name} must have one axis, got shape {_shape(array.shape)}")
    kind = array.dtype.kind
    if kind in "iu":
        return _checked_integers(array, name)
    if kind in "UOT":
        return _listed_ids(array.tolist(), name)
    raise ArgumentError(f"{name} must be integers or text, got {array.dtype}{_hint(array.dtype.kind)}")


def check_differ(ids: Ids) -> None:
    """An error where an id comes twice."""
    array = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=object)
    order = np.argsort(array, kind="stable")
    again = order[1:][array[order[1:]] == array[order[:-1]]]
    if len(again):
        position = int(again.min())
        raise ArgumentError(f"ids must differ, got {ids[position]} again at position {position}")


def is_one_id(value: Any) -> bool:
    """Whether it is an id, not a collection of them."""
    return isinstance(value, (int, str, np.integer, np.bool_, float)) or _is_uuid(type(value))


def one_id(value: Any) -> int | str | None:
    """The id as it is stored, or None for what can be no id."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value) if 0 <= value < 1 << 63 else None
    return str(value) if _is_uuid(type(value)) else None


def ids_array(ids: Ids) -> NDArray[Any]:
    """What the native module gave as ids, as an array."""
    if isinstance(ids, np.ndarray):
        return ids
    texts = np.empty(len(ids), dtype=object)
    texts[:] = ids
    return texts


def _array_of_ids(ids: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(ids)
    except Exception as error:
        raise ArgumentError(f"{name} must be integers or text, got {type(ids).__name__}: {error}") from error


def _listed_ids(ids: Sequence[Any], name: str) -> Ids:
    kinds = {_id_kind(kind): kind for kind in set(map(type, ids))}
    if not kinds:
        return np.empty(0, INT64)
    if "" in kinds:
        kind = kinds[""]
        raise ArgumentError(f"{name} must be integers or text, got {kind.__name__}{_hint(np.dtype(kind).kind)}")
    if len(kinds) == 2:
        raise ArgumentError(f"{name} must be of one kind, integers or text, got both")
    if "text" in kinds:
        texts = [str(text) for text in ids]
        if "" in texts:
            raise ArgumentError(
                f"{name} must not be empty text, which marks empty places in results, got '' at {texts.index('')}"
            )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            wrong = next(text for text in texts if any("\ud800" <= letter <= "\udfff" for letter in text))
            raise ArgumentError(f"{name} must be text that UTF-8 can hold, got {wrong!r}") from None
        return texts
    try:
        return _checked_integers(np.array(ids, INT64), name)
    except OverflowError:
        wrong = next(number for number in ids if not 0 <= number < 1 << 63)
        raise ArgumentError(f"{name} must be from 0 to 2**63 - 1, got {wrong}") from None


def _checked_integers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    if array.size:
        for value in (array.min(), array.max()):
            if not 0 <= int(value) < 1 << 63:
                raise ArgumentError(
                    f"{name} must be from 0 to 2**63 - 1, got {value} at {np.flatnonzero(array == value)[0]}"
                )
    return np.require(array, INT64, ("C", "A"))


def _is_uuid(kind: type) -> bool:
    return kind.__name__ == "UUID" and kind.__module__ == "uuid"


def _id_kind(kind: type) -> str:
    if issubclass(kind, (int, np.integer)) and kind is not bool:
        return "integers"
    return "text" if issubclass(kind, str) or _is_uuid(kind) else ""


def _hint(kind: str) -> str:
    if kind == "b":
        return "; a mask is for filter="
    return "; text is str, not bytes: .decode() it" if kind == "S" else ""


def as_filter(filter: Any, snapshot: _native.Snapshot) -> Allowed:
    """A filter as the native module takes it: a mask in the order of the snapshot's ids, or ids."""
    if filter is None:
        return None
    n = len(snapshot)
    if callable(filter):
        returned = np.asarray(filter(ids_array(snapshot.ids())))
        if returned.dtype != np.bool_ or returned.shape != (n,):
            raise ArgumentError(
                f"the filter function must return a boolean mask of shape ({n},), one for each id it was given, "
                f"got {returned.dtype} of shape {_shape(returned.shape)}"
            )
        return np.ascontiguousarray(returned)
    mask = None if isinstance(filter, (range, set, frozenset)) else _mask_of(filter)
    if mask is None:
        allowed = as_ids(filter, "filter")
        # No id allowed: a mask says so whatever kind of ids the index has.
        return allowed if len(allowed) else np.zeros(n, np.bool_)
    if mask.shape != (n,):
        raise ArgumentError(
            f"a filter mask must have shape ({n},), in the order of index.ids, got {_shape(mask.shape)}"
        )
    return np.ascontiguousarray(mask)


def _mask_of(filter: Any) -> NDArray[np.bool_] | None:
    """The mask in a list or in another library's array, or None where it holds ids."""
    listed: Any = filter if isinstance(filter, (list, tuple, np.ndarray)) else _array_of_ids(filter, "filter")
    if isinstance(listed, np.ndarray) and listed.dtype.kind != "O":
        return listed if listed.dtype == np.bool_ else None
    kinds = set(map(type, listed))
    return np.array(listed, np.bool_) if kinds and kinds <= {bool, np.bool_} else None


# --- Arrow, by its C data interface ----------------------------------------------------------------------------------
# https://arrow.apache.org/docs/format/CDataInterface.html and …/CStreamInterface.html; read with ctypes, so that
# pyarrow need not be there.


class _Schema(ctypes.Structure):
    pass


_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class _Array(ctypes.Structure):
    pass


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class _Stream(ctypes.Structure):
    _fields_ = [
        ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Schema))),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
        ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


_ARROW_DTYPES = {
    "e": "f2",
    "f": "f4",
    "g": "f8",
    "c": "i1",
    "C": "u1",
    "s": "i2",
    "S": "u2",
    "i": "i4",
    "I": "u4",
    "l": "i8",
    "L": "u8",
}


class _Owner:
    """Keeps a structure that came out of a stream, and releases it with the last view of its memory."""

    def __init__(self, structure: _Schema | _Array) -> None:
        self._structure = structure

    def __del__(self) -> None:
        if self._structure.release:
            release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._structure.release)
            release(ctypes.addressof(self._structure))


def _view_arrow(exported: Any, name: str) -> Matrix | None:
    """The vectors in what `__arrow_c_array__` or `__arrow_c_stream__` gave; None where it holds no lists."""
    if isinstance(exported, tuple):
        schema_capsule, array_capsule = exported
        schema = _Schema.from_address(_pointer(schema_capsule, b"arrow_schema"))
        if not _is_lists(schema):
            return None
        array = _Array.from_address(_pointer(array_capsule, b"arrow_array"))
        return _view_lists(schema, array, array_capsule, name)

    address = _pointer(exported, b"arrow_array_stream")
    stream = _Stream.from_address(address)

    def call(function: Any, structure: _Schema | _Array) -> _Owner:
        if function(address, ctypes.byref(structure)):
            reason = (stream.get_last_error(address) or b"no reason given").decode(errors="replace")
            raise ArgumentError(f"{name}: the Arrow stream failed: {reason}")
        return _Owner(structure)

    schema = _Schema()
    # The name holds the owner; the schema lives as long as it does.
    schema_owner = call(stream.get_schema, schema)
    if not _is_lists(schema):
        return None
    parts = []
    while True:
        array = _Array()
        owner = call(stream.get_next, array)
        if not array.release:
            break
        parts.append(_view_lists(schema, array, owner, name))
    if not parts:
        parts.append(np.empty((0, _list_width(schema) or 1), _list_dtype(schema, name)))
    del schema_owner
    filled = [part for part in parts if len(part)] or parts[:1]
    widths = sorted({part.shape[1] for part in filled})
    if len(widths) > 1:
        raise ArgumentError(f"{name} must be lists of one length, got lengths {widths[0]} and {widths[-1]}")
    return filled[0] if len(filled) == 1 else Chunks(filled)


def _pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return cast(int, get(capsule, name))


def _is_lists(schema: _Schema) -> bool:
    return schema.format in (b"+l", b"+L") or schema.format.startswith(b"+w:")


def _list_width(schema: _Schema) -> int:
    return int(schema.format[3:]) if schema.format.startswith(b"+w:") else 0


def _list_dtype(schema: _Schema, name: str) -> np.dtype[Any]:
    kind = schema.children[0].contents.format.decode()
    if kind not in _ARROW_DTYPES:
        raise ArgumentError(f"{name} must be real numbers, got Arrow lists of format {kind!r}")
    return np.dtype(_ARROW_DTYPES[kind])


def _view_lists(schema: _Schema, array: _Array, owner: object, name: str) -> NDArray[Any]:
    dtype, width, n = _list_dtype(schema, name), _list_width(schema), array.length
    _check_no_nulls(array, array.offset, n, f"{name} must not have missing vectors")
    values = array.children[0].contents
    if width:
        first = array.offset * width
    elif n:
        offset_dtype = np.dtype("i4" if schema.format == b"+l" else "i8")
        offsets = _foreign(array.buffers[1], array.offset, n + 1, offset_dtype, owner).astype(INT64)
        lengths = np.diff(offsets)
        first, width = int(offsets[0]), int(lengths[0])
        if (lengths != width).any():
            raise ArgumentError(f"{name} must be lists of one length, got lengths {lengths.min()} and {lengths.max()}")
    else:
        first = 0
    if first < 0 or width < 0 or first + n * width > values.length:
        raise ArgumentError(f"{name}: the Arrow array points outside its values")
    first += values.offset
    _check_no_nulls(values, first, n * width, f"{name} must not have missing values")
    return _foreign(values.buffers[1], first, n * width, dtype, owner).reshape(n, width)


def _foreign(address: int | None, first: int, n: int, dtype: np.dtype[Any], owner: object) -> NDArray[Any]:
    """A read-only view of memory that `owner` keeps."""
    if not address or not n:
        return np.empty(n, dtype)
    memory = (ctypes.c_char * (n * dtype.itemsize)).from_address(address + first * dtype.itemsize)
    memory.owner = owner  # type: ignore[attr-defined]
    array: NDArray[Any] = np.frombuffer(cast(Any, memory), dtype)
    array.flags.writeable = False
    return array


def _check_no_nulls(array: _Array, first: int, n: int, message: str) -> None:
    """Looks for zeros among `n` validity bits from bit `first` on; a null count of -1 means «not counted»."""
    if array.null_count == 0 or not n or not array.buffers[0]:
        return
    start = first // 8
    valid = _foreign(array.buffers[0], start, (first + n + 7) // 8 - start, UINT8, None).copy()
    valid[0] |= (1 << first % 8) - 1
    if (first + n) % 8:
        valid[-1] |= (0xFF << (first + n) % 8) & 0xFF
    if (valid != 0xFF).any():
        raise ArgumentError(f"{message}, got an Arrow array with nulls")
