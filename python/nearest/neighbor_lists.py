"""The neighbors of all members by inverted lists, where comparing all pairs takes longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .params import Lists
from .tune import build, lists_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix
    from .progress import Progress

# Members that are looked up at once.
_MEMBERS = 1 << 16


def approximate_neighbors(
    vectors: ArrayLike,
    matrix: Matrix,
    k: int,
    metric: str,
    recall: float,
    n_threads: int | None,
    report: Progress | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and distances of the `k` nearest others of every vector, (n, k) each, that reach about `recall`.

    Vectors are kept as they are, so that distances are right; the effort is that of members that were held out.
    """
    n = len(matrix)
    name = matrix.dtype.name
    index = build(
        vectors,
        metric=metric,
        recall=recall,
        k=k,
        workload="batch",
        structure=Lists(lists_for(n, "batch")),
        encoding=name if name in ("float16", "int8", "uint8") else "float32",
        n_threads=n_threads,
        progress=report or False,
    )
    ids = np.full((n, k), -1, np.int64)
    distances = np.full((n, k), np.inf, np.float32)
    for start in range(0, n, _MEMBERS):
        members = np.arange(start, min(n, start + _MEMBERS))
        found = index.neighbors_of(members, k, recall=recall, n_threads=n_threads)
        ids[members], distances[members] = found.ids, found.distances
        if report is not None:
            report(int(members[-1]) + 1, n, "neighbors")
    return ids, distances
