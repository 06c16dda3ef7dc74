"""One method in a process of its own: ``python -m nearest.bench.worker``, spoken to in lines of JSON.

Own processes, so that a method's memory is its own, so that two libraries' thread pools and BLAS do not meet, so that
variables read at start can differ, and so that a crash is one line in a table. `Worker` is the other end.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ..errors import NearestError

# Before a turn: answers that nobody times, so that threads are awake and caches are this method's again.
_WARM_QUERIES = 64
_WARM_SECONDS = 0.05
# What `probe` takes at least.
_PROBE_SECONDS = 0.1


class WorkerError(NearestError, RuntimeError):
    """A method failed, died or took too long; the text says which and how, in its first line briefly."""


# --- the process that is measured ---


class _Method:
    """What the commands act on. Every command is a method of the same name."""

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}

    def build(
        self,
        data: str,
        adapter: str,
        params: dict[str, Any],
        n_threads: int,
        build_threads: int,
        seed: int,
        cache: str | None = None,
    ) -> dict[str, Any]:
        from . import builds, machine
        from .adapters import load
        from .data import DataSet

        self.data = DataSet.load(data)
        self.n_threads = n_threads
        method = load(adapter)
        details = method.details()
        kept = builds.place(cache, self.data, method, params, build_threads, seed)
        if kept is not None and builds.is_kept(kept):
            self.built = method.open(str(kept), self.data.vectors, self.data.metric, params)
            self.queries = self.built.prepare(self.data.queries)
            return {**builds.about(kept), "details": details, "kept": True}
        # Pages of the mapped set count as this process's memory once touched: before, not as part of the build.
        for start in range(0, len(self.data.vectors), 1 << 16):
            self.data.vectors[start : start + (1 << 16)].max(initial=0)
        before = machine.memory_now()
        peak_is_of_build = machine.reset_peak()
        started, cpu_started = time.perf_counter(), time.process_time()
        self.built = method.build(self.data.vectors, self.data.metric, params, build_threads, seed)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        peak = machine.memory_now().get("peak")
        gc.collect()
        machine.trim()
        after = machine.memory_now()
        self.queries = self.built.prepare(self.data.queries)
        difference = after["anonymous"] - before["anonymous"] if "anonymous" in after else None
        result = {
            "build_seconds": seconds,
            "build_cpu_seconds": cpu_seconds,
            "build_threads": build_threads,
            "versions": method.versions(),
            "details": details,
            "memory_before_bytes": before.get("resident"),
            "build_peak_bytes": peak,
            "build_peak_since_start": not peak_is_of_build,
            "resident_bytes": difference,
        }
        if kept is not None:
            result |= self.sizes()
            builds.keep(kept, self.built, result)
        return result

    def sizes(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.built.memory_bytes(),
            "file_bytes": self.built.file_bytes(),
            "scanned_bytes": self.built.scanned_bytes(),
        }

    def set_effort(self, effort: dict[str, Any]) -> None:
        self.built.set_effort(effort, self.n_threads)

    def answer(self, path: str, mode: str, k: int, effort: dict[str, Any], n_queries: int) -> None:
        """Ids of all answers into a file."""
        self.set_effort(effort)
        queries = self.queries[:n_queries]
        ids = np.full((len(queries), k), -1, np.int64)
        if mode == "single":
            for row, query in enumerate(queries):
                found = _ids(self.built.search_one(query, k))
                ids[row, : len(found)] = found
        else:
            found = _ids(self.built.search(queries, k))
            ids[:, : found.shape[1]] = found
        np.save(path, ids)

    def probe(self, path: str, mode: str, k: int, effort: dict[str, Any], n_queries: int) -> dict[str, float]:
        """The quickest of a few passes over the queries, and the ids into a file: what a coarse sweep looks at."""
        self.set_effort(effort)
        queries = self.queries[:n_queries]
        if mode == "single":
            search_one = self.built.search_one
            for query in queries[:_WARM_QUERIES]:
                search_one(query, k)
            seconds, found = _quickest(lambda: [search_one(query, k) for query in queries])
            ids = np.full((len(queries), k), -1, np.int64)
            for row, one in enumerate(found):
                ids[row, : len(one)] = _ids(one)
        else:
            self.built.search(queries[:_WARM_QUERIES], k)
            seconds, some = _quickest(lambda: self.built.search(queries, k))
            ids = np.full((len(queries), k), -1, np.int64)
            some = _ids(some)
            ids[:, : some.shape[1]] = some
        np.save(path, ids)
        return {"seconds": seconds / len(queries)}

    def batch(self, k: int, effort: dict[str, Any], n_queries: int, seconds: float, whole_warm_up: bool) -> Any:
        """A turn: the whole batch again and again, for at least so long."""
        self.set_effort(effort)
        search, queries = self.built.search, self.queries[:n_queries]
        search(queries if whole_warm_up else queries[:_WARM_QUERIES], k)
        return timed(lambda: search(queries, k), seconds)

    def single(self, k: int, effort: dict[str, Any], n_queries: int, seconds: float, first: int) -> Any:
        """A turn: queries one by one, from number `first` on and round, for at least so long."""
        self.set_effort(effort)
        search_one = self.built.search_one
        queries = self.queries[:n_queries]
        queries = [queries[(first + i) % len(queries)] for i in range(len(queries))]
        warm_until = time.perf_counter() + _WARM_SECONDS
        for query in queries:
            search_one(query, k)
            if time.perf_counter() > warm_until:
                break
        clock = time.perf_counter_ns
        latencies: list[int] = []
        add = latencies.append
        with _no_collection():
            cpu_started, started = time.process_time(), clock()
            end = started + int(seconds * 1e9)
            now = started
            while not latencies or now < end:
                for query in queries:
                    before = now
                    search_one(query, k)
                    now = clock()
                    add(now - before)
                    if now >= end:
                        break
            cpu_seconds = time.process_time() - cpu_started
        elapsed = (now - started) / 1e9
        p50, p99 = np.percentile(latencies, [50, 99]) / 1e9
        return {
            "n_calls": len(latencies),
            "seconds": elapsed / len(latencies),
            "p50_seconds": float(p50),
            "p99_seconds": float(p99),
            "cpus": cpu_seconds / elapsed,
        }

    def graph(self, k: int, seconds: float, n_rows: int, answer: str | None) -> Any:
        """A turn: the neighbors of all members, or of `n_rows` of them drawn from a seed. Warmed up by its build."""
        n = len(self.data.vectors)
        rows = np.arange(n) if n_rows >= n else np.sort(np.random.default_rng(0).permutation(n)[:n_rows])
        self.set_effort({})
        self.built.prepare_graph(rows)
        if answer is not None:
            from . import machine

            machine.reset_peak()
            found = _ids(self.built.knn_graph(k))
            peak = machine.memory_now().get("peak")
            np.savez(answer, rows=rows, ids=found)
            return {"peak_bytes": peak, "result_bytes": found.nbytes + found.size * 4}
        return timed(lambda: self.built.knn_graph(k), seconds)

    def call(self, file: str, function: str, arguments: dict[str, Any]) -> Any:
        """Any function of a file, for what is no search: `definitions/open.py` and the like. The file is run once, so
        that its functions can leave things for each other in its globals."""
        if file not in self.functions:
            spec = importlib.util.spec_from_file_location(Path(file).stem, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.functions[file] = module
        return getattr(self.functions[file], function)(**arguments)


class _no_collection:
    """No garbage collection meanwhile, as `timeit` has it."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *exception: object) -> None:
        gc.enable()


def timed(call: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Calls again and again for at least so long; seconds a call, and how many CPUs that kept busy."""
    times: list[float] = []
    with _no_collection():
        cpu_started, started = time.process_time(), time.perf_counter()
        before = started
        while before - started < seconds or not times:
            call()
            now = time.perf_counter()
            times.append(now - before)
            before = now
        cpu_seconds, elapsed = time.process_time() - cpu_started, before - started
    return {"n_calls": len(times), "seconds": elapsed / len(times), "cpus": cpu_seconds / max(elapsed, 1e-9)}


def _quickest(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the quickest of the calls that fit into a moment, and what the last one gave."""
    times: list[float] = []
    while sum(times) < _PROBE_SECONDS:
        started = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - started)
    return min(times), found


def _ids(found: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    ids = np.asarray(found)
    # usearch counts with unsigned integers, whose «nothing» would wrap round to -1 only by luck.
    return np.where(ids < np.uint64(2**63), ids, 0).astype(np.int64) if ids.dtype == np.uint64 else ids.astype(np.int64)


def serve(commands: IO[str], replies: IO[str]) -> None:
    """Answers commands until there are no more."""
    method = _Method()
    for line in commands:
        command = json.loads(line)
        try:
            reply = {"result": getattr(method, command["do"])(**command["with"])}
        except Exception as error:
            reply = {
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
                "unsupported": isinstance(error, NotImplementedError),
            }
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    # Libraries print to standard output as they like; replies go where it went before.
    _end_with_parent()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


def _end_with_parent() -> None:
    """A process that asks may be killed while this one is busy for minutes, and nobody would wait for it any more."""
    import ctypes

    set_death_signal = 1
    try:
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: it ends when it has finished what it was asked
    if str(os.getppid()) != os.environ.get(_PARENT):
        sys.exit(1)  # too late: it is gone already


# --- the process that asks ---

_PARENT = "NEAREST_BENCH_PARENT"

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


class Worker:
    """A process that runs one method.

    Parameters
    ----------
    name : str
        How errors call it.
    n_threads : int
        What libraries are told that read it from the environment.
    environment : dict, optional
        Further variables.

    Use it as a context manager: leaving it ends the process, whatever it is doing.
    """

    def __init__(self, name: str, n_threads: int = 1, environment: dict[str, str] | None = None) -> None:
        self.name = name
        package = Path(__file__).resolve().parents[2]
        path = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nearest.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                **dict.fromkeys(_THREAD_VARIABLES, str(n_threads)),
                "PYTHONPATH": os.pathsep.join(path),
                _PARENT: str(os.getpid()),
                **(environment or {}),
            },
            # Ctrl-C is for the process that asks, which then ends this one.
            start_new_session=True,
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._commands, self._replies, self._errors = (cast("IO[bytes]", pipe) for pipe in pipes)
        self._reply = b""
        self._printed = b""
        self._selector = selectors.DefaultSelector()
        for pipe in (self._replies, self._errors):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and waits for it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._commands, self._replies, self._errors):
            try:
                pipe.close()
            except OSError:  # what it did not read
                pass

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, do: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Run a command there and wait for its reply.

        Raises
        ------
        NotImplementedError
            The method has no such thing.
        WorkerError
            It failed, the process died, or `timeout` seconds have passed (the process is ended then).
        """
        self.send(do, **arguments)
        return self.receive(timeout)

    def send(self, do: str, **arguments: Any) -> None:
        """Start a command there; `receive` waits for its reply."""
        self._doing = do
        try:
            self._commands.write(json.dumps({"do": do, "with": arguments}).encode() + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            raise WorkerError(self._death()) from None

    def receive(self, timeout: float | None = None) -> Any:
        """The reply to what was sent."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._reply:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                self._process.kill()
                raise WorkerError(f"{self.name}: {self._doing} took longer than {timeout:.0f} s, ended")
            for key, _ in self._selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if key.fd == self._errors.fileno():
                    self._printed = (self._printed + data)[-20_000:]
                elif data:
                    self._reply += data
                else:
                    raise WorkerError(self._death())
                if not data:
                    self._selector.unregister(key.fileobj)
        line, _, self._reply = self._reply.partition(b"\n")
        reply = json.loads(line)
        if "error" in reply:
            if reply["unsupported"]:
                raise NotImplementedError(f"{self.name}: {reply['error']}")
            raise WorkerError(f"{self.name}: {self._doing}: {reply['error']}\n{reply['traceback']}")
        return reply["result"]

    def _death(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        os.set_blocking(self._errors.fileno(), False)
        while True:
            try:
                data = os.read(self._errors.fileno(), 1 << 16)
            except OSError:
                break
            if not data:
                break
            self._printed += data
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        said = self._printed.decode(errors="replace").strip()[-2000:]
        return f"{self.name}: its process ended {how}{': ' + said if said else ''}"


if __name__ == "__main__":
    main()
