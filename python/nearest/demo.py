"""``nearest demo``: texts searched by meaning, and what that costs on this machine.

The sample (`data/`, 4 MB, made by ``scripts/make_demo_sample.py``) holds the embeddings of 12 500 texts of WordNet:
12 000 to search among, and 500 queries that are not among them.
"""

from __future__ import annotations

import gzip
import os
import statistics
import tempfile
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import vector_files
from .cli import number_text, size_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = "WordNet 3.0, © 2006 Princeton University; embeddings by all-MiniLM-L6-v2; see nearest/data"

# What is shown: texts whose neighbors tell meaning from spelling.
SHOWN = (
    "cat, true cat:",
    "volcano:",
    "joy, joyousness, joyfulness:",
    "king: (chess)",
    "winter, wintertime:",
)
K_SHOWN = 5
K = 10

_DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
_WIDTH = 92
# Each figure is measured for about so long.
_SECONDS = 1.0


class Sample(NamedTuple):
    """Embeddings and texts; `texts` are those of `vectors`, then those of `queries`."""

    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    texts: list[str]


def load() -> Sample:
    """The sample, as float32.

    Returns
    -------
    Sample
        `vectors` (12 000, 384), `queries` (500, 384), 12 500 `texts` «words: gloss».
    """
    path = os.path.join(_DATA, "wordnet-sample.npz")
    # Kept as multiples of 1/256, which float32 holds exactly.
    vectors, queries = (
        vector_files.read_vectors(path, dataset=name).astype(np.float32) / np.float32(256)
        for name in ("base", "queries")
    )
    with gzip.open(os.path.join(_DATA, "wordnet-sample.txt.gz"), "rt", encoding="utf-8") as lines:
        texts = lines.read().splitlines()
    return Sample(vectors, queries, texts)


def brute_force(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> Any:
    """The true `k` nearest by cosine distance, in float64 and nothing but numpy.

    Returns
    -------
    Neighbors
    """
    import nearest

    base, asked = vectors.astype(np.float64), queries.astype(np.float64)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    distances = 1.0 - asked @ base.T
    ids = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return nearest.Neighbors(ids, np.take_along_axis(distances, ids, axis=1).astype(np.float32))


def run(*, n_threads: int | None = None, seconds: float = _SECONDS) -> dict[str, Any]:
    """Build, search, measure.

    Parameters
    ----------
    n_threads : int, optional
        For the batch of queries; all that this process may run on by default. Single queries use one.
    seconds : float
        For how long each speed is measured.

    Returns
    -------
    dict
        ``examples`` (texts with their neighbors) and the measured figures, units in the names.
    """
    import nearest
    from nearest import _native

    sample = load()
    threads = n_threads or _native.default_n_threads()
    started = time.perf_counter()
    index = nearest.build(sample.vectors, metric="cosine", n_threads=n_threads, progress=False)
    build_seconds = time.perf_counter() - started

    shown = [next(i for i, text in enumerate(sample.texts) if text.startswith(start)) for start in SHOWN]
    near = index.neighbors_of(shown, K_SHOWN)
    examples = [
        {
            "text": sample.texts[i],
            "neighbors": [
                {"distance": round(float(distance), 4), "text": sample.texts[id]}
                for id, distance in zip(ids, distances, strict=True)
            ],
        }
        for i, ids, distances in zip(shown, near.ids, near.distances, strict=True)
    ]

    n = len(sample.queries)
    found = index.search(sample.queries, K, n_threads=n_threads)
    recall = nearest.recall(found, brute_force(sample.vectors, sample.queries, K), K)

    turn = iter(range(1 << 62))
    single = _times(lambda: index.search(sample.queries[next(turn) % n], K, n_threads=1), seconds)
    batch = _times(lambda: index.search(sample.queries, K, n_threads=n_threads), seconds)

    with tempfile.TemporaryDirectory(prefix="nearest-demo-") as folder:
        path = os.path.join(folder, "demo.nearest")
        started = time.perf_counter()
        index.save(path)
        save_seconds = time.perf_counter() - started
        file_bytes = os.path.getsize(path)
        opening = _times(lambda: nearest.open(path), seconds / 10)
        reopened = nearest.open(path)
        same = np.array_equal(reopened.search(sample.queries, K).ids, found.ids)
        del reopened

    kernels = _native.kernels()
    return {
        "source": SOURCE,
        "count": len(index),
        "dim": index.dim,
        "n_queries": n,
        "k": K,
        "structure": str(index.structure),
        "encoding": index.encoding,
        "kernels": kernels["level"],
        "n_threads": threads,
        "examples": examples,
        "build_seconds": round(build_seconds, 4),
        "single_query_us": round(statistics.median(single) * 1e6, 1),
        "single_queries_measured": len(single),
        "batch_queries_per_second": round(n / statistics.median(batch)),
        "batches_measured": len(batch),
        "recall": recall,
        "vector_bytes": sample.vectors.nbytes,
        "save_seconds": round(save_seconds, 4),
        "open_seconds": round(statistics.median(opening), 6),
        "file_bytes": file_bytes,
        "same_after_opening": same,
    }


def _times(action: Callable[[], object], seconds: float) -> list[float]:
    """How long each call took, for about so many seconds after a first call that does not count."""
    action()
    times = []
    end = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        action()
        now = time.perf_counter()
        times.append(now - started)
        if now >= end:
            return times


def text_of(result: dict[str, Any]) -> str:
    """What `run` found, for a person: at most 92 columns."""
    lines = [
        f"{number_text(result['count'])} short texts, each with a vector of {result['dim']} numbers for its meaning.",
        f"Some of them, and the {K_SHOWN} nearest by cosine distance:",
        "",
    ]
    for example in result["examples"]:
        lines.append(textwrap.shorten(example["text"], _WIDTH, placeholder=" …"))
        for neighbor in example["neighbors"]:
            text = textwrap.shorten(neighbor["text"], _WIDTH - 9, placeholder=" …")
            lines.append(f"  {neighbor['distance']:.3f}  {text}")
        lines.append("")
    n, k = result["n_queries"], result["k"]
    rows = [
        ("build", f"{result['build_seconds']:.2f} s ({result['structure']}, {result['encoding']})"),
        (
            "one query",
            f"{result['single_query_us']:,.0f} µs, all {number_text(result['count'])} compared "
            f"(1 thread, median of {number_text(result['single_queries_measured'])})",
        ),
        (
            f"{n} queries at once",
            f"{number_text(result['batch_queries_per_second'])} queries/s ({_threads(result['n_threads'])}, "
            f"median of {number_text(result['batches_measured'])} runs)",
        ),
        (f"recall@{k}", f"{result['recall']:.4f} of float64 brute force (numpy), {n} texts not in the index"),
        ("memory", f"{size_text(result['vector_bytes'])} of vectors; the file has {size_text(result['file_bytes'])}"),
        (
            "save, open",
            f"{result['save_seconds'] * 1e3:.0f} ms, {result['open_seconds'] * 1e3:.2f} ms (mapped; "
            f"{'the same answers' if result['same_after_opening'] else 'OTHER ANSWERS: this is a bug'})",
        ),
    ]
    lines.append(f"Measured here and now (kernels: {result['kernels']}):")
    lines += [f"  {name:<22}{value}" for name, value in rows]
    lines += [
        "",
        "Try next, with an array of your own:",
        "  nearest build vectors.npy -o my.nearest --metric cosine",
        "  nearest search my.nearest queries.npy -k 10",
        '  python -c "import nearest; help(nearest.knn)"',
        "",
        f"({result['source']})",
    ]
    return "\n".join(lines)


def _threads(n: int) -> str:
    return f"{n} thread" if n == 1 else f"{n} threads"
