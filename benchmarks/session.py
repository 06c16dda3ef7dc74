"""What a definition is handed: it asks for data, has methods compared, and states what was to be shown."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import limits as machine_limits
from nearest import _native
from nearest.bench import machine, record, report, runner, sweep
from nearest.bench.adapters import ParameterSet
from nearest.bench.data import DataSet, Spec, data_folders, missing, open_data
from nearest.bench.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
DEFINITIONS = HERE / "definitions"
RECORDS = HERE / "record"
OUT = HERE / "out"

# Sizes of a quick run, which only shows that everything works; parameter sets of a family, and efforts of each.
_QUICK = {"n": 3000, "queries": 40}
_QUICK_SETS, _QUICK_EFFORTS = 1, 3
RECALLS = (0.9, 0.95, 0.99)
# Answers of a sweep, and of what is measured at a recall: the same, so that they have the same recall.
SWEPT_QUERIES = 1000


def definitions() -> list[str]:
    """Names of all definitions."""
    return sorted(path.stem.rstrip("_").replace("_", "-") for path in DEFINITIONS.glob("*.py"))


def definition_file(name: str) -> Path:
    """The file of a definition; a trailing underscore is for names that Python keeps for itself."""
    for stem in (name.replace("-", "_"), name.replace("-", "_") + "_"):
        if (DEFINITIONS / f"{stem}.py").exists():
            return DEFINITIONS / f"{stem}.py"
    raise SystemExit(f"no definition {name!r}; there are {', '.join(definitions())}")


def load_definition(name: str) -> ModuleType:
    """The module of a definition: ``measure(session)`` and, if there is something to show, ``claims(session)``."""
    path = definition_file(name)
    spec = importlib.util.spec_from_file_location(f"definition_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Session:
    """One run of one definition.

    Attributes
    ----------
    quick : bool
        Tiny sizes and single turns, to see that everything works; nothing it measures means anything.
    settings : Settings
    adapters : tuple of str or None
        Only these libraries, if given.
    comparisons : dict of str to Comparison
        What was compared, by name.
    at_recall : dict of str to list of AtRecall
        How fast methods are at exactly a recall, by name.
    dims : dict of str to int
        Dimensions of the vectors, by the same names.
    figures : dict
        Anything else that was measured, by name.
    claims : list of dict
        What was to be shown, and whether it was.
    """

    def __init__(
        self,
        name: str,
        *,
        quick: bool = False,
        settings: runner.Settings | None = None,
        adapters: Sequence[str] | None = None,
        sets: Sequence[str] | None = None,
        families: Sequence[str] | None = None,
        threads: Sequence[int] | None = None,
        with_limits: bool = True,
        out: Path | None = None,
        records: Path | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self.name = name
        self.quick = quick
        self.settings = settings or (runner.Settings.quick() if quick else runner.Settings())
        self.adapters = None if adapters is None else tuple(adapters)
        self.out = out or OUT
        self.with_limits = with_limits and not quick
        self.comparisons: dict[str, runner.Comparison] = {}
        self.at_recall: dict[str, list[sweep.AtRecall]] = {}
        self.dims: dict[str, int] = {}
        self.curves: dict[str, list[sweep.Curve]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.claims: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.limits: dict[str, Any] = {}
        self._sets, self._families, self._threads = sets, families, threads
        # Their tables would repeat what those at exact recalls say.
        self._untold: set[str] = set()
        self._records = records
        self._say = say
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Progress, for who waits."""
        if self._say is not None:
            self._say(text)
        else:
            print(f"{time.monotonic() - self._started:7.1f} s  {text}", file=sys.stderr, flush=True)

    # --- for definitions ---

    def sets(self, usual: Sequence[str]) -> Sequence[str]:
        """Data sets to measure on: these, unless others were asked for."""
        return usual if self._sets is None else self._sets

    def threads(self, usual: Sequence[int]) -> Sequence[int]:
        """Numbers of threads: these, unless others were asked for."""
        return usual if self._threads is None else self._threads

    def structures(self) -> Sequence[str]:
        """Lists and a graph, or which of them is named among the families."""
        return [one for one in ("lists", "graph") if self._families is None or one in self._families]

    def data(self, text: str) -> DataSet | None:
        """A set of vectors; None, and the reason in the record, where it is not there."""
        spec = Spec.parse(text)
        if self.quick:
            spec = spec.with_options(**{key: min(value, spec.options.get(key, value)) for key, value in _QUICK.items()})
            if "clusters" in spec.options:
                spec = spec.with_options(clusters=min(30, spec.options["clusters"]))
        reason = missing(spec)
        if reason:
            self.left_out.append(reason)
            self.say(f"left out: {reason}")
            return None
        return open_data(spec, self.out / "data", self.say)

    def compare(
        self,
        name: str,
        data: DataSet,
        adapters: Iterable[str],
        *,
        only: Callable[[ParameterSet], bool] | None = None,
        mode: str = "batch",
        settings: runner.Settings | None = None,
        **options: Any,
    ) -> runner.Comparison:
        """Has methods run against each other, and keeps the result under `name`. `options` as for `runner.compare`."""
        chosen = [adapter for adapter in adapters if self.adapters is None or adapter in self.adapters]
        methods, skipped = runner.entries(
            runner.set_info(data), chosen, mode, only, most_efforts=2 if self.quick else None
        )
        self.say(f"{name}: {data}, {mode}, threads: {options.get('n_threads', 1)}, {len(methods)} methods")
        comparison = runner.compare(
            data,
            methods,
            mode=mode,
            settings=settings or self.settings,
            skipped=skipped,
            say=self.say,
            **options,
        )
        self.comparisons[name] = comparison
        if comparison.interrupted:
            raise KeyboardInterrupt
        return comparison

    def compare_at(
        self,
        name: str,
        data: DataSet,
        adapters: Iterable[str],
        *,
        recalls: Sequence[float] = RECALLS,
        mode: str = "batch",
        threads: Sequence[int] = (1,),
        only: Callable[[ParameterSet], bool] | None = None,
        settings: runner.Settings | None = None,
        k: int = 10,
    ) -> None:
        """Finds out by a coarse sweep which parameter sets are each family's best at some recalls, has those run
        against each other there, and keeps how fast they are, by `name` and number of threads.

        The sweep runs on the first of `threads`; its choice holds for the others.
        """
        methods = self.swept(data, adapters, only)
        settings = settings or self.settings
        common: dict[str, Any] = {
            "mode": mode,
            "k": k,
            "n_queries": SWEPT_QUERIES,
            "build_threads": 2,
            "cache": str(self.out / "builds"),
            "say": self.say,
        }
        self.say(f"{name}: {data}, {mode}; a sweep over {len(methods)} parameter sets")
        curves = sweep.sweep(data, methods, recalls, n_threads=threads[0], settings=settings, **common)
        self.curves[name] = curves
        for n_threads in threads:
            results: list[sweep.AtRecall] = []
            for recall in recalls:
                entries, left = sweep.chosen(curves, recall)
                entries = [sweep.spinning(entry) for entry in entries]
                key = f"{name}, {n_threads} {'thread' if n_threads == 1 else 'threads'}, recall {recall:g}"
                self.say(f"{key}: {len(entries)} methods")
                comparison = runner.compare(
                    data, entries, n_threads=n_threads, settings=settings, skipped=left, **common
                )
                self.keep_untold(key, comparison)
                asked = [entry.family for entry in entries if entry.parameters.asked is not None]
                found = sweep.at_recall(comparison, recall, asked)
                self.at_recall[key] = found
                self.dims[key] = data.dim
                results += found
                for one in found[:1] + [one for one in (sweep.best_own(found),) if one is not None]:
                    self.say(f"  {one.label}: {one.queries_per_second:,.0f}/s")
            # One table a number of threads, one recall after another.
            rows = [
                row for recall in recalls for row in report.at_recall_rows([r for r in results if r.recall == recall])
            ]
            title = f"{name}, {mode}, {n_threads} {'thread' if n_threads == 1 else 'threads'}"
            self.table(title, report.AT_RECALL_HEAD, rows, about=str(data))

    def compare_sets_at(
        self,
        specs: Sequence[str],
        adapters: Iterable[str],
        *,
        only: Callable[[ParameterSet], bool],
        mode: str = "batch",
        threads: Sequence[int] = (1,),
    ) -> None:
        """`compare_at` on every one of these sets that is there, in four turns of one session."""
        settings = self.with_settings(rounds=4, sessions=1)
        for spec in self.sets(specs):
            data = self.data(spec)
            if data is not None:
                self.compare_at(spec, data, adapters, mode=mode, threads=threads, only=only, settings=settings)

    def swept(
        self, data: DataSet, adapters: Iterable[str], only: Callable[[ParameterSet], bool] | None = None
    ) -> list[runner.Entry]:
        """The parameter sets of a sweep; libraries that have none are named in the record."""
        chosen = [adapter for adapter in adapters if self.adapters is None or adapter in self.adapters]
        most = _QUICK_EFFORTS if self.quick else None
        methods, skipped = runner.entries(runner.set_info(data), chosen, "batch", only, most, sweep=True)
        for one in skipped:
            reason = f"{one['adapter']}: {one['reason']}"
            if reason not in self.left_out:
                self.left_out.append(reason)
                self.say(f"left out: {reason}")
        if self._families is not None:
            wanted = [one for one in methods if one.adapter == "nearest" or one.family in self._families]
            left = {one.family for one in methods} - {one.family for one in wanted}
            self.left_out += [f"{family}: not asked for" for family in sorted(left)]
            methods = wanted
        if not self.quick:
            return methods
        kept: list[runner.Entry] = []
        for method in methods:
            if method.parameters.asked or sum(one.family == method.family for one in kept) < _QUICK_SETS:
                kept.append(method)
        return kept

    def keep_untold(self, name: str, comparison: runner.Comparison) -> None:
        """Keeps a comparison in the record alone: a table of the definition tells people what came of it."""
        self.comparisons[name] = comparison
        self._untold.add(name)
        if comparison.interrupted:
            raise KeyboardInterrupt

    def table(self, name: str, head: Sequence[str], rows: Sequence[Sequence[str]], about: str = "") -> None:
        """Keeps a table for people."""
        self.tables[name] = {"about": about, "head": list(head), "rows": [list(row) for row in rows]}

    def table_of_bytes(self, spec: str) -> None:
        """Tells what methods that were measured at recalls of a set take, everything counted."""
        rows, whole = [], 0
        for key, found in self.at_recall.items():
            if not key.startswith(f"{spec}, "):
                continue
            whole = 4 * self.dims[key]
            for one in found:
                sizes = one.bytes_a_vector()
                share = (sizes["account_bytes_a_vector"] or 0.0) / whole
                numbers = [report.number(size) for size in sizes.values()]
                row = [one.label, one.family, f"{one.recall:g}", *numbers, f"{share:.3f}"]
                rows.append([*row, f"{report.number(one.queries_per_second)}/s"])
        head = ["method", "kind", "recall", "bytes a vector", "resident", "on disk", "of float32", "speed"]
        self.table(f"{spec}: bytes a vector of everything", head, rows, about=f"float32: {whole} bytes a vector")

    def worker(self, name: str, n_threads: int = 1, environment: dict[str, str] | None = None) -> Worker:
        """A process of its own, for what is no comparison of searches."""
        return Worker(name, n_threads, environment)

    def with_settings(self, **changes: Any) -> runner.Settings:
        """The settings of this run with some changed, if they are the usual ones: who asked for others gets them."""
        usual = runner.Settings()
        kept = {name: value for name, value in changes.items() if getattr(self.settings, name) == getattr(usual, name)}
        return self.settings if self.quick else replace(self.settings, **kept)

    def claim(self, text: str, target: str, measured: str, met: bool | None) -> None:
        """States what was to be shown, and whether it was: None where it could not be measured."""
        self.claims.append({"text": text, "target": target, "measured": measured, "met": met})

    def claim_ratio(
        self, text: str, slower: runner.Contender | None, faster: runner.Contender | None, target: float
    ) -> None:
        """States that one is at least so many times as fast as the other."""
        if slower is None or faster is None:
            return self.claim(text, f"≥ {target:g} ×", "not measured", None)
        value = runner.ratio(slower, faster)
        low, high = value["rounds"]["min"], value["rounds"]["max"]
        measured = f"{value['ratio']:.2f} × (turns {low:.2f} – {high:.2f})"
        self.claim(f"{text} ({slower.label})", f"≥ {target:g} ×", measured, value["ratio"] >= target)

    def claim_at_recalls(self, targets: Mapping[float, float]) -> None:
        """States that this library, tuned as its peers were, is at least so many times as fast as the best of them, by
        the recall."""
        for key, found in self.at_recall.items():
            own, peer = sweep.best_own(found), sweep.best_peer(found)
            target = targets[float(key.rpartition(" ")[2])]
            text = f"{key}: against the best peer"
            if own is None or peer is None:
                self.claim(text, f"≥ {target:g} ×", "not measured", None)
                continue
            self._claim_ratio(f"{text} ({peer.label})", own, peer, target)

    def claim_against(self, family: str, targets: Mapping[tuple[str, float], float]) -> None:
        """States that this library is at least so many times as fast as one family, by the set and the recall."""
        for key, found in self.at_recall.items():
            spec, _, recall = key.partition(", ")
            target = targets.get((spec, float(recall.rpartition(" ")[2])))
            own, peer = sweep.best_own(found), next((one for one in found if one.family == family), None)
            if target is not None and own is not None and peer is not None:
                self._claim_ratio(f"{key}: against {peer.label}", own, peer, target)

    def _claim_ratio(self, text: str, own: sweep.AtRecall, peer: sweep.AtRecall, target: float) -> None:
        value = sweep.ratio(own, peer)
        measured = f"{value['median']:.2f} × (turns {value['min']:.2f} – {value['max']:.2f})"
        self.claim(text, f"≥ {target:g} ×", measured, value["median"] >= target)

    def claim_share(self, text: str, contender: runner.Contender | None, of: str, target: float) -> None:
        """States that one reaches at least this share of what the machine can do (`of`: of_stream, of_int8_peak, …)."""
        share = contender.summary.get(of) if contender else None
        if contender is None or share is None:
            return self.claim(text, f"≥ {100 * target:.0f} %", "not measured", None)
        self.claim(f"{text} ({contender.label})", f"≥ {100 * target:.0f} %", f"{100 * share:.0f} %", share >= target)

    def claim_most(self, text: str, value: float | None, most: float, show: Callable[[float], str]) -> None:
        """States that something is at most so much."""
        if value is None:
            return self.claim(text, f"≤ {show(most)}", "not measured", None)
        self.claim(text, f"≤ {show(most)}", show(value), value <= most)

    def claim_bytes(self, key: str, family: str, most: float) -> None:
        """States that the best of a family at a recall takes at most this share of float32's bytes."""
        one = next((one for one in self.at_recall[key] if one.family == family), None)
        size = one.bytes_a_vector()["account_bytes_a_vector"] if one is not None else None
        share = None if size is None else size / (4 * self.dims[key])
        text = f"{key}: bytes of {family}, as a share of float32"
        self.claim_most(text, share, most, lambda value: f"{value:.3f}")

    def claim_exact(self, text: str, contender: runner.Contender | None) -> None:
        """States that the answers are those of float64 brute force, up to ties."""
        if contender is None or contender.score is None:
            return self.claim(text, "0 queries differ", "not measured", None)
        wrong, n_queries = contender.score["n_wrong"], contender.score["n_queries"]
        self.claim(f"{text} ({contender.label})", "0 queries differ", f"{wrong} of {n_queries}", wrong == 0)

    # --- the run ---

    def run(self) -> Path:
        """Measures, and writes the record; returns its path."""
        module = load_definition(self.name)
        load = machine.Load()
        started = datetime.now(timezone.utc)
        described = machine.describe()
        interrupted = False
        if self.with_limits and getattr(module, "LIMITS", False):
            level = str(_native.kernels()["level"])
            self.limits = machine_limits.measure(level, self.say)
        try:
            module.measure(self)
        except KeyboardInterrupt:
            interrupted = True
        if self.limits and not interrupted:
            self.limits = machine_limits.after(self.limits)
        for comparison in self.comparisons.values():
            runner.add_fractions(comparison, self.limits)
        if not interrupted and hasattr(module, "claims"):
            module.claims(self)
        path = self._path(described, started)
        written = {
            "name": self.name,
            "about": (module.__doc__ or "").strip(),
            "started": started.isoformat(timespec="seconds"),
            "command": f"python benchmarks/run.py {' '.join(sys.argv[1:])}".strip(),
            "quick": self.quick,
            "interrupted": interrupted,
            "commit": machine.commit(ROOT),
            "nearest": machine.native_module(),
            "machine": described,
            "limits": self.limits or None,
            "load": load.so_far(),
            "settings": vars(self.settings),
            "claims": self.claims,
            "figures": self.figures,
            "comparisons": {name: one.as_json() for name, one in self.comparisons.items()},
            "at_recall": {name: [one.as_json() for one in found] for name, found in self.at_recall.items()},
            "curves": {name: [one.as_json() for one in curves] for name, curves in self.curves.items()},
            "tables": self.tables,
            "left_out": self.left_out,
        }
        written = record.without_paths(written, self._places())
        record.write(path, written)
        plots = self._plot(path)
        path.with_suffix(".md").write_text(record.without_paths(self.text(written, plots), self._places()))
        return path

    def _places(self) -> dict[str, str]:
        """Folders of this machine, and what a record calls them."""
        places = {str(self.out): "<out>", str(ROOT): "<repository>", sys.prefix: "<environment>"}
        places |= {str(folder): "<data>" for folder in data_folders()}
        places |= {str(self._records): "<records>"} if self._records else {}
        return places | {tempfile.gettempdir(): "<temporary>", str(Path.home()): "<home>"}

    def _path(self, described: dict[str, Any], started: datetime) -> Path:
        if self.quick and self._records is None:
            return self.out / "quick" / f"{self.name}.json"
        records = self._records or RECORDS / machine.slug(described)
        return record.new_path(records, started.strftime("%Y-%m-%d"), self.name)

    def _plot(self, path: Path) -> list[str]:
        plots = []
        number = 0
        for name, curves in self.curves.items():
            number += 1
            families: dict[str, list[sweep.Point]] = {}
            for curve in curves:
                families.setdefault(curve.entry.family, []).extend(curve.points)
            pairs = {
                family: [
                    (point.recall, point.queries_per_second) for point in sweep.frontier(points) if point.recall > 0.5
                ]
                for family, points in families.items()
            }
            to = path.with_name(f"{path.stem}-{number}.png")
            shown = {family: points for family, points in pairs.items() if points}
            heading = f"{name}: the coarse sweep, best of all parameter sets"
            plots += self._plotted(report.plot_curves(shown, 10, heading, to), to)
        for name, comparison in self.comparisons.items():
            number += 1
            # Where everything is exact there is one recall, and a plot shows nothing that the table does not.
            if name in self._untold or all(one.exact for one in comparison.measured()):
                continue
            to = path.with_name(f"{path.stem}-{number}.png")
            plots += self._plotted(report.plot(comparison, to), to)
        return plots

    def _plotted(self, reason: str | None, to: Path) -> list[str]:
        if reason:
            self.say(reason)
        return [] if reason else [to.name]

    def text(self, written: dict[str, Any], plots: Sequence[str] = ()) -> str:
        """The record for people, in Markdown."""
        commit, load = written["commit"] or {}, written["load"]
        parts = [f"# {self.name}", "", written["about"], ""]
        if self.quick:
            parts += ["**A quick run, to see that it works: its figures mean nothing.**", ""]
        described = written["machine"]
        dirty = " and changes that are not committed" if commit.get("dirty") else ""
        parts += [
            f"- {written['started']}, `{written['command']}`",
            f"- commit {str(commit.get('commit', 'unknown'))[:12]}{dirty}, kernels {written['nearest']['kernels']}",
            f"- {described['cpu']} (family {described['cpu_family']}, model {described['cpu_model']}), "
            f"{described['n_cpus_usable']} cpus, {described['system']}, Python {described['python']}",
            f"- others kept {load['busy_cpus_of_others']} cpus busy meanwhile; stolen {load['stolen_share']}",
            f"- {self.settings.rounds} turns of ≥ {self.settings.turn_seconds:g} s in each of "
            f"{self.settings.sessions} sessions, alternating; medians",
        ]
        if self.limits:
            shown = {key: value for key, value in self.limits.items() if isinstance(value, float)}
            parts += ["- limits: " + ", ".join(f"{key} {report.number(value)}" for key, value in shown.items())]
            parts += [f"- not measured: {'; '.join(self.limits['missing'])}"] if self.limits.get("missing") else []
        if self.claims:
            parts += ["", report.claims_table(self.claims)]
        for name, one in written["tables"].items():
            parts += ["", f"## {name}", "", *([one["about"], ""] if one["about"] else [])]
            parts += [report.table(one["head"], one["rows"]) if one["rows"] else "nothing was measured"]
        for name, comparison in self.comparisons.items():
            if name not in self._untold:
                parts += ["", f"## {name}", "", report.comparison_text(comparison)]
            failed = [contender for contender in comparison.contenders if contender.error]
            if name in self._untold and (failed or comparison.skipped):
                parts += ["", f"{name}:", ""]
                parts += [f"- {str(one.error).splitlines()[0]}" for one in failed]
                parts += [f"- {one['adapter']}: {one['reason']}" for one in comparison.skipped]
        parts += [f"\n![recall and speed]({name})" for name in plots]
        for name, figure in self.figures.items():
            rows = [[key, _shown(key, value)] for key, value in figure.items() if not isinstance(value, (dict, list))]
            parts += ["", f"## {name}", "", report.table(["what", "measured"], rows)]
        if self.left_out:
            parts += ["", *(f"- left out: {reason}" for reason in self.left_out)]
        return "\n".join(parts) + "\n"


def _shown(key: str, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if key.endswith("_seconds"):
            return report.duration(value)
        if key.endswith("_bytes"):
            return f"{value / 1e6:,.2f} MB"
        return report.number(value, 4)
    return str(value)
