"""Damaged files: a container of docs/format.md taken apart and put together again, mutations, and the campaign.

Nothing here uses `nearest` to read, change or check a file: the container is written after docs/format.md alone, so
that each is a test of the other.

The campaign is a process of its own, so that children are forked from a parent that holds little but `nearest`
(imported, its pool used)::

    python tests/damage.py --count 500 --seed 1     # ends with the figures, as JSON; exit status 1 if anything failed
    python tests/damage.py --seed 1 --only 123      # one file again, in this process
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

# --- the container ---

ALIGNMENT, HEADER, ENTRY, TRAILER = 64, 64, 96, 64
MAGIC, END = b"\x89NEAR\r\n\x1a", b"NEAR-END"
U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64, UTF8 = range(1, 14)
SIZES = dict(zip(range(1, 14), (1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 1), strict=True))


@dataclass
class Section:
    """One section; `dims` and `n_bytes` need not fit the bytes that are there."""

    name: bytes
    dtype: int
    dims: list[int]
    data: bytes
    flags: int = 0
    n_dims: int | None = None
    n_bytes: int | None = None


@dataclass
class Container:
    """A file, taken apart."""

    kind: bytes
    sections: list[Section] = field(default_factory=list)
    version: int = 1

    def __getitem__(self, name: str) -> Section:
        return next(section for section in self.sections if section.name == name.encode())


def parse(file: bytes) -> Container:
    """Takes an undamaged file apart."""
    at, _, _, n, _ = struct.unpack_from("<QQQII", file, len(file) - TRAILER)
    parsed = Container(file[16:32].rstrip(b"\0"), version=struct.unpack_from("<I", file, 8)[0])
    for entry in range(at, at + n * ENTRY, ENTRY):
        name, dtype, n_dims, flags, _, offset, n_bytes, *dims = struct.unpack_from("<32sBBHIQQ4Q", file, entry)
        data = file[offset : offset + n_bytes]
        parsed.sections.append(Section(name.rstrip(b"\0"), dtype, dims[:n_dims], data, flags))
    return parsed


def build(container: Container) -> bytes:
    """Puts a file together; its checksums are right whatever it says."""
    header = struct.pack("<8sII16s28x", MAGIC, container.version & 0xFFFFFFFF, 0, container.kind[:16])
    file = bytearray(header + struct.pack("<I", zlib.crc32(header)))
    table = b""
    for section in container.sections:
        n_bytes = len(section.data) if section.n_bytes is None else section.n_bytes & (1 << 64) - 1
        n_dims = len(section.dims[:4]) if section.n_dims is None else section.n_dims
        dims = [dim & (1 << 64) - 1 for dim in section.dims[:4]]
        part = (section.name[:32], section.dtype, n_dims, section.flags, zlib.crc32(section.data), len(file), n_bytes)
        table += struct.pack("<32sBBHIQQ4Q8x", *part, *dims, *[0] * (4 - len(dims)))
        file += section.data + bytes(-len(section.data) % ALIGNMENT)
    at = len(file)
    file += table + bytes(-len(table) % ALIGNMENT)
    end = struct.pack(
        "<QQQII8s20x", at, len(table), len(file) + TRAILER, len(container.sections), zlib.crc32(table), END
    )
    return bytes(file + end + struct.pack("<I", zlib.crc32(end)))


def repair(file: bytes) -> bytes:
    """Makes all checksums right again that can be found, and changes nothing else."""
    out = bytearray(file)
    if len(out) < HEADER + TRAILER:
        return file
    trailer = len(out) - TRAILER
    at, length = struct.unpack_from("<QQ", out, trailer)
    if at + length <= trailer:
        for entry in range(at, at + length - ENTRY + 1, ENTRY):
            offset, n_bytes = struct.unpack_from("<QQ", out, entry + 40)
            if offset + n_bytes <= len(out):
                struct.pack_into("<I", out, entry + 36, zlib.crc32(out[offset : offset + n_bytes]))
        struct.pack_into("<I", out, trailer + 28, zlib.crc32(out[at : at + length]))
    for start in (0, trailer):
        struct.pack_into("<I", out, start + 60, zlib.crc32(out[start : start + 60]))
    return bytes(out)


# --- mutations ---

EXTREMES = (0, 1, 2, 7, 8, 63, 64, 255, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)
EXTREMES += ((1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 65, (1 << 64) - 64, (1 << 64) - 1)


def _number(rng: random.Random, old: int) -> int:
    choice = rng.randrange(4)
    if choice == 0:
        return old + rng.choice((-64, -8, -1, 1, 8, 64))
    return rng.choice(EXTREMES) if choice < 3 else rng.getrandbits(rng.choice((8, 16, 32, 64)))


def _place(rng: random.Random, n: int) -> int:
    """Anywhere, but as often in the first or last bytes, where the structure is."""
    near = min(n, 1024)
    return rng.choice((rng.randrange(n), rng.randrange(min(n, 160)), n - 1 - rng.randrange(near)))


def _bytes(rng: random.Random, file: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        file[_place(rng, len(file))] = rng.randrange(256)


def _bits(rng: random.Random, file: bytearray) -> None:
    for _ in range(rng.randint(1, 3)):
        file[_place(rng, len(file))] ^= 1 << rng.randrange(8)


def _truncated(rng: random.Random, file: bytearray) -> None:
    at = _place(rng, len(file))
    if rng.random() < 0.3:
        # The end stays: it is the middle that is gone.
        del file[at : at + rng.choice((1, 64, 96, 4096, rng.randrange(len(file)) + 1))]
    else:
        del file[at - at % rng.choice((1, 64, 512)) :]


def _inserted(rng: random.Random, file: bytearray) -> None:
    at = _place(rng, len(file) + 1)
    n = rng.choice((1, 8, 64, 96, rng.randrange(1000)))
    file[at:at] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n), bytes(file[:n]), bytes(file[-n:])))


def _overwritten(rng: random.Random, file: bytearray) -> None:
    at = _place(rng, len(file))
    n = min(len(file) - at, rng.choice((4, 8, 64, 512, 4096)))
    source = rng.randrange(len(file) - n + 1)
    file[at : at + n] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n), bytes(file[source : source + n])))


def _field(rng: random.Random, file: bytearray) -> None:
    """An aligned integer of the header, the table, the trailer or any other place."""
    size = rng.choice((1, 2, 4, 8))
    at = _place(rng, len(file) - 7)
    at -= at % size
    old = int.from_bytes(file[at : at + size], "little")
    file[at : at + size] = (_number(rng, old) % (1 << 8 * size)).to_bytes(size, "little")


RAW: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _bytes,
    _bits,
    _truncated,
    _inserted,
    _overwritten,
    _field,
)


def _swap(rng: random.Random, parts: Container) -> None:
    """Sections change places, contents or names: all of it is legal for the container."""
    a, b = rng.randrange(len(parts.sections)), rng.randrange(len(parts.sections))
    one, other = parts.sections[a], parts.sections[b]
    what = rng.randrange(4)
    if what == 0:
        parts.sections[a], parts.sections[b] = other, one
    elif what == 1:
        one.name, other.name = other.name, one.name
    elif what == 2:
        one.data, other.data = other.data, one.data
    else:
        one.data, other.data, one.dims, other.dims = other.data, one.data, other.dims, one.dims


def _drop(rng: random.Random, parts: Container) -> None:
    if rng.random() < 0.7:
        del parts.sections[rng.randrange(len(parts.sections))]
    else:
        twin = replace(rng.choice(parts.sections))
        names = (twin.name, b"more", b"ids", b"texts", b"text_places", b"shadow", b"shadow_centre", b"calibration")
        twin.name = rng.choice(
            (*names, b"lists", b"lists_gaps", b"lists_second", b"lists_coder", b"graph", b"graph_links")
        )
        parts.sections.insert(rng.randrange(len(parts.sections) + 1), twin)


def _rename(rng: random.Random, parts: Container) -> None:
    section = rng.choice(parts.sections)
    what = rng.randrange(4)
    if what == 0:
        section.name = rng.choice((b"", b"x", b"spec\0x", b"\xff\xfe", b"a" * 32, b"ids", b"vectors", b"../x"))
    elif what == 1:
        section.flags = rng.choice((0, 1, 2, 0xFFFF))
    elif what == 2:
        parts.kind = rng.choice((b"index", b"neighbors", b"table", b"", b"x" * 16, b"\xff"))
    else:
        parts.version = rng.choice((0, 2, (1 << 32) - 1))


def _shape(rng: random.Random, parts: Container) -> None:
    """Dimensions that lie, or that say the truth of more or fewer bytes."""
    section = rng.choice(parts.sections)
    what = rng.randrange(6)
    if what == 0 and section.dims:
        i = rng.randrange(len(section.dims))
        section.dims[i] = _number(rng, section.dims[i])
        if rng.random() < 0.5:
            _fit(section)
    elif what == 1 and section.dims:
        # One dimension is 0, so that the others may say anything.
        section.dims = [_number(rng, dim) for dim in section.dims]
        section.dims[rng.randrange(len(section.dims))] = 0
        section.data = b""
    elif what == 2:
        section.dtype = rng.choice((0, *range(1, 14), 14, 255))
        if rng.random() < 0.5:
            _fit(section)
    elif what == 3:
        section.dims = [] if rng.random() < 0.3 else [*section.dims, rng.choice((1, 1, 2, 0))][:4]
    elif what == 4:
        section.n_dims = rng.choice((0, 1, 2, 3, 4, 5, 255))
    else:
        section.n_bytes = _number(rng, len(section.data))


def _fit(section: Section) -> None:
    """Gives a section as many bytes as its shape says, as long as that is not too many."""
    n = SIZES.get(section.dtype, 1)
    for dim in section.dims:
        n *= dim
    if 0 <= n <= 1 << 20:
        section.data = (section.data * (n // max(1, len(section.data)) + 1))[:n].ljust(n, b"\1")


def _rows(rng: random.Random, parts: Container) -> None:
    """All sections that have a place a row get more or fewer rows, or one of them does."""
    rows = max((section.dims[0] for section in parts.sections if section.dims), default=0)
    n = rng.choice((0, 1, 2, max(0, rows - 1), rows + 1, 1023, 1024, 1025, 3000))
    for section in parts.sections:
        if section.dims and section.dims[0] == rows and rng.random() < 0.9:
            section.dims[0] = n
            _fit(section)


def _values(rng: random.Random, parts: Container) -> None:
    """Numbers inside a section: spec, ids, places, distances, vectors."""
    section = rng.choice(parts.sections)
    data = bytearray(section.data)
    size = min(SIZES.get(section.dtype, 1), len(data))
    if not size:
        return
    for _ in range(rng.choice((1, 1, 2, 20))):
        at = rng.randrange(len(data) // size) * size
        if section.dtype in (F16, BF16, F32, F64):
            value = rng.choice(
                (0.0, -0.0, 1.0, -1.0, 1e-45, 6e4, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
            )
            with np.errstate(over="ignore"):
                half, single = np.float16(value).tobytes(), np.float32(value).tobytes()
            piece = {F16: half, BF16: single[2:], F32: single, F64: struct.pack("<d", value)}[section.dtype]
        else:
            old = int.from_bytes(data[at : at + size], "little")
            piece = (_number(rng, old) % (1 << 8 * size)).to_bytes(size, "little")
        data[at : at + size] = piece[:size]
    section.data = bytes(data)


def _same(rng: random.Random, parts: Container) -> None:
    """All elements of a section, or all of a long run, alike."""
    section = rng.choice(parts.sections)
    size = SIZES.get(section.dtype, 1)
    n = len(section.data) // size
    if n:
        start = rng.choice((0, rng.randrange(n)))
        piece = rng.choice((bytes(size), b"\xff" * size, section.data[start * size :][:size], rng.randbytes(size)))
        section.data = section.data[: start * size] + piece * (n - start)


def _spec(rng: random.Random, parts: Container) -> None:
    """Numbers of `spec`, and what `meta` says."""
    for section in parts.sections:
        if section.name == b"spec":
            numbers = list(struct.unpack_from(f"<{len(section.data) // 8}Q", section.data))
            if numbers:
                i = rng.randrange(len(numbers))
                coded = (16 + rng.randrange(5)) + (rng.randrange(9) << 16) + (rng.randrange(10) << 32)
                numbers[i] = rng.choice((rng.randrange(9), _number(rng, numbers[i]) % (1 << 64), coded, coded + 1))
            section.data = struct.pack(f"<{len(numbers)}Q", *numbers)
        elif section.name == b"meta":
            texts = (
                b"",
                b"{}",
                b"[" * 5000,
                b'{"metric": 1}',
                b"\xff\xff",
                b'{"metric": "\\ud800"}',
                b"null",
                b"1e999",
            )
            section.data = rng.choice(texts)
            section.dims = [len(section.data)]


SHAPED: tuple[Callable[[random.Random, Container], None], ...]
SHAPED = (_swap, _drop, _rename, _shape, _rows, _values, _same, _spec)


def mutated(original: bytes, rng: random.Random, *, repaired: bool) -> bytes:
    """One damaged file. `repaired`: its checksums are right, so that what it says must be checked."""
    if repaired and rng.random() < 0.7:
        parts = parse(original)
        for _ in range(rng.choice((1, 1, 2, 3))):
            if parts.sections:
                rng.choice(SHAPED)(rng, parts)
        file = bytearray(build(parts))
    else:
        file = bytearray(original)
        for _ in range(rng.choice((1, 1, 1, 3))):
            if len(file) >= 8:
                rng.choice(RAW)(rng, file)
    return repair(file) if repaired else bytes(file)


# --- files to damage ---


def samples(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Indexes of every encoding × kind of ids × shadow, lists, graphs and codes, tables of neighbors, empty ones."""
    import nearest

    rng = np.random.default_rng(5)
    path = folder / "sample"

    def vectors(n: int, dim: int, encoding: str) -> np.ndarray:
        if encoding == "binary":
            return np.packbits(rng.random((n, dim)) < 0.5, axis=1)
        return rng.integers(0 if encoding == "uint8" else -20, 100, (n, dim)).astype(
            encoding if encoding in ("int8", "uint8", "float16") else np.float32
        )

    def saved(thing: Any) -> bytes:
        thing.save(path)
        return path.read_bytes()

    metrics = {"float32": "euclidean", "float16": "cosine", "bfloat16": "inner_product", "int8": "sqeuclidean"}
    metrics |= {"uint8": "manhattan", "binary": "jaccard"}
    for encoding, metric in metrics.items():
        for ids in ("none", "implicit", "int", "text"):
            for shadow in ("scalar8", None) if encoding in ("float32", "float16", "bfloat16") else (None,):
                dim = 11
                n = 1100 if shadow else 70
                # Larger than what is checked on opening, for some.
                if ids == "text" and encoding in ("float32", "uint8"):
                    n = 5200
                index = nearest.Index(dim, metric=metric, encoding=encoding, structure=nearest.Exact(shadow=shadow))
                if ids != "none":
                    named: Any = None
                    if ids == "int":
                        named = rng.permutation(10 * n)[:n]
                    elif ids == "text":
                        named = [f"{i:05} {'é' * (i % 9)}" for i in rng.permutation(n)]
                    index.add(vectors(n, dim, encoding), named)
                yield f"{encoding}-{ids}{'-shadow' if shadow else ''}", saved(index)
    index.remove(index.ids[1:])
    yield "binary-text-of-one", saved(index)
    # Lists and short codes: kept as they are, as a second code, as a place; with a calibration; before there are any.
    for encoding, rerank, metric, structure in (
        ("float32", None, "euclidean", nearest.Lists(12)),
        ("uint8", None, "cosine", nearest.Lists(3, spill=1)),
        ("scalar4", "scalar8", "inner_product", nearest.Lists(9)),
        ("rabitq(3)", None, "angular", nearest.Lists(2)),
        ("product(3, 4)", "float16", "euclidean", nearest.Lists(4)),
        ("product(4, 8)", "product(2, 4)", "sqeuclidean", nearest.Lists(4)),
        ("scalar8", None, "cosine", nearest.Exact()),
    ):
        for ids in ("implicit", "text"):
            n, dim = (400, 11) if ids == "text" else (1300, 7)
            index = nearest.Index(dim, metric=metric, encoding=encoding, rerank=rerank, structure=structure)
            index._native.train(n, vectors(n, dim, encoding) + 1, None, 1, None)
            index.add(vectors(n, dim, encoding) + 1, [f"{i:04} ö" for i in range(n)] if ids == "text" else None)
            index.calibrate()
            yield f"lists-{encoding}-{rerank}-{ids}", saved(index)
    # Graphs: vectors, codes, second codes; some rows wait.
    for encoding, rerank, metric in (
        ("float32", None, "euclidean"),
        ("uint8", None, "euclidean"),
        ("int8", None, "cosine"),
        ("scalar8", None, "angular"),
        ("scalar4", "scalar8", "inner_product"),
        ("scalar4", "float16", "sqeuclidean"),
    ):
        graph = nearest.Graph(6, ef_build=16)
        index = nearest.Index(7, metric=metric, encoding=encoding, rerank=rerank, structure=graph)
        index.add(vectors(1300, 7, encoding) + 1)
        index.add(vectors(30, 7, encoding) + 1)
        index.remove(index.ids[::9])
        index.calibrate()
        yield f"graph-{encoding}-{rerank}", saved(index)
    index = nearest.Index(5, structure=nearest.Lists(), encoding="scalar4")
    yield "lists-untrained", saved(index)
    index._native.train(50, vectors(50, 5, "float32"), None, 1, None)
    yield "lists-empty", saved(index)
    for n, k in ((40, 6), (3000, 8), (1, 3)):
        yield f"table-{n}", saved(nearest.knn_graph(vectors(n, 5, "float32"), k, exact=True, progress=False))
    path.unlink()


# --- the campaign ---

MEMORY_BYTES = 64 << 20
_LIBC = ctypes.CDLL(None)
# M_MMAP_THRESHOLD, fixed: blocks from 128 KiB on go back to the system when they are freed, whatever ran before.
_LIBC.mallopt(-3, 128 << 10)
HANG_SECONDS = 60


def examine(path: str, step: Callable[[str], object]) -> Counter[str]:
    """Does all that can be done with a file. What is raised and may not be goes through; the rest is counted."""
    import nearest

    outcomes: Counter[str] = Counter()

    def attempt(name: str, action: Callable[[], Any]) -> Any:
        step(name)
        try:
            result = action()
        except (nearest.errors.NearestError, OSError, MemoryError, ValueError) as error:
            str(error)
            outcomes[f"{name.split()[0]}: {type(error).__name__}"] += 1
            return None
        outcomes[f"{name.split()[0]}: ok"] += 1
        return result

    for mapped in (True, False):
        thing = attempt(f"open memory_map={mapped}", lambda m=mapped: nearest.open(path, memory_map=m))
        if isinstance(thing, nearest.Index):
            _examine_index(thing, attempt)
        elif thing is not None:
            _examine_table(thing, attempt)
    attempt("verify", lambda: nearest.verify(path))
    return outcomes


def _examine_index(index: Any, attempt: Callable[[str, Callable[[], Any]], Any]) -> None:
    import nearest

    attempt("repr", lambda: (repr(index), index.stats(), len(index)))
    ids = attempt("ids", lambda: index.ids)
    width = -(-index.dim // 8) if index.encoding == "binary" else index.dim
    rng = np.random.default_rng(1)
    if index.encoding == "binary":
        queries = np.packbits(rng.random((20, index.dim)) < 0.5, axis=1)
    else:
        queries = rng.integers(1, 100, (20, width)).astype(np.float32)
    attempt("search one", lambda: index.search(queries[0], 10))
    attempt("search many", lambda: index.search(queries, 10, n_threads=2))
    if not isinstance(index.structure, nearest.Exact):
        attempt("search all", lambda: index.search(queries, 10, effort=1 << 40, rerank_k=1 << 40, n_threads=1))
        if attempt("calibration", lambda: (index.calibration, index.explanation)[0]) is not None:
            attempt("search by recall", lambda: index.search(queries, 10, recall=0.9, n_threads=1))
    mask = np.arange(len(index)) % 2 == 0
    attempt("search by mask", lambda: index.search(queries, 10, filter=mask, n_threads=1))
    attempt("search_radius", lambda: index.search_radius(queries[0], 100.0, filter=mask))
    if ids is not None and len(ids):
        some = [*ids[:5], *ids[-5:]]
        attempt("search by ids", lambda: index.search(queries[0], 3, filter=ids[::3]))
        attempt("contains", lambda: [id in index for id in some])
        attempt("get", lambda: index.get(list(dict.fromkeys(some))))
        attempt("neighbors_of", lambda: index.neighbors_of(some, 3, n_threads=1))
    if not index.read_only:
        vectors = queries if index.encoding not in ("int8", "uint8") else queries.astype(index.encoding)
        text = ids is not None and ids.dtype == object
        attempt("add", lambda: index.add(vectors, [f"new {i}" for i in range(20)] if text else None))
        more = np.concatenate([vectors] * 60)
        attempt("add many", lambda: index.add(more, [f"more {i}" for i in range(1200)] if text else None))
        attempt("remove", lambda: index.remove([] if ids is None else ids[: len(ids) // 2]))
        attempt("search changed", lambda: index.search(queries, 10, n_threads=1))
    attempt("copy", lambda: len(index.copy()))


def _examine_table(table: Any, attempt: Callable[[str, Callable[[], Any]], Any]) -> None:
    attempt("repr", lambda: (repr(table), len(table), table.k, table.metric))
    attempt("counts", lambda: table.counts)
    for member in {0, len(table) // 2, len(table) - 1} if len(table) else ():
        attempt("member", lambda m=member: table[m])
    attempt("csr", table.to_csr)


@dataclass
class Outcome:
    """How a child ended."""

    wrong: str | None
    counts: Counter[str]
    extra_bytes: int


def in_child(
    action: Callable[[Callable[[str], object]], Counter[str]], *, file_bytes: int, hang: int = HANG_SECONDS
) -> Outcome:
    """Runs `action(step)` in a forked child with little memory and an alarm; a step is known before it is tried."""
    reading, writing = os.pipe()
    # Free memory that the parent holds on to would let the child ask for more than its limit says.
    gc.collect()
    _LIBC.malloc_trim(0)
    data_bytes = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) << 10
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(hang)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # Memory that is asked for counts, used or not. What is mapped from the file does not.
            limit = data_bytes + file_bytes + MEMORY_BYTES
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                counts = action(lambda name: os.write(writing, f"step {name}\n".encode()))
                extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                os.write(writing, f"done {json.dumps([extra, counts])}\n".encode())
            except BaseException as error:  # also a panic, which is no Exception
                text = f"{type(error).__name__}: {error}"[:500]
                os.write(writing, f"raised {json.dumps(text)}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    last = next((line[5:] for line in reversed(lines) if line.startswith("step ")), "the start")
    word, _, rest = lines[-1].partition(" ") if lines else ("", "", "")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = "a hang" if number == signal.SIGALRM else signal.Signals(number).name
        return Outcome(f"{name} in {last}", Counter(), 0)
    if word == "raised":
        return Outcome(f"{json.loads(rest)} in {last}", Counter(), 0)
    if word != "done":
        return Outcome(f"ended without a word in {last}", Counter(), 0)
    extra_kib, counts = json.loads(rest)
    extra = extra_kib << 10
    wrong = f"{extra >> 20} MiB" if extra > file_bytes + MEMORY_BYTES else None
    return Outcome(wrong, Counter(counts), extra)


def warm() -> None:
    """Imports, the pool and all that a first call sets up."""
    import nearest

    vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    index = nearest.Index(16)
    index.add(vectors)
    index.search(vectors, 10, n_threads=2)
    nearest.knn_graph(vectors, 3, exact=True, n_threads=2, progress=False).to_csr()


def one(seed: int, i: int, originals: list[tuple[str, bytes]]) -> tuple[str, bool, bytes, bytes]:
    """The i-th file of a seed: the name of what it was, whether its checksums are right, before and after."""
    rng = random.Random(f"{seed} {i}")
    name, original = originals[rng.randrange(len(originals))]
    repaired = i % 2 == 1
    return name, repaired, original, mutated(original, rng, repaired=repaired)


def campaign(seed: int, count: int, keep: Path) -> dict[str, Any]:
    """The figures; files that something went wrong with stay in the folder `keep`."""
    warm()
    figures: dict[str, Any] = {
        "seed": seed,
        "files": 0,
        "repaired": 0,
        "unchanged": 0,
        "failures": [],
        "extra_bytes": 0,
    }
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="nearest-damage-") as folder:
        originals = list(samples(Path(folder)))
        path = Path(folder) / "damaged.nearest"
        for i in range(count):
            name, repaired, original, file = one(seed, i, originals)
            path.write_bytes(file)
            outcome = in_child(lambda step: examine(str(path), step), file_bytes=len(file))
            figures["files"] += 1
            figures["repaired"] += repaired
            figures["unchanged"] += file == original
            figures["extra_bytes"] = max(figures["extra_bytes"], outcome.extra_bytes)
            counts += outcome.counts
            wrong = outcome.wrong
            if wrong is None and not repaired and file != original and outcome.counts["verify: ok"]:
                wrong = "verify found no damage"
            if wrong is not None:
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{seed}-{i}-{name}.nearest"
                kept.write_bytes(file)
                figures["failures"].append(
                    f"seed {seed}, file {i} ({name}, repaired: {repaired}): {wrong}; kept as {kept}"
                )
                print(figures["failures"][-1], file=sys.stderr, flush=True)
    figures["outcomes"] = dict(sorted(counts.items()))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this file alone, in this process")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "nearest-damaged")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            name, repaired, original, file = one(options.seed, options.only, list(samples(Path(folder))))
            path = Path(folder) / "damaged.nearest"
            path.write_bytes(file)
            print(f"{name}, repaired: {repaired}, {len(original)} bytes, then {len(file)}")
            print(json.dumps(examine(str(path), print), indent=1))
        return 0
    figures = campaign(options.seed, options.count, options.keep)
    print(json.dumps(figures))
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
