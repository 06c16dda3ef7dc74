"""Readers beside a writer, forked children, Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import nearest
import numpy as np
import pytest
from nearest import Index

N_READERS = 8


class History:
    """Every state the index goes through, in order; the writer announces each before it makes it.

    What a search returns must be exactly one state that was live during the call: announced when it ended, and not
    yet replaced when it began.
    """

    def __init__(self) -> None:
        self.states: list[dict[int, float]] = [{}]
        self.n_made = 1

    def announce(self, state: dict[int, float]) -> None:
        self.states.append(state)

    def made(self) -> None:
        self.n_made = len(self.states)


def watch(index: Index, history: History, enough: Callable[[], bool], n_threads: int, errors: list[str]) -> int:
    """One reader. Distances are whole numbers: that of an id's vector of each version is another one."""
    n_checked = 0
    query = np.zeros(DIM, np.float32)
    rng = np.random.default_rng(threading.get_ident() % 2**32)
    while not enough() and not errors:
        first = history.n_made - 1
        kind = rng.integers(4)
        if kind == 0:
            ids, distances = index.search(query, 1000)
        elif kind == 1:
            found = index.search(np.stack([query, query]), 600, n_threads=n_threads)
            ids, distances = (part[1, : found.counts[1]] for part in found)
        elif kind == 2:
            ids, distances = index.search(query, 1000, filter=lambda given: given % 2 == 0)
        else:
            ((ids, distances),) = index.search_radius(query, np.inf)
        last = len(history.states)
        got = dict(zip(ids.tolist(), distances.tolist(), strict=True))
        live = history.states[first:last]
        if kind == 2:
            live = [{id: distance for id, distance in state.items() if id % 2 == 0} for state in live]
        if got not in live:
            errors.append(f"{len(got)} found, none of the states {first} to {last - 1}")
        n_checked += 1
    return n_checked


DIM = 5


def write(index: Index, history: History, enough: Callable[[], bool], seed: int) -> int:
    rng = np.random.default_rng(seed)
    version, n_changes = 0, 0
    while not enough():
        state = dict(history.states[-1])
        ids = rng.permutation(400)[: rng.integers(1, 60)]
        vectors = np.zeros((len(ids), DIM), np.float32)
        version += 1
        vectors[:, 0] = version * 512 + ids
        named = dict(zip(ids.tolist(), vectors[:, 0].tolist(), strict=True))
        kind = rng.integers(3)
        if kind == 0:
            gone = [id for id in named if id in state]
            history.announce({id: distance for id, distance in state.items() if id not in named})
            assert index.remove(ids) == len(gone)
        elif kind == 1:
            history.announce(state | named)
            index.upsert(vectors, ids)
        else:
            new = np.array([id not in state for id in ids.tolist()])
            if not new.any():
                continue
            history.announce({**named, **state})
            index.add(vectors[new].astype(np.float64), ids[new])
        history.made()
        n_changes += 1
    return n_changes


def run(enough: Callable[[], bool], seed: int = 0) -> tuple[int, int]:
    index, history = Index(DIM, metric="manhattan"), History()
    errors: list[str] = []
    counts: list[int] = []

    def read(number: int) -> None:
        try:
            counts.append(watch(index, history, enough, 1 + number % 2, errors))
        except BaseException as error:
            errors.append(repr(error))
            raise

    readers = [threading.Thread(target=read, args=(number,)) for number in range(N_READERS)]
    for reader in readers:
        reader.start()
    try:
        n_changes = write(index, history, lambda: enough() or bool(errors), seed)
    finally:
        for reader in readers:
            reader.join()
    assert not errors, errors
    assert len(counts) == N_READERS
    return n_changes, sum(counts)


def test_readers_beside_a_writer() -> None:
    end = time.monotonic() + 2
    n_changes, n_checked = run(lambda: time.monotonic() > end)
    assert n_changes > 5
    assert n_checked > 5


def run_graph(enough: Callable[[], bool], seed: int = 0) -> tuple[int, int]:
    """A graph of far vectors that stay and near ones that come and go: all that is found was there at one moment."""
    index, history = Index(DIM, structure=nearest.Graph(12)), History()
    rng = np.random.default_rng(seed)
    far = rng.standard_normal((3000, DIM)).astype(np.float32)
    far *= 1e8 / np.linalg.norm(far, axis=1, keepdims=True)
    index.add(far, np.arange(1000, 4000))
    errors: list[str] = []
    counts: list[int] = []

    def read() -> None:
        n_checked = 0
        query = np.zeros(DIM, np.float32)
        while not enough() and not errors:
            first = history.n_made - 1
            found = index.search(query, 60)
            last = len(history.states)
            got = {(id, d) for id, d in zip(found.ids.tolist(), found.distances.tolist(), strict=True) if id < 1000}
            if len(found.ids) != 60 or not any(got <= state.items() for state in history.states[first:last]):
                errors.append(f"{len(got)} found, in none of the states {first} to {last - 1}")
            n_checked += 1
        counts.append(n_checked)

    readers = [threading.Thread(target=read) for _ in range(N_READERS)]
    for reader in readers:
        reader.start()
    try:
        n_changes = write(index, history, lambda: enough() or bool(errors), seed)
    finally:
        for reader in readers:
            reader.join()
    assert not errors, errors
    assert len(counts) == N_READERS
    assert index.stats()["unreachable"] == 0
    return n_changes, sum(counts)


def test_readers_of_a_graph_beside_a_writer() -> None:
    end = time.monotonic() + 3
    n_changes, n_checked = run_graph(lambda: time.monotonic() > end)
    assert n_changes > 5
    assert n_checked > 5


@pytest.mark.long
def test_readers_of_a_graph_beside_a_writer_for_ten_minutes() -> None:
    end = time.monotonic() + 600
    n_changes, n_checked = run_graph(lambda: time.monotonic() > end, seed=1)
    print(f"{n_changes} changes, {n_checked} searches checked")


@pytest.mark.long
def test_readers_beside_a_writer_for_five_minutes() -> None:
    end = time.monotonic() + 300
    n_changes, n_checked = run(lambda: time.monotonic() > end, seed=1)
    print(f"{n_changes} changes, {n_checked} searches checked")


def test_writers_queue() -> None:
    index = Index(2)

    def add(number: int) -> None:
        for start in range(0, 50, 5):
            index.add(np.full((5, 2), number), range(100 * number + start, 100 * number + start + 5))

    writers = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(index.ids.tolist()) == [100 * number + i for number in range(6) for i in range(50)]
    found = index.search(np.full(2, 3), 50)
    assert set(found.ids.tolist()) == set(range(300, 350))
    assert (found.distances == 0).all()


def test_two_writers_of_one_id_make_one_of_two_states() -> None:
    for _ in range(20):
        index = Index(1)
        failures: list[Exception] = []

        def add(value: int, index: Index = index, failures: list[Exception] = failures) -> None:
            try:
                index.add([[value]] * 3, [0, 1, 2])
            except nearest.ArgumentError as error:
                failures.append(error)

        threads = [threading.Thread(target=add, args=(value,)) for value in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) == 1
        assert index.get([0, 1, 2]).tolist() in ([[1]] * 3, [[2]] * 3)


def test_a_search_sees_what_the_filter_function_saw() -> None:
    """The function itself changes the index: the search goes on with the state it began with."""
    index = Index(1)
    index.add([[0], [1], [2]], [10, 11, 12])

    def allowed(ids: np.ndarray) -> np.ndarray:
        index.remove([10])
        index.add([[0]], [13])
        return np.ones(len(ids), bool)

    assert index.search([0], 9, filter=allowed).ids.tolist() == [10, 11, 12]
    assert index.search([0], 9).ids.tolist() == [13, 11, 12]


FORK = """
import os, sys, tempfile, threading
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((5000, 32)).astype(np.float32)
index = nearest.Index(32)
index.add(vectors[:4000])
expected = index.search(vectors[:500], 10, n_threads=2)
graph = nearest.knn_graph(vectors[:1000], 5, n_threads=2)
index.save("parent")
mapped = nearest.open("parent")

def same(found):
    assert (found.ids == expected.ids).all() and (found.distances == expected.distances).all()

if {busy}:  # other threads search at the very moment of the fork
    stop = threading.Event()
    def search():
        while not stop.is_set():
            same(index.search(vectors[:500], 10, n_threads=2))
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads: thread.start()

children = []
for child in range(8):
    pid = os.fork()
    if pid == 0:
        try:
            for n_threads in (2, 1, None):
                same(index.search(vectors[:500], 10, n_threads=n_threads))
                same(mapped.search(vectors[:500], 10, n_threads=n_threads))
            assert nearest.knn_graph(vectors[:1000], 5, n_threads=2) == graph
            index.save(f"child{{child}}")
            same(nearest.open(f"child{{child}}").search(vectors[:500], 10))
            if not {busy}:
                index.add(vectors[4000:])
                index.remove(range(100))
                assert len(index) == 4900
                assert index.search(vectors[4500], 1, n_threads=2).ids.tolist() == [4500]
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc()
            os._exit(1)
    children.append(pid)
    same(index.search(vectors[:500], 10, n_threads=2))
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
if {busy}:
    stop.set()
    for thread in threads: thread.join()
assert codes == [0] * 8, codes
assert len(index) == 4000
same(index.search(vectors[:500], 10, n_threads=2))
"""


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_searches_and_adds(busy: bool, run_python: Callable[..., Any]) -> None:
    run_python(FORK.format(busy=busy))


CTRL_C = """
import os, signal, threading
import numpy as np, nearest
rng = np.random.default_rng(0)
vectors = rng.standard_normal((60_000, 256)).astype(np.float32)
queries = rng.standard_normal((20_000, 256)).astype(np.float32)
index = nearest.Index(256, metric="manhattan")
index.add(vectors)
before = index.search(queries[0], 5)
calls = {
    "search": lambda: index.search(queries, 10),
    "search on one thread": lambda: index.search(queries, 10, n_threads=1),
    "radius": lambda: index.search_radius(queries, 1.0),
    "neighbors_of": lambda: index.neighbors_of(index.ids, 10),
    "knn": lambda: nearest.knn(vectors, queries, 10, metric="manhattan"),
    "knn in blocks": lambda: nearest.knn(vectors.astype(np.float64), queries, 10, metric="manhattan"),
    "knn_graph": lambda: nearest.knn_graph(vectors, 10, metric="manhattan", progress=False),
}
for name, call in calls.items():
    # Again and again, in case the signal comes before the work begins and is lost between two calls.
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        print(name, "stopped")
    else:
        raise SystemExit(f"{name} was not stopped")
    after = index.search(queries[0], 5)
    assert (after.ids == before.ids).all() and len(index) == 60_000
"""


def test_ctrl_c_stops_long_work(run_python: Callable[..., Any]) -> None:
    stopped = run_python(CTRL_C, timeout=300).stdout.splitlines()
    assert len(stopped) == 7


def test_ctrl_c_undoes_an_add(run_python: Callable[..., Any]) -> None:
    run_python(
        """
import os, signal, threading
import numpy as np, nearest
vectors = np.random.default_rng(0).standard_normal((600_000, 128))
index = nearest.Index(128, encoding="float16")
index.add(vectors[:1000])
before = index._native.to_bytes()
for delay in (0.01, 0.05, 0.1, 0.2, 0.3):
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        index.add(vectors)
        timer.join()
    except KeyboardInterrupt:
        pass
    else:
        raise SystemExit("a signal was lost")
    if len(index) != 1000:  # it was done before the signal came
        assert len(index) == 601_000
        break
    assert index._native.to_bytes() == before
    index.remove([10**9])
"""
    )


def test_an_error_in_progress_stops_the_work() -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, stage: str) -> None:
        raise Stop

    vectors = np.random.default_rng(0).standard_normal((20_000, 64)).astype(np.float32)
    with pytest.raises(Stop):
        nearest.knn_graph(vectors, 5, metric="manhattan", progress=stop)
