"""Brute force as numpy does it well: one matrix product a block, argpartition, no (n_queries, n) matrix."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from .base import Adapter, Array, Built, ParameterSet, SetInfo, blas_environments, float32_rows


class _BruteForce(Built):
    def __init__(self, vectors: Array, metric: str, block_rows: int) -> None:
        self.normalised = metric == "cosine"
        self.rows = float32_rows(vectors, normalised=self.normalised)
        # Half the squared length: |x|² / 2 - q·x ranks as |x - q|² does.
        self.half = None
        if metric in ("euclidean", "sqeuclidean"):
            self.half = (np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64) / 2).astype(np.float32)
        self.block_rows = min(block_rows, len(self.rows))

    def prepare(self, queries: Array) -> Any:
        return float32_rows(queries, normalised=self.normalised)

    def set_effort(self, effort: dict[str, Any], n_threads: int) -> None:
        """BLAS has its threads since the process began."""

    def search(self, queries: Any, k: int) -> Any:
        n = len(self.rows)
        ids = np.empty((len(queries), 0), np.int64)
        ranks = np.empty((len(queries), 0), np.float32)
        for start in range(0, n, self.block_rows):
            rows = self.rows[start : start + self.block_rows]
            block = queries @ rows.T
            if self.half is None:
                np.negative(block, out=block)
            else:
                np.subtract(self.half[start : start + self.block_rows], block, out=block)
            kept = min(k, len(rows))
            nearest = np.argpartition(block, kept - 1, axis=1)[:, :kept]
            ids = np.concatenate([ids, nearest + start], axis=1)
            ranks = np.concatenate([ranks, np.take_along_axis(block, nearest, axis=1)], axis=1)
        order = np.argsort(ranks, axis=1)[:, :k]
        return np.take_along_axis(ids, order, axis=1)

    def search_one(self, query: Any, k: int) -> Any:
        ranks = self.rows @ query
        ranks = -ranks if self.half is None else self.half - ranks
        k = min(k, len(ranks))
        nearest = np.argpartition(ranks, k - 1)[:k]
        return nearest[np.argsort(ranks[nearest])]

    def memory_bytes(self) -> int | None:
        return int(self.rows.nbytes + (0 if self.half is None else self.half.nbytes))

    def scanned_bytes(self) -> int | None:
        return int(self.rows.nbytes)


class Numpy(Adapter):
    name = "numpy"
    module = "numpy"
    distributions = ("numpy",)
    threads_by_environment = True

    def details(self) -> dict[str, Any]:
        config: Any = np.show_config(mode="dicts")
        blas = config.get("Build Dependencies", {}).get("blas", {})
        return {"blas": f"{blas.get('name')} {blas.get('version')}", **loaded_blas()}

    def refuses(self, info: SetInfo) -> str | None:
        known = ("euclidean", "sqeuclidean", "cosine", "inner_product")
        return None if info.metric in known else f"brute force by matrix product knows {', '.join(known)}"

    def parameters(self, info: SetInfo) -> list[ParameterSet]:
        # Which size is best depends on the queries, the cache and BLAS; much smaller ones were slower throughout.
        blocks = [rows for rows in (8192, 65536) if rows < info.n] or [info.n]
        return [
            ParameterSet(
                f"matmul, blocks of {rows}{name}",
                {"block_rows": rows},
                exhaustive=True,
                exact=True,
                environment=environment,
            )
            for name, environment in blas_environments()
            for rows in blocks
        ]

    def build(self, vectors: Array, metric: str, params: dict[str, Any], n_threads: int, seed: int) -> Built:
        return _BruteForce(vectors, metric, params["block_rows"])


def loaded_blas() -> dict[str, Any]:
    """Which CPU each OpenBLAS in this process took this one for, where threadpoolctl is installed to tell."""
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return {}
    return {
        "blas_loaded": [
            {
                "file": os.path.basename(info["filepath"]),
                **{key: info.get(key) for key in ("version", "architecture", "threading_layer", "num_threads")},
            }
            for info in threadpoolctl.threadpool_info()
            if info.get("user_api") == "blas"
        ]
    }


ADAPTER = Numpy()
