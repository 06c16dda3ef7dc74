"""How good answers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays
from .errors import ArgumentError
from .neighbors import Neighbors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Truth often comes from another library's float32. One part in a million of the distance is a few roundings of it.
_TOLERANCE = 1e-6


def recall(found: Neighbors | ArrayLike, truth: Neighbors | ArrayLike, k: int | None = None) -> float:
    """The share of the true `k` nearest neighbors that were found, averaged over queries.

    Parameters
    ----------
    found : Neighbors, or array_like of ids of shape (n_queries, k) or (k,)
        What a search returned. Empty places (negative ids, ``""``) count as not found; an id that comes twice counts
        once.
    truth : Neighbors, or array_like of ids of shape (n_queries, at least k) or (at least k,)
        What exact search returned, nearest first, such as the `gt` of a benchmark.
    k : int, optional
        Neighbors that count, the first of each row. By default as many as `found` has columns; for one query, as many
        as `truth` has.

    Returns
    -------
    float
        From 0 to 1. Where truth holds fewer than `k` neighbors, these are all there were to find.

    Notes
    -----
    With `Neighbors` on both sides, by distance: what is no farther than the k-th true neighbor counts, so that of
    several equally distant ones any will do (up to 1e-6 of the distance, for distances that were rounded elsewhere).
    With ids on one side, by id: ties count as misses.

    Raises
    ------
    ArgumentError
        Shapes that do not belong together, fewer than `k` columns in `truth`, no queries.

    Examples
    --------
    >>> import nearest
    >>> nearest.recall([[1, 2, 3], [4, 5, 6]], [[3, 2, 9], [4, 5, 6]])
    0.8333...
    """
    found_ids, truth_ids = _ids_of(found, "found"), _ids_of(truth, "truth")
    if found_ids.ndim != truth_ids.ndim or (found_ids.ndim == 2 and len(found_ids) != len(truth_ids)):
        raise ArgumentError(
            f"found and truth must be of the same queries, got shapes {found_ids.shape} and {truth_ids.shape}"
        )
    one = found_ids.ndim == 1
    if k is None:
        k = (truth_ids if one else found_ids).shape[-1]
    k = arrays.count(k, "k")
    # One query's neighbors come without empty places: there, few columns mean few neighbors.
    if not one and truth_ids.shape[1] < k:
        raise ArgumentError(f"truth must have at least k={k} columns, got shape {truth_ids.shape}")
    found_ids, truth_ids = np.atleast_2d(found_ids)[:, :k], np.atleast_2d(truth_ids)[:, :k]
    if not len(found_ids):
        raise ArgumentError("recall needs at least one query, got none")
    if found_ids.dtype != truth_ids.dtype and object in (found_ids.dtype, truth_ids.dtype):
        raise ArgumentError("found and truth must have ids of one kind, integers or text, got both")

    to_find = _filled(truth_ids).sum(axis=1)
    counts = _first_of_each(found_ids)
    if isinstance(found, Neighbors) and isinstance(truth, Neighbors):
        distances = np.atleast_2d(found.distances)[:, :k].astype(np.float64)
        true_distances = np.atleast_2d(truth.distances)[:, :k].astype(np.float64)
        # Empty places hold inf; the farthest that is there is the limit.
        limit = np.max(np.where(_filled(truth_ids), true_distances, -np.inf), axis=1, initial=-np.inf)
        with np.errstate(invalid="ignore"):
            counts &= distances <= (limit + _TOLERANCE * np.abs(limit))[:, None]
    else:
        counts &= _also_in(found_ids, truth_ids)
    hits = np.minimum(counts.sum(axis=1), to_find)
    return float(np.mean(np.where(to_find > 0, hits / np.maximum(to_find, 1), 1.0)))


def _ids_of(side: Neighbors | ArrayLike, name: str) -> NDArray[Any]:
    ids = side.ids if isinstance(side, Neighbors) else np.asarray(side)
    if ids.dtype.kind in "UT":
        ids = ids.astype(object)
    if ids.ndim not in (1, 2) or ids.dtype.kind not in "iuO":
        raise ArgumentError(
            f"{name} must be Neighbors or ids of shape (n_queries, k) or (k,), got {ids.dtype} of shape {ids.shape}"
        )
    # Together, int64 and uint64 would become floats.
    return ids if ids.dtype == object else ids.astype(np.int64, copy=False)


def _filled(ids: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(ids != "" if ids.dtype == object else ids >= 0, dtype=np.bool_)


def _first_of_each(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Places that are not empty and whose id does not stand further left in the same row."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, np.bool_)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    first = np.empty_like(repeated)
    np.put_along_axis(first, order, ~repeated, axis=1)
    return first & _filled(ids)


def _also_in(found: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Which ids of each row of `found` stand in the same row of `truth`."""
    names, numbers = np.unique(np.concatenate([found.ravel(), truth.ravel()]), return_inverse=True)
    numbers = numbers.ravel()
    # One number for each (row, id), so that one call compares all rows.
    rows = np.arange(len(found))[:, None] * len(names)
    in_found = rows + numbers[: found.size].reshape(found.shape)
    in_truth = rows + numbers[found.size :].reshape(truth.shape)
    return np.isin(in_found, in_truth)
