"""`nearest.open` of an index of 1 GB: how long it takes, and whether two processes share its pages.

Times are those of the call in processes that have imported `nearest`, with the file in the page cache; beside it,
`numpy.load` of as many bytes by memory map. For sharing, two processes open the file and each answers a query, which
reads all vectors; then the system is asked what each has: with shared pages, the proportional share (PSS) of a page is
half of it.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from session import Session

SPEC = "synthetic:n=2000000,dim=128,dtype=float32,seed=9,queries=20"
TARGET_SECONDS = 0.010
# What each process has of its own beside the file: interpreter, numpy, scratch.
OWN_BYTES = 100_000_000

_kept: dict[str, Any] = {}


def measure(session: Session) -> None:
    data = session.data(SPEC)
    assert data is not None
    path = data.folder / "exact.nearest"
    arguments = {"data": str(data.folder), "path": str(path)}
    with session.worker("open: writing the index") as worker:
        # Always new: it belongs to the build that is measured.
        worker.ask("call", file=__file__, function="write", arguments=arguments)
    opened: list[float] = []
    mapped: list[float] = []
    n = 3 if session.quick else 15
    for _ in range(n):
        with session.worker("open") as worker:
            times = worker.ask("call", file=__file__, function="times", arguments={**arguments, "again": n})
        opened += times["nearest"]
        mapped += times["numpy"]
    n_bytes = path.stat().st_size
    with session.worker("open: first") as first, session.worker("open: second") as second:
        before = first.ask("call", file=__file__, function="opened", arguments=arguments)
        alone = first.ask("call", file=__file__, function="pages", arguments=arguments)
        second.ask("call", file=__file__, function="opened", arguments=arguments)
        together = [one.ask("call", file=__file__, function="pages", arguments=arguments) for one in (first, second)]
    path.unlink()
    session.figures["open"] = {
        "file_bytes": n_bytes,
        "nearest.open, median_seconds": statistics.median(opened),
        "nearest.open, worst_seconds": max(opened),
        "nearest.open, first in its process, median_seconds": statistics.median(opened[::n]),
        "numpy.load by map, median_seconds": statistics.median(mapped),
        "first query after opening_seconds": before["query_seconds"],
        "n_opened": len(opened),
    }
    session.figures["pages"] = {
        "one process alone, PSS of the file_bytes": alone["file"]["Pss"],
        "two processes, PSS of the file, first_bytes": together[0]["file"]["Pss"],
        "two processes, PSS of the file, second_bytes": together[1]["file"]["Pss"],
        "two processes, RSS of the file, first_bytes": together[0]["file"]["Rss"],
        "two processes, PSS of everything, first_bytes": together[0]["all"]["Pss"],
        "two processes, PSS of everything, second_bytes": together[1]["all"]["Pss"],
        "two processes, not shared, first_bytes": together[0]["all"]["Anonymous"],
    }


def write(data: str, path: str) -> None:
    """Makes the file."""
    import nearest
    from nearest.bench.data import DataSet

    one = DataSet.load(data)
    nearest.build(one.vectors, metric=one.metric, structure=nearest.Exact(), progress=False).save(path)


def times(data: str, path: str, again: int) -> dict[str, list[float]]:
    """Opens it again and again; every map is gone before the next."""
    import nearest
    import numpy as np

    array = str(Path(data) / "vectors.npy")
    found: dict[str, list[float]] = {"nearest": [], "numpy": []}
    for _ in range(again):
        for name in found:
            started = time.perf_counter()
            index: Any = nearest.open(path) if name == "nearest" else np.load(array, mmap_mode="r")
            found[name].append(time.perf_counter() - started)
            del index
    return found


def opened(data: str, path: str) -> dict[str, float]:
    """Opens it for good and answers a query, so that every vector was read."""
    import nearest
    from nearest.bench.data import DataSet

    query = DataSet.load(data).queries[0]
    _kept["index"] = nearest.open(path)
    started = time.perf_counter()
    _kept["index"].search(query, 10, n_threads=1)
    return {"query_seconds": time.perf_counter() - started}


def pages(data: str, path: str) -> dict[str, dict[str, int]]:
    """Bytes of this process: of the mapped file, and of everything."""
    return {
        "all": _bytes(Path("/proc/self/smaps_rollup").read_text().splitlines()),
        "file": _bytes(_of_file(Path("/proc/self/smaps").read_text().splitlines(), path)),
    }


def _of_file(lines: list[str], path: str) -> list[str]:
    chosen, inside = [], False
    for line in lines:
        # A map begins with its addresses; what follows are lines «Name: 12 kB».
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(path)
        elif inside:
            chosen.append(line)
    return chosen


def _bytes(lines: list[str]) -> dict[str, int]:
    total = dict.fromkeys(("Rss", "Pss", "Anonymous"), 0)
    for line in lines:
        name, _, value = line.partition(":")
        if name in total:
            total[name] += int(value.split()[0]) << 10
    return total


def claims(session: Session) -> None:
    figure, shared = session.figures["open"], session.figures["pages"]
    n_bytes = figure["file_bytes"]
    text = f"open of {n_bytes / 1e9:.2f} GB, the worst of {figure['n_opened']}"
    session.claim_most(
        text, figure["nearest.open, worst_seconds"], TARGET_SECONDS, lambda value: f"{value * 1e3:.2f} ms"
    )
    both = sum(shared[f"two processes, PSS of everything, {name}_bytes"] for name in ("first", "second"))
    most = n_bytes + 2 * OWN_BYTES
    text = "PSS of two processes together: the file once, and their own"
    session.claim_most(text, both, most, lambda value: f"{value / 1e6:,.0f} MB")
