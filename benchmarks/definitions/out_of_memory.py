"""A file of 4 GB of vectors, indexed and searched by a process that may take 1.5 GB of memory of its own.

The system refuses that process any more (`RLIMIT_DATA`: all private memory; pages of mapped files do not count). It
builds from the mapped file as anybody would, saves, opens what it saved by map, and answers queries, which are vectors
with noise; the truth is exact search through the same mapped file. Beside it, the same vectors in four shards, merged:
the first makes lists for all, the others are filled from empty copies of it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearest.bench import report

if TYPE_CHECKING:
    from session import Session

N, DIM, CENTRES, N_QUERIES, K = 1_310_720, 768, 3000, 500, 10
LIMIT = 1_500_000_000
RECALL, LEAST = 0.9, 0.88
# Vectors that a shard is given at once.
BLOCK = 1 << 16

_got: dict[str, Any] = {}


def measure(session: Session) -> None:
    n = 40_960 if session.quick else N
    folder = session.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vectors-{n}x{DIM}.npy"
    arguments: dict[str, Any] = {"path": str(path), "n": n}
    if not path.exists():
        session.say(f"writing {path.name}")
        with session.worker("out-of-memory: vectors", 2) as worker:
            worker.ask("call", file=__file__, function="write", arguments=arguments)
    for name, function in (("from the file", "index"), ("from four shards", "shards")):
        session.say(name)
        with session.worker(f"out-of-memory: {name}", 2) as worker:
            found = worker.ask("call", file=__file__, function=function, arguments=arguments)
        _got[name] = session.figures[name] = found
    rows = [
        [
            name,
            report.duration(one["build_seconds"]),
            report.megabytes(one["peak_bytes"]),
            report.megabytes(one["file_bytes"]),
            f"{one['recall']:.4f}",
            f"{report.number(N_QUERIES / one['search_seconds'])}/s",
        ]
        for name, one in _got.items()
    ]
    head = ["built", "seconds", "own memory", "file", "recall@10", "from the mapped file"]
    session.table(
        "A process that may take 1.5 GB", head, rows, about=f"{n:,} × {DIM} float32, {4 * n * DIM / 1e9:.2f} GB"
    )


def write(path: str, n: int) -> None:
    """Called in a process of its own: normalised vectors around centres, of components that matter less and less."""
    import numpy as np

    random = np.random.default_rng(0)
    widths = (np.arange(1, DIM + 1) ** -0.4).astype(np.float32)
    centres = random.standard_normal((CENTRES, DIM), dtype=np.float32) * widths
    beside = Path(path).with_suffix(".tmp")
    out = np.lib.format.open_memmap(beside, "w+", np.float32, (n, DIM))
    for start in range(0, n, 16_384):
        size = min(16_384, n - start)
        block = centres[random.integers(0, CENTRES, size)]
        block += 0.7 * widths * random.standard_normal((size, DIM), dtype=np.float32)
        out[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()
    beside.rename(path)


def index(path: str, n: int) -> dict[str, Any]:
    """Called in a process of its own: builds from the file."""
    import nearest
    import numpy as np

    limited = _Limited()
    vectors = np.load(path, mmap_mode="r")
    started = time.perf_counter()
    built = nearest.build(vectors, metric="cosine", workload="batch", memory="low", recall=RECALL, progress=False)
    seconds = time.perf_counter() - started
    return _asked(built, path, vectors, seconds) | {"peak_bytes": limited.peak_bytes}


def shards(path: str, n: int) -> dict[str, Any]:
    """Called in a process of its own: four files, then one of all of them."""
    import nearest
    import numpy as np
    from nearest.tune import lists_for

    limited = _Limited()
    vectors = np.load(path, mmap_mode="r")
    started = time.perf_counter()
    parts = [f"{path}.{i}.nearest" for i in range(4)]
    rows = [slice(i * n // 4, (i + 1) * n // 4) for i in range(4)]
    structure = nearest.Lists(lists_for(n, "batch"))
    first = nearest.build(
        vectors[rows[0]], metric="cosine", structure=structure, memory="low", recall=RECALL, progress=False
    )
    first.save(parts[0])
    for path_of_part, of_part in zip(parts[1:], rows[1:], strict=True):
        shard = first.empty_copy()
        for start in range(of_part.start, of_part.stop, BLOCK):
            ids = np.arange(start, min(start + BLOCK, of_part.stop))
            shard.add(vectors[ids[0] : ids[-1] + 1], ids)
        shard.save(path_of_part)
        del shard
    del first
    merged = nearest.open(parts[0], memory_map=False)
    for part in parts[1:]:
        merged.merge(nearest.open(part))
    merged.calibrate()
    seconds = time.perf_counter() - started
    for part in parts:
        os.unlink(part)
    return _asked(merged, path, vectors, seconds) | {"peak_bytes": limited.peak_bytes}


class _Limited:
    """The limit, and how much of it was used, as a thread sees it."""

    def __init__(self) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        self.peak_bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak_bytes = max(self.peak_bytes, int(status["RssAnon"].split()[0]) * 1024)
            time.sleep(0.02)


def _asked(built: Any, path: str, vectors: Any, seconds: float) -> dict[str, Any]:
    """What there is to say of an index: saved, opened by map and asked."""
    import nearest
    import numpy as np

    about = {"index": repr(built), "why": built.explanation, "build_seconds": seconds}
    saved = f"{path}.nearest"
    built.save(saved)
    # Noise in proportion to the vectors' length, which is 1.
    noise = np.random.default_rng(1).standard_normal((N_QUERIES, DIM), dtype=np.float32)
    queries = vectors[:N_QUERIES] + 0.3 / np.sqrt(DIM).astype(np.float32) * noise
    before = built.search(queries, K, recall=RECALL).ids
    del built
    mapped = nearest.open(saved)
    started = time.perf_counter()
    found = mapped.search(queries, K, recall=RECALL)
    search_seconds = time.perf_counter() - started
    assert np.array_equal(found.ids, before), "answers differ from those before saving"
    truth = nearest.knn(vectors, queries, K, metric="cosine")
    hits = (found.ids[:, :, None] == truth.ids[:, None, :]).any(axis=2)
    file_bytes = os.path.getsize(saved)
    os.unlink(saved)
    return about | {"search_seconds": search_seconds, "file_bytes": file_bytes, "recall": float(hits.mean())}


def claims(session: Session) -> None:
    for name, one in _got.items():
        text = f"{name}: indexed and searched within {LIMIT / 1e9:g} GB of own memory, recall@10 asked {RECALL:g}"
        session.claim(text, f"≥ {LEAST:g}", f"{one['recall']:.4f}", one["recall"] >= LEAST)
