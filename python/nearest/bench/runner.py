"""Runs methods against each other: A B A B …, the same threads, medians.

A *contender* is a method with one set of build parameters and one effort. Contenders of one build share a process.
Turns go round: one turn of every contender, then the next turn of every contender, so that whatever slows the machine
down slows all of them. All of it is done again in fresh processes (*sessions*): what differs between sessions is noise,
and is recorded beside the result.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError
from . import truth
from .adapters import ParameterSet, SetInfo, load
from .data import DataSet
from .worker import Worker, WorkerError

MODES = ("batch", "single", "graph")
Say = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """How carefully to measure.

    Attributes
    ----------
    rounds : int
        Turns of each contender in a session.
    turn_seconds : float
        A turn lasts at least so long.
    sessions : int
        How often all of it is done again in fresh processes.
    pause_seconds : float
        Between turns: until the threads that the last one left spinning have gone to sleep.
    limit_seconds : float
        A build, or a single turn, that takes longer is given up.
    seed : int
        For methods that draw random numbers.
    """

    rounds: int = 5
    turn_seconds: float = 1.0
    sessions: int = 2
    pause_seconds: float = 0.1
    limit_seconds: float = 1800.0
    seed: int = 0

    @classmethod
    def quick(cls) -> Settings:
        """Only to see that everything runs: its times mean nothing."""
        return cls(rounds=2, turn_seconds=0.0, sessions=1, pause_seconds=0.0, limit_seconds=120.0)


@dataclass(frozen=True)
class Entry:
    """A method that takes part: a library and a way to build its index."""

    adapter: str
    parameters: ParameterSet

    @property
    def label(self) -> str:
        """How tables call it."""
        return f"{self.adapter} {self.parameters.label}"

    @property
    def family(self) -> str:
        """What it competes as."""
        return self.parameters.family or self.adapter


@dataclass
class Contender:
    """What was measured of one method at one effort.

    `sessions` holds the turns as they came; everything else is summed up from them.
    """

    adapter: str
    label: str
    params: dict[str, Any]
    effort: dict[str, Any]
    environment: dict[str, str]
    exhaustive: bool
    exact: bool
    family: str = ""
    score: dict[str, Any] | None = None
    error: str | None = None
    sessions: list[list[dict[str, Any]]] = field(default_factory=list)
    built: dict[str, Any] = field(default_factory=dict)
    build_seconds: list[float] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    def seconds(self) -> list[float]:
        """Seconds a call of every turn."""
        return [turn["seconds"] for session in self.sessions for turn in session]


@dataclass
class Comparison:
    """What came of running contenders against each other on one set of vectors."""

    data: dict[str, Any]
    mode: str
    k: int
    n_threads: int
    n_queries: int
    multiply_adds: int
    contenders: list[Contender]
    skipped: list[dict[str, str]]
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {
            **{name: getattr(self, name) for name in ("data", "mode", "k", "n_threads", "n_queries", "multiply_adds")},
            "interrupted": self.interrupted,
            "contenders": [asdict(contender) for contender in self.contenders],
            "skipped": self.skipped,
        }

    def measured(self, adapter: str | None = None, **wanted: Any) -> list[Contender]:
        """Contenders that ran; of one library; with these values in their parameters."""
        return [
            contender
            for contender in self.contenders
            if contender.summary
            and adapter in (None, contender.adapter)
            and all(contender.params.get(key) == value for key, value in wanted.items())
        ]

    def best(self, adapter: str, *, recall: float = 0.0, **wanted: Any) -> Contender | None:
        """The fastest of a library that reaches a recall; None if it did not run or does not reach it."""
        good = [
            contender
            for contender in self.measured(adapter, **wanted)
            if contender.score is None or contender.score["recall"] >= recall
        ]
        return min(good, key=lambda contender: float(contender.summary["seconds"]["median"]), default=None)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes.

    Examples
    --------
    >>> spread([1.0, 2.0, 3.0, 10.0, 2.0])
    {'median': 2.0, 'q1': 2.0, 'q3': 3.0, 'min': 1.0, 'max': 10.0, 'n': 5}
    """
    q1, q3 = np.percentile(values, [25, 75]).tolist()
    return {
        "median": statistics.median(values),
        "q1": q1,
        "q3": q3,
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def ratio(slower: Contender, faster: Contender) -> dict[str, Any]:
    """How many times as long one takes as the other: of medians, and how that varies.

    `rounds`: the spread of the ratios of turns that followed each other. `sessions`: the ratio of medians in each
    session; how far these are apart is the noise.
    """
    pairs = [
        a["seconds"] / b["seconds"]
        for one, other in zip(slower.sessions, faster.sessions, strict=False)
        for a, b in zip(one, other, strict=False)
    ]
    each = [
        statistics.median(turn["seconds"] for turn in one) / statistics.median(turn["seconds"] for turn in other)
        for one, other in zip(slower.sessions, faster.sessions, strict=False)
        if one and other
    ]
    return {
        "of": slower.label,
        "to": faster.label,
        "ratio": statistics.median(slower.seconds()) / statistics.median(faster.seconds()),
        "rounds": spread(pairs),
        "sessions": each,
    }


def entries(
    info: SetInfo,
    adapters: Iterable[str],
    mode: str = "batch",
    only: Callable[[ParameterSet], bool] | None = None,
    most_efforts: int | None = None,
    sweep: bool = False,
) -> tuple[list[Entry], list[dict[str, str]]]:
    """The methods of some libraries, and which libraries were left out for what reason.

    Parameters
    ----------
    info : SetInfo
        Of the vectors that will be searched.
    adapters : iterable of str
        Names of libraries.
    mode : {"batch", "single", "graph"}
    only : callable, optional
        Which parameters; all if left out.
    most_efforts : int, optional
        No more points of each curve, evenly chosen.
    sweep : bool
        The many parameter sets of a sweep, in place of the few usual ones.
    """
    chosen: list[Entry] = []
    skipped: list[dict[str, str]] = []
    for name in adapters:
        adapter = load(name)
        reason = adapter.missing() or adapter.refuses(info)
        ways = (
            adapter.graph_parameters if mode == "graph" else adapter.sweep_parameters if sweep else adapter.parameters
        )
        sets = [] if reason else ways(info)
        for parameters in sets:
            if only is None or only(parameters):
                efforts = parameters.efforts
                if most_efforts is not None and len(efforts) > most_efforts:
                    places = np.linspace(0, len(efforts) - 1, most_efforts).round().astype(int)
                    efforts = tuple(efforts[place] for place in places)
                chosen.append(Entry(name, replace(parameters, efforts=efforts)))
        if reason:
            skipped.append({"adapter": name, "reason": reason})
        elif not sets and mode == "graph":
            skipped.append({"adapter": name, "reason": "has no search of all pairs"})
        elif not sets:
            skipped.append({"adapter": name, "reason": "has nothing for this here"})
    return chosen, skipped


def set_info(data: DataSet) -> SetInfo:
    """What adapters are told of a set."""
    return SetInfo(len(data.vectors), data.dim, str(data.vectors.dtype), data.metric)


def compare(
    data: DataSet,
    methods: Sequence[Entry],
    *,
    mode: str = "batch",
    k: int = 10,
    n_threads: int = 1,
    n_queries: int | None = None,
    build_threads: int | None = None,
    settings: Settings | None = None,
    skipped: Sequence[dict[str, str]] = (),
    graph_rows: dict[str, int] | None = None,
    cache: str | None = None,
    say: Say = lambda text: None,
) -> Comparison:
    """Run methods against each other on one set of vectors.

    Parameters
    ----------
    data : DataSet
    methods : sequence of Entry
    mode : {"batch", "single", "graph"}
        All queries in one call, one query a call, or the neighbors of all members.
    k : int
    n_threads : int
        Of searches. One query at a time runs on one.
    n_queries : int, optional
        The first so many queries; all by default.
    build_threads : int, optional
        Of builds; as many as of searches by default.
    settings : Settings, optional
    skipped : sequence of dict
        What was left out before, for the record.
    graph_rows : dict of str to int, optional
        For mode graph: libraries that are asked for so many members only, and their times scaled up; `sampled_rows` in
        the record says so.
    cache : path, optional
        Folder that keeps what other libraries built, see `builds`.
    say : callable, optional
        Told what goes on.

    Returns
    -------
    Comparison
        With what was measured until then if it was interrupted by Ctrl-C.
    """
    if mode not in MODES:
        raise ArgumentError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    settings = settings or Settings()
    n_queries = min(n_queries or len(data.queries), len(data.queries))
    result = Comparison(
        data=data.about,
        mode=mode,
        k=k,
        n_threads=n_threads,
        n_queries=len(data.vectors) if mode == "graph" else n_queries,
        multiply_adds=data.multiply_adds,
        contenders=[],
        skipped=list(skipped),
    )
    groups: list[tuple[Entry, list[Contender]]] = []
    for entry in methods:
        p = entry.parameters
        group = [
            Contender(
                entry.adapter,
                label(entry, effort),
                p.build,
                effort,
                p.environment,
                p.exhaustive,
                p.exact,
                entry.family,
            )
            for effort in p.efforts
        ]
        groups.append((entry, group))
        result.contenders += group
    build_threads = build_threads or n_threads
    run = _Run(data, mode, k, n_threads, n_queries, build_threads, settings, graph_rows or {}, cache, say)
    try:
        for session in range(settings.sessions):
            run.session(session, groups)
    except KeyboardInterrupt:
        result.interrupted = True
        say("interrupted: what was measured so far is kept")
    for contender in result.contenders:
        _sum_up(contender, result)
    return result


def label(entry: Entry, effort: dict[str, Any]) -> str:
    """How tables call one point of a curve."""
    return " ".join([entry.label, *(f"{name}={value}" for name, value in effort.items())])


@dataclass
class _Run:
    data: DataSet
    mode: str
    k: int
    n_threads: int
    n_queries: int
    build_threads: int
    settings: Settings
    graph_rows: dict[str, int]
    cache: str | None
    say: Say

    def session(self, session: int, groups: list[tuple[Entry, list[Contender]]]) -> None:
        """Fresh processes: build, check the answers (the first time), then turns."""
        with ExitStack() as stack:
            running: list[tuple[Worker, list[Contender]]] = []
            for entry, group in groups:
                if any(contender.error for contender in group):
                    continue
                worker = stack.enter_context(Worker(entry.label, self.n_threads, entry.parameters.environment))
                if self._build(worker, entry, group, session):
                    running.append((worker, group))
            for round in range(self.settings.rounds):
                self.say(f"  session {session + 1}/{self.settings.sessions}, round {round + 1}/{self.settings.rounds}")
                for worker, group in running:
                    for contender in group:
                        if contender.error:
                            continue
                        time.sleep(self.settings.pause_seconds)
                        try:
                            turn = self._turn(worker, contender, round)
                        except (WorkerError, NotImplementedError) as error:
                            self._failed([contender], error)
                            continue
                        while len(contender.sessions) <= session:
                            contender.sessions.append([])
                        contender.sessions[session].append(turn)

    def _failed(self, group: list[Contender], error: Exception) -> None:
        self.say(f"  {str(error).splitlines()[0]}")
        for contender in group:
            contender.error = str(error)
            # Half a measurement would be compared with whole ones.
            contender.sessions.clear()

    def _build(self, worker: Worker, entry: Entry, group: list[Contender], session: int) -> bool:
        self.say(f"  building {entry.label}")
        limit = self.settings.limit_seconds
        try:
            built = worker.ask(
                "build",
                limit,
                data=str(self.data.folder),
                adapter=entry.adapter,
                params=entry.parameters.build,
                n_threads=self.n_threads,
                build_threads=self.build_threads,
                seed=self.settings.seed,
                cache=self.cache,
            )
            wanted = session == 0 and self.mode != "graph" and "memory_bytes" not in built
            sizes = worker.ask("sizes", limit) if wanted else {}
            for contender in group:
                contender.build_seconds.append(built["build_seconds"])
                if session == 0:
                    contender.built = {**built, **sizes}
                    self._check(worker, contender)
        except (WorkerError, NotImplementedError) as error:
            self._failed(group, error)
            return False
        return True

    def _check(self, worker: Worker, contender: Contender) -> None:
        """Asks for the answers once, not timed, and holds them against the truth."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "answers")
            if self.mode == "graph":
                self._check_graph(worker, contender, path + ".npz")
                return
            # A few hundred single queries tell the recall as well as thousands, and exact ones are slow.
            n_queries = min(self.n_queries, 500) if self.mode == "single" else self.n_queries
            worker.ask(
                "answer",
                self.settings.limit_seconds,
                path=path,
                mode=self.mode,
                k=self.k,
                effort=contender.effort,
                n_queries=n_queries,
            )
            found = np.load(path + ".npy")
        vectors, queries, true = self.data.vectors, self.data.queries[:n_queries], self.data.truth[:n_queries]
        contender.score = truth.score(vectors, queries, found, true, self.data.metric)._asdict()
        contender.score["n_queries"] = n_queries

    def _check_graph(self, worker: Worker, contender: Contender, path: str) -> None:
        n = len(self.data.vectors)
        n_rows = min(self.graph_rows.get(contender.adapter, n), n)
        sizes = worker.ask("graph", self.settings.limit_seconds, k=self.k, seconds=0.0, n_rows=n_rows, answer=path)
        contender.built |= {"graph_peak_bytes": sizes["peak_bytes"], "graph_result_bytes": sizes["result_bytes"]}
        with np.load(path) as arrays:
            rows, ids = arrays["rows"], arrays["ids"]
        # Brute force in float64 over a sample; each of these members is left out of its own neighbors.
        sample = np.sort(np.random.default_rng(1).permutation(len(rows))[:200])
        members, found = rows[sample], _without(ids[sample], rows[sample], self.k)
        vectors = self.data.vectors
        queries = vectors[members]
        true = truth.exact_neighbors(vectors, queries, self.k + 1, self.data.metric)
        true = _without(true, members, self.k)
        score = truth.score(vectors, queries, found, true, self.data.metric)
        contender.score = {**score._asdict(), "n_queries": len(sample)}

    def _turn(self, worker: Worker, contender: Contender, round: int) -> dict[str, Any]:
        common: dict[str, Any] = {"k": self.k, "seconds": self.settings.turn_seconds}
        limit = self.settings.limit_seconds + self.settings.turn_seconds
        if self.mode == "graph":
            n = len(self.data.vectors)
            n_rows = min(self.graph_rows.get(contender.adapter, n), n)
            turn: dict[str, Any] = worker.ask("graph", limit, **common, n_rows=n_rows, answer=None)
            if n_rows < n:
                turn |= {"sampled_rows": n_rows, "seconds": turn["seconds"] * n / n_rows}
            return turn
        common |= {"effort": contender.effort, "n_queries": self.n_queries}
        if self.mode == "batch":
            turn = worker.ask("batch", limit, **common, whole_warm_up=round == 0)
            return turn
        # Every contender begins a round with the same query.
        first = round * self.n_queries // self.settings.rounds
        turn = worker.ask("single", limit, **common, first=first)
        return turn


def _without(ids: np.ndarray[Any, np.dtype[np.int64]], members: Any, k: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The first k of each row that are not the member itself."""
    found = np.full((len(ids), k), -1, np.int64)
    for row, (some, member) in enumerate(zip(ids, members, strict=True)):
        others = some[some != member][:k]
        found[row, : len(others)] = others
    return found


def _sum_up(contender: Contender, comparison: Comparison) -> None:
    contender.sessions = [session for session in contender.sessions if session]
    seconds = contender.seconds()
    if not seconds:
        return
    per_call = 1 if comparison.mode == "single" else comparison.n_queries
    medians = [statistics.median(turn["seconds"] for turn in session) for session in contender.sessions]
    summary: dict[str, Any] = {
        "seconds": spread(seconds),
        "queries_per_second": per_call / statistics.median(seconds),
        "seconds_of_sessions": medians,
        # How far fresh processes doing the same are apart.
        "noise": max(medians) / min(medians) - 1 if len(medians) > 1 else None,
        "cpus": statistics.median(turn["cpus"] for session in contender.sessions for turn in session),
        "build_seconds": statistics.median(contender.build_seconds),
    }
    if comparison.mode == "single":
        turns = [turn for session in contender.sessions for turn in session]
        for name in ("p50_seconds", "p99_seconds"):
            summary[name] = statistics.median(turn[name] for turn in turns)
        summary["n_latencies"] = sum(turn["n_calls"] for turn in turns)
    contender.summary = summary


def add_fractions(comparison: Comparison, limits: dict[str, Any] | None) -> None:
    """States what exhaustive contenders did as shares of what the machine can do.

    `of_stream`: bytes that a query cannot but read, a second, of the bandwidth; single queries. `of_int8_peak`,
    `of_f32_peak`, `of_bf16_peak`: pairs compared times dimensions, a second, of the multiply-adds that so many cores do
    in registers, whatever kind the method really used (all pairs, each computed once, count once).
    """
    if not limits:
        return
    cores = comparison.n_threads
    stream = limits.get(f"stream_{min(cores, 2)}_gb_per_second")
    for contender in comparison.contenders:
        if not contender.summary or not contender.exhaustive:
            continue
        seconds = contender.summary["seconds"]["median"]
        if comparison.mode == "single":
            scanned = contender.built.get("scanned_bytes")
            contender.summary["stream_gb_per_second"] = scanned / seconds / 1e9 if scanned else None
            if scanned and stream:
                contender.summary["of_stream"] = scanned / seconds / 1e9 / stream
        n_queries = 1 if comparison.mode == "single" else comparison.n_queries
        work = comparison.multiply_adds * n_queries
        once = comparison.mode == "graph" and contender.adapter == "nearest"
        rate = (work / 2 if once else work) / seconds / 1e9
        contender.summary["giga_multiply_adds_per_second"] = rate
        for kind in ("int8", "bf16", "f32"):
            peak = limits.get(f"{kind}_giga_multiply_adds_per_second")
            if peak:
                contender.summary[f"of_{kind}_peak"] = rate / (peak * cores)
