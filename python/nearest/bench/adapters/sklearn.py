"""scikit-learn: brute force in tiles (ArgKmin), and trees where there are few dimensions."""

from __future__ import annotations

from typing import Any

from .base import Adapter, Array, Built, ParameterSet, SetInfo, blas_environments, float32_rows
from .numpy import loaded_blas


class _Neighbors(Built):
    def __init__(self, library: Any, vectors: Array, metric: str, params: dict[str, Any], n_threads: int) -> None:
        # For rows of length 1 the Euclidean order is the cosine order, and only Euclidean search works in tiles.
        self.normalised = metric == "cosine"
        self.model = library.NearestNeighbors(
            algorithm=params["algorithm"],
            metric="manhattan" if metric == "manhattan" else "euclidean",
            n_jobs=n_threads,
        )
        self.rows = float32_rows(vectors, normalised=self.normalised)
        self.model.fit(self.rows)

    def prepare(self, queries: Array) -> Any:
        return float32_rows(queries, normalised=self.normalised)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        self.model.n_jobs = n_threads

    def search(self, queries: Any, k: int) -> Any:
        return self.model.kneighbors(queries, min(k, len(self.rows)), return_distance=False)

    def search_one(self, query: Any, k: int) -> Any:
        return self.model.kneighbors(query[None], min(k, len(self.rows)), return_distance=False)[0]

    def scanned_bytes(self) -> int | None:
        return int(self.rows.nbytes)


class Sklearn(Adapter):
    name = "sklearn"
    module = "sklearn"
    distributions = ("scikit-learn",)
    threads_by_environment = True

    def peer(self) -> Any:
        import importlib

        return importlib.import_module("sklearn.neighbors")

    def details(self) -> dict[str, Any]:
        return loaded_blas()

    def refuses(self, info: SetInfo) -> str | None:
        known = ("euclidean", "sqeuclidean", "cosine", "manhattan")
        return None if info.metric in known else f"as set up here it knows {', '.join(known)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        sets = [
            ParameterSet(f"brute{name}", {"algorithm": "brute"}, exhaustive=True, exact=True, environment=environment)
            for name, environment in blas_environments()
        ]
        if info.dim <= 16:
            sets.append(ParameterSet("kd_tree", {"algorithm": "kd_tree"}, exact=True))
        return sets

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        return _Neighbors(self.peer(), vectors, metric, params, n_threads)


ADAPTER = Sklearn()
