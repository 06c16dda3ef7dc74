"""The command line, in the words of the API: nearest demo | info | verify | build | search | knn-graph | convert."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .neighbors import Neighbors

# Commands import what they need: `nearest --help` should not wait for numpy's parts that it does not show.

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
Vectors are read from .npy, .npz, .fvecs/.bvecs/.ivecs, .fbin/.u8bin/.i8bin, .hdf5/.h5 (as ann-benchmarks lays them
out), .parquet, .arrow/.feather; HDF5 and tables need `pip install nearest[io]`. A file of several arrays is asked for
one as FILE.npz:NAME; without, `vectors`, `base` or `train` is taken for vectors, `queries` or `test` for queries,
`gt` or `neighbors` for the truth. No pickle is ever read.

exit codes: 0 done; 1 it failed (a file or its data, memory, disk): the reason is one line on stderr; 2 the command
line is wrong; 130 interrupted by Ctrl-C. Outputs are written beside and renamed: a run that fails leaves nothing
half-made.
"""

_SHOWN_QUERIES = 5


class Report(NamedTuple):
    """What a command has to say: as data for ``--json``, as text for a person."""

    data: dict[str, Any]
    text: str
    exit_code: int = EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of this process.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 130 interrupted. A wrong command line ends by `SystemExit` with 2.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        report: Report = args.run(args)
        _say(json.dumps(report.data, allow_nan=False, ensure_ascii=False) if args.json else report.text)
        return report.exit_code
    except KeyboardInterrupt:
        if args.traceback:
            raise
        print("nearest: interrupted; nothing half-made was left", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does. Python would complain again while it closes stdout.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if args.traceback:
            raise
        print(f"nearest: {_one_line(error)}", file=sys.stderr)
        return EXIT_FAILED


def _say(text: str) -> None:
    if not text:
        return
    encoding = sys.stdout.encoding or "utf-8"
    # A terminal that cannot show a sign gets a question mark, not a traceback.
    print(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _one_line(error: Exception) -> str:
    from .errors import NearestError

    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return " ".join(str(text).split())
    if isinstance(error, MemoryError):
        return f"not enough memory: {text}" if text else "not enough memory"
    if isinstance(error, (NearestError, OSError, ImportError, NotImplementedError)):
        return text
    return f"unexpected {type(error).__name__}: {text} (--traceback shows where)"


# --- the words ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nearest",
        description="Nearest-neighbour search: exact where that is fast enough, and always with a recall it can state.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nearest {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    common.add_argument("--traceback", action="store_true", help="on an error, show where it happened")

    long_work = argparse.ArgumentParser(add_help=False)
    long_work.add_argument("--quiet", action="store_true", help="no progress bar")

    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--n-threads", type=_count, metavar="N", help="threads to use (default: all it may run on)")

    def command(name: str, run: Any, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, parents=[*parents, common])
        sub.set_defaults(run=run)
        return sub

    command("demo", _demo, "search 12 000 texts by meaning, and measure it on this machine", threads)

    sub = command("info", _info, "what this machine offers, or what a file holds")
    sub.add_argument("path", nargs="?", metavar="FILE", help="an index, a table of neighbors, or a file of vectors")

    sub = command("verify", _verify, "check every byte of files", long_work)
    sub.add_argument("paths", nargs="+", metavar="FILE", help="indexes, tables of neighbors, files of vectors")

    sub = command("build", _build, "build an index from vectors", long_work, threads)
    sub.add_argument("vectors", metavar="VECTORS", help="a file of vectors")
    sub.add_argument("-o", "--output", required=True, metavar="INDEX", help="the index to write, such as words.nearest")
    _add_metric(sub)
    sub.add_argument("--encoding", default="auto", metavar="NAME", help="how vectors are stored (default: chosen)")
    sub.add_argument("--shadow", choices=["scalar8"], help="keep a smaller copy that makes single queries faster")
    sub.add_argument(
        "--lists", type=_count, nargs="?", const=0, metavar="N", help="inverted lists, as many as are given or as suit"
    )
    sub.add_argument(
        "--graph", type=_count, nargs="?", const=32, metavar="N", help="a graph of as many links a vector (default: 32)"
    )
    sub.add_argument(
        "--workload", choices=["single", "batch"], default="single", help="how queries come (default: %(default)s)"
    )
    sub.add_argument("--memory", type=_memory, metavar="M", help="bytes to take (500M, 2G), or low: as few as possible")
    sub.add_argument("--ids", metavar="FILE", help=".txt with one id a line, or an array or column (FILE.parquet:id)")
    sub.add_argument("--text-ids", action="store_true", help="take ids that look like integers as text")
    sub.add_argument(
        "--recall", type=_share, default=0.95, metavar="R", help="the recall to reach (default: %(default)s)"
    )
    sub.add_argument("-k", type=_count, default=10, metavar="K", help="the k that recall is for (default: %(default)s)")

    sub = command("search", _search, "find the nearest neighbors of queries", long_work, threads)
    sub.add_argument("index", metavar="INDEX", help="an index, or a file of vectors (searched exactly)")
    sub.add_argument("queries", metavar="QUERIES", help="a file of vectors")
    sub.add_argument("-k", type=_count, metavar="K", help="neighbors per query (default: 10)")
    _add_metric(sub, " (for a file of vectors; an index knows its own)")
    sub.add_argument("--recall", type=_share, metavar="R", help="the recall wanted, if the index was calibrated")
    sub.add_argument("--effort", type=_count, metavar="E", help="lists to look at, or candidates to keep")
    sub.add_argument("--radius", type=_finite, metavar="R", help="instead of k: everything up to this distance")
    sub.add_argument("--filter-ids", metavar="FILE", help="search only among these ids")
    sub.add_argument("-o", "--output", type=_result_path, metavar="FILE", help="write to .npz, .ivecs, .json or .csv")
    sub.add_argument("--truth", metavar="FILE", help="true neighbors (.ivecs, .npy, FILE.npz:gt): print the recall")

    sub = command("knn-graph", _knn_graph, "find the nearest others of every vector", long_work, threads)
    sub.add_argument("vectors", metavar="VECTORS", help="a file of vectors")
    sub.add_argument("-k", type=_count, default=15, metavar="K", help="neighbors per vector (default: %(default)s)")
    sub.add_argument("-o", "--output", required=True, metavar="TABLE", help="the table to write, such as graph.nearest")
    _add_metric(sub)
    sub.add_argument("--exact", action="store_true", help="the true neighbors")
    sub.add_argument(
        "--recall", type=_share, default=0.95, metavar="R", help="else the recall to reach (default: %(default)s)"
    )

    sub = command("convert", _convert, "copy vectors from one kind of file, or an index, to another", long_work)
    sub.add_argument("input", metavar="IN", help="a file of vectors, or an index")
    sub.add_argument("output", metavar="OUT", help="the file of vectors to write; its suffix says the kind")
    sub.add_argument("--dtype", choices=_DTYPES, help="convert to this type; a value it cannot hold is an error")
    return parser


_DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64"]


def _add_metric(parser: argparse.ArgumentParser, more: str = "") -> None:
    from .params import METRICS

    text = f"(default: what the file states, else euclidean){more}"
    parser.add_argument("--metric", choices=METRICS, metavar="NAME", help=f"{', '.join(METRICS)} {text}")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text}")
    return number


def _memory(text: str) -> int | str:
    """Bytes with a unit, or "low"."""
    if text == "low":
        return text
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        return int(float(number.removesuffix(unit)) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected bytes such as 500M or 2G, or low, got {text!r}") from None


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text}")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return number


_finite.__name__ = "number"
_count.__name__ = "whole number"  # argparse shows it: «invalid whole number value: 'x'»
_share.__name__ = "number"


def _result_path(text: str) -> str:
    if os.path.splitext(text)[1].lower() not in (".npz", ".ivecs", ".json", ".csv"):
        raise argparse.ArgumentTypeError(f"expected a name ending in .npz, .ivecs, .json or .csv, got {text}")
    return text


def _version() -> str:
    try:
        return importlib.metadata.version("nearest")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _progress(args: argparse.Namespace) -> Any:
    return False if args.quiet else None


def _lines(pairs: Sequence[tuple[str, object]]) -> str:
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in pairs)


def size_text(n_bytes: int) -> str:
    """Bytes for a person: three digits and a unit."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def number_text(n: float) -> str:
    """A count with thin groups: 12 000."""
    return f"{n:,.0f}".replace(",", " ")


# --- demo, info, verify ---


def _demo(args: argparse.Namespace) -> Report:
    from . import demo

    result = demo.run(n_threads=args.n_threads)
    return Report(result, demo.text_of(result))


def _info(args: argparse.Namespace) -> Report:
    if args.path is None:
        return _machine()
    from . import vector_files

    if vector_files.is_vector_file(args.path):
        contents = vector_files.open_file(args.path)
        arrays = [
            {"name": array.name, "shape": list(array.shape), "dtype": _dtype_text(array.dtype), "mapped": array.mapped}
            for array in contents.arrays.values()
        ]
        data = {
            "path": args.path,
            "kind": contents.kind,
            "file_bytes": os.path.getsize(next(iter(contents.arrays.values())).path),
            "metric": contents.metric,
            "arrays": arrays,
        }
        rows: list[tuple[str, object]] = [("kind", contents.kind), ("file", size_text(data["file_bytes"]))]
        if contents.metric:
            rows.append(("metric", contents.metric))
        for array in contents.arrays.values():
            how = "can be mapped" if array.mapped else "never read" if array.dtype.hasobject else "has to be decoded"
            shape = " × ".join(map(str, array.shape)) or "a single value,"
            rows.append((array.name or "array", f"{shape} {_dtype_text(array.dtype)}, {how}"))
        return Report(data, _lines(rows))
    data = _describe(args.path)
    rows = [(name, data[name]) for name in ("kind", "version")]
    rows += [("file", size_text(data["file_bytes"]))]
    rows += [(name, _plain_text(value)) for name, value in data["content"].items()]
    rows += [("checksums", "header, table and small sections verified; `nearest verify` checks every byte")]
    for section in data["sections"]:
        shape = " × ".join(map(str, section["shape"]))
        rows.append((f"  {section['name']}", f"{shape} {section['dtype']}, {size_text(section['bytes'])}"))
    return Report(data, _lines(rows))


def _dtype_text(dtype: np.dtype[Any]) -> str:
    return "a pickle" if dtype.hasobject else "text" if dtype.kind in "SU" else str(dtype)


def _plain_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain_text(inner)}" for name, inner in value.items())
    return number_text(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _describe(path: str) -> dict[str, Any]:
    """A file of ours: what its table says, and what opening it shows."""
    import nearest
    from nearest import _native

    described = _native.describe(path)
    opened = nearest.open(path)
    content: dict[str, Any]
    if isinstance(opened, nearest.NeighborTable):
        content = {"count": len(opened), "k": opened.k, "metric": opened.metric}
    else:
        content = {
            "count": len(opened),
            "dim": opened.dim,
            "metric": opened.metric,
            "encoding": opened.encoding,
            "structure": str(opened.structure),
            "ids": opened.stats()["id_kind"],
        }
    sections = [{**section, "shape": list(section["shape"])} for section in described["sections"]]
    return {
        "path": path,
        "kind": described["kind"],
        "version": described["version"],
        "file_bytes": described["file_bytes"],
        "content": content,
        "sections": sections,
    }


def _machine() -> Report:
    import numpy as np

    from nearest import _native

    kernels = _native.kernels()
    extras: dict[str, str | None] = {}
    for name in ("h5py", "pyarrow", "tqdm"):
        try:
            extras[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            extras[name] = None
    memory_bytes = _memory_bytes()
    data = {
        "version": _version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "kernels": kernels,
        "n_threads": _native.default_n_threads(),
        "available_bytes": _native.available_bytes(),
        "memory_bytes": memory_bytes,
        "huge_pages": _huge_pages(),
        "extras": extras,
    }
    installed = ", ".join(f"{name} {version}" for name, version in extras.items() if version)
    missing = ", ".join(name for name, version in extras.items() if not version)
    rows: list[tuple[str, object]] = [
        ("nearest", data["version"]),
        ("python", f"{data['python']}, numpy {data['numpy']}"),
        ("platform", data["platform"]),
        ("cpu", data["cpu"]),
        ("kernels", f"{kernels['level']} (available: {', '.join(kernels['available'])})"),
        ("threads", data["n_threads"]),
        ("memory", f"{size_text(_native.available_bytes())} available" + _of(memory_bytes)),
        ("huge pages", data["huge_pages"] or "unknown"),
        ("extras", "; ".join(part for part in (installed, missing and f"not installed: {missing}") if part)),
    ]
    if kernels.get("warning"):
        rows.append(("warning", kernels["warning"]))
    return Report(data, _lines(rows))


def _of(n_bytes: int | None) -> str:
    return f" of {size_text(n_bytes)}" if n_bytes else ""


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _huge_pages() -> str | None:
    """Linux's setting for transparent huge pages: always, madvise (enough for us) or never."""
    with contextlib.suppress(OSError), open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
        text = file.read()
        return text[text.find("[") + 1 : text.find("]")] if "[" in text else text.strip()
    return None


def _verify(args: argparse.Namespace) -> Report:
    results = []
    for path in args.paths:
        try:
            results.append({"path": path, "ok": True, "what": _verify_one(path, args)})
        except (OSError, ValueError, ImportError, MemoryError) as error:
            if args.traceback:
                raise
            results.append({"path": path, "ok": False, "error": _one_line(error)})
            if not args.json:
                print(f"nearest: {_named(path, _one_line(error))}", file=sys.stderr)
    good = [result for result in results if result["ok"]]
    text = "\n".join(f"{result['path']}: ok, {result['what']}" for result in good)
    return Report({"files": results}, text, EXIT_OK if len(good) == len(results) else EXIT_FAILED)


def _named(path: str, text: str) -> str:
    return text if path in text else f"{path}: {text}"


def _verify_one(path: str, args: argparse.Namespace) -> str:
    import numpy as np

    import nearest

    from . import vector_files
    from .errors import FormatError
    from .progress import shown

    if not vector_files.is_vector_file(path):
        nearest.verify(path)
        return f"every byte checked ({size_text(os.path.getsize(path))})"
    n = 0
    with shown(_progress(args)) as report:
        for array in vector_files.open_file(path).arrays.values():
            if array.dtype.kind not in "fiu" or not array.shape:
                continue
            start = 0
            for block in array.blocks():
                if block.dtype.kind == "f" and not np.isfinite(block).all():
                    row = start + int(np.argmin(np.isfinite(block).reshape(len(block), -1).all(axis=1)))
                    raise FormatError(f"{array.label}: expected finite numbers, got NaN or infinity in row {row}")
                start += len(block)
                if report is not None:
                    report(start, array.shape[0], "verify")
            n += 1
    count = "1 array" if n == 1 else f"{n} arrays"
    return f"header and size agree, all values are finite ({count}; this kind of file has no checksums of ours)"


# --- build, search, knn-graph, convert ---


def _read(path: str, role: str = "vectors") -> NDArray[Any]:
    """Vectors for native code, which wants rows side by side: a strided map is copied if there is plenty of memory."""
    import numpy as np

    from nearest import _native

    from . import vector_files

    array = vector_files.read_vectors(path, role=role)
    if not (array.flags.c_contiguous and array.flags.aligned) and array.nbytes < _native.available_bytes() // 4:
        array = np.require(array, requirements=["C", "A"])
    return array


def _metric(args: argparse.Namespace, path: str) -> tuple[str, str]:
    """The metric, and how it came about."""
    from . import vector_files

    if args.metric is not None:
        return args.metric, ""
    stated = vector_files.open_file(path).metric
    return (stated, " (stated by the file)") if stated is not None else ("euclidean", "")


def _build(args: argparse.Namespace) -> Report:
    import nearest

    from . import vector_files

    vectors = vector_files.read_vectors(args.vectors)
    metric, why = _metric(args, args.vectors)
    ids = vector_files.read_ids(args.ids, text=args.text_ids) if args.ids else None
    _check_output(args.output)
    started = time.perf_counter()
    index = nearest.build(
        vectors,
        ids=ids,
        metric=metric,
        recall=args.recall,
        k=args.k,
        memory=args.memory,
        workload=args.workload,
        structure=_structure(args),
        encoding=args.encoding,
        n_threads=args.n_threads,
        progress=_progress(args),
    )
    index.save(args.output)
    seconds = time.perf_counter() - started
    data = {
        "output": args.output,
        "count": len(index),
        "dim": index.dim,
        "metric": metric,
        "encoding": index.encoding,
        "structure": str(index.structure),
        "file_bytes": os.path.getsize(args.output),
        "seconds": round(seconds, 3),
    }
    text = (
        f"{args.output}: {number_text(len(index))} vectors of {index.dim} dimensions, {metric}{why}, "
        f"{index.encoding}, {data['structure']}, {size_text(data['file_bytes'])}, {seconds:.1f} s"
    )
    data["rerank"] = index.rerank
    data["explanation"] = index.explanation
    return Report(data, f"{text}\n{index.explanation}")


def _structure(args: argparse.Namespace) -> Any:
    import nearest

    given = [name for name in ("shadow", "lists", "graph") if getattr(args, name) is not None]
    if len(given) > 1:
        raise _usage("build", f"--{given[0]} and --{given[1]} do not go together")
    if args.lists is not None:
        return nearest.Lists(args.lists or None)
    if args.graph is not None:
        return nearest.Graph(args.graph)
    return nearest.Exact(shadow=args.shadow) if args.shadow else "auto"


def _check_output(path: str) -> None:
    """What can be known to fail is told before the work, not after it."""
    from .errors import ArgumentError

    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(2, "no such folder to write to", folder)
    if os.path.isdir(path):
        raise IsADirectoryError(21, "expected a file to write, got a folder", path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise ArgumentError(f"{path}: expected a file to write, got a pipe or a device")
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, "may not write to this folder", folder)


def _search(args: argparse.Namespace) -> Report:
    import nearest

    from . import vector_files
    from .errors import ArgumentError

    if args.radius is not None:
        for given, name in ((args.k, "-k"), (args.truth, "--truth")):
            if given is not None:
                raise _usage("search", f"--radius and {name} do not go together")
        if args.output and args.output.lower().endswith(".ivecs"):
            raise _usage(
                "search", "with --radius, queries find different numbers of neighbors, which .ivecs cannot hold"
            )
    if args.output:
        _check_output(args.output)
    k = args.k or 10
    queries = _read(args.queries, "queries")
    allowed = vector_files.read_ids(args.filter_ids) if args.filter_ids else None
    truth = vector_files.read_truth(args.truth) if args.truth else None
    if truth is not None and (len(truth) != len(queries) or truth.shape[1] < k):
        expected = f"({len(queries)}, at least {k})"
        raise ArgumentError(f"{args.truth}: expected true neighbors of shape {expected}, got {truth.shape}")

    index: Any = None
    vectors: Any = None
    if vector_files.is_vector_file(args.index):
        vectors = _read(args.index)
        metric = _metric(args, args.index)[0]
        if args.radius is not None or allowed is not None:
            index = nearest.build(vectors, metric=metric, structure=nearest.Exact(), progress=_progress(args))
    else:
        index = nearest.open(args.index)
        if isinstance(index, nearest.NeighborTable):
            raise ArgumentError(f"{args.index}: expected an index, got a table of neighbors (which nearest.open reads)")
        metric = index.metric
        if args.metric not in (None, metric):
            raise ArgumentError(f"{args.index}: the index was built for {metric}, got --metric {args.metric}")

    knobs = {name: value for name in ("recall", "effort") if (value := getattr(args, name)) is not None}
    if knobs and index is None:
        raise _usage("search", f"--{next(iter(knobs))} is for an index; a file of vectors is searched exactly")
    started = time.perf_counter()
    found: Any
    if args.radius is not None:
        found = index.search_radius(queries, args.radius, filter=allowed, n_threads=args.n_threads, **knobs)
    elif index is not None:
        found = index.search(queries, k, filter=allowed, n_threads=args.n_threads, **knobs)
    else:
        found = nearest.knn(vectors, queries, k, metric=metric, n_threads=args.n_threads)
    seconds = time.perf_counter() - started

    data: dict[str, Any] = {"n_queries": len(queries), "metric": metric, "seconds": round(seconds, 6)}
    if args.radius is not None:
        data["radius"] = args.radius
        data["n_found"] = sum(len(ids) for ids, _ in found)
    else:
        data["k"] = k
    if truth is not None:
        stored = index.get if index is not None else lambda rows: vectors[_known(rows, len(vectors), args.truth)]
        data["recall"] = nearest.recall(found, _with_distances(truth[:, :k], queries, stored, metric), k)
    if args.output:
        _write_found(args.output, found, args.radius is not None)
        data["output"] = args.output
    elif args.json:
        rows = _rows(found, range(len(queries)), args.radius is not None)
        data["neighbors"] = [_as_json(*row) for row in rows]
    return Report(data, _search_text(args, data, found))


def _usage(command: str, text: str) -> SystemExit:
    print(f"nearest {command}: error: {text}", file=sys.stderr)
    return SystemExit(EXIT_USAGE)


def _known(rows: NDArray[np.int64], n: int, path: str) -> NDArray[np.int64]:
    from .errors import UnknownIdError

    if len(rows) and rows.max() >= n:
        raise UnknownIdError(f"{path}: expected ids below {n}, got {rows.max()}")
    return rows


def _with_distances(truth: NDArray[np.int64], queries: NDArray[Any], stored: Any, metric: str) -> Neighbors:
    """True neighbors with our own distances to them, so that recall is counted by distance and ties are no misses."""
    import numpy as np

    import nearest

    distances = np.full(truth.shape, np.inf, np.float32)
    for i, ids in enumerate(truth):
        there = ids >= 0
        if there.any():
            row = nearest.pairwise_distances(queries[i : i + 1], stored(ids[there]), metric=metric)
            distances[i, there] = row[0]
    return nearest.Neighbors(truth, distances)


def _rows(found: Any, queries: range, ragged: bool) -> Iterator[tuple[list[Any], list[float]]]:
    """Ids and distances of some queries, without the places left empty."""
    for i in queries:
        ids, distances = found[i] if ragged else (found.ids[i], found.distances[i])
        if not ragged:
            ids, distances = ids[: found.counts[i]], distances[: found.counts[i]]
        # Nine digits give a float32 back exactly.
        yield (
            [str(id) if isinstance(id, str) else int(id) for id in ids],
            [float(f"{distance:.9g}") for distance in distances],
        )


def _as_json(ids: list[Any], distances: list[float]) -> dict[str, list[Any]]:
    # JSON has no infinity, which a distance of huge vectors can be.
    return {"ids": ids, "distances": [distance if math.isfinite(distance) else None for distance in distances]}


def _search_text(args: argparse.Namespace, data: dict[str, Any], found: Any) -> str:
    n = data["n_queries"]
    asked = f"radius {args.radius:g}, {number_text(data['n_found'])} found" if "radius" in data else f"k = {data['k']}"
    lines = []
    if not args.output:
        shown = range(min(n, _SHOWN_QUERIES))
        for i, (ids, distances) in zip(shown, _rows(found, shown, "radius" in data), strict=True):
            lines.append(f"query {i}")
            lines += [f"  {distance:<12.6g} {id}" for id, distance in zip(ids[:20], distances[:20], strict=True)]
            if len(ids) > 20:
                lines.append(f"  … {number_text(len(ids) - 20)} more")
        if n > len(shown):
            lines.append(f"… {number_text(n - len(shown))} more queries (-o FILE writes all, --json prints all)")
    lines.append(f"{number_text(n)} queries, {asked}, {data['metric']}, {data['seconds']:.3f} s")
    if "recall" in data:
        lines[-1] += f", recall@{data['k']} {data['recall']:.4f}"
    if args.output:
        lines[-1] = f"{args.output}: {lines[-1]}"
    return "\n".join(lines)


def _write_found(path: str, found: Any, ragged: bool) -> None:
    """Writes what a search found, beside the target and renamed."""
    import numpy as np

    from . import vector_files
    from .errors import ArgumentError

    suffix = os.path.splitext(path)[1].lower()
    n = len(found) if ragged else len(found.ids)
    with vector_files.replacing(path) as temporary:
        if suffix == ".ivecs":
            if found.ids.dtype == object or (found.ids.size and found.ids.max() >= 2**31):
                raise ArgumentError(f"{path}: .ivecs holds ids below 2^31, got others; .npz, .csv and .json hold all")
            rows = vector_files.in_memory(found.ids.astype(np.int32))
            vector_files.FORMATS[".ivecs"].write(temporary, rows, None, None)
        elif suffix == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **_found_arrays(found, ragged))
        elif suffix == ".json":
            with open(temporary, "w", encoding="utf-8") as lines:
                lines.write("[")
                for i, row in enumerate(_rows(found, range(n), ragged)):
                    lines.write(",\n " if i else "\n ")
                    lines.write(json.dumps(_as_json(*row), ensure_ascii=False, allow_nan=False))
                lines.write("\n]\n")
        else:
            import csv

            with open(temporary, "w", encoding="utf-8", newline="") as lines:
                table = csv.writer(lines)
                table.writerow(["query", "rank", "id", "distance"])
                for i, (ids, distances) in enumerate(_rows(found, range(n), ragged)):
                    table.writerows((i, rank, *pair) for rank, pair in enumerate(zip(ids, distances, strict=True)))


def _found_arrays(found: Any, ragged: bool) -> dict[str, NDArray[Any]]:
    import numpy as np

    if not ragged:
        ids = found.ids.astype(str) if found.ids.dtype == object else found.ids
        return {"ids": ids, "distances": found.distances}
    # Rows one after the other: query i has the places offsets[i] to offsets[i + 1].
    offsets = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(ids) for ids, _ in found], out=offsets[1:])
    ids = np.concatenate([ids for ids, _ in found]) if found else np.empty(0, np.int64)
    distances = np.concatenate([distances for _, distances in found]) if found else np.empty(0, np.float32)
    return {"offsets": offsets, "ids": ids.astype(str) if ids.dtype == object else ids, "distances": distances}


def _knn_graph(args: argparse.Namespace) -> Report:
    import nearest

    _check_output(args.output)
    vectors = _read(args.vectors)
    metric, why = _metric(args, args.vectors)
    started = time.perf_counter()
    table = nearest.knn_graph(
        vectors,
        args.k,
        metric=metric,
        exact=args.exact,
        recall=args.recall,
        n_threads=args.n_threads,
        progress=_progress(args),
    )
    table.save(args.output)
    seconds = time.perf_counter() - started
    data = {
        "output": args.output,
        "count": len(table),
        "k": table.k,
        "metric": metric,
        "file_bytes": os.path.getsize(args.output),
        "seconds": round(seconds, 3),
    }
    text = (
        f"{args.output}: {table.k} neighbors of each of {number_text(len(table))} vectors, {metric}{why}, "
        f"{size_text(data['file_bytes'])}, {seconds:.1f} s"
    )
    return Report(data, text)


def _convert(args: argparse.Namespace) -> Report:
    from . import vector_files
    from .errors import ArgumentError
    from .progress import shown

    if not vector_files.is_vector_file(args.output):
        raise ArgumentError(f"{args.output}: unknown kind of file, expected one of {vector_files.supported()}")
    _check_output(args.output)
    ids: Any = None
    if vector_files.is_vector_file(args.input):
        rows = vector_files.open_vectors(args.input)
        metric = vector_files.open_file(args.input).metric
    else:
        rows, ids, metric = _rows_of_index(args.input)
    with shown(_progress(args)) as report:
        lost = vector_files.write_vectors(args.output, rows, ids=ids, metric=metric, dtype=args.dtype, progress=report)
    n, dim = rows.shape
    data = {
        "output": args.output,
        "count": n,
        "dim": dim,
        "dtype": str(vector_files.open_vectors(args.output).dtype),
        "file_bytes": os.path.getsize(args.output),
        "left_out": lost,
    }
    text = f"{args.output}: {number_text(n)} vectors of {dim} dimensions, {data['dtype']}"
    text += f", {size_text(data['file_bytes'])}"
    if lost:
        text += f"; this kind of file has no place for {', '.join(lost)} (.npz and .parquet have)"
    return Report(data, text)


def _rows_of_index(path: str) -> tuple[Any, Any, str]:
    """The vectors of an index in the order of its ids, in blocks; its ids unless they are 0, 1, 2, …; its metric."""
    import numpy as np

    import nearest

    from . import vector_files
    from .errors import ArgumentError

    index = nearest.open(path)
    if isinstance(index, nearest.NeighborTable):
        raise ArgumentError(f"{path}: expected an index, got a table of neighbors, which holds no vectors")
    ids = index.ids
    sample = index.get(ids[:1])

    def stream(n_rows: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(ids), n_rows):
            yield index.get(ids[start : start + n_rows])

    rows = vector_files.FileArray(path, "", (len(ids), sample.shape[1]), sample.dtype, stream=stream)
    numbers = np.asarray(ids)
    counted = numbers.dtype.kind in "iu" and np.array_equal(numbers, np.arange(len(numbers)))
    kept = None if counted else ids if numbers.dtype.kind in "iu" else [str(id) for id in ids]
    return rows, kept, index.metric
