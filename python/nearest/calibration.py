"""What recall an index reaches at what effort: measured on queries that it does not hold, kept with it, and used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    # Searches with an effort: (k, effort, n_queries) to ids and distances of the first queries, (n_queries, k).
    Search = Callable[[int, int, int], tuple[NDArray[Any], NDArray[np.float32]]]

# The numbers of neighbors that every calibration measures.
KS = (1, 10, 100)
# Queries that are held out where none are given.
N_QUERIES = 1000
# Queries that are enough for 100 neighbors and more, and for 10 and more where recall is high: queries differ little
# then.
_LARGE_K, _LARGE_K_QUERIES = 100, 300
_SURE, _SURE_K, _SURE_QUERIES = 0.97, 10, 700
# Recall that nobody waits for: no effort beyond it is measured.
_ENOUGH = 0.995
# Where twice the effort leaves more than this share of what was missing, codes lose the rest.
_SATURATED = 0.7
# Recalls that are asked for most.
_WANTED = (0.9, 0.95, 0.99)
# Efforts that differ by less than this factor (its logarithm) need no measurement between them.
_APART = 0.2
# What is missing to a recall of 1 is undercut by this share: what was measured is an estimate.
_MARGIN = 0.15
# Distances of other kernels may differ in their last bits.
_TOLERANCE = 1e-6
# A search whose queries are farther from their neighbors than this share of those measured, more often than that, is
# unlike them: many of them very far, or nearly all farther than usual.
_FAR_QUANTILE, _FAR_SHARE = 0.98, 0.1
_MIDDLE_QUANTILE, _MIDDLE_SHARE = 0.5, 0.9
# Fewer queries say nothing of their kind.
_LEAST_QUERIES = 20


class RecallWarning(UserWarning):
    """A search may reach less recall than its index was calibrated for."""


class CalibrationPoint(NamedTuple):
    """The recall that one effort gives. `effort` is None where a structure takes none."""

    effort: int | None
    mean: float
    lower: float
    worst: float


class Calibration(NamedTuple):
    """What recall an index reaches at what effort, for k = 1, 10 and 100.

    Attributes
    ----------
    measured : bool
        False where nothing had to be measured: an exact index has recall 1 by construction.
    n_queries : int
        How many queries it was measured on.
    curves : dict of int to tuple of CalibrationPoint
        For each k, points of growing effort: `mean` recall, its `lower` 95 % bound, and the mean over the `worst` 5 %
        of the queries.
    explanation : str
        The same in words.
    n_vectors : int
        How many vectors the index had.
    recall : float or None
        The recall that searches aim at where they say nothing.
    n_lists : int
        How many lists the index had, which efforts count; 0 where these are candidates of a walk.
    far : dict of int to float
        For each k, the distance of the k-th neighbor found that 98 % of the queries did not exceed: what the queries
        looked like. Searches whose queries exceed it far more often are unlike them.
    middle : dict of int to float
        The same for half of the queries: searches of which nearly all queries exceed it are unlike them too.
    """

    measured: bool
    n_queries: int
    curves: dict[int, tuple[CalibrationPoint, ...]]
    explanation: str
    n_vectors: int = 0
    recall: float | None = None
    far: dict[int, float] = {}  # noqa: RUF012
    n_lists: int = 0
    middle: dict[int, float] = {}  # noqa: RUF012

    def effort(self, recall: float, k: int = 10) -> int:
        """The least effort whose measured recall reaches `recall`, for `k` neighbors.

        What was measured is an estimate: a little more than `recall` is aimed at. Between the measured efforts and
        values of `k` it interpolates; where `recall` was not reached, the largest effort measured is taken.
        """
        ks = sorted(self.curves)
        below = max((known for known in ks if known <= k), default=ks[0])
        above = min((known for known in ks if known >= k), default=ks[-1])
        efforts = [_effort(self.curves[known], recall, self.n_lists) for known in (below, above)]
        if below == above:
            return max(1, math.ceil(efforts[0]))
        share = math.log(k / below) / math.log(above / below)
        return max(1, math.ceil(efforts[0] + (efforts[1] - efforts[0]) * share))

    def reached(self, effort: int, k: int = 10) -> float:
        """The recall measured at an effort, between two that were measured the interpolated one."""
        ks = sorted(self.curves)
        curve = self.curves[min(ks, key=lambda known: abs(math.log(known / k)))]
        efforts = [math.log(point.effort or 1) for point in curve]
        missing = float(np.interp(math.log(effort), efforts, [_missing(point.mean) for point in curve]))
        return min(1.0 - math.exp(missing), max(point.mean for point in curve))

    def most(self, k: int = 10) -> float:
        """The largest recall that was measured, at whatever effort."""
        ks = sorted(self.curves)
        return max(point.mean for point in self.curves[min(ks, key=lambda known: abs(math.log(known / k)))])

    def is_unlike(self, distances: NDArray[np.float32], recall: float = 1.0) -> bool:
        """Whether queries whose neighbors are so far away, (n_queries, k), are of another kind than those measured.

        At less than the largest `recall` some neighbors are not found, and what is found instead is farther.
        """
        if not self.far or distances.ndim != 2 or len(distances) < _LEAST_QUERIES:
            return False
        k = max((known for known in self.far if known <= distances.shape[1]), default=0)
        if not k:
            return False
        missed = max(0.0, self.most(k) - recall)
        limits = ((self.far[k], _FAR_SHARE), (self.middle.get(k, math.inf), _MIDDLE_SHARE))
        return any(
            float(np.mean(distances[:, k - 1] > limit + _TOLERANCE * abs(limit))) > share + missed
            for limit, share in limits
        )

    def to_json(self) -> str:
        """As it is kept in files."""
        # Here, since an import of nearest brings in nothing that few need.
        import json

        curves = {str(k): [list(point) for point in curve] for k, curve in self.curves.items()}
        return json.dumps(
            {
                "n_queries": self.n_queries,
                "n_vectors": self.n_vectors,
                "n_lists": self.n_lists,
                "recall": self.recall,
                "far": {str(k): far for k, far in self.far.items()},
                "middle": {str(k): middle for k, middle in self.middle.items()},
                "curves": curves,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Calibration | None:
        """What a file holds; None where it cannot be read, since an index serves without."""
        import json

        try:
            kept = json.loads(text)
            curves = {int(k): tuple(CalibrationPoint(*point) for point in curve) for k, curve in kept["curves"].items()}
            far = {int(k): float(value) for k, value in kept["far"].items()}
            middle = {int(k): float(value) for k, value in kept.get("middle", {}).items()}
            recall = None if kept["recall"] is None else float(kept["recall"])
            n_queries, n_vectors, n_lists = (int(kept[name]) for name in ("n_queries", "n_vectors", "n_lists"))
            fine = bool(curves) and all(k > 0 and _is_curve(curve) for k, curve in curves.items())
            fine = fine and min(n_queries, n_vectors, n_lists) >= 0 and (recall is None or 0 < recall <= 1)
            if not fine:
                return None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None
        return _worded(curves, n_queries, n_vectors, recall, (far, middle), n_lists)


def exact_calibration(k: int) -> Calibration:
    """The calibration of an index that compares everything."""
    point = (CalibrationPoint(None, 1.0, 1.0, 1.0),)
    text = "Exact compares the query with every vector: recall is 1 by construction, nothing was measured"
    return Calibration(False, 0, dict.fromkeys(sorted({*KS, k}), point), text)


def measure(
    search: Search,
    truth: tuple[NDArray[Any], NDArray[np.float32]],
    n_vectors: int,
    most: int,
    k: int,
    recall: float | None,
    is_walk: bool = False,
) -> Calibration:
    """Measures the curves of an index.

    Parameters
    ----------
    search : callable
        ``search(k, effort, n_queries)`` gives ids and distances of the neighbors of the first queries.
    truth : tuple of ndarray
        Ids and distances of the true neighbors, nearest first, at least as many as the largest k. Those beyond it tell
        ties.
    n_vectors : int
        How many vectors are searched.
    most : int
        The largest effort.
    k : int
        A further k beside 1, 10 and 100.
    recall : float or None
        What searches will aim at where they say nothing.
    is_walk : bool
        Whether efforts are candidates, at least k, and not a part of all lists.
    """
    ks = sorted(known for known in {*KS, k} if known <= truth[1].shape[1])
    curves: dict[int, tuple[CalibrationPoint, ...]] = {}
    far: dict[int, float] = {}
    middle: dict[int, float] = {}
    for known in ks:
        points: dict[int, CalibrationPoint] = {}

        def add(effort: int, known: int = known, points: dict[int, CalibrationPoint] = points) -> float:
            n_queries = queries_for(known, len(truth[1]))
            if known >= _SURE_K and any(other.mean >= _SURE for at, other in points.items() if at < effort):
                n_queries = min(n_queries, _SURE_QUERIES)
            ids, distances = search(known, effort, n_queries)
            point = _point(effort, shares_found(ids, (truth[0][:n_queries], truth[1][:n_queries]), known))
            if point.mean >= max((other.mean for other in points.values()), default=0.0):
                # As searches will see them: the distances of codes are not those of the vectors.
                far[known] = float(np.quantile(distances[:, known - 1], _FAR_QUANTILE))
                middle[known] = float(np.quantile(distances[:, known - 1], _MIDDLE_QUANTILE))
            points[effort] = point
            return point.mean

        asked = _WANTED if recall is None else (*_WANTED, recall)
        effort = min(known, most) if is_walk else 1
        reached = add(effort)
        while reached < _ENOUGH and effort < most:
            # Recall below what 4 lists find is hardly ever asked for.
            before, effort = reached, min(max(2 * effort, 4), most)
            reached = add(effort)
            if reached >= _aim(max(asked)) and 1 - reached > _SATURATED * (1 - before):
                break
        # Once more between two of these, where searches will look most.
        for wanted in asked:
            between = round(_effort(_curve(points), wanted, most))
            if min(abs(math.log(between / there)) for there in points) > _APART:
                add(between)
        curves[known] = _curve(points)
    return _worded(curves, len(truth[1]), n_vectors, recall, (far, middle), 0 if is_walk else most)


def queries_for(k: int, n_queries: int) -> int:
    """How many of the queries `k` neighbors are measured on: many of few queries say as much as few of many."""
    return min(n_queries, _LARGE_K_QUERIES) if k >= _LARGE_K else n_queries


def shares_found(found: NDArray[Any], truth: tuple[NDArray[Any], NDArray[np.float32]], k: int) -> NDArray[np.float64]:
    """The share of each query's `k` true neighbors among the ids found; of those as far as the k-th, any will do.

    By id: distances that were found may be those of codes.
    """
    limit = truth[1][:, k - 1].astype(np.float64)
    right = truth[1].astype(np.float64) <= (limit + _TOLERANCE * np.abs(limit))[:, None]
    # Only ties reach beyond the k-th column.
    n_columns = int(np.max(right.sum(axis=1), initial=k))
    # No id is negative, or no text at all.
    nobody: Any = -2 if truth[0].dtype != object else None
    ids = np.where(right[:, :n_columns], truth[0][:, :n_columns], nobody)
    hits = (found[:, :k, None] == ids[:, None, :]).any(axis=2).sum(axis=1)
    shares: NDArray[np.float64] = np.minimum(hits, k) / k
    return shares


def _is_curve(curve: tuple[CalibrationPoint, ...]) -> bool:
    """Whether there are points of growing effort, with shares for recall."""
    efforts = [point.effort if type(point.effort) is int else 0 for point in curve]
    shares = [float(share) for point in curve for share in point[1:]]
    rising = efforts == sorted(set(efforts)) and min(efforts, default=0) > 0
    return rising and all(0.0 <= share <= 1.0 for share in shares)


def _curve(points: dict[int, CalibrationPoint]) -> tuple[CalibrationPoint, ...]:
    return tuple(points[effort] for effort in sorted(points))


def _point(effort: int, shares: NDArray[np.float64]) -> CalibrationPoint:
    n = len(shares)
    mean = float(shares.mean())
    lower = max(0.0, mean - 1.96 * float(shares.std()) / math.sqrt(n))
    worst = float(np.sort(shares)[: max(1, n // 20)].mean())
    return CalibrationPoint(effort, round(mean, 5), round(lower, 5), round(worst, 5))


def _missing(recall: float) -> float:
    """The logarithm of what is missing to a recall of 1, which falls about evenly with that of the effort."""
    return math.log(max(1.0 - recall, 1e-4))


def _aim(recall: float) -> float:
    """A little more than the recall that is asked for."""
    return min(recall + _MARGIN * (1.0 - recall), 1.0)


def _effort(curve: tuple[CalibrationPoint, ...], recall: float, n_lists: int) -> float:
    """Where a curve reaches a recall, and a little of what is missing to 1 on top."""
    wanted = _aim(recall)
    before: CalibrationPoint | None = None
    for point in curve:
        effort = float(point.effort or 1)
        if point.mean >= wanted:
            # All lists may find what no part of them does.
            if before is None or point.mean <= before.mean or point.effort == n_lists:
                return effort
            share = (_missing(before.mean) - _missing(wanted)) / (_missing(before.mean) - _missing(point.mean))
            start = float(before.effort or 1)
            return start * float((effort / start) ** min(max(share, 0.0), 1.0))
        before = point
    return float(curve[-1].effort or 1)


def _worded(
    curves: dict[int, tuple[CalibrationPoint, ...]],
    n_queries: int,
    n_vectors: int,
    recall: float | None,
    distances: tuple[dict[int, float], dict[int, float]],
    n_lists: int,
) -> Calibration:
    far, middle = distances
    calibration = Calibration(True, n_queries, curves, "", n_vectors, recall, far, n_lists, middle)
    parts = []
    for wanted in sorted({0.9, 0.95, 0.99} | ({recall} if recall else set())):
        efforts = ", ".join(f"{calibration.effort(wanted, k)} (k={k})" for k in curves)
        parts.append(f"recall {wanted:g} at effort {efforts}")
    text = f"measured on {n_queries:,} queries against {n_vectors:,} vectors: {'; '.join(parts)}"
    return calibration._replace(explanation=text)
