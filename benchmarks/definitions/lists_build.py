"""Seconds to build on 2 threads: inverted lists against faiss's IVF…,PQ…fs,RFlat of the same quality.

Ours is what `nearest.build` makes when asked for a recall in batches, its choosing and its calibration included. Of
faiss's parameter sets, that one counts which is built in the least time, of those that reach the recall at 0.8 of the
speed of the best (as a sweep finds it): whoever picks it without a sweep needs luck, and the sweep is not charged. It
builds twice, with OpenMP's threads spinning where they wait and with threads that sleep; the quicker counts. All build
in turns, each time in a new process; what they built is then asked once how good and how fast it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nearest.bench import report, runner, sweep
from nearest.bench.adapters.nearest import ASKED, RECALLS

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "photos1m", "patches", "synthetic500k")
PEER = "faiss IVF-PQ fast-scan"
RECALL = 0.95
BUILDS = 3
SAME_SPEED = 0.8
TARGET = 1.0

_seconds: dict[str, dict[str, list[float]]] = {}


def measure(session: Session) -> None:
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        methods = session.swept(
            data, ("nearest", "faiss"), lambda one: one.family == PEER or one.build.get("workload") == "batch"
        )
        common: dict[str, Any] = {"n_queries": 1000, "build_threads": 2, "say": session.say}
        session.say(f"{spec}: {data}; a sweep over {len(methods)} parameter sets")
        cache = str(session.out / "builds")
        curves = sweep.sweep(data, methods, RECALLS, settings=session.settings, cache=cache, **common)
        session.curves[spec] = curves
        entries, left = sweep.chosen(curves, RECALL)
        entries = [entry for entry in entries if entry.family != PEER]
        quickest = sweep.quickest_built(curves, PEER, RECALL, SAME_SPEED)
        entries += [] if quickest is None else _both_ways(sweep.at_effort(quickest, RECALL))
        # Sessions are builds in new processes; the turns in them only say what was built.
        settings = session.settings if session.quick else session.with_settings(rounds=1, sessions=BUILDS)
        comparison = runner.compare(data, entries, n_threads=2, settings=settings, skipped=left, **common)
        name = f"{spec}, recall {RECALL:g}"
        session.keep_untold(name, comparison)
        builds: dict[str, list[float]] = {}
        rows = []
        for one in sweep.at_recall(comparison, RECALL, (ASKED,)):
            seconds = one.points[0].build_seconds
            builds[one.family] = min(builds.get(one.family, seconds), seconds, key=_median)
            span = f"{min(seconds):.2f} – {max(seconds):.2f} s"
            got = ", ".join(f"{value:.4f}" for value in one.got)
            speed = f"{report.number(one.queries_per_second)}/s"
            rows.append([one.label, report.duration(_median(seconds)), span, got, speed])
        _seconds[name] = builds
        session.table(
            f"{spec}: building, 2 threads", ["method", "build", "builds", "recall got", "speed at 0.95"], rows
        )


def _both_ways(entry: runner.Entry) -> list[runner.Entry]:
    """With threads that sleep where they wait, as a sweep has them, and as OpenMP is by itself."""
    other = sweep.spinning(entry).parameters
    # The parameters tell builds apart.
    other = replace(other, label=f"{other.label}, spinning", build={**other.build, "threads": "spinning"})
    return [entry, replace(entry, parameters=other)]


def _median(seconds: list[float]) -> float:
    return runner.spread(seconds)["median"]


def claims(session: Session) -> None:
    for name, builds in _seconds.items():
        text = f"{name}: build with calibration, against {PEER}"
        if ASKED not in builds or PEER not in builds:
            session.claim(text, f"≥ {TARGET:g} × as fast", "not measured", None)
            continue
        own, peer = (_median(builds[family]) for family in (ASKED, PEER))
        measured = f"{peer / own:.2f} × ({report.duration(own)} against {report.duration(peer)})"
        session.claim(text, f"≥ {TARGET:g} × as fast", measured, peer / own >= TARGET)
