"""Which of many parameter sets are worth measuring with care, and how fast methods are at exactly a recall.

Tuning every library with care and measuring every point with care would take days. So there are two passes. The coarse
one builds every parameter set, goes up its efforts, one timed pass over the queries each, halves the step around each
recall that is wanted, and stops where a curve cannot win any more. Then, for each recall, every family runs with the
parameter set that was its best there, at the two efforts next to that recall, in turns against all the others.

Between those two the speed at exactly the recall is interpolated: its logarithm, along the recall. Both efforts are of
one build, so that what is compared is an index that somebody can have.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import builds, truth
from .adapters import load
from .data import DataSet
from .runner import Comparison, Contender, Entry, Settings, spread
from .worker import Worker, WorkerError

# A curve is left where it is slower than this share of the best of its family: coarse times are no better than that.
_LEFT_BEHIND = 0.7
# More effort that finds no more than this has nothing left to find.
_SATURATED = 0.001
# How often a step around a recall is halved, and the step in recall that is small enough.
_HALVINGS = 2
_NEAR = 0.004
# Single queries are slow one by one, and a few hundred tell the recall; `runner` asks as many.
_SINGLE_QUERIES = 500


@dataclass(frozen=True)
class Point:
    """One effort of one build, as the coarse pass saw it."""

    effort: dict[str, Any]
    recall: float
    queries_per_second: float


@dataclass
class Curve:
    """What the coarse pass found of one build."""

    entry: Entry
    points: list[Point] = field(default_factory=list)
    built: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {
            "family": self.entry.family,
            "label": self.entry.label,
            "params": self.entry.parameters.build,
            "asked": self.entry.parameters.asked,
            "points": [asdict(point) for point in self.points],
            "error": self.error,
        }


def frontier(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats in both recall and speed, by growing recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.recall, -one.queries_per_second)):
        if not best or point.queries_per_second > best[-1].queries_per_second:
            best.append(point)
    return best[::-1]


def around(points: Iterable[Point], recall: float) -> list[Point]:
    """The two points of the frontier that a recall lies between; the fastest alone where all find more than is wanted;
    none where that is not reached."""
    best = frontier(points)
    above = [point for point in best if point.recall >= recall]
    below = [point for point in best if point.recall < recall]
    return [*below[-1:], above[0]] if above else []


def speed_at(points: Iterable[Point], recall: float) -> float | None:
    """Queries a second at exactly a recall, along the frontier; None where it is not reached."""
    near = around(points, recall)
    if not near:
        return None
    return interpolated([(one.recall, one.queries_per_second) for one in near], recall)


def interpolated(points: Sequence[tuple[float, float]], recall: float) -> float | None:
    """The speed at a recall, from one or two pairs of recall and speed.

    What finds more than is wanted is at least so fast. Beyond both points by no more than they are apart, the line goes
    on: answers of another build of the same may differ a little. None where the recall is not reached.

    Examples
    --------
    >>> round(interpolated([(0.9, 1000.0), (1.0, 10.0)], 0.95))
    100
    >>> interpolated([(0.97, 500.0)], 0.95), interpolated([(0.9, 1000.0)], 0.95)
    (500.0, None)
    """
    low, high = min(points), max(points)
    step = high[0] - low[0]
    if step == 0:
        return max(speed for _, speed in points) if low[0] >= recall else None
    if recall > high[0] + step:
        return None
    if recall < low[0] - step:
        return max(low[1], high[1])
    share = (recall - low[0]) / step
    return math.exp(math.log(low[1]) * (1 - share) + math.log(high[1]) * share)


# --- the coarse pass ---


def sweep(
    data: DataSet,
    methods: Sequence[Entry],
    recalls: Sequence[float],
    *,
    mode: str = "batch",
    k: int = 10,
    n_threads: int = 1,
    n_queries: int | None = None,
    build_threads: int | None = None,
    settings: Settings | None = None,
    cache: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> list[Curve]:
    """Goes up the efforts of every parameter set, one pass each, in a process of its own.

    Parameters
    ----------
    data : DataSet
    methods : sequence of Entry
        Those that were asked for a recall have no curve, and pass through.
    recalls : sequence of float
        Around which the curves are to be known.
    mode, k, n_threads, n_queries, build_threads, settings
        As for `runner.compare`.
    cache : path, optional
        Folder that keeps what other libraries built, and what was found of it.
    say : callable, optional
        Told what goes on.
    """
    settings = settings or Settings()
    n_queries = min(n_queries or len(data.queries), len(data.queries))
    n_queries = min(n_queries, _SINGLE_QUERIES) if mode == "single" else n_queries
    run = _Sweep(data, sorted(recalls), mode, k, n_threads, n_queries, build_threads or n_threads, settings, cache)
    curves = []
    for entry in methods:
        if entry.parameters.asked is not None:
            curves.append(Curve(entry))
            continue
        rivals = [one.parameters.build for one in methods if one.family == entry.family]
        curve = run.curve(entry, rivals)
        curves.append(curve)
        speeds = (f"{recall:g}: {_speed(speed_at(curve.points, recall))}" for recall in run.recalls)
        say(f"  {entry.label}: {(curve.error or ', '.join(speeds)).splitlines()[0]}")
    return curves


def _speed(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}/s"


@dataclass
class _Sweep:
    data: DataSet
    recalls: list[float]
    mode: str
    k: int
    n_threads: int
    n_queries: int
    build_threads: int
    settings: Settings
    cache: str | None
    best: dict[tuple[str, float], float] = field(default_factory=dict)

    def curve(self, entry: Entry, rivals: list[dict[str, Any]]) -> Curve:
        """One build. Of a kept one, what an earlier run found of it, if it looked for the same."""
        p = entry.parameters
        adapter = load(entry.adapter)
        kept = builds.place(self.cache, self.data, adapter, p.build, self.build_threads, self.settings.seed)
        marks = json.dumps([self.recalls, p.efforts, p.environment, rivals], sort_keys=True)
        digest = hashlib.sha256(marks.encode()).hexdigest()[:8]
        name = f"sweep-{self.mode}-{self.n_threads}-{self.k}-{self.n_queries}-{digest}"
        try:
            found = builds.remembered(kept, name, lambda: self._measured(entry))
        except (WorkerError, NotImplementedError) as error:
            return Curve(entry, error=str(error))
        curve = Curve(entry, [Point(**point) for point in found["points"]], found["built"])
        self._learn(entry, curve.points)
        return curve

    def _learn(self, entry: Entry, points: list[Point]) -> None:
        for recall in self.recalls:
            speed = speed_at(points, recall)
            if speed is not None:
                self.best[entry.family, recall] = max(speed, self.best.get((entry.family, recall), 0.0))

    def _measured(self, entry: Entry) -> dict[str, Any]:
        p = entry.parameters
        points: list[Point] = []
        with Worker(entry.label, self.n_threads, p.environment) as worker:
            built = worker.ask(
                "build",
                self.settings.limit_seconds,
                data=str(self.data.folder),
                adapter=entry.adapter,
                params=p.build,
                n_threads=self.n_threads,
                build_threads=self.build_threads,
                seed=self.settings.seed,
                cache=self.cache,
            )
            for efforts in _lines(p.efforts):
                line: list[Point] = []
                for effort in efforts:
                    line.append(self._probe(worker, effort))
                    if self._is_enough(entry, line):
                        break
                self._learn(entry, points + line)
                for recall in self.recalls:
                    self._halve(worker, entry, line, recall)
                points += line
                self._learn(entry, points)
        return {"points": [asdict(point) for point in points], "built": built}

    def _probe(self, worker: Worker, effort: dict[str, Any]) -> Point:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "answers")
            asked = {"path": path, "mode": self.mode, "k": self.k, "effort": effort, "n_queries": self.n_queries}
            seconds = worker.ask("probe", self.settings.limit_seconds, **asked)["seconds"]
            found = np.load(path + ".npy")
        queries, true = self.data.queries[: self.n_queries], self.data.truth[: self.n_queries]
        score = truth.score(self.data.vectors, queries, found, true, self.data.metric)
        return Point(effort, score.recall, 1 / max(seconds, 1e-9))

    def _is_enough(self, entry: Entry, line: list[Point]) -> bool:
        """Whether more effort leads nowhere: all recalls reached, nothing more to find, or too slow to win."""
        last = line[-1]
        missing = [recall for recall in self.recalls if recall > last.recall]
        if all(_LEFT_BEHIND * self.best.get((entry.family, r), 0.0) > last.queries_per_second for r in missing):
            return True
        return len(line) > 1 and last.recall > 0.5 and last.recall - line[-2].recall < _SATURATED

    def _halve(self, worker: Worker, entry: Entry, line: list[Point], recall: float) -> None:
        """Adds points between the two that a recall lies between, where this line may be the best there."""
        for _ in range(_HALVINGS):
            line.sort(key=_knob)
            place = next((i for i, point in enumerate(line) if point.recall >= recall), 0)
            if place == 0:
                return
            low, high = line[place - 1], line[place]
            middle = (_knob(low) + _knob(high)) // 2
            speed = speed_at((low, high), recall) or 0.0
            best = self.best.get((entry.family, recall), 0.0)
            if middle == _knob(low) or high.recall - low.recall < _NEAR or speed < _LEFT_BEHIND * best:
                return
            name = next(iter(low.effort))
            line.append(self._probe(worker, {**low.effort, name: middle}))


def _knob(point: Point) -> int:
    """The first of its efforts, which rises along a line."""
    return int(next(iter(point.effort.values())))


def _lines(efforts: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Efforts that differ in their first knob alone, together."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for effort in efforts:
        others = json.dumps(list(effort.items())[1:])
        lines.setdefault(others, []).append(effort)
    return list(lines.values())


def chosen(curves: Sequence[Curve], recall: float) -> tuple[list[Entry], list[dict[str, str]]]:
    """What to measure with care at a recall: of each family its best build, at the efforts around the recall; and what
    was asked for this recall. And the families that do not reach it, with the reason."""
    entries: list[Entry] = []
    left: list[dict[str, str]] = []
    for family in dict.fromkeys(curve.entry.family for curve in curves):
        own = [curve for curve in curves if curve.entry.family == family]
        asked = [curve.entry for curve in own if curve.entry.parameters.asked == recall]
        speeds = [(speed, place) for place, one in enumerate(own) if (speed := speed_at(one.points, recall))]
        if speeds:
            asked.append(at_effort(own[max(speeds)[1]], recall))
        entries += asked
        if not asked and any(curve.entry.parameters.asked is None for curve in own):
            highest = max((point.recall for curve in own for point in curve.points), default=None)
            errors = [curve.error.splitlines()[0] for curve in own if curve.error]
            reason = f"reaches {highest:.4f} at most" if highest is not None else "; ".join(errors) or "nothing ran"
            left.append({"adapter": family, "reason": reason})
    return entries, left


def at_effort(curve: Curve, recall: float) -> Entry:
    """The build of a curve at the efforts around a recall alone."""
    efforts = tuple(point.effort for point in around(curve.points, recall))
    return replace(curve.entry, parameters=replace(curve.entry.parameters, efforts=efforts))


def spinning(entry: Entry) -> Entry:
    """The same with OpenMP's threads as they are by themselves: quicker to answer where nobody else needs the CPU."""
    p = entry.parameters
    environment = {name: value for name, value in p.environment.items() if name != "OMP_WAIT_POLICY"}
    return replace(entry, parameters=replace(p, environment=environment))


def quickest_built(curves: Sequence[Curve], family: str, recall: float, share: float) -> Curve | None:
    """What is built in the least time, of a family's parameter sets that reach a recall at no less than a share of the
    speed of its best."""
    speeds = [
        (speed, curve) for curve in curves if curve.entry.family == family and (speed := speed_at(curve.points, recall))
    ]
    best = max((speed for speed, _ in speeds), default=0.0)
    good = [curve for speed, curve in speeds if speed >= share * best]
    return min(good, key=lambda curve: float(curve.built["build_seconds"]), default=None)


# --- what came of it ---


@dataclass
class AtRecall:
    """How fast a method is at exactly a recall.

    Attributes
    ----------
    recall : float
    family, label : str
        What competes, and the parameter set that was its best.
    asked : bool
        It chose its effort itself: its speed is that at the recall it got, `got`.
    got : list of float
        Recalls of the points that were measured.
    points : list of Contender
    turns : list of float
        Queries a second at the recall, in each turn.
    """

    recall: float
    family: str
    label: str
    asked: bool
    got: list[float]
    points: list[Contender]
    turns: list[float]

    @property
    def queries_per_second(self) -> float:
        """The median of turns."""
        return statistics.median(self.turns)

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {
            "recall": self.recall,
            "family": self.family,
            "label": self.label,
            "asked": self.asked,
            "points": [
                {"effort": one.effort, "recall": recall} for one, recall in zip(self.points, self.got, strict=True)
            ],
            "queries_per_second": spread(self.turns),
            **self.bytes_a_vector(),
        }

    def bytes_a_vector(self) -> dict[str, float | None]:
        """By its own account or, where it gives none, what it takes on disk; what stayed in memory; and on disk."""
        built = self.points[0].built
        n = built.get("n_vectors")
        sizes = {
            "account": built.get("memory_bytes") or built.get("file_bytes"),
            "resident": built.get("resident_bytes"),
            "file": built.get("file_bytes"),
        }
        return {f"{name}_bytes_a_vector": size / n if size and n else None for name, size in sizes.items()}


def at_recall(comparison: Comparison, recall: float, asked: Sequence[str] = ()) -> list[AtRecall]:
    """What each method of a comparison does at exactly a recall, the fastest first; `asked`: families that were asked
    for it."""
    per_call = 1 if comparison.mode == "single" else comparison.n_queries
    builds_of: dict[str, list[Contender]] = {}
    for one in comparison.measured():
        if one.score is not None:
            one.built["n_vectors"] = comparison.data["n"]
            builds_of.setdefault(json.dumps([one.family, one.adapter, one.params]), []).append(one)
    found = []
    for points in builds_of.values():
        points.sort(key=lambda one: _got(one))
        got = [_got(one) for one in points]
        family = points[0].family or points[0].adapter
        own_way = family in asked
        turns = []
        for seconds in zip(*(one.seconds() for one in points), strict=False):
            speeds = [per_call / one for one in seconds]
            at = speeds[0] if own_way else interpolated(list(zip(got, speeds, strict=True)), recall)
            turns += [] if at is None else [at]
        if turns:
            efforts = [f" {name}={value}" for name, value in points[0].effort.items()]
            label = points[0].label.removesuffix("".join(efforts))
            found.append(AtRecall(recall, family, label, own_way, got, points, turns))
    return sorted(found, key=lambda one: -one.queries_per_second)


def _got(contender: Contender) -> float:
    assert contender.score is not None
    return float(contender.score["recall"])


def is_own(family: str) -> bool:
    """Whether it is this library."""
    return family.split()[0] == "nearest"


def best_own(results: Sequence[AtRecall]) -> AtRecall | None:
    """The fastest of this library that was tuned as its peers were."""
    return next((one for one in results if is_own(one.family) and not one.asked), None)


def best_peer(results: Sequence[AtRecall]) -> AtRecall | None:
    """The fastest of all others."""
    return next((one for one in results if not is_own(one.family)), None)


def ratio(faster: AtRecall, slower: AtRecall) -> dict[str, float]:
    """How many times as fast one is as the other, turn by turn."""
    return spread([a / b for a, b in zip(faster.turns, slower.turns, strict=False)])
