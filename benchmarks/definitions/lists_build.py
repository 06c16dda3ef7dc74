"""Seconds to build on 2 threads: inverted lists against faiss's IVF…,PQ…fs,RFlat of the same quality.

Ours is what `nearest.build` makes when asked for a recall in batches, its choosing and its calibration included. Of
faiss's parameter sets, that one counts which is fastest at the same recall (as `lists-batch` finds it): whoever picks it
without such a sweep needs luck, and time for the sweep is not charged. Both build in turns, each time in a new process;
what they built is then asked once how good and how fast it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearest.bench import report, runner, sweep
from nearest.bench.adapters.nearest import ASKED, FAST

if TYPE_CHECKING:
    from session import Session

SETS = ("wordnet", "photos", "photos1m", "patches", "synthetic500k")
PEER = "faiss IVF-PQ fast-scan"
RECALLS = (0.9, 0.95, 0.99)
BUILDS = 3
TARGET = 1.0

_seconds: dict[str, dict[str, list[float]]] = {}


def measure(session: Session) -> None:
    session.without_lists()
    for spec in session.sets(SETS):
        data = session.data(spec)
        if data is None:
            continue
        methods = session.swept(data, ("nearest", "faiss"), lambda one: one.family in (PEER, ASKED, FAST))
        common: dict[str, Any] = {"n_queries": 1000, "build_threads": 2, "say": session.say}
        session.say(f"{spec}: {data}; a sweep over {len(methods)} parameter sets")
        cache = str(session.out / "builds")
        curves = sweep.sweep(data, methods, RECALLS, settings=session.settings, cache=cache, **common)
        session.curves[spec] = curves
        rows = []
        for recall in RECALLS:
            entries, left = sweep.chosen(curves, recall)
            for one in left:
                session.say(f"  {one['adapter']}: {one['reason']}")
            # Sessions are builds in new processes; the turns in them only say what was built.
            settings = session.settings if session.quick else session.with_settings(rounds=1, sessions=BUILDS)
            comparison = runner.compare(data, entries, n_threads=2, settings=settings, skipped=left, **common)
            name = f"{spec}, recall {recall:g}"
            session.keep_untold(name, comparison)
            builds = {}
            for one in sweep.at_recall(comparison, recall, (ASKED,)):
                seconds = one.points[0].build_seconds
                builds[one.family] = seconds
                middle = report.duration(runner.spread(seconds)["median"])
                span = f"{min(seconds):.2f} – {max(seconds):.2f} s"
                got = ", ".join(f"{value:.4f}" for value in one.got)
                rows.append([one.label, f"{recall:g}", middle, span, got, f"{report.number(one.queries_per_second)}/s"])
            _seconds[name] = builds
        session.table(f"{spec}: building, 2 threads", ["method", "for", "build", "builds", "recall got", "speed"], rows)


def claims(session: Session) -> None:
    for name, builds in _seconds.items():
        text = f"{name}: build with calibration, against {PEER}"
        if ASKED not in builds or PEER not in builds:
            session.claim(text, f"≥ {TARGET:g} × as fast", "not measured", None)
            continue
        own, peer = (runner.spread(builds[family])["median"] for family in (ASKED, PEER))
        measured = f"{peer / own:.2f} × ({report.duration(own)} against {report.duration(peer)})"
        session.claim(text, f"≥ {TARGET:g} × as fast", measured, peer / own >= TARGET)
