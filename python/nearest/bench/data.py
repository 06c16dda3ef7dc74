"""Sets of vectors to measure on.

A set is asked for by a short text that names it completely, so that a record can be run again:

=========================================  ============================================================================
``wordnet``, ``photos``, ``photos1m``, …   ``<name>.npz`` or ``<name>.hdf5`` in the data folder (``$NEAREST_DATA``)
``path/to/file.hdf5``                      any file of vectors that `nearest` reads: ann-benchmarks' HDF5, npz, fvecs, …
``synthetic:n=1000000,dim=128``            drawn from a seed, with clusters
``synthetic500k``                          the same: 500 000 × 768, with what makes embeddings of texts hard to search
``products100k``                           the same: 100 000 × 256 of very different lengths, for inner products
=========================================  ============================================================================

followed, after a colon, by ``key=value`` pairs: ``dtype``, ``n``, ``queries`` (their numbers) and ``metric`` for all;
``held`` for files: so many vectors are taken out and are the queries, in place of the file's own; ``kind``,
``clusters``, ``dim``, ``seed`` and ``lengths`` for synthetic ones. What comes of it is kept in a folder as plain
``.npy`` files, which the processes that are measured map, together with the true neighbors in float64.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import vector_files
from ..errors import ArgumentError
from ..params import BINARY_METRICS, metric_named
from . import truth as oracle

Array = NDArray[Any]
Say = Callable[[str], object]

# True neighbors kept for each query.
N_TRUE = 100
# Beyond so many multiply-adds, brute force in float64 takes longer than a coffee.
_MOST_FLOAT64 = 10**12
_CHECKED_QUERIES = 50
_FORMAT = 1
_SYNTHETIC = "synthetic"
_KEYS = {
    "dtype": str,
    "n": int,
    "queries": int,
    "held": int,
    "metric": str,
    "kind": str,
    "clusters": int,
    "dim": int,
    "seed": int,
    "lengths": float,
}
_KINDS = ("clusters", "embeddings")
# Synthetic sets that have a name.
_NAMED: dict[str, dict[str, Any]] = {
    "synthetic500k": {"kind": "embeddings", "n": 500_000, "dim": 768, "clusters": 2000, "metric": "cosine", "seed": 11},
    "products100k": {
        "kind": "embeddings",
        "n": 100_000,
        "dim": 256,
        "clusters": 400,
        "metric": "inner_product",
        "seed": 12,
        "lengths": 0.5,
    },
}
_DTYPES = ("float32", "float16", "float64", "uint8", "int8")
_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Spec:
    """What a text such as ``photos:dtype=float32,n=5000`` asks for."""

    name: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read a text.

        Raises
        ------
        ArgumentError
            A key that is unknown or does not belong there, or a value that is no number.

        Examples
        --------
        >>> Spec.parse("photos:dtype=float32,n=5000")
        Spec(name='photos', options={'dtype': 'float32', 'n': 5000})
        >>> str(Spec.parse("photos:n=5_000"))
        'photos:n=5000'
        """
        name, colon, rest = text.rpartition(":")
        if not colon or "=" not in rest:
            name, rest = text, ""
        options: dict[str, Any] = {}
        for pair in filter(None, rest.split(",")):
            key, _, value = pair.partition("=")
            if key not in _KEYS:
                raise ArgumentError(f"{text}: unknown option {key!r}, expected one of {', '.join(_KEYS)}")
            try:
                options[key] = _KEYS[key](value)
            except ValueError:
                raise ArgumentError(f"{text}: {key} must be a number, got {value!r}") from None
            if _KEYS[key] is int and options[key] < (0 if key == "seed" else 1):
                raise ArgumentError(f"{text}: {key} must be at least 1, got {value}")
        if not name:
            raise ArgumentError(f"expected the name of a data set, got {text!r}")
        if name in _NAMED:
            name, options = _SYNTHETIC, {**_NAMED[name], **options}
        if name != _SYNTHETIC and {"clusters", "dim", "kind", "lengths"} & options.keys():
            raise ArgumentError(f"{text}: clusters, dim, kind and lengths are for {_SYNTHETIC} sets")
        if name == _SYNTHETIC and "held" in options:
            raise ArgumentError(f"{text}: held is for files; the queries of a {_SYNTHETIC} set are held out anyway")
        if options.get("kind", "clusters") not in _KINDS:
            raise ArgumentError(f"{text}: kind must be one of {', '.join(_KINDS)}, got {options['kind']!r}")
        if "lengths" in options and not (options.get("kind") == "embeddings" and 0 <= options["lengths"] <= 2):
            raise ArgumentError(f"{text}: lengths must be from 0 to 2, of kind=embeddings")
        if "metric" in options:
            metric_named(options["metric"])
        if options.get("dtype", "float32") not in _DTYPES:
            raise ArgumentError(f"{text}: dtype must be one of {', '.join(_DTYPES)}, got {options['dtype']!r}")
        return cls(name, options)

    def with_options(self, **options: Any) -> Spec:
        """The same set with other options."""
        return Spec(self.name, {**self.options, **options})

    def __str__(self) -> str:
        pairs = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}:{pairs}" if pairs else self.name


@dataclass(frozen=True)
class DataSet:
    """Vectors, queries that are not among them, and the true neighbors.

    Attributes
    ----------
    folder : Path
        Where the arrays lie; workers map them.
    vectors : ndarray of shape (n, dim)
        Packed bits for hamming and jaccard.
    queries : ndarray of shape (n_queries, dim)
    truth : ndarray of int64, shape (n_queries, up to 100)
        Ids of the true neighbors, nearest first.
    metric : str
    about : dict
        How it came about: `spec`, `source`, `synthetic`, `truth_by`, seeds, counts. Goes into records.
    """

    folder: Path
    vectors: Array
    queries: Array
    truth: NDArray[np.int64]
    metric: str
    about: dict[str, Any]

    @property
    def dim(self) -> int:
        """Numbers a vector; bits for packed ones."""
        return int(self.vectors.shape[1]) * (8 if self.metric in BINARY_METRICS else 1)

    @property
    def multiply_adds(self) -> int:
        """What comparing one query with everything takes."""
        return len(self.vectors) * self.dim

    def __str__(self) -> str:
        kind = ", synthetic" if self.about["synthetic"] else ""
        n, width = self.vectors.shape
        return f"{self.about['spec']} ({n:,} × {width} {self.vectors.dtype}, {self.metric}{kind})"

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> DataSet:
        """What `open_data` left in a folder, mapped."""
        path = Path(folder)
        about = json.loads((path / "about.json").read_text())
        vectors, queries, truth = (
            np.load(path / f"{name}.npy", mmap_mode="r") for name in ("vectors", "queries", "truth")
        )
        return cls(path, vectors, queries, truth, about["metric"], about)


def data_folders() -> list[Path]:
    """Where named sets are looked for: ``$NEAREST_DATA`` (several, as in ``$PATH``), else ``../shared/data``; and then
    in ``$NEAREST_DATA_EXTRA``, for what is made and too large to lie beside the others."""
    # This file is <repository>/python/nearest/bench/data.py; an installed one finds nothing there.
    usual = str(Path(__file__).resolve().parents[4] / "shared" / "data")
    named = os.environ.get("NEAREST_DATA") or usual, os.environ.get("NEAREST_DATA_EXTRA", "")
    return [Path(part) for parts in named for part in parts.split(os.pathsep) if part]


def find_file(name: str) -> Path | None:
    """The file of a named set, or the file itself; None if there is none."""
    if vector_files.is_vector_file(name):
        return Path(name) if Path(name).is_file() else None
    for folder in data_folders():
        for suffix in (".npz", ".hdf5"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None


def missing(spec: str | Spec) -> str | None:
    """Why a set cannot be had, or None."""
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    if spec.name == _SYNTHETIC or find_file(spec.name) is not None:
        return None
    places = ", ".join(map(str, data_folders()))
    return f"{spec.name}: no such file, and none of this name in {places} ($NEAREST_DATA names other folders)"


def open_data(spec: str | Spec, cache: str | os.PathLike[str], say: Say = lambda text: None) -> DataSet:
    """Find or make a set, with its true neighbors.

    Parameters
    ----------
    spec : str
        As this module describes.
    cache : path
        Folder that keeps what was made.
    say : callable, optional
        Told what takes long.

    Raises
    ------
    ArgumentError, FormatError, OSError
        The text asks for nothing that there is; the file is not what its name says, or cannot be read.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    reason = missing(spec)
    if reason:
        raise FileNotFoundError(reason)
    path = None if spec.name == _SYNTHETIC else find_file(spec.name)
    # The file's size and time stand for its content; the version for how this module works.
    marks: list[Any] = [_FORMAT, str(spec)]
    if path is not None:
        status = path.stat()
        marks += [str(path.resolve()), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(spec.name).name + str(spec)[len(spec.name) :])
    folder = Path(cache) / f"{name[:80]}-{digest}"
    if not (folder / "about.json").exists():
        say(f"making {spec} in {folder}")
        _make(folder, spec, path, say)
    return DataSet.load(folder)


def _make(folder: Path, spec: Spec, path: Path | None, say: Say) -> None:
    if path is None:
        vectors, queries, metric, about = synthetic(spec)
    else:
        vectors, queries, metric, about = _read(path, spec)
    if queries.shape[0] == 0 or vectors.shape[0] == 0:
        raise ArgumentError(f"{spec}: expected vectors and queries, got {len(vectors)} and {len(queries)}")
    say(f"  true neighbors of {len(queries):,} queries among {len(vectors):,} vectors")
    truth, truth_by = true_neighbors(vectors, queries, metric)
    about = {
        "spec": str(spec),
        "synthetic": path is None,
        **about,
        "n": len(vectors),
        "width": int(vectors.shape[1]),
        "dtype": str(vectors.dtype),
        "metric": metric,
        "n_queries": len(queries),
        "truth_by": truth_by,
        "vectors_sha256": hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        for array_name, array in (("vectors", vectors), ("queries", queries), ("truth", truth)):
            np.save(beside / f"{array_name}.npy", np.ascontiguousarray(array))
        (beside / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        try:
            beside.rename(folder)
        except OSError:
            # Somebody else made the same set in the meantime.
            if not (folder / "about.json").exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read(path: Path, spec: Spec) -> tuple[Array, Array, str, dict[str, Any]]:
    contents = vector_files.open_file(path)
    metric = metric_named(spec.options.get("metric") or contents.metric or "euclidean")
    rows = vector_files.open_vectors(path)
    vectors = np.asarray(rows.read())
    about: dict[str, Any] = {"source": path.name, "source_bytes": path.stat().st_size}
    names = set(contents.arrays)
    if names & set(vector_files.NAMES["queries"]) and "held" not in spec.options:
        queries = np.asarray(vector_files.open_vectors(path, role="queries").read())
        about["queries"] = "those of the file"
    else:
        # Held out: a member finds itself, which says nothing of a query.
        seed = spec.options.get("seed", 0)
        n_queries = min(spec.options.get("held", spec.options.get("queries", 1000)), len(vectors) // 2)
        order = np.random.default_rng(seed).permutation(len(vectors))
        kept = np.sort(order[n_queries:])
        vectors, queries = vectors[kept], vectors[order[:n_queries]]
        about |= {"queries": f"{n_queries} vectors held out, seed {seed}", "seed": seed}
    # The first rows of a file may be alike (photographs of one place); any n of them are better drawn evenly.
    n = min(spec.options.get("n", len(vectors)), len(vectors))
    if n < len(vectors):
        vectors = vectors[np.sort(np.random.default_rng(spec.options.get("seed", 0)).permutation(len(vectors))[:n])]
        about["sampled"] = f"{n} of {rows.shape[0]}, seed {spec.options.get('seed', 0)}"
    queries = queries[: spec.options.get("queries", len(queries))]
    if metric not in BINARY_METRICS:
        vectors, queries = (_converted(rows, spec) for rows in (vectors, queries))
    return vectors, queries, metric, about


def _converted(rows: Array, spec: Spec) -> Array:
    dtype = np.dtype(spec.options.get("dtype", rows.dtype))
    if dtype == rows.dtype:
        return rows
    converted = rows.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(converted, rows):
        raise ArgumentError(f"{spec}: {rows.dtype} values do not fit {dtype}")
    return converted


def synthetic(spec: Spec) -> tuple[Array, Array, str, dict[str, Any]]:
    """Vectors with cluster structure, drawn from a seed; the queries come from the same clusters and are held out.

    Clusters differ in size (Zipf's law) and in width, and each is wide in few directions and narrow in most, as
    embeddings are: the spectrum falls off, so that there is something for rotations and projections to find.
    """
    options: dict[str, Any] = {
        "n": 100_000,
        "dim": 128,
        "queries": 1000,
        "metric": "euclidean",
        "dtype": "float32",
        "seed": 0,
    }
    options |= spec.options
    n, dim, n_queries = options["n"], options["dim"], options["queries"]
    clusters = options.setdefault("clusters", max(1, min(1000, n // 100)))
    if options.get("kind") == "embeddings":
        return _embeddings(spec, options)
    root = np.random.default_rng([options["seed"], n, dim, clusters])
    centers = root.standard_normal((clusters, dim), dtype=np.float32)
    widths = root.lognormal(-0.5, 0.35, clusters).astype(np.float32)
    share = 1 / np.arange(1, clusters + 1) ** 0.5
    spectrum = (np.arange(1, dim + 1) ** -0.4).astype(np.float32)
    spectrum *= np.sqrt(dim / np.square(spectrum).sum())
    metric = metric_named(options["metric"])
    if metric in BINARY_METRICS:
        raise ArgumentError(f"{spec}: synthetic sets are of numbers, got metric {metric!r}")
    dtype = np.dtype(options["dtype"])
    rows = np.empty((n + n_queries, dim), dtype)
    for start, random in _streams(options["seed"], len(rows)):
        block = rows[start : start + _BLOCK_ROWS]
        which = random.choice(clusters, len(block), p=share / share.sum())
        noise = random.standard_normal(block.shape, dtype=np.float32) * spectrum
        # Each cluster is wide in directions of its own: the spectrum, turned round by a shift.
        shift = (which * 7919) % dim
        columns = (np.arange(dim)[None, :] + shift[:, None]) % dim
        values = centers[which] + widths[which, None] * np.take_along_axis(noise, columns, axis=1)
        block[:] = _quantised(values, dtype)
    return _held_out(root, rows, n_queries, metric, options)


def _held_out(
    random: np.random.Generator, rows: Array, n_queries: int, metric: str, options: dict[str, Any]
) -> tuple[Array, Array, str, dict[str, Any]]:
    held = np.sort(random.permutation(len(rows))[:n_queries])
    queries = rows[held]
    kept = np.ones(len(rows), np.bool_)
    kept[held] = False
    return rows[kept], queries, metric, {"source": "drawn from a seed", "queries": "held out", **options}


# Of `_embeddings`. Chosen on 20 000 vectors of 80 clusters, as many a cluster as synthetic500k has: 41 lists need 31 %
# of the rows for recall@10 0.95 (20 000 of wordnet: 29 %), and the local dimension is 19 (wordnet 24, photos 19).
# Clusters that overlap less are found whole in one or two lists, which no embeddings are.
_CLUSTERS_A_TOPIC = 30
_WIDTH = 3.0
_SHIFTED = 96


def _embeddings(spec: Spec, options: dict[str, Any]) -> tuple[Array, Array, str, dict[str, Any]]:
    """Vectors of length 1 with what makes embeddings of texts hard to search: clusters within topics, of uneven size
    and width, so wide that they overlap; a spectrum that falls off by a power law, its axes turned so that no
    coordinate means anything by itself; all of them a little to one side of the origin. With ``lengths``, the standard
    deviation of the logarithms of their lengths, they are as long as the factors of items that not all like as much.
    """
    n, dim, clusters = options["n"], options["dim"], options["clusters"]
    metric, dtype = metric_named(options["metric"]), np.dtype(options["dtype"])
    if metric in BINARY_METRICS or dtype.kind != "f":
        raise ArgumentError(f"{spec}: embeddings are floats, got dtype {dtype} and metric {metric!r}")
    root = np.random.default_rng([options["seed"], n, dim, clusters])
    topics = max(1, clusters // _CLUSTERS_A_TOPIC)
    between, within = (_spectrum(dim, power) for power in (0.35, 0.6))
    centers = root.standard_normal((clusters, dim), dtype=np.float32) * between
    centers += (root.standard_normal((topics, dim), dtype=np.float32) * between)[root.integers(0, topics, clusters)]
    centers[:, 0] += 0.35
    widths = (_WIDTH * root.lognormal(0, 0.25, clusters)).astype(np.float32)
    share = root.permutation(1 / np.arange(1, clusters + 1) ** 0.5)
    axes = np.linalg.qr(root.standard_normal((dim, dim)))[0].astype(np.float32)
    shifted = min(_SHIFTED, dim)
    rows = np.empty((n + options["queries"], dim), dtype)
    for start, random in _streams(options["seed"], len(rows)):
        block = rows[start : start + _BLOCK_ROWS]
        which = random.choice(clusters, len(block), p=share / share.sum())
        noise = random.standard_normal(block.shape, dtype=np.float32) * within
        # The widest directions are not the same ones for every cluster.
        columns = (np.arange(shifted)[None, :] + (which * 7919 % shifted)[:, None]) % shifted
        noise[:, :shifted] = np.take_along_axis(noise[:, :shifted], columns, axis=1)
        noise *= widths[which, None]
        noise += centers[which]
        values = noise @ axes
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        if options.get("lengths"):
            values *= random.lognormal(0, options["lengths"], (len(block), 1)).astype(np.float32)
        block[:] = values
    return _held_out(root, rows, options["queries"], metric, options)


def _spectrum(dim: int, power: float) -> NDArray[np.float32]:
    """Standard deviations that fall off by a power law, of total variance 1."""
    values = np.arange(1, dim + 1, dtype=np.float64) ** -power
    return np.asarray(values / np.linalg.norm(values), np.float32)


def _streams(seed: int, n: int) -> Iterator[tuple[int, np.random.Generator]]:
    """One generator a block: what a block holds does not depend on how many come after it."""
    for number, start in enumerate(range(0, n, _BLOCK_ROWS)):
        yield start, np.random.default_rng([seed, number])


def _quantised(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Array:
    """Floats of about ±4 as what `dtype` holds."""
    if dtype.kind == "f":
        return values.astype(dtype)
    middle, limits = (128, np.iinfo(np.uint8)) if dtype == np.uint8 else (0, np.iinfo(np.int8))
    return np.clip(np.rint(values * 30 + middle), limits.min, limits.max).astype(dtype)


def true_neighbors(vectors: Array, queries: Array, metric: str) -> tuple[NDArray[np.int64], str]:
    """The true neighbors and who found them: float64 brute force, or for large sets exact search checked by it."""
    work = len(vectors) * len(queries) * vectors.shape[1]
    if work <= _MOST_FLOAT64:
        return oracle.exact_neighbors(vectors, queries, N_TRUE, metric), "float64 brute force (numpy)"
    from .. import knn

    k = min(N_TRUE, len(vectors))
    found = np.asarray(knn(vectors, queries, k, metric=metric).ids, np.int64)
    sample = np.sort(np.random.default_rng(0).permutation(len(queries))[:_CHECKED_QUERIES])
    expected = oracle.exact_neighbors(vectors, queries[sample], k, metric)
    checked = oracle.score(vectors, queries[sample], found[sample], expected, metric)
    if checked.n_wrong:
        raise RuntimeError(
            f"nearest.knn differs from float64 brute force on {checked.n_wrong} of {len(sample)} queries of this set"
        )
    return found, f"nearest.knn, equal to float64 brute force on {len(sample)} of the queries"
