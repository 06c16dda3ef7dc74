"""The command line: what it does, what it says, and the exit code of every way to go wrong."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nearest
import numpy as np
import pytest
from nearest import cli, vector_files

N, DIM, N_QUERIES = 200, 12, 15


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder of its own, within this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def files(run: Run, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """vectors.npy, queries.npy, true neighbors in truth.npy, ids.txt; and the arrays."""
    vectors = rng.normal(size=(N, DIM)).astype(np.float32)
    queries = rng.normal(size=(N_QUERIES, DIM)).astype(np.float32)
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - vectors[None], axis=2)
    truth = np.argsort(distances, axis=1)[:, :20]
    np.save("vectors.npy", vectors)
    np.save("queries.npy", queries)
    np.save("truth.npy", truth)
    Path("ids.txt").write_text("".join(f"doc {i}\n" for i in range(N)), encoding="utf-8")
    return {"vectors": vectors, "queries": queries, "truth": truth, "distances": np.sort(distances, axis=1)[:, :20]}


def good(done: Done) -> Done:
    assert (done.code, done.err) == (0, ""), done
    return done


def refused(done: Done, message: str, code: int = 1) -> None:
    """It failed with this on the last line of stderr, no traceback and nothing on stdout."""
    assert done.code == code, done
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert message in lines[-1], done.err
    assert lines[-1].startswith("nearest")
    assert "Traceback" not in done.err
    if code == 1:
        assert len(lines) == 1


# --- as a program ---


def program(*arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-m", "nearest", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_it_is_a_program(tmp_path: Path, rng: np.random.Generator) -> None:
    done = program("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("demo", "info", "verify", "build", "search", "knn-graph", "convert", "exit codes"):
        assert word in done.stdout
    np.save(tmp_path / "v.npy", rng.normal(size=(50, 4)))
    done = program("build", "v.npy", "-o", "v.nearest", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "v.nearest: 50 vectors of 4 dimensions" in done.stdout
    done = program("search", "v.nearest", "missing.npy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nearest: missing.npy: No such file or directory\n"
    done = program("search", "v.nearest", cwd=tmp_path)
    assert done.returncode == 2
    assert "the following arguments are required: QUERIES" in done.stderr


def test_a_reader_that_leaves_early_is_no_drama(tmp_path: Path, rng: np.random.Generator) -> None:
    np.save(tmp_path / "v.npy", rng.normal(size=(3000, 4)))
    command = f"{sys.executable} -m nearest search v.npy v.npy -k 20 --json | head -c 10"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == '{"n_querie'
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_question_marks(tmp_path: Path, rng: np.random.Generator) -> None:
    np.save(tmp_path / "v.npy", rng.normal(size=(5, 4)))
    done = subprocess.run(
        [sys.executable, "-m", "nearest", "info", "v.npy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert b"5 ? 4 float64" in done.stdout


# --- info and verify ---


def test_info_of_the_machine(run: Run) -> None:
    done = good(run("info"))
    for word in ("kernels", "threads", "memory", "huge pages", "numpy"):
        assert word in done.out
    data = good(run("info", "--json")).json
    assert data["kernels"]["level"] in data["kernels"]["available"]
    assert data["n_threads"] >= 1
    assert 0 < data["available_bytes"]
    assert data["numpy"] == np.__version__


def test_info_of_files(run: Run, files: Any) -> None:
    assert f"{N} × {DIM} float32, can be mapped" in good(run("info", "vectors.npy")).out
    assert good(run("info", "vectors.npy", "--json")).json["arrays"] == [
        {"name": "", "shape": [N, DIM], "dtype": "float32", "mapped": True}
    ]
    np.savez("several.npz", base=files["vectors"], texts=np.array(["a"]), what=np.array([{}], object), metric="cosine")
    done = good(run("info", "several.npz"))
    assert "text" in done.out
    assert "a pickle, never read" in done.out
    assert good(run("info", "several.npz", "--json")).json["metric"] == "cosine"
    good(run("build", "vectors.npy", "-o", "v.nearest", "--metric", "cosine", "--ids", "ids.txt"))
    data = good(run("info", "v.nearest", "--json")).json
    assert data["content"]["count"] == N
    assert data["content"]["dim"] == DIM
    assert data["content"]["metric"] == "cosine"
    assert data["content"]["encoding"] == "float32"
    assert data["content"]["ids"] == "text"
    assert data["sections"]
    assert data["file_bytes"] == os.path.getsize("v.nearest")
    assert "checksums" in good(run("info", "v.nearest")).out


def test_verify(run: Run, files: Any) -> None:
    good(run("build", "vectors.npy", "-o", "v.nearest"))
    good(run("knn-graph", "vectors.npy", "-o", "g.nearest", "-k", 3))
    done = good(run("verify", "v.nearest", "g.nearest", "vectors.npy"))
    assert done.out.count(": ok, ") == 3

    content = bytearray(Path("v.nearest").read_bytes())
    content[len(content) // 2] ^= 0x40
    Path("bad.nearest").write_bytes(content)
    done = run("verify", "bad.nearest", "v.nearest", "missing.npy")
    assert done.code == 1
    assert done.out.startswith("v.nearest: ok, ")
    assert "bad.nearest" in done.err
    assert "missing.npy: No such file or directory" in done.err
    data = run("verify", "bad.nearest", "v.nearest", "--json")
    assert data.code == 1
    assert [entry["ok"] for entry in data.json["files"]] == [False, True]

    files["vectors"][7, 3] = np.nan
    np.save("nan.npy", files["vectors"])
    refused(run("verify", "nan.npy"), "nan.npy: expected finite numbers, got NaN or infinity in row 7")


# --- build and search ---


def test_build_and_search(run: Run, files: Any) -> None:
    done = good(run("build", "vectors.npy", "-o", "v.nearest", "--ids", "ids.txt"))
    assert f"v.nearest: {N} vectors of {DIM} dimensions, euclidean, float32" in done.out
    index = nearest.open("v.nearest")
    assert isinstance(index, nearest.Index)
    assert len(index) == N
    assert "doc 7" in index

    data = good(run("search", "v.nearest", "queries.npy", "-k", 3, "--json")).json
    assert data["n_queries"] == N_QUERIES
    assert [entry["ids"] for entry in data["neighbors"]] == [[f"doc {i}" for i in row[:3]] for row in files["truth"]]
    found = [entry["distances"] for entry in data["neighbors"]]
    np.testing.assert_allclose(found, files["distances"][:, :3], rtol=1e-5)

    text = good(run("search", "v.nearest", "queries.npy", "-k", 3)).out
    assert f"doc {files['truth'][0, 0]}" in text
    assert "… 10 more queries" in text


def test_structures_that_are_asked_for(run: Run, files: Any) -> None:
    np.save("many.npy", np.random.default_rng(0).standard_normal((2000, DIM)).astype("f4"))
    for options, structure in (
        (("--graph",), nearest.Graph()),
        (("--graph", 12), nearest.Graph(12)),
        (("--lists", 16), nearest.Lists(16)),
        (("--shadow", "scalar8"), nearest.Exact(shadow="scalar8")),
    ):
        good(run("build", "many.npy", "-o", "v.nearest", *options))
        assert nearest.open("v.nearest").structure == structure
        assert good(run("verify", "v.nearest")).out
    refused(
        run("build", "many.npy", "-o", "v.nearest", "--graph", "--lists", 9),
        "--lists and --graph do not go together",
        code=2,
    )


@pytest.mark.parametrize("index", ["vectors.npy", "v.nearest"])
def test_recall_is_printed_with_a_truth(run: Run, files: Any, index: str) -> None:
    good(run("build", "vectors.npy", "-o", "v.nearest", "--shadow", "scalar8"))
    assert "recall@10 1.0000" in good(run("search", index, "queries.npy", "--truth", "truth.npy")).out
    wrong = files["truth"].copy()
    # Farther ones in the places of true ones: what is found is nearer still, and counts.
    wrong[:, :10] = files["truth"][:, 10:]
    np.save("wrong.npy", wrong)
    assert good(run("search", index, "queries.npy", "--truth", "wrong.npy", "--json")).json["recall"] == 1.0
    refused(
        run("search", index, "queries.npy", "-k", 21, "--truth", "truth.npy"),
        f"truth.npy: expected true neighbors of shape ({N_QUERIES}, at least 21), got ({N_QUERIES}, 20)",
    )
    np.save("beyond.npy", files["truth"] + N)
    assert run("search", index, "queries.npy", "--truth", "beyond.npy").code == 1


def test_ties_are_no_misses(run: Run, files: Any) -> None:
    np.save("twice.npy", np.repeat(files["vectors"], 2, axis=0))
    np.save("second.npy", 2 * files["truth"] + 1)  # of each pair, the one that a search puts behind the other
    done = good(run("search", "twice.npy", "queries.npy", "-k", 1, "--truth", "second.npy", "--json"))
    assert done.json["recall"] == 1.0


@pytest.mark.parametrize("suffix", [".npz", ".ivecs", ".json", ".csv"])
@pytest.mark.parametrize("index", ["vectors.npy", "v.nearest"])
def test_results_as_files(run: Run, files: Any, index: str, suffix: str) -> None:
    good(run("build", "vectors.npy", "-o", "v.nearest"))
    path = f"found{suffix}"
    done = good(run("search", index, "queries.npy", "-k", 4, "-o", path, "--json"))
    assert done.json["output"] == path
    assert "neighbors" not in done.json
    truth, distances = files["truth"][:, :4], files["distances"][:, :4]
    if suffix == ".npz":
        with np.load(path) as arrays:
            np.testing.assert_array_equal(arrays["ids"], truth)
            np.testing.assert_allclose(arrays["distances"], distances, rtol=1e-5)
    elif suffix == ".ivecs":
        np.testing.assert_array_equal(vector_files.read_vectors(path), truth)
    elif suffix == ".json":
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        assert [row["ids"] for row in rows] == truth.tolist()
    else:
        with open(path, newline="", encoding="utf-8") as lines:
            table = list(csv.DictReader(lines))
        assert [int(row["id"]) for row in table] == truth.ravel().tolist()
        assert [int(row["query"]) for row in table] == np.repeat(np.arange(N_QUERIES), 4).tolist()
        np.testing.assert_allclose([float(row["distance"]) for row in table], distances.ravel(), rtol=1e-5)
    if suffix in (".npz", ".ivecs"):
        assert "recall@4 1.0000" in good(run("search", index, "queries.npy", "-k", 4, "--truth", path)).out


@pytest.mark.parametrize("index", ["vectors.npy", "v.nearest"])
def test_filter_and_radius(run: Run, files: Any, index: str) -> None:
    good(run("build", "vectors.npy", "-o", "v.nearest"))
    Path("some.txt").write_text("3\n5\n8\n", encoding="utf-8")
    data = good(run("search", index, "queries.npy", "--filter-ids", "some.txt", "--json")).json
    assert all(sorted(entry["ids"]) == [3, 5, 8] for entry in data["neighbors"])
    assert all(entry["distances"] == sorted(entry["distances"]) for entry in data["neighbors"])

    radius = float(np.median(files["distances"][:, 5]))
    wanted = [int((row <= radius).sum()) for row in files["distances"]]
    data = good(run("search", index, "queries.npy", "--radius", radius, "--json")).json
    assert [min(20, len(entry["ids"])) for entry in data["neighbors"]] == wanted
    good(run("search", index, "queries.npy", "--radius", radius, "-o", "near.npz"))
    with np.load("near.npz") as arrays:
        assert arrays["offsets"].shape == (N_QUERIES + 1,)
        assert arrays["offsets"][-1] == len(arrays["ids"]) == len(arrays["distances"]) == data["n_found"]
    good(run("search", index, "queries.npy", "--radius", 0, "-o", "none.csv"))
    assert Path("none.csv").read_text(encoding="utf-8") == "query,rank,id,distance\n"
    refused(run("search", index, "queries.npy", "--radius", 1, "-o", "x.ivecs"), "which .ivecs cannot hold", 2)
    refused(run("search", index, "queries.npy", "--radius", 1, "-k", 3), "--radius and -k do not go together", 2)


def test_one_file_with_everything(run: Run, files: Any) -> None:
    np.savez("all.npz", base=files["vectors"], queries=files["queries"], gt=files["truth"], metric="sqeuclidean")
    data = good(run("search", "all.npz", "all.npz", "--truth", "all.npz", "--json")).json
    assert (data["metric"], data["recall"], data["n_queries"]) == ("sqeuclidean", 1.0, N_QUERIES)
    assert "sqeuclidean (stated by the file)" in good(run("build", "all.npz", "-o", "a.nearest")).out
    assert "manhattan, " in good(run("build", "all.npz", "-o", "m.nearest", "--metric", "manhattan")).out
    refused(run("search", "m.nearest", "all.npz", "--metric", "cosine"), "built for manhattan, got --metric cosine")


def test_k_larger_than_the_index_is_no_error(run: Run, files: Any) -> None:
    np.save("few.npy", files["vectors"][:3])
    data = good(run("search", "few.npy", "queries.npy", "-k", 10, "--json")).json
    assert all(len(entry["ids"]) == 3 for entry in data["neighbors"])


def test_ids_as_text_or_integers(run: Run, files: Any) -> None:
    Path("numbers.txt").write_text("".join(f"{i + 1000}\n" for i in range(N)), encoding="utf-8")
    good(run("build", "vectors.npy", "-o", "i.nearest", "--ids", "numbers.txt"))
    good(run("build", "vectors.npy", "-o", "t.nearest", "--ids", "numbers.txt", "--text-ids"))
    assert 1000 in nearest.open("i.nearest")  # type: ignore[operator]
    assert "1000" in nearest.open("t.nearest")  # type: ignore[operator]
    refused(run("search", "t.nearest", "queries.npy", "-o", "t.ivecs"), ".ivecs holds ids below 2^31, got others")
    assert not Path("t.ivecs").exists()
    good(run("search", "t.nearest", "queries.npy", "-o", "t.npz"))
    assert vector_files.read_ids("numbers.txt", text=True)[0] == "1000"
    with np.load("t.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].dtype.kind == "U"


# --- knn-graph and convert ---


def test_knn_graph(run: Run, files: Any) -> None:
    done = good(run("knn-graph", "vectors.npy", "-k", 5, "-o", "g.nearest", "--exact"))
    assert f"5 neighbors of each of {N} vectors" in done.out
    table = nearest.open("g.nearest")
    assert isinstance(table, nearest.NeighborTable)
    assert (len(table), table.k) == (N, 5)
    assert good(run("info", "g.nearest", "--json")).json["content"] == {"count": N, "k": 5, "metric": "euclidean"}
    for command in ("search", "convert"):
        refused(run(command, "g.nearest", "queries.npy"), "expected an index, got a table of neighbors")


@pytest.mark.parametrize("suffix", [".npz", ".fvecs", ".fbin", ".npy"])
def test_convert(run: Run, files: Any, suffix: str) -> None:
    good(run("build", "vectors.npy", "-o", "v.nearest", "--ids", "ids.txt", "--metric", "cosine"))
    for source in ("vectors.npy", "v.nearest"):
        data = good(run("convert", source, f"copy{suffix}", "--json")).json
        assert (data["count"], data["dim"], data["dtype"]) == (N, DIM, "float32")
        np.testing.assert_array_equal(vector_files.read_vectors(f"copy{suffix}"), files["vectors"])
        assert data["left_out"] == (["ids"] if source == "v.nearest" and suffix != ".npz" else [])
    if suffix == ".npz":
        assert vector_files.read_ids("copy.npz")[7] == "doc 7"
        assert vector_files.open_file("copy.npz").metric == "cosine"
    data = good(run("convert", "vectors.npy", "half.npy", "--dtype", "float16", "--json")).json
    assert data["dtype"] == "float16"
    refused(run("convert", "vectors.npy", "v.u8bin"), "vectors.npy as .u8bin: uint8 cannot hold the value")
    assert sorted(path.name for path in Path().glob("*.tmp")) == []
    assert not Path("v.u8bin").exists()


# --- what is wrong ---


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["build", "missing.npy", "-o", "x"], "missing.npy: No such file or directory"),
        (["build", "ids.txt", "-o", "x"], "ids.txt: unknown kind of file '.txt', expected one of .npy, .npz"),
        (["build", "cut.npy", "-o", "x"], "cut.npy: truncated"),
        (["build", "folder.npy", "-o", "x"], "folder.npy: expected a file, got a folder"),
        (["build", "vectors.npy", "-o", "no/such/x"], "no such folder to write to"),
        (["build", "vectors.npy", "-o", "."], ".: expected a file to write, got a folder"),
        (["build", "vectors.npy", "-o", "x", "--encoding", "uint4"], "encoding must be one of float32"),
        (["build", "vectors.npy", "-o", "x", "--metric", "hamming"], "packbits"),
        (["build", "vectors.npy", "-o", "x", "--ids", "few.txt"], f"ids must be one a vector, {N} in all, got 2"),
        (["build", "nan.npy", "-o", "x"], "vectors"),
        (["search", "vectors.npy", "narrow.npy"], f"queries must have shape (n, {DIM})"),
        (["search", "cut.nearest", "queries.npy"], "cut.nearest"),
        (["search", "ids.txt", "queries.npy"], "ids.txt"),
        (["search", "folder", "queries.npy"], "folder"),
        (["search", "vectors.npy", "queries.npy", "--filter-ids", "ids.txt"], "ids"),
        (["info", "missing"], "missing: No such file or directory"),
        (["info", "cut.npy"], "cut.npy: truncated"),
        (["convert", "vectors.npy", "x.pkl"], "x.pkl: unknown kind of file, expected one of .npy"),
        (["knn-graph", "flat.npy", "-o", "x"], "flat.npy: expected vectors of shape (n, dim), got shape (5,)"),
        (["knn-graph", "pickle.npy", "-o", "x"], "pickle.npy: holds Python objects"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_fails_says_why_and_leaves_nothing(run: Run, files: Any, command: list[str], message: str) -> None:
    Path("cut.npy").write_bytes(Path("vectors.npy").read_bytes()[:-5])
    Path("folder.npy").mkdir()
    Path("folder").mkdir()
    Path("few.txt").write_text("a\nb\n", encoding="utf-8")
    np.save("narrow.npy", files["queries"][:, :5])
    np.save("flat.npy", np.zeros(5))
    np.save("nan.npy", np.full((3, 4), np.nan))
    np.save("pickle.npy", np.array([[None]]), allow_pickle=True)
    good(run("build", "vectors.npy", "-o", "v.nearest"))
    Path("cut.nearest").write_bytes(Path("v.nearest").read_bytes()[:100])
    before = sorted(os.listdir())
    refused(run(*command), message)
    assert sorted(os.listdir()) == before
    done = run(*command, "--json")
    assert (done.code, done.out) == (1, "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["compare", "x"], "invalid choice: 'compare'"),
        (["build", "vectors.npy"], "required: -o/--output"),
        (["search", "v", "q", "-k", "0"], "expected a whole number from 1 on, got 0"),
        (["search", "v", "q", "-k", "x"], "invalid whole number value: 'x'"),
        (["search", "v", "q", "-o", "found.txt"], "expected a name ending in .npz, .ivecs, .json or .csv"),
        (["build", "v", "-o", "x", "--recall", "1.5"], "expected a number above 0 and at most 1, got 1.5"),
        (["search", "v", "q", "--radius", "nan"], "expected a finite number, got nan"),
        (["build", "v", "-o", "x", "--metric", "l2"], "invalid choice: 'l2'"),
        (["build", "v", "-o", "x", "--shadow", "scalar2"], "invalid choice: 'scalar2'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_exit_code_2(run: Run, command: list[str], message: str) -> None:
    refused(run(*command), message, 2)


def test_interrupted(run: Run, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nearest, "build", interrupted)
    before = sorted(os.listdir())
    done = run("build", "vectors.npy", "-o", "v.nearest")
    assert (done.code, done.out) == (130, "")
    assert done.err == "nearest: interrupted; nothing half-made was left\n"
    assert sorted(os.listdir()) == before


def test_a_bug_is_one_line_too_and_a_traceback_if_wanted(run: Run, files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(nearest, "build", broken)
    refused(run("build", "vectors.npy", "-o", "x"), "unexpected ZeroDivisionError: oh no (--traceback shows where)")
    with pytest.raises(ZeroDivisionError):
        run("build", "vectors.npy", "-o", "x", "--traceback")


def test_an_output_is_replaced_as_a_whole(run: Run, files: Any) -> None:
    Path("found.json").write_text("old", encoding="utf-8")
    refused(run("search", "vectors.npy", "cut.npy", "-o", "found.json"), "cut.npy: No such file")
    assert Path("found.json").read_text(encoding="utf-8") == "old"
    good(run("search", "vectors.npy", "queries.npy", "-o", "found.json"))
    assert len(json.loads(Path("found.json").read_text(encoding="utf-8"))) == N_QUERIES
