"""k-means with 1 024 centroids against `faiss.Kmeans`: seconds, and the objective that they come to; 1 thread and 2.

Both begin from random vectors, iterate ten times, use at most 256 vectors a centroid, and get float32. Turns alternate
between processes, each with another seed. The objective is the mean squared distance of all vectors of the set from
their nearest centroids, computed by one float64 function for both.
"""

from __future__ import annotations

import importlib
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from nearest.bench.adapters.base import blas_environments

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos")
K, N_ITERATIONS, MOST_POINTS = 1024, 10, 256
TARGET_RATIO = 2.0
MOST_EXCESS = 0.01
# In how many turns of a session the objective is computed, which takes longer than the clustering.
MEASURED_TURNS = 2

_kept: dict[str, Any] = {}


def measure(session: Session) -> None:
    methods: dict[str, tuple[str, dict[str, str]]] = {
        "nearest": ("nearest", {}),
        "nearest, balanced": ("nearest, balanced", {}),
    }
    if importlib.util.find_spec("faiss") is None:
        session.left_out.append("faiss: not installed")
    else:
        methods |= {f"faiss{name}": ("faiss", environment) for name, environment in blas_environments()}
    for name in SETS:
        data = session.data(name)
        if data is None:
            continue
        k = min(K, len(data.vectors) // 30)
        for n_threads in (1, 2):
            runs = _runs(session, methods, str(data.folder), k, n_threads)
            session.figures[_title(name, n_threads)] = {
                "k": k,
                **{f"{method}, median_seconds": _median(found, "seconds") for method, found in runs.items()},
                **{f"{method}, cpus": _median(found, "cpus") for method, found in runs.items()},
                **{f"{method}, objective": _median(found, "objective") for method, found in runs.items()},
                **{f"{method}, largest / mean": _median(found, "largest") for method, found in runs.items()},
                "runs": runs,
            }


def _runs(
    session: Session, methods: dict[str, tuple[str, dict[str, str]]], folder: str, k: int, n_threads: int
) -> dict[str, list[dict[str, float]]]:
    runs: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for number in range(session.settings.sessions):
        session.say(f"  {folder.rpartition('/')[2]}, {n_threads} threads: session {number + 1}")
        with ExitStack() as stack:
            workers = {}
            for method, (_, environment) in methods.items():
                workers[method] = stack.enter_context(session.worker(method, n_threads, environment))
                workers[method].ask("call", file=__file__, function="load", arguments={"data": folder})
            for turn in range(session.settings.rounds):
                seed = 1 + number * session.settings.rounds + turn
                for method, worker in workers.items():
                    arguments = {"method": methods[method][0], "k": k, "n_threads": n_threads, "seed": seed}
                    found = worker.ask("call", file=__file__, function="cluster", arguments=arguments)
                    if turn < MEASURED_TURNS:
                        found |= worker.ask("call", file=__file__, function="objective", arguments={})
                    runs[method].append(found)
    return runs


def _median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs if key in run)


def _title(name: str, n_threads: int) -> str:
    return f"{name}, {n_threads} thread{'s' if n_threads > 1 else ''}"


def load(data: str) -> None:
    """Brings the vectors into the form that both take, and wakes the library up."""
    import numpy as np
    from nearest.bench.data import DataSet

    _kept["vectors"] = np.ascontiguousarray(DataSet.load(data).vectors, np.float32)


def cluster(method: str, k: int, n_threads: int, seed: int) -> dict[str, float]:
    """One turn: the whole of the clustering."""
    vectors = _kept["vectors"]
    if method == "faiss":
        faiss: Any = importlib.import_module("faiss")
        faiss.omp_set_num_threads(n_threads)
        one = faiss.Kmeans(
            vectors.shape[1], k, niter=N_ITERATIONS, seed=seed, max_points_per_centroid=MOST_POINTS, verbose=False
        )
        started, cpu = time.perf_counter(), time.process_time()
        one.train(vectors)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        _kept["centroids"] = one.centroids
    else:
        import nearest

        started, cpu = time.perf_counter(), time.process_time()
        found = nearest.kmeans(
            vectors,
            k,
            n_iterations=N_ITERATIONS,
            max_points_per_centroid=MOST_POINTS,
            balanced="balanced" in method,
            seed=seed,
            n_threads=n_threads,
            progress=False,
        )
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        _kept["centroids"] = found.centroids
    return {"seconds": seconds, "cpus": cpu_seconds / seconds}


def objective() -> dict[str, float]:
    """The mean squared distance from the nearest centroid, in float64, and how large the largest cluster is."""
    import numpy as np

    vectors, centroids = _kept["vectors"], np.asarray(_kept["centroids"], np.float64)
    norms = (centroids**2).sum(axis=1)
    sizes = np.zeros(len(centroids), np.int64)
    total = 0.0
    for start in range(0, len(vectors), 8192):
        block = vectors[start : start + 8192].astype(np.float64)
        scores = norms - 2 * block @ centroids.T
        best = scores.argmin(axis=1)
        total += float((block**2).sum() + scores[np.arange(len(block)), best].sum())
        sizes += np.bincount(best, minlength=len(centroids))
    return {"objective": total / len(vectors), "largest": float(sizes.max() / sizes.mean())}


def claims(session: Session) -> None:
    for name in SETS:
        for n_threads in (1, 2):
            title = _title(name, n_threads)
            figure = session.figures.get(title)
            peers = [key for key in figure["runs"] if key.startswith("faiss")] if figure else []
            if figure is None or not peers:
                session.claim(f"{title}: faster than Faiss", f"≥ {TARGET_RATIO:g} ×", "not measured", None)
                session.claim(f"{title}: objective", f"≤ {1 + MOST_EXCESS:g} × Faiss's", "not measured", None)
                continue
            best = min(peers, key=lambda peer: figure[f"{peer}, median_seconds"])
            ratio = figure[f"{best}, median_seconds"] / figure["nearest, median_seconds"]
            session.claim(
                f"{title}: faster than Faiss ({best})", f"≥ {TARGET_RATIO:g} ×", f"{ratio:.2f} ×", ratio >= TARGET_RATIO
            )
            excess = figure["nearest, objective"] / figure[f"{best}, objective"]
            session.claim(
                f"{title}: objective",
                f"≤ {1 + MOST_EXCESS:g} × Faiss's",
                f"{excess:.4f} ×",
                excess <= 1 + MOST_EXCESS,
            )
