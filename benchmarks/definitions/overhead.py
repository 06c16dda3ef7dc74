"""What Python and the binding add to a single search: an index of 1 000 × 64 float32, one query a call.

Measured three ways, since nobody can time the scan alone from outside: (a) a call on an index of one vector, where
there is next to nothing to scan; (b) calls on indexes of 1, 250, 500 and 1 000 vectors, and the line through them at
zero vectors; (c) the call on 1 000 vectors less the time that a query takes in a batch of the same one, which scans in
tiles and faster than a single query can, so that this is too high rather than too low. All three are held against the
target. Beside them, Faiss on the same vectors.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from session import Session

DIM, K = 64, 10
SIZES = (1, 250, 500, 1000)
CALLS = 200
TARGET_SECONDS = 5e-6


def measure(session: Session) -> None:
    settings = session.settings
    rounds = []
    for number in range(settings.sessions):
        session.say(f"  session {number + 1}/{settings.sessions}")
        with session.worker("overhead", 1) as worker:
            arguments = {"rounds": max(3, 5 * settings.rounds), "seconds": settings.turn_seconds / 5}
            rounds.append(worker.ask("call", file=__file__, function="in_one_process", arguments=arguments))
    best = {name: statistics.median(one["medians"][name] for one in rounds) for name in rounds[0]["medians"]}
    of_line = [_at_zero(one["medians"]) for one in rounds]
    scan = best["batch of the same 1000, a query"]
    session.figures["a single search"] = {
        **{f"{name}_seconds": value for name, value in best.items()},
        "line at zero vectors_seconds": statistics.median(of_line),
        "1000 vectors less a query in a batch_seconds": best["nearest, 1000 vectors"] - scan,
        "faiss": rounds[0]["faiss"],
        "sessions": rounds,
    }


def _at_zero(medians: dict[str, float]) -> float:
    """Where the least-squares line of time over vectors meets zero vectors."""
    x, y = SIZES, [medians[f"nearest, {n} vectors"] for n in SIZES]
    slope = statistics.covariance(x, y) / statistics.variance(x)
    return statistics.mean(y) - slope * statistics.mean(x)


def in_one_process(rounds: int, seconds: float) -> dict[str, Any]:
    """Called in a process of its own: seconds a call of each, alternating."""
    import nearest
    import numpy as np

    random = np.random.default_rng(3)
    vectors = random.standard_normal((max(SIZES), DIM), dtype=np.float32)
    query = random.standard_normal(DIM, dtype=np.float32)
    batch = np.repeat(query[None], 1000, axis=0)
    calls: dict[str, tuple[Callable[[], object], int]] = {}
    for n in SIZES:
        index = nearest.build(vectors[:n], structure=nearest.Exact(), progress=False)
        calls[f"nearest, {n} vectors"] = partial(index.search, query, K), 1
        # The last one stays: the largest.
        calls["batch of the same 1000, a query"] = partial(index.search, batch, K, n_threads=1), len(batch)
    faiss_is = "not installed"
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        pass
    else:
        faiss_is = faiss.__version__
        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatL2(DIM)
        flat.add(vectors)
        row = query[None]
        calls["faiss Flat, 1000 vectors"] = partial(flat.search, row, K), 1
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, queries) in calls.items():
            times[name].append(_seconds(call, seconds) / queries)
    # The first round warmed up.
    return {
        "medians": {name: statistics.median(values[1:]) for name, values in times.items()},
        "least": {name: min(values) for name, values in times.items()},
        "faiss": faiss_is,
    }


def _seconds(call: Callable[[], object], seconds: float) -> float:
    """Seconds a call, of many calls without a clock in between."""
    n = 0
    started = time.perf_counter()
    while True:
        for _ in range(CALLS):
            call()
        n += CALLS
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return elapsed / n


def claims(session: Session) -> None:
    figure = session.figures["a single search"]
    for text, name in (
        ("Python and binding: a call on one vector", "nearest, 1 vectors_seconds"),
        ("Python and binding: the line at zero vectors", "line at zero vectors_seconds"),
        ("Python and binding: a call less a query in a batch", "1000 vectors less a query in a batch_seconds"),
    ):
        session.claim_most(text, figure[name], TARGET_SECONDS, lambda value: f"{value * 1e6:.2f} µs")
