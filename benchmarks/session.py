"""What a definition is handed: it asks for data, has methods compared, and states what was to be shown."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import limits as machine_limits
from nearest import _native
from nearest.bench import machine, record, report, runner
from nearest.bench.adapters import ParameterSet
from nearest.bench.data import DataSet, Spec, missing, open_data
from nearest.bench.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
DEFINITIONS = HERE / "definitions"
RECORDS = HERE / "record"
OUT = HERE / "out"

# Sizes of a quick run, which only shows that everything works.
_QUICK = {"n": 3000, "queries": 40}


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
        self.figures: dict[str, dict[str, Any]] = {}
        self.claims: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.limits: dict[str, Any] = {}
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

    def data(self, text: str) -> DataSet | None:
        """A set of vectors; None, and the reason in the record, where it is not there."""
        spec = Spec.parse(text)
        if self.quick:
            spec = spec.with_options(**{key: min(value, spec.options.get(key, value)) for key, value in _QUICK.items()})
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
            "left_out": self.left_out,
        }
        record.write(path, written)
        plots = self._plot(path)
        path.with_suffix(".md").write_text(self.text(written, plots))
        return path

    def _path(self, described: dict[str, Any], started: datetime) -> Path:
        if self.quick and self._records is None:
            return self.out / "quick" / f"{self.name}.json"
        records = self._records or RECORDS / machine.slug(described)
        return record.new_path(records, started.strftime("%Y-%m-%d"), self.name)

    def _plot(self, path: Path) -> list[str]:
        plots = []
        for number, comparison in enumerate(self.comparisons.values(), 1):
            # Where everything is exact there is one recall, and a plot shows nothing that the table does not.
            if all(one.exact for one in comparison.measured()):
                continue
            to = path.with_name(f"{path.stem}-{number}.png")
            reason = report.plot(comparison, to)
            if reason:
                self.say(reason)
            else:
                plots.append(to.name)
        return plots

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
        for name, comparison in self.comparisons.items():
            parts += ["", f"## {name}", "", report.comparison_text(comparison)]
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
