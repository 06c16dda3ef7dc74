"""What a search finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import _native


class _Pair(NamedTuple):
    ids: NDArray[Any]
    distances: NDArray[np.float32]


class Neighbors(_Pair):
    """Ids and distances, nearest first, ties by id; unpacks as ``ids, distances``.

    Attributes
    ----------
    ids : ndarray of int64, or of object holding str
        For one query (a 1-D array) exactly the neighbors found, shape (found,). For many, shape (n_queries, k): places
        left empty hold -1, or ``""`` where ids are text.
    distances : ndarray of float32
        Of the same shape, in the unit of the metric; lower is nearer. Places left empty hold inf.
    counts : ndarray of int64, shape (n_queries,)
        How many neighbors each query found; shape (1,) for one query.
    explanation : dict or None
        How the search went, if it was asked for with ``explain=True``: what the index is (`structure`, `n_vectors`,
        `kernels`), what was asked (`n_queries`, `n_threads`, `effort`, `filter_share`: the share of the vectors that
        pass), whether the answer is `exact`, the `recall` measured at that effort, whether the queries are `unlike`
        those it was measured on, and all `doubts` in words.

        Of graphs also the `path` (walk, scan of all that match, walk or scan, all) and what one query took on average,
        of the first 1 000, which are searched once more for it: `n_compared` distances to codes, `n_followed` vectors
        whose links were followed in `n_rounds` rounds, and `n_reranked` candidates compared again. Of other
        structures `n_compared` is how many vectors a query is compared with, of lists about so many.

    Examples
    --------
    >>> import numpy, nearest
    >>> found = nearest.knn(numpy.float32([[0, 0], [3, 4], [0, 1]]), numpy.float32([0, 0]), k=2)
    >>> found
    Neighbors(ids=[0 2], distances=[0. 1.])
    >>> ids, distances = found
    >>> found.counts
    array([2])
    """

    # Set only where they are wanted: a search of one query makes nothing but the tuple.
    _counts: NDArray[np.int64]
    _explanation: dict[str, Any]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many neighbors each query found, shape (n_queries,)."""
        known: NDArray[np.int64] | None = self.__dict__.get("_counts")
        if known is None:
            known = count_found(self.ids)
        return known

    @property
    def explanation(self) -> dict[str, Any] | None:
        """How the search went, if it was asked for."""
        return self.__dict__.get("_explanation")

    def __repr__(self) -> str:
        def short(array: NDArray[Any], margin: str) -> str:
            formatter: Any = {"object": repr}
            return np.array2string(
                array, threshold=50, edgeitems=3, max_line_width=116, precision=6, prefix=margin, formatter=formatter
            )

        if self.ids.ndim == 1:
            return f"Neighbors(ids={short(self.ids, '')}, distances={short(self.distances, '')})"
        n_queries, k = self.ids.shape
        ids, distances = short(self.ids, " " * 12), short(self.distances, " " * 12)
        return f"Neighbors(n_queries={n_queries}, k={k},\n  ids=      {ids},\n  distances={distances})"


def count_found(ids: NDArray[Any]) -> NDArray[np.int64]:
    """How many places of each row are not empty, shape (n_rows,)."""
    filled = ids != "" if ids.dtype == object else ids >= 0
    return np.atleast_1d(np.count_nonzero(filled, axis=-1)).astype(np.int64, copy=False)


def neighbors(found: _native.Found) -> Neighbors:
    """What the native module found, named."""
    result = Neighbors(found[0], found[1])
    result._counts = found[2]
    return result
