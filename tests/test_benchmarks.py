"""The benchmarks: that they measure what they say. Nothing here looks at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import oracle
import pytest
from nearest import ArgumentError
from nearest.bench import adapters, builds, lists, machine, record, report, runner, sweep, truth
from nearest.bench.adapters import ParameterSet, SetInfo
from nearest.bench.data import DataSet, Spec, find_file, missing, open_data
from nearest.bench.runner import Comparison, Contender, Entry, Settings
from nearest.bench.worker import Worker, WorkerError

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
DEFINITIONS = sorted(path.stem.rstrip("_").replace("_", "-") for path in (BENCHMARKS / "definitions").glob("*.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data("synthetic:n=800,dim=12,queries=30,clusters=8,seed=3", tmp_path_factory.mktemp("data"))


# --- the truth ---


@pytest.mark.parametrize("metric", oracle.METRICS)
def test_truth_is_that_of_the_oracle(metric: str, rng: np.random.Generator) -> None:
    if metric in oracle.BITS:
        vectors, queries = (rng.integers(0, 256, (n, 4), dtype=np.uint8) for n in (300, 7))
        vectors[0] = queries[0] = 0
    else:
        vectors, queries = (rng.standard_normal((n, 9)).astype(np.float32) for n in (300, 7))
    vectors[5] = vectors[200]
    found = truth.exact_neighbors(vectors, queries, 11, metric)
    expected = oracle.distances(queries, vectors, metric)
    distances = truth.canonical_distances(vectors, queries, found, metric)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :11], rtol=1e-12, atol=1e-12)
    assert truth.score(vectors, queries, found, found, metric).n_wrong == 0


def test_truth_far_from_the_origin(rng: np.random.Generator) -> None:
    vectors = (100 + 1e-4 * rng.standard_normal((2000, 16))).astype(np.float32)
    found = truth.exact_neighbors(vectors, vectors[:50], 3, "euclidean")
    assert (truth.canonical_distances(vectors, vectors[:50], found, "euclidean")[:, 0] == 0).all()


def test_truth_takes_the_lower_id_of_equals_and_no_more_than_there_are() -> None:
    vectors = np.float32([[1, 0], [0, 1], [1, 0], [0, 1]])
    found = truth.exact_neighbors(vectors, np.float32([[1, 0], [0, 2]]), 9, "euclidean")
    assert found.tolist() == [[0, 2, 1, 3], [1, 3, 0, 2]]


def test_recall_counts_ties_by_distance() -> None:
    vectors = np.float32([[0], [1], [-1], [5]])
    queries, true = np.float32([[0]]), np.array([[0, 1]])
    assert truth.score(vectors, queries, np.array([[0, 2]]), true, "euclidean").recall == 1
    missed = truth.score(vectors, queries, np.array([[0, 3]]), true, "euclidean")
    assert (missed.recall, missed.n_wrong, missed.excess) == (0.5, 1, 4.0)


@pytest.mark.parametrize("found", [[0, 0], [0, -1], [0, 99]], ids=["twice", "empty", "no such id"])
def test_recall_takes_no_id_twice_and_none_that_is_not_there(found: list[int]) -> None:
    vectors = np.float32([[0], [1], [5]])
    result = truth.score(vectors, np.float32([[0]]), np.array([found]), np.array([[0, 1]]), "euclidean")
    assert (result.recall, result.n_wrong) == (0.5, 1)


def test_score_wants_the_truth_of_these_queries() -> None:
    with pytest.raises(ArgumentError, match=r"truth must have shape \(1, at least 2\)"):
        truth.score(
            np.zeros((3, 1)), np.zeros((1, 1)), np.zeros((1, 2), np.int64), np.zeros((1, 1), np.int64), "cosine"
        )


# --- data sets ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("photos:size=3", "unknown option 'size'"),
        ("photos:n=many", "n must be a number"),
        ("photos:n=0", "n must be at least 1"),
        ("photos:clusters=3", "are for synthetic sets"),
        ("photos:kind=embeddings", "are for synthetic sets"),
        ("synthetic:held=3", "held is for files"),
        ("synthetic:kind=words", "kind must be one of clusters, embeddings"),
        ("synthetic:lengths=0.5", "lengths must be from 0 to 2, of kind=embeddings"),
        ("synthetic:kind=embeddings,lengths=nan", "lengths must be from 0 to 2, of kind=embeddings"),
        ("photos:lengths=0.5", "are for synthetic sets"),
        ("photos:dtype=object", "dtype must be one of"),
        ("photos:metric=l2", "metric must be one of"),
        ("", "expected the name"),
    ],
)
def test_specs_that_make_no_sense(text: str, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        Spec.parse(text)


def test_a_synthetic_set_is_the_same_each_time(data: DataSet, tmp_path: Path) -> None:
    again = open_data(data.about["spec"], tmp_path)
    assert again.about == data.about
    np.testing.assert_array_equal(again.vectors, data.vectors)
    np.testing.assert_array_equal(again.truth, data.truth)
    other = open_data(data.about["spec"].replace("seed=3", "seed=4"), tmp_path)
    assert other.about["vectors_sha256"] != data.about["vectors_sha256"]


def test_a_synthetic_set_has_clusters_and_holds_its_queries_out(data: DataSet) -> None:
    assert (data.vectors.shape, data.queries.shape) == ((800, 12), (30, 12))
    assert data.about["synthetic"]
    assert "synthetic" in str(data)
    nearest_one = truth.canonical_distances(data.vectors, data.queries, data.truth[:, :1], data.metric)
    assert (nearest_one > 0).all()
    # Neighbors are much nearer than vectors are on average.
    away = truth.canonical_distances(data.vectors, data.queries, np.tile(np.arange(0, 800, 16), (30, 1)), data.metric)
    assert nearest_one.mean() < 0.6 * away.mean()


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8"])
def test_synthetic_sets_of_other_types(dtype: str, tmp_path: Path) -> None:
    one = open_data(f"synthetic:n=300,dim=6,queries=5,dtype={dtype}", tmp_path)
    assert one.vectors.dtype == one.queries.dtype == dtype
    assert len(np.unique(one.vectors)) > 30


def test_a_synthetic_set_of_embeddings(tmp_path: Path) -> None:
    spec = Spec.parse("synthetic500k")
    assert (spec.name, spec.options["n"], spec.options["dim"]) == ("synthetic", 500_000, 768)
    one = open_data(spec.with_options(n=600, dim=48, clusters=6, queries=20), tmp_path)
    assert "synthetic" in str(one)
    assert (one.about["synthetic"], one.metric) == (True, "cosine")
    assert (one.vectors.shape, one.vectors.dtype, one.queries.shape) == ((600, 48), np.float32, (20, 48))
    np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=1), 1, rtol=1e-5)
    near = truth.canonical_distances(one.vectors, one.queries, one.truth[:, :1], one.metric)
    away = truth.canonical_distances(one.vectors, one.queries, np.tile(np.arange(0, 600, 16), (20, 1)), one.metric)
    assert (near > 0).all()
    assert near.mean() < 0.7 * away.mean()
    longer = open_data(spec.with_options(n=600, dim=48, clusters=6, queries=20, lengths=0.5), tmp_path)
    lengths = np.log(np.linalg.norm(longer.vectors, axis=1))
    assert abs(lengths.mean()) < 0.1
    assert 0.4 < lengths.std() < 0.6
    with pytest.raises(ArgumentError, match="embeddings are floats"):
        open_data("synthetic:kind=embeddings,n=100,dim=8,dtype=uint8", tmp_path)


def test_rows_held_out_and_a_second_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    (tmp_path / "extra").mkdir()
    base, queries = rng.standard_normal((120, 4)).astype(np.float32), np.zeros((7, 4), np.float32)
    np.savez(tmp_path / "extra" / "mine.npz", base=base, queries=queries, metric="euclidean")
    monkeypatch.setenv("NEAREST_DATA", str(tmp_path))
    assert missing("mine")
    monkeypatch.setenv("NEAREST_DATA_EXTRA", str(tmp_path / "extra"))
    assert len(open_data("mine", tmp_path / "out").queries) == 7
    one = open_data("mine:held=40", tmp_path / "out")
    assert (one.vectors.shape, one.queries.shape, one.truth.shape) == ((80, 4), (40, 4), (40, 80))
    both = np.concatenate([one.vectors, one.queries])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, base.tolist()))
    assert "held out" in one.about["queries"]


def test_a_set_is_kept_and_made_again_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("NEAREST_DATA", str(tmp_path))
    assert "no such file" in (missing("mine") or "")
    with pytest.raises(FileNotFoundError, match="NEAREST_DATA"):
        open_data("mine", tmp_path / "out")
    base, queries = rng.integers(0, 50, (200, 5), dtype=np.uint8), rng.integers(0, 50, (9, 5), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", base=base, queries=queries, metric="cosine")
    assert find_file("mine") == tmp_path / "mine.npz"
    said: list[str] = []
    one = open_data("mine", tmp_path / "out", said.append)
    assert (one.metric, one.dim, one.about["synthetic"]) == ("cosine", 5, False)
    np.testing.assert_array_equal(one.vectors, base)
    n_said = len(said)
    open_data("mine", tmp_path / "out", said.append)
    assert len(said) == n_said
    np.savez(tmp_path / "mine.npz", base=base[:100], queries=queries, metric="cosine")
    assert len(open_data("mine", tmp_path / "out", said.append).vectors) == 100
    part = open_data("mine:n=50,queries=4,dtype=float32,metric=euclidean", tmp_path / "out")
    assert (part.vectors.shape, part.queries.shape, part.metric) == ((50, 5), (4, 5), "euclidean")
    assert part.vectors.dtype == np.float32


def test_vectors_without_queries_have_some_held_out(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((120, 4)).astype(np.float32)
    np.save(tmp_path / "some.npy", vectors)
    one = open_data(f"{tmp_path / 'some.npy'}:queries=20", tmp_path / "out")
    assert (len(one.vectors), len(one.queries)) == (100, 20)
    both = np.concatenate([one.vectors, one.queries])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, vectors.tolist()))


def test_ann_benchmarks_files(tmp_path: Path, rng: np.random.Generator) -> None:
    h5py = pytest.importorskip("h5py")
    base, queries = rng.standard_normal((90, 4)).astype(np.float32), rng.standard_normal((6, 4)).astype(np.float32)
    with h5py.File(tmp_path / "glove.hdf5", "w") as file:
        file["train"], file["test"] = base, queries
        file.attrs["distance"] = "angular"
    one = open_data(str(tmp_path / "glove.hdf5"), tmp_path / "out")
    assert one.metric == "cosine"
    np.testing.assert_array_equal(one.queries, queries)


def test_the_truth_of_the_shared_sets_is_ours(shared_data: Any, tmp_path: Path) -> None:
    gt = shared_data("photos")["gt"][:10]
    one = open_data("photos:queries=10", tmp_path)
    assert truth.score(one.vectors, one.queries, gt.astype(np.int64), one.truth, one.metric).n_wrong == 0


# --- adapters and workers ---


@pytest.mark.parametrize("name", adapters.NAMES)
def test_every_method_of_an_adapter(name: str, data: DataSet) -> None:
    adapter = adapters.load(name)
    reason = adapter.missing() or adapter.refuses(runner.set_info(data))
    if reason:
        pytest.skip(reason)
    methods, _ = runner.entries(runner.set_info(data), [name], most_efforts=2)
    assert methods
    for mode in ("batch", "single"):
        result = runner.compare(data, methods, mode=mode, k=7, settings=Settings.quick())
        for one in result.contenders:
            assert one.error is None, one.error
            assert one.score is not None
            assert one.score["recall"] > (0.999 if one.exact else 0.2), one.label
            assert not (one.exact and one.score["n_wrong"]), one.label
            assert one.built["versions"]
            assert len(one.seconds()) == 2


def test_all_pairs(data: DataSet) -> None:
    methods, skipped = runner.entries(runner.set_info(data), ("nearest", "numpy"), "graph")
    assert [one["adapter"] for one in skipped] == ["numpy"]
    result = runner.compare(data, methods, mode="graph", k=5, n_threads=2, settings=Settings.quick())
    (own,) = result.measured("nearest")
    assert own.score is not None
    assert (own.score["n_wrong"], result.n_queries) == (0, 800)
    assert own.built["graph_result_bytes"] == 800 * 5 * 12


FIVE_SETS = [
    SetInfo(116_659, 384, "float16", "cosine"),
    SetInfo(345_760, 128, "uint8", "euclidean"),
    SetInfo(1_356_381, 128, "uint8", "euclidean"),
    SetInfo(283_814, 960, "uint8", "euclidean"),
    SetInfo(500_000, 768, "float32", "cosine"),
]


@pytest.mark.parametrize("info", FIVE_SETS, ids=["wordnet", "photos", "photos1m", "patches", "synthetic500k"])
def test_peers_have_as_many_chances_as_we(info: SetInfo) -> None:
    families: dict[str, list[ParameterSet]] = {}
    for name in ("nearest", "faiss", "scann", "svs", "hnswlib"):
        for one in adapters.load(name).sweep_parameters(info):
            families.setdefault(one.family or name, []).append(one)
    expected = {"faiss IVF-PQ fast-scan", "faiss IVF-RaBitQ", "scann", "svs", "hnswlib"}
    own = {"nearest fast", "nearest compact", "nearest graph", "nearest graph compact", "nearest build(recall=…)"}
    assert set(families) == expected | own
    for family in expected:
        assert len(families[family]) >= 4, family
    for family, sets in families.items():
        assert len({one.label for one in sets}) == len(sets), family
        for one in sets:
            json.dumps([one.build, one.efforts])
            for line in sweep._lines(one.efforts) if one.asked is None else []:
                knobs = [next(iter(effort.values())) for effort in line]
                assert knobs == sorted(set(knobs)), one.label
                assert len(knobs) > 3


@pytest.mark.parametrize("name", [name for name in adapters.NAMES if adapters.load(name).keeps])
def test_builds_that_are_kept(name: str, tmp_path: Path) -> None:
    data = open_data("synthetic:n=2400,dim=16,queries=20,clusters=8,seed=3,metric=cosine", tmp_path / "data")
    adapter = adapters.load(name)
    if adapter.missing():
        pytest.skip(str(adapter.missing()))
    methods, _ = runner.entries(runner.set_info(data), [name], sweep=True)
    chosen = list({(one.family, len(one.parameters.efforts[0])): one for one in methods}.values())
    for method in [*chosen, methods[0], methods[-1]]:
        p = method.parameters
        asked = {"adapter": name, "params": p.build, "n_threads": 1, "build_threads": 1, "seed": 0}
        answers = []
        for kept in (False, True):
            with Worker(method.label, 1, p.environment) as worker:
                built = worker.ask("build", data=str(data.folder), cache=str(tmp_path / "builds"), **asked)
                assert (built.get("kept", False), built["build_seconds"] > 0) == (kept, True)
                assert built["file_bytes"] > 0
                path = tmp_path / f"answers-{kept}.npy"
                effort = p.efforts[len(p.efforts) // 2]
                worker.ask("probe", path=str(path), mode="batch", k=5, effort=effort, n_queries=20)
                answers.append(np.load(path))
        # The quickest sort of threads may settle ties either way.
        assert (answers[0] == answers[1]).mean() > 0.95, method.label
        shutil.rmtree(tmp_path / "builds")


def test_no_more_is_kept_than_there_is_room_for(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(adapters.Built):
        def keep(self, folder: str) -> None:
            (Path(folder) / "index").write_bytes(b"x" * 1000)

        def set_effort(self, effort: dict[str, Any], n_threads: int) -> None: ...

        def search(self, queries: Any, k: int) -> Any: ...

        def search_one(self, query: Any, k: int) -> Any: ...

    folder = tmp_path / "cache" / "one"
    assert not builds.is_kept(folder)
    assert builds.keep(folder, Kept(), {"seconds": 1})
    assert (builds.is_kept(folder), builds.about(folder)) == (True, {"seconds": 1})
    counted: list[int] = []

    def make() -> int:
        counted.append(1)
        return 7

    assert [builds.remembered(folder, "sweep", make) for _ in range(3)] == [7, 7, 7]
    assert [builds.remembered(None, "sweep", make) for _ in range(2)] == [7, 7]
    assert len(counted) == 3
    monkeypatch.setattr(builds, "_MOST_BYTES", 1500)
    assert not builds.keep(tmp_path / "cache" / "two", Kept(), {})
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one"]
    own = adapters.load("nearest")
    assert builds.place(tmp_path, data, own, {}, 1, 0) is None


def test_adapters_that_are_not_there(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    methods, skipped = runner.entries(runner.set_info(data), ("faiss",))
    assert not methods
    assert "pip install faiss-cpu" in skipped[0]["reason"]
    with pytest.raises(ArgumentError, match="adapter must be one of"):
        adapters.load("milvus")


def test_a_metric_that_an_adapter_does_not_know() -> None:
    methods, skipped = runner.entries(SetInfo(10, 8, "uint8", "hamming"), ("nearest", "numpy"))
    assert [one.adapter for one in methods] == ["nearest"]
    assert skipped[0]["adapter"] == "numpy"


PROGRAM = """
import os, sys, time
def noisy(): print("to standard output"); os.write(1, b"and below it"); return 7
def wrong(): raise ValueError("what was wrong")
def absent(): raise NotImplementedError("there is none")
def dies(): sys.stderr.write("last words"); sys.stderr.flush(); os._exit(3)
def hangs(): time.sleep(600)
def variable(name): return os.environ.get(name)
"""


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return {"do": "call", "file": str(tmp_path / "program.py"), "arguments": {}}


def test_a_worker_and_what_can_happen_to_it(program: dict[str, Any]) -> None:
    with Worker("it", n_threads=3, environment={"MINE": "yes"}) as worker:
        assert worker.ask(**program, function="noisy") == 7
        with pytest.raises(WorkerError, match="it: call: ValueError: what was wrong"):
            worker.ask(**program, function="wrong")
        with pytest.raises(NotImplementedError, match="there is none"):
            worker.ask(**program, function="absent")
        for name, value in (("OPENBLAS_NUM_THREADS", "3"), ("MINE", "yes")):
            assert worker.ask(**{**program, "arguments": {"name": name}}, function="variable") == value
        with pytest.raises(WorkerError, match=r"(?s)ended with status 3: .*last words"):
            worker.ask(**program, function="dies")
        with pytest.raises(WorkerError, match="ended with status 3"):
            worker.ask(**program, function="noisy")


def test_a_worker_that_hangs_is_ended(program: dict[str, Any]) -> None:
    with Worker("it") as worker, pytest.raises(WorkerError, match="took longer than 0 s"):
        worker.ask(**program, timeout=0.2, function="hangs")
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_worker_ends_with_who_asked(program: dict[str, Any], tmp_path: Path) -> None:
    parent = (
        "import os, sys, time\n"
        "from nearest.bench.worker import Worker\n"
        "worker = Worker('it')\n"
        f"worker.ask('call', file={program['file']!r}, function='variable', arguments={{'name': 'HOME'}})\n"
        f"worker.send('call', file={program['file']!r}, function='hangs', arguments={{}})\n"
        "print(worker.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", parent], env=env, capture_output=True, timeout=60, check=True)
    status = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(500):
        # A zombie is over too, though whoever inherited it may not have looked.
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        time.sleep(0.01)
    pytest.fail("the worker still runs")


# --- the runner ---


class StubWorker:
    """Answers as the scenario says, and writes down what it was asked."""

    log: list[tuple[str, str]]
    scenario: dict[tuple[str, str], Any]

    def __init__(self, name: str, n_threads: int, environment: dict[str, str]) -> None:
        self.name = name
        self.log.append((name, "start"))

    def __enter__(self) -> StubWorker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.log.append((self.name, "end"))

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> Any:
        self.log.append((self.name, do))
        planned = self.scenario.get((self.name, do))
        if isinstance(planned, BaseException):
            raise planned
        if do == "answer":
            np.save(arguments["path"], np.tile(np.arange(arguments["k"]), (arguments["n_queries"], 1)))
        if do == "build":
            return {"build_seconds": 1.0}
        return {"seconds": planned or 1.0, "cpus": 1.0, "n_calls": 1} if do == "batch" else {}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubWorker]:
    monkeypatch.setattr(StubWorker, "log", [], raising=False)
    monkeypatch.setattr(StubWorker, "scenario", {}, raising=False)
    monkeypatch.setattr(runner, "Worker", StubWorker)
    return StubWorker


METHODS = [Entry("nearest", ParameterSet("a", {})), Entry("numpy", ParameterSet("b", {}))]
SETTINGS = Settings(rounds=3, sessions=2, turn_seconds=0, pause_seconds=0)


def test_turns_alternate_and_sessions_are_fresh(stub: type[StubWorker], data: DataSet) -> None:
    stub.scenario[("numpy b", "batch")] = 3.0
    result = runner.compare(data, METHODS, settings=SETTINGS)
    turns = [name for name, do in stub.log if do == "batch"]
    assert turns == ["nearest a", "numpy b"] * 6
    started = [name for name, do in stub.log if do == "start"]
    assert started == ["nearest a", "numpy b"] * 2
    assert [name for name, do in stub.log if do == "end"] == ["numpy b", "nearest a"] * 2
    own, other = result.contenders
    assert [len(session) for session in own.sessions] == [3, 3]
    assert own.summary["queries_per_second"] == len(data.queries)
    assert (own.summary["noise"], own.summary["cpus"]) == (0, 1)
    value = runner.ratio(other, own)
    assert (value["ratio"], value["sessions"]) == (3, [3, 3])
    assert result.best("numpy", recall=0.99) is None


@pytest.mark.parametrize("when", ["build", "answer", "batch"])
def test_one_failure_is_one_line(when: str, stub: type[StubWorker], data: DataSet) -> None:
    stub.scenario[("numpy b", when)] = WorkerError("numpy b: no memory\nTraceback")
    result = runner.compare(data, METHODS, settings=SETTINGS)
    own, other = result.contenders
    assert (len(own.seconds()), other.seconds(), other.summary) == (6, [], {})
    assert "- numpy b: no memory\n" in report.comparison_text(result) + "\n"
    # It is not tried again.
    assert sum(name == "numpy b" and do == "start" for name, do in stub.log) == 1


def test_an_interrupted_run_keeps_what_it_has(stub: type[StubWorker], data: DataSet) -> None:
    stub.scenario[("numpy b", "batch")] = KeyboardInterrupt()
    result = runner.compare(data, METHODS, settings=SETTINGS)
    assert result.interrupted
    assert len(result.contenders[0].seconds()) == 1
    assert stub.log[-1][1] == "end"
    json.dumps(record.plain(result.as_json()), allow_nan=False)
    assert "Interrupted" in report.comparison_text(result)


def measured(adapter: str, recall: float, seconds: float, *, exhaustive: bool = True) -> Contender:
    one = Contender(adapter, f"{adapter} {recall}", {}, {}, {}, exhaustive, exhaustive)
    one.sessions = [[{"seconds": seconds, "cpus": 1.0}]]
    one.score = {"recall": recall, "n_wrong": 0}
    one.summary = {"seconds": runner.spread([seconds]), "queries_per_second": 1 / seconds}
    return one


def comparison(*contenders: Contender, mode: str = "batch", n_threads: int = 2) -> Comparison:
    about = {"spec": "x", "synthetic": True, "n": 5, "width": 3, "dtype": "float32", "metric": "cosine"}
    return Comparison(about, mode, 10, n_threads, 100, 10**9, list(contenders), [])


def test_the_frontier() -> None:
    slow, fast, worse = measured("a", 1.0, 4.0), measured("a", 0.9, 1.0), measured("a", 0.8, 2.0)
    assert report.frontier([worse, slow, fast]) == [fast, slow]
    both = comparison(slow, fast, worse)
    assert both.best("a") is fast
    assert both.best("a", recall=0.95) is slow


def test_fractions_of_the_limits() -> None:
    limits = {"stream_1_gb_per_second": 40.0, "int8_giga_multiply_adds_per_second": 500.0}
    batch = comparison(measured("faiss", 1.0, 0.2), measured("a", 1.0, 0.2, exhaustive=False))
    runner.add_fractions(batch, limits)
    # 100 queries of 10^9 multiply-adds in 0.2 s on two cores.
    assert batch.contenders[0].summary["of_int8_peak"] == pytest.approx(0.5)
    assert "of_int8_peak" not in batch.contenders[1].summary
    one = measured("faiss", 1.0, 0.1)
    one.built = {"scanned_bytes": 2e9}
    single = comparison(one, mode="single", n_threads=1)
    runner.add_fractions(single, limits)
    assert one.summary["of_stream"] == pytest.approx(0.5)
    # Each pair once.
    graph = comparison(measured("nearest", 1.0, 0.2), mode="graph")
    runner.add_fractions(graph, limits)
    assert graph.contenders[0].summary["of_int8_peak"] == pytest.approx(0.25)


# --- speed at exactly a recall ---


def points(*pairs: tuple[float, float], start: int = 1) -> list[sweep.Point]:
    return [sweep.Point({"n_probe": start + i}, recall, speed) for i, (recall, speed) in enumerate(pairs)]


def test_speed_at_a_recall() -> None:
    curve = points((0.8, 1000.0), (0.9, 400.0), (0.89, 300.0), (1.0, 100.0))
    assert [(one.recall, one.queries_per_second) for one in sweep.frontier(curve)] == [
        (0.8, 1000),
        (0.9, 400),
        (1, 100),
    ]
    assert [one.recall for one in sweep.around(curve, 0.95)] == [0.9, 1.0]
    # The logarithm falls evenly: half way is the geometric mean.
    assert sweep.speed_at(curve, 0.95) == pytest.approx(200)
    assert sweep.speed_at(curve, 0.9) == pytest.approx(400)
    # All find more than is wanted: at least the fastest.
    assert sweep.speed_at(curve, 0.5) == 1000
    assert sweep.speed_at(curve[:2], 0.95) is None
    assert sweep.around([], 0.9) == []
    # The recall of another build may differ a little: the line goes on, but not for ever.
    assert sweep.interpolated([(0.94, 200.0), (0.949, 100.0)], 0.95) == pytest.approx(92.6, abs=0.1)
    assert sweep.interpolated([(0.94, 200.0), (0.949, 100.0)], 0.99) is None
    assert sweep.interpolated([(0.96, 200.0), (0.97, 100.0)], 0.9) == 200
    assert sweep.interpolated([(0.96, 200.0), (0.96, 100.0)], 0.9) == 200


class StubProbe:
    """A library whose recall and speed follow from its effort; writes down what it was asked."""

    log: list[tuple[str, dict[str, Any]]]

    def __init__(self, name: str, n_threads: int, environment: dict[str, str]) -> None:
        self.name = name

    def __enter__(self) -> StubProbe:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> Any:
        if do == "build":
            if arguments["params"].get("fails"):
                raise WorkerError(f"{self.name}: no memory")
            self.slow = arguments["params"]["slow"]
            return {"build_seconds": 10.0 / self.slow}
        effort = arguments["effort"]
        self.log.append((self.name, effort))
        n_found = min(10, round(effort["n_probe"] / 6 + effort.get("factor", 0) / 10))
        ids = np.load(self.truth)[: arguments["n_queries"], :10].copy()
        ids[:, n_found:] = -1
        np.save(arguments["path"], ids)
        return {"seconds": self.slow * 1e-5 * (effort["n_probe"] + effort.get("factor", 0))}


def test_a_sweep_leaves_what_cannot_win(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubProbe, "log", [], raising=False)
    monkeypatch.setattr(StubProbe, "truth", str(data.folder / "truth.npy"), raising=False)
    monkeypatch.setattr(sweep, "Worker", StubProbe)
    ladder = tuple({"n_probe": 1 << i, "factor": factor} for factor in (1, 2) for i in range(8))
    methods = [
        Entry("numpy", ParameterSet(label, params, ladder, family="numpy lists"))
        for label, params in (("quick", {"slow": 1}), ("slow", {"slow": 9}), ("none", {"slow": 1, "fails": True}))
    ]
    methods.append(Entry("nearest", ParameterSet("asked", {}, asked=0.9)))
    curves = sweep.sweep(data, methods, (0.5, 0.9), settings=SETTINGS)
    quick, slow, none, asked = curves
    # Up to the recall and no farther; then the steps around each recall are halved.
    first = [effort["n_probe"] for name, effort in StubProbe.log if name == "numpy quick" and effort["factor"] == 1]
    assert first[:7] == [1, 2, 4, 8, 16, 32, 64]
    assert set(first[7:]) <= {24, 28, 30, 48, 56, 52, 60}
    assert len(first) > 8
    # It is left as soon as it is slower than the other where that reaches the recalls.
    assert max(point.recall for point in slow.points) < 0.5
    assert none.error is not None
    assert "no memory" in none.error
    assert not asked.points
    entries, left = sweep.chosen(curves, 0.9)
    assert [entry.parameters.label for entry in entries] == ["quick", "asked"]
    assert not left
    low, high = (effort["n_probe"] for effort in entries[0].parameters.efforts)
    assert high - low <= 8
    assert [entry.label for entry in sweep.chosen(curves, 0.5)[0]] == ["numpy quick"]
    entries, left = sweep.chosen(curves[1:3], 0.9)
    assert not entries
    assert left[0]["adapter"] == "numpy lists"
    assert sweep.quickest_built(curves, "numpy lists", 0.9, 0.8) is quick
    assert sweep.quickest_built(curves, "numpy trees", 0.9, 0.8) is None
    json.dumps(record.plain([curve.as_json() for curve in curves]), allow_nan=False)


def test_the_ratio_at_a_recall() -> None:
    def contender(family: str, recall: float, seconds: list[float], effort: int) -> Contender:
        name = family.split()[0]
        one = Contender(name, f"{family} effort={effort}", {"of": family}, {"effort": effort}, {}, False, False, family)
        one.sessions = [[{"seconds": value, "cpus": 1.0} for value in seconds]]
        one.score = {"recall": recall}
        one.summary = {"seconds": runner.spread(seconds), "queries_per_second": 100 / seconds[0]}
        one.built = {"memory_bytes": 50}
        return one

    both = comparison(
        contender("nearest fast", 0.94, [0.25, 0.25, 0.5], 3),
        contender("nearest fast", 0.96, [1.0, 1.0, 0.5], 4),
        contender("faiss lists", 0.95, [1.0, 2.0, 1.0], 1),
        contender("scann", 0.9, [0.1, 0.1, 0.1], 1),
        contender("nearest build", 0.97, [0.3, 0.3, 0.3], 1),
    )
    results = sweep.at_recall(both, 0.95, asked=("nearest build",))
    assert [one.family for one in results] == ["nearest build", "nearest fast", "faiss lists"]
    own, peer = sweep.best_own(results), sweep.best_peer(results)
    assert own is not None
    assert peer is not None
    assert (own.family, own.label, own.got) == ("nearest fast", "nearest fast", [0.94, 0.96])
    assert own.turns == pytest.approx([200, 200, 200])
    assert peer.turns == [100, 50, 100]
    value = sweep.ratio(own, peer)
    assert (value["median"], value["max"]) == (pytest.approx(2), pytest.approx(4))
    assert own.bytes_a_vector()["account_bytes_a_vector"] == 10
    rows = report.at_recall_rows(results)
    assert len(rows) == 3
    assert {len(row) for row in rows} == {len(report.AT_RECALL_HEAD)}
    assert rows[2][4] == "2.00 (2.00 – 4.00)"
    json.dumps(record.plain([one.as_json() for one in results]), allow_nan=False)


def test_rows_that_belong_together(data: DataSet) -> None:
    which = lists.clusters(data.vectors, 8, seed=1)
    assert (len(which), len(np.unique(which)) > 3) == (800, True)
    rows = lists.along(which, 200, seed=2)
    assert len(np.unique(rows)) == 200
    # All of some clusters and part of one.
    parts = [np.isin(np.flatnonzero(which == one), rows).mean() for one in np.unique(which)]
    assert sum(0 < part < 1 for part in parts) <= 1
    assert sorted(lists.along(which, 800, seed=2)) == list(range(800))
    order = np.argsort(-lists.closeness(data))
    nearest_one = truth.canonical_distances(data.vectors, data.queries, data.truth[:, :1], data.metric).argmin()
    assert order[0] == data.truth[nearest_one, 0]


# --- records ---


def test_records_are_never_overwritten(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        paths.append(record.new_path(tmp_path, "2026-11-20", "it"))
        record.write(paths[-1], {"value": float("nan"), "array": np.arange(2)[0]})
    assert [path.name for path in paths] == ["2026-11-20-it.json", "2026-11-20-it-2.json", "2026-11-20-it-3.json"]
    assert json.loads(paths[0].read_text()) == {"format": record.FORMAT, "value": None, "array": 0}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_record_names_its_commit(tmp_path: Path) -> None:
    assert machine.commit(tmp_path) is None
    for command in (
        ["git", "init", "-q"],
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    found = machine.commit(tmp_path)
    assert found is not None
    assert (len(found["commit"]), found["dirty"]) == (40, False)
    (tmp_path / "new").write_text("x")
    subprocess.run(["git", "add", "new"], cwd=tmp_path, check=True)
    found = machine.commit(tmp_path)
    assert found is not None
    assert (found["dirty"], found["dirty_files"]) == (True, ["new"])


def test_memory_of_this_process() -> None:
    held = np.ones(20_000_000, np.uint8)
    now = machine.memory_now()
    assert now["peak"] >= held.nbytes
    assert machine.describe()["n_cpus_usable"] >= 1


# --- the definitions ---


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, folder: Path, *options: str) -> dict[str, Any]:
    folders = "--out", str(folder / "out"), "--records", str(folder / "records")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), name, "--quick", *options, *folders],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "records").glob("*.json")
    assert path.with_suffix(".md").read_text() in done.stdout
    for text in (path.read_text(), path.with_suffix(".md").read_text()):
        assert str(folder) not in text
        assert str(BENCHMARKS.parent) not in text
        assert sys.prefix not in text
    written: dict[str, Any] = json.loads(path.read_text())
    return written


def failures(written: dict[str, Any]) -> list[str]:
    return [one["error"] for each in written["comparisons"].values() for one in each["contenders"] if one["error"]]


def test_smoke(tmp_path: Path) -> None:
    written = run("smoke", tmp_path, "--adapters", "nearest,numpy")
    assert set(written["comparisons"]) == {"batch", "single", "graph"}
    assert not failures(written)
    assert written["claims"]
    assert all(claim["met"] for claim in written["claims"])
    for name in ("commit", "machine", "nearest", "settings", "load", "command", "started"):
        assert name in written
    assert written["nearest"]["kernels"]


@pytest.mark.parametrize("name", [name for name in DEFINITIONS if name.startswith("lists-")])
def test_definitions_of_lists_run_without_peers(name: str, tmp_path: Path, shared_data: Any) -> None:
    shared_data("wordnet")
    written = run(name, tmp_path, "--adapters", "nearest", "--sets", "wordnet:n=1500", "--threads", "1")
    assert not failures(written)
    assert written["claims"]
    assert written["tables"]


@pytest.mark.long
@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_run(name: str, tmp_path: Path) -> None:
    written = run(name, tmp_path)
    assert not failures(written)
    # What depends on no clock holds at any size.
    for claim in written["claims"]:
        if claim["target"] == "0 queries differ":
            assert claim["met"] is not False, claim


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_say_what_they_show(name: str) -> None:
    stem = name.replace("-", "_")
    path = BENCHMARKS / "definitions" / f"{stem}.py"
    module = load(path if path.exists() else path.with_name(f"{stem}_.py"))
    assert module.__doc__
    assert callable(module.measure)


def test_what_the_native_programs_print_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = load(BENCHMARKS / "limits.py")
    printed = {
        "peak": "kernels: avx512\navx512\n  f32 peak on registers: 131 G multiply-adds/s\n"
        "  int8 peak on registers: 509 G multiply-adds/s\n  tiles, dim 128\n",
        "limits": '{"stream_1_gb_per_second": 34.5, "miss_nanoseconds": 110.0}\n',
    }
    monkeypatch.setattr(limits, "_example", lambda package, name, *arguments: (printed[name], None))
    found = limits.measure("avx512")
    assert found["f32_giga_multiply_adds_per_second"] == 131
    assert found["int8_giga_multiply_adds_per_second"] == 509
    assert found["missing"] == ["no bf16 rate at level avx512"]
    printed["limits"] = '{"stream_1_gb_per_second": 30.5}\n'
    again = limits.after(found)
    assert (again["stream_1_gb_per_second"], again["stream_1_gb_per_second_before"]) == (32.5, 34.5)


def test_importing_nearest_does_not_import_the_benchmarks(run_python: Any) -> None:
    run_python("import sys, nearest; assert not [name for name in sys.modules if name.startswith('nearest.bench')]")
