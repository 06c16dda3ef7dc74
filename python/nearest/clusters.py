"""k-means: a few centroids that many vectors are near to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _native, arrays
from .errors import ArgumentError
from .progress import shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .arrays import Matrix


class Assigned(NamedTuple):
    """Which centroid is nearest to each vector; unpacks as ``ids, distances``.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        Positions of centroids.
    distances : ndarray of float32, shape (n,)
        Squared Euclidean distances from them.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]


class KMeans(NamedTuple):
    """Centroids, and how they came about; unpacks as ``centroids, objective, sizes``.

    Attributes
    ----------
    centroids : ndarray of float32, shape (k, dim)
    objective : ndarray of float64, shape (n_iterations,)
        The mean squared distance, weighted if there are weights, of the vectors used from their nearest centroids, as
        each iteration found it before it moved them: the last entry is that of the centroids before the last. Shorter
        where nothing changed any more. Computed in float64, whatever the vectors are compared in.
    sizes : ndarray of int64, shape (k,)
        How many of the vectors used were nearest to each centroid, in the last iteration.
    """

    centroids: NDArray[np.float32]
    objective: NDArray[np.float64]
    sizes: NDArray[np.int64]

    def assign(self, vectors: ArrayLike, *, n_threads: int | None = None, progress: Any = None) -> Assigned:
        """Find the nearest centroid of every vector.

        Parameters
        ----------
        vectors : array_like of shape (n, dim)
            As for `kmeans`, whichever vectors.
        n_threads : int, optional
            As for `kmeans`.
        progress : {None, False} or callable
            As for `kmeans`.

        Returns
        -------
        Assigned
            `ids` and squared `distances`; of equally near centroids the first. Spherical centroids all have length 1,
            so that the nearest one is that of the nearest direction.

        Notes
        -----
        The two that are best by 8-bit codes are compared in float64, and once more in float32 where that may matter.
        About one time in ten thousand another is nearer, by very little; ``nearest.knn(centroids, vectors, 1)``
        promises the nearest and takes a few times as long.

        Examples
        --------
        >>> import numpy, nearest
        >>> found = nearest.kmeans(numpy.float32([[0, 0], [0, 1], [8, 8], [8, 9]]), 2)
        >>> found.assign([[8, 8.5], [7, 8.5], [0, 0.5]]).distances
        array([0., 1., 0.], dtype=float32)
        """
        n_threads = arrays.threads(n_threads)
        base = arrays.matrix(vectors, "vectors", self.centroids.shape[1])
        centroids = np.ascontiguousarray(self.centroids, np.float32)
        dtype = arrays.native_dtype(base.dtype)
        ids, distances = np.empty(len(base), np.int64), np.empty(len(base), np.float32)
        with shown(progress) as report:
            if arrays.is_ready(base, dtype):
                return Assigned(*_native.assign(arrays.ready(base, dtype, "vectors"), centroids, n_threads, report))
            for start, block in arrays.blocks(base, dtype, "vectors"):
                with arrays.counted_from(start):
                    found = _native.assign(block, centroids, n_threads, None)
                part = slice(start, start + len(block))
                ids[part], distances[part] = found
                if report is not None:
                    report(part.stop, len(base), "assigning")
        return Assigned(ids, distances)

    def __repr__(self) -> str:
        k, dim = self.centroids.shape
        reached = f"{self.objective[-1]:.6g}" if len(self.objective) else "nothing"
        return f"KMeans(k={k}, dim={dim}, objective={reached} after {len(self.objective)} iterations)"


def kmeans(
    vectors: ArrayLike,
    k: int,
    *,
    n_iterations: int = 10,
    spherical: bool = False,
    balanced: bool = False,
    hierarchical: bool | None = None,
    weights: ArrayLike | None = None,
    max_points_per_centroid: int = 256,
    seed: int = 0,
    n_threads: int | None = None,
    progress: Any = None,
) -> KMeans:
    """Cluster vectors around `k` centroids.

    Parameters
    ----------
    vectors : array_like of shape (n, dim)
        Numbers that numpy can view. float32, float16, int8 and uint8 are read where they lie; of others, those that are
        used are copied as float32.
    k : int
        How many centroids, at most `n`.
    n_iterations : int
        At most: they end where nothing changes any more.
    spherical : bool
        Only directions count, as for the metric cosine: vectors are taken as if they had length 1, centroids have
        length 1, and the objective is the mean of 2 - 2 cos. A zero vector is refused.
    balanced : bool
        After each iteration but the last three, clusters heavier than 1.5 times the mean are cut in two, for which the
        lightest are given up. The heaviest then is about twice the mean where that is possible; the objective is about
        the same.
    hierarchical : bool, optional
        True finds about sqrt(k) clusters first, then centroids within each, and refines them in up to six iterations,
        whose objective is reported; faster for many centroids, at an objective that is up to 2 % higher. None: above
        4096 centroids.
    weights : array_like of shape (n,), optional
        How much each vector counts, not negative; equal if None.
    max_points_per_centroid : int
        Of more than ``k * max_points_per_centroid`` vectors, so many are drawn at random and used.
    seed : int
        What random choices start from, from 0 to 2**64 - 1. One seed gives the same bits, whatever `n_threads` is.
    n_threads : int, optional
        How many threads; as many as this process may run on if None.
    progress : {None, False} or callable
        None shows a bar on a terminal after a second, a function gets (done, total, stage). What it raises, or Ctrl-C,
        stops the work.

    Returns
    -------
    KMeans
        `centroids`, `objective` and `sizes`, with the method `assign`.

    Raises
    ------
    ArgumentError
        A `ValueError`: wrong shape or dtype, NaN or infinity, ``k < 1`` or ``k > n``, wrong weights.
    MemoryError
        The codes of the vectors used, a byte a dimension, do not fit in memory.

    Notes
    -----
    Lloyd's iterations (1982) from random vectors. Vectors and centroids are compared by 8-bit codes; a sample tells
    where that loses more than a thousandth, and then float32 takes over. A centroid that no vector is nearest to is put
    into the cluster that costs most. Where there are fewer than `k` different vectors, every one of them is found, and
    the centroids left over have size 0.

    Examples
    --------
    >>> import numpy, nearest
    >>> vectors = numpy.float32([[0, 0], [0, 1], [8, 8], [8, 9]])
    >>> found = nearest.kmeans(vectors, 2)
    >>> sorted(found.centroids.tolist())
    [[0.0, 0.5], [8.0, 8.5]]
    >>> found.sizes
    array([2, 2])
    >>> found
    KMeans(k=2, dim=2, objective=0.25 after 2 iterations)
    """
    k = arrays.count(k, "k")
    n_iterations = arrays.count(n_iterations, "n_iterations")
    most = min(arrays.count(max_points_per_centroid, "max_points_per_centroid"), 1 << 32)
    n_threads = arrays.threads(n_threads)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    for name, value in (("spherical", spherical), ("balanced", balanced), ("hierarchical", hierarchical)):
        if not isinstance(value, (bool, np.bool_)) and (name != "hierarchical" or value is not None):
            raise ArgumentError(f"{name} must be True or False, got {value!r}")
    base = arrays.matrix(vectors, "vectors")
    if k > len(base):
        raise ArgumentError(f"k must be at most the number of vectors, {len(base)}, got {k}")
    weighed = None if weights is None else _weights(weights, len(base))
    dtype = arrays.native_dtype(base.dtype)
    if arrays.is_ready(base, dtype):
        used = arrays.ready(base, dtype, "vectors")
    else:
        rows = _native.kmeans_rows(len(base), k, most, int(seed))
        used = _copied(base, rows, dtype, spherical)
        if rows is not None and weighed is not None:
            weighed = weighed[rows]
    with shown(progress) as report:
        return KMeans(
            *_native.kmeans(
                used,
                k,
                n_iterations,
                bool(spherical),
                bool(balanced),
                None if hierarchical is None else bool(hierarchical),
                weighed,
                most,
                int(seed),
                n_threads,
                report,
            )
        )


def _weights(weights: ArrayLike, n: int) -> NDArray[np.float32]:
    array = np.asarray(arrays.view(weights, "weights"))
    if array.shape != (n,):
        raise ArgumentError(f"weights must have shape ({n},), one a vector, got {array.shape}")
    return np.ascontiguousarray(array, np.float32)


def _copied(base: Matrix, rows: NDArray[np.int64] | None, dtype: np.dtype[Any], spherical: bool) -> NDArray[Any]:
    """The vectors that are used, converted; all are looked at, so that a NaN is found wherever it is."""
    out = np.empty((len(base) if rows is None else len(rows), base.shape[1]), dtype)
    for start, block in arrays.blocks(base, dtype, "vectors"):
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            raise ArgumentError(f"vectors must be finite, got NaN or infinity in row {start + int(bad.argmax())}")
        if spherical and not (some := block.any(axis=1)).all():
            raise ArgumentError(
                f"vectors must not be zero where spherical, got one in row {start + int(some.argmin())}"
            )
        if rows is None:
            out[start : start + len(block)] = block
            continue
        first, last = np.searchsorted(rows, (start, start + len(block)))
        out[first:last] = block[rows[first:last] - start]
    return out
