"""docs/format.md is enough to read an index: a reader written after it alone, against `Index.get` and `Index.ids`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import damage
import nearest
import numpy as np
import pytest
from nearest import Exact, Graph, Index, Lists

GOLDEN = Path(__file__).resolve().parent / "golden" / "1"
METRICS = ("euclidean", "sqeuclidean", "cosine", "angular", "inner_product")
RAW = ("float32", "float16", "bfloat16", "int8", "uint8", "binary")
M64 = (1 << 64) - 1


def sections(file: bytes) -> dict[str, np.ndarray]:
    types = "u1 i1 <u2 <i2 <u4 <i4 <u8 <i8 <f2 bf16 <f4 <f8 u1".split()
    found = {}
    for part in damage.parse(file).sections:
        kind = types[part.dtype - 1]
        if kind == "bf16":
            values = (np.frombuffer(part.data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(part.data, kind)
        found[part.name.decode()] = values.reshape(part.dims)
    return found


def encoding_named(number: int) -> tuple[str, int, int]:
    kind, m, bits = number & 0xFFFF, number >> 16 & 0xFFFF, number >> 32
    return (
        (*RAW, *[""] * 10, "scalar8", "scalar4", "product", "rabitq")[kind],
        m,
        {"scalar8": 8, "scalar4": 4}.get(("scalar8", "scalar4")[kind - 16] if kind in (16, 17) else "", bits),
    )


class Rotation:
    def __init__(self, dim: int, seed: int) -> None:
        self.dim, self.block = dim, 1 << (dim.bit_length() - 1)
        self.rounds = 3 if self.block == dim else 4
        self.state = seed
        for _ in range(2):
            self.state = self.next()
        self.factors = [[self.factor(t, d) for d in range(dim)] for t in range(self.rounds + 1)]

    def next(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & M64
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M64
        z = (z ^ z >> 27) * 0x94D049BB133111EB & M64
        return z ^ z >> 31

    def factor(self, t: int, d: int) -> float:
        size = -1.0 if self.next() >> 63 else 1.0
        if t < self.rounds and d in self.places(t):
            size /= self.block**0.5
        middle = self.dim % 2 == 1 and d == (self.dim - 1) // 2
        if t % 2 == 0 and t > 0 and self.block < self.dim and not middle:
            size *= 0.5**0.5
        return size

    def places(self, t: int) -> range:
        return range(self.block) if t % 2 == 0 else range(self.dim - self.block, self.dim)

    def inverse(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.float64) * self.factors[-1]
        hadamard = np.ones((1, 1))
        while len(hadamard) < self.block:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        for t in reversed(range(self.rounds)):
            if t % 2 == 1 and self.block < self.dim:
                half = -(-self.dim // 2)
                a, b = rows[:, : self.dim // 2].copy(), rows[:, half:].copy()
                rows[:, : self.dim // 2], rows[:, half:] = a + b, a - b
            places = list(self.places(t))
            rows[:, places] = rows[:, places] @ hadamard
            rows = rows * self.factors[t]
        return rows


class Coder:
    """What codes stand for: `scale · (u − zero)`."""

    def __init__(self, number: int, dim: int, state: np.ndarray | None) -> None:
        self.name, self.m, self.bits = encoding_named(number)
        self.dim, self.depth = dim, -(-dim // 4) * 4
        self.planes = [group for group in (4, 2, 1) if self.bits & group]
        self.is_bytes = self.name in ("int8", "uint8") or (self.name != "product" and self.bits == 8)
        if self.name in ("int8", "uint8"):
            self.zero = 128 if self.name == "int8" else 0
        else:
            self.zero = 128 if self.name == "product" or self.bits == 8 else 2**self.bits - 1
        if self.name == "product":
            assert state is not None
            unit = struct.unpack("<f", state[:4].tobytes())[0]
            assert 1e-12 < unit < 1
            widths = [dim // self.m + (part < dim % self.m) for part in range(self.m)]
            ends = np.cumsum([0, *widths]) << self.bits
            words = state[4:]
            assert len(words) == dim << self.bits
            assert words.all()
            self.words = [words[ends[i] : ends[i + 1]].reshape(1 << self.bits, width) for i, width in enumerate(widths)]
        elif state is not None:
            assert len(state) == 0

    @property
    def row_bytes(self) -> int:
        if self.name == "product":
            return -(-self.m * self.bits // 8)
        return self.dim if self.is_bytes else sum(-(-self.dim * group // 8) for group in self.planes)

    @property
    def panel_bytes(self) -> int:
        if self.name == "product":
            return 32 * self.bits // 8 * self.m
        lines = self.depth // 2
        return 32 * self.depth if self.is_bytes else sum(-(-lines * group // 8) * 64 for group in self.planes)

    def row(self, code: np.ndarray) -> np.ndarray:
        """u of a row's own code."""
        if self.is_bytes:
            return code
        if self.name == "product":
            numbers = code if self.bits == 8 else np.stack([code & 15, code >> 4], 1).ravel()[: self.m]
            return np.concatenate([words[number] for words, number in zip(self.words, numbers, strict=True)])
        levels = np.zeros(self.dim, np.int64)
        for group in self.planes:
            width = -(-self.dim * group // 8)
            plane, code = code[:width], code[width:]
            bits = [plane >> (group * i) & (1 << group) - 1 for i in range(8 // group)]
            levels = levels << group | np.concatenate(bits)[: self.dim]
        return 2 * levels

    def panel(self, packed: np.ndarray) -> np.ndarray:
        """u of the 32 rows of a panel."""
        if self.name == "product":
            parts = packed.reshape(self.m, -1)
            numbers = parts if self.bits == 8 else np.concatenate([parts & 15, parts >> 4], axis=1)
            return np.concatenate([words[row] for words, row in zip(self.words, numbers, strict=True)], axis=1)
        factor = 1
        if not self.is_bytes:
            factor = 2
            levels = np.zeros((self.depth // 2, 64), np.int64)
            for group in self.planes:
                size = -(-len(levels) * group // 8) * 64
                plane, packed = packed[:size].reshape(-1, 64), packed[size:]
                bits = [plane >> (group * i) & (1 << group) - 1 for i in range(8 // group)]
                levels = levels << group | np.stack(bits, 1).reshape(-1, 64)[: len(levels)]
            packed = levels.ravel()
        u = packed.reshape(self.depth // 4, 32, 4).transpose(1, 0, 2).reshape(32, self.depth)
        assert not u[:, self.dim :].any() or factor == 2
        return factor * u[:, : self.dim]


def read(file: bytes) -> dict[str, Any]:
    """The vectors of an index, as far as the file says them, and what else is in it."""
    found = sections(file)
    dim, metric, encoding, structure, _, seed, _, rerank = (int(number) for number in found["spec"])
    name = encoding_named(encoding)[0]
    second = encoding_named(rerank - 1)[0] if rerank else None
    out = {"metric": metric, "encoding": name, "rerank": second, "structure": structure, "lists": None}
    if "graph" in found:
        return {**out, **read_graph(found)}
    if "lists" not in found:
        return {**out, "vectors": found["vectors"]}
    n_lists = int(found["lists"][0])
    centre, centroids, n = found["lists_centre"], found["lists_centroids"], len(found["vectors"])
    assert centroids.shape == (n_lists, dim)
    in_lists = encoding if name not in ("float32", "float16", "bfloat16") else 16
    coder = Coder(in_lists, dim, found.get("lists_coder"))
    rotation = None if coder.name in ("int8", "uint8", "product") else Rotation(dim, seed)

    def unframed(framed: np.ndarray) -> np.ndarray:
        return (rotation.inverse(framed) if rotation else framed) + centre

    lists: list[list[int]] = [[] for _ in range(n_lists)]
    coded = np.full((n, dim), np.nan)
    rows, at = found["lists_rows"], 0
    integers = name in ("int8", "uint8")
    own = found["vectors"].copy().view("<u4").ravel() if second is None and (integers or name not in RAW) else None
    for number, n_rows in found["lists_blocks"].tolist():
        assert 1 <= n_rows <= 256
        for first in range(0, n_rows, 32):
            packed, at = rows[at : at + coder.panel_bytes], at + coder.panel_bytes
            terms, at = rows[at : at + 384], at + 384
            scale, bias = (terms[i : i + 128].copy().view("<f4") for i in (0, 128))
            row = terms[256:].copy().view("<u4")
            here = min(32, n_rows - first)
            assert (row[here:] == 0xFFFFFFFF).all()
            assert (scale[here:] == 0).all()
            assert np.isneginf(bias[here:]).all()
            u = coder.panel(packed).astype(np.float64)
            if integers:
                decoded = u - coder.zero
            else:
                decoded = scale[:, None] * (u - coder.zero) + centroids[number]
            for place in range(here):
                lists[number].append(int(row[place]))
                if own is None or own[row[place]] == number:
                    coded[row[place]] = decoded[place]
    assert at == len(rows)
    members = [row for each in lists for row in each]
    assert all(len(set(each)) == len(each) for each in lists)
    assert set(members) == set(range(n))
    assert np.bincount(members, minlength=n).max(initial=0) <= 2
    out["lists"] = lists
    out["coded"] = coded if integers else unframed(coded)
    if own is not None:
        return {**out, "vectors": out["coded"]}
    if name in RAW or second in RAW:
        return {**out, "vectors": found["vectors"]}
    whole = Coder(rerank - 1, dim, found["lists_second"])
    assert found["vectors"].shape[1] == 8 + whole.row_bytes
    terms = found["vectors"][:, :8].copy().view("<f4")
    framed = [
        t * (whole.row(kept[8:]).astype(float) - whole.zero)
        for t, kept in zip(terms[:, 0], found["vectors"], strict=True)
    ]
    return {**out, "vectors": unframed(framed)}


def read_graph(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The vectors of a graph, as far as the file says them, and its links."""
    dim, metric, encoding, structure, _, seed, _, rerank = (int(number) for number in found["spec"])
    name, n = encoding_named(encoding)[0], len(found["vectors"])
    second = encoding_named(rerank - 1)[0] if rerank else None
    degree = structure >> 16 & 0xFFFF
    links, hubs, waiting = found["graph_links"], found["graph_hubs"], found["graph_waiting"]
    assert links.shape == (n, degree)
    assert np.array_equal(waiting, np.unique(waiting))
    is_there = links != 0xFFFFFFFF
    # All that are there come first.
    assert (is_there[:, :-1] >= is_there[:, 1:]).all()
    assert (links[is_there] < n).all()
    assert not is_there[waiting].any()
    reached = np.zeros(n, np.bool_)
    todo = hubs.tolist()
    while todo:
        row = todo.pop()
        if not reached[row]:
            reached[row] = True
            todo += links[row][is_there[row]].tolist()
    assert np.array_equal(np.flatnonzero(~reached), waiting)
    native = name in ("int8", "uint8") and METRICS[metric] not in ("cosine", "angular")
    rotation = None if native else Rotation(dim, seed)

    coder = Coder(encoding if native or name not in RAW else 17, dim, None)
    codes, bits = found.get("graph_codes", found["vectors"]), int(found["graph"][5])
    scales = found["graph_scales"].astype(np.float64)[:, None]
    half = -(-dim // 2)
    # In units of the scale.
    upper = 2.0 * np.hstack([codes[:, :half] & 15, codes[:, :half] >> 4])[:, :dim] - 15
    if bits == 4 and (native or name == "scalar8"):
        lower = np.hstack([codes[:, half:] & 15, codes[:, half:] >> 4])[:, :dim]
        levels, seen = 8 * upper + 120 + lower - coder.zero, 8 * upper
    else:
        levels = np.array([coder.row(code) for code in codes], np.float64).reshape(n, dim) - coder.zero
        seen = upper if bits == 4 else levels

    def unframed(rows: np.ndarray) -> np.ndarray:
        return (rotation.inverse(rows) if rotation else rows) + found["graph_centre"]

    # Integers are what they are; only walks see them relative to the centre.
    walked = levels if native else unframed(scales * levels)
    out = {"links": [row[there] for row, there in zip(links, is_there, strict=True)], "coded": walked}
    if "graph_codes" not in found:
        return {**out, "vectors": walked}
    if name in RAW or second in RAW:
        return {**out, "vectors": found["vectors"]}
    whole, kept = Coder(rerank - 1, dim, None), found["vectors"]
    left = np.array([whole.row(code) for code in kept[:, 8:]], np.float64).reshape(n, dim) - whole.zero
    return {**out, "vectors": unframed(scales * seen + kept[:, :4].copy().view("<f4") * left)}


def check(index: Index, file: bytes) -> None:
    got = read(file)
    # A text of nothing is an id of the format that Python does not take.
    named = index.ids != ""
    stored = index.get(index.ids[named]) if len(index) else np.empty((0, index.dim))
    size = np.abs(stored).max(initial=1e-30)
    assert np.allclose(got["vectors"][named], stored, rtol=0, atol=3e-6 * size), index
    if got["lists"] is None:
        return
    stats = index.stats()
    if "n_lists" in stats and stats["n_removed"] == 0:
        assert stats["n_entries"] == sum(map(len, got["lists"]))
        assert stats["largest_list"] == max(map(len, got["lists"]))
    if got["encoding"] in RAW and len(index):
        # What lists hold beside the vectors is near them.
        vectors = stored.astype(np.float64)
        if index.metric in ("cosine", "angular") and got["encoding"] not in ("int8", "uint8"):
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        off = np.linalg.norm(got["coded"] - vectors, axis=1)
        assert off.max() <= 0.02 * np.linalg.norm(vectors, axis=1).max()


KINDS: list[tuple[str, str | None]] = [
    ("float32", None),
    ("float16", None),
    ("bfloat16", None),
    ("int8", None),
    ("uint8", None),
    ("scalar8", None),
    ("scalar4", None),
    *[(f"rabitq({bits})", None) for bits in range(1, 9)],
    ("product(3, 4)", None),
    ("product(2, 8)", None),
    ("scalar4", "scalar8"),
    ("rabitq(1)", "rabitq(7)"),
    ("rabitq(2)", "product(4, 4)"),
    ("product(2, 4)", "rabitq(3)"),
    ("product(3, 8)", "product(2, 8)"),
    ("scalar8", "float16"),
    ("scalar4", "bfloat16"),
    ("rabitq(5)", "float32"),
    ("scalar4", "uint8"),
]


@pytest.mark.parametrize(("encoding", "rerank"), KINDS)
def test_a_reader_of_lists(encoding: str, rerank: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(encoding))
    for i, dim in enumerate((4, 7, 8, 33, 64)):
        metric = METRICS[(i + len(encoding)) % 5]
        structure = Exact() if i == 2 and encoding not in RAW else Lists(3, spill=0.4)
        index = Index(dim, metric=metric, encoding=encoding, rerank=rerank, structure=structure, seed=i)
        vectors = rng.integers(1, 100, (1100 + 40 * i, dim)).astype("f4")
        index.add(vectors, None if i % 2 else [f"row {j}" for j in range(len(vectors))])
        index.remove(index.ids[::5])
        index.save(tmp_path / "x")
        check(index, (tmp_path / "x").read_bytes())
        check(nearest.open(tmp_path / "x"), (tmp_path / "x").read_bytes())


@pytest.mark.parametrize(
    ("encoding", "rerank"),
    [
        *[(encoding, None) for encoding in RAW if encoding != "binary"],
        ("scalar8", None),
        ("scalar4", None),
        ("scalar4", "scalar8"),
        ("scalar8", "rabitq(3)"),
        ("scalar4", "float16"),
    ],
)
def test_a_reader_of_graphs(encoding: str, rerank: str | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(encoding))
    for i, dim in enumerate((4, 7, 33, 64)):
        index = Index(dim, metric=METRICS[i], encoding=encoding, rerank=rerank, structure=Graph(8 + i), seed=i)
        vectors = rng.integers(1, 100, (1200 + 40 * i, dim)).astype("f4")
        index.add(vectors, None if i % 2 else [f"row {j}" for j in range(len(vectors))])
        index.remove(index.ids[::5])
        index.add(vectors[:9], None if i % 2 else [f"more {j}" for j in range(9)])
        index.save(tmp_path / "x")
        check(index, (tmp_path / "x").read_bytes())
        check(nearest.open(tmp_path / "x"), (tmp_path / "x").read_bytes())
        assert len(sections((tmp_path / "x").read_bytes())["graph_waiting"]) == 9


def test_a_reader_of_what_waits(tmp_path: Path) -> None:
    index = Index(5, encoding="scalar4", structure=Lists())
    index.add(np.arange(50.0).reshape(10, 5))
    index.save(tmp_path / "x")
    got = read((tmp_path / "x").read_bytes())
    assert (got["encoding"], got["lists"], got["structure"]) == ("scalar4", None, 1 + (40 << 16))
    assert np.array_equal(got["vectors"], index.get(index.ids))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("index-*.nearest")), ids=lambda path: path.stem)
def test_a_reader_of_golden_files(path: Path) -> None:
    check(nearest.open(path), path.read_bytes())


def test_the_rotation_is_orthonormal() -> None:
    for dim in (1, 2, 3, 5, 8, 13, 100):
        turned = Rotation(dim, 42).inverse(np.eye(dim))
        assert np.allclose(turned @ turned.T, np.eye(dim), atol=1e-6)


def test_a_calibration_is_json(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    index = nearest.build(rng.standard_normal((3000, 8)), structure=Lists(16), recall=0.9, progress=False)
    index.save(tmp_path / "x")
    kept = json.loads(bytes(sections((tmp_path / "x").read_bytes())["calibration"]))
    assert (kept["n_queries"], kept["n_vectors"], kept["n_lists"], kept["recall"]) == (300, 2700, 16, 0.9)
    assert sorted(kept["curves"]) == sorted(kept["far"]) == ["1", "10", "100"]
    for curve in kept["curves"].values():
        assert [point[0] for point in curve] == sorted({point[0] for point in curve})
        assert all(0 <= worst <= mean <= 1 and 0 <= lower <= mean for _, mean, lower, worst in curve)
