"""The bar on a terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from nearest import ArgumentError, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[True, False], ids=["tqdm", "plain"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    if request.param:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    return Terminal()


def test_a_bar_appears_after_a_second(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.shown(None) as report:
        assert report is not None
        report(1, 10, "adding")
        assert terminal.getvalue() == ""
        now[0] += 1.5
        report(5, 10, "adding")
        assert "adding" in terminal.getvalue()
        assert "50" in terminal.getvalue()
        now[0] += 1.5
        report(3, 4, "linking")
        assert "linking" in terminal.getvalue()
    assert terminal.getvalue().endswith(("\r", "\x1b[K"))


def test_quick_work_shows_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown(None) as report:
        assert report is not None
        report(1, 1, "adding")
    assert terminal.getvalue() == ""


def test_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress.shown(False) as report:
        assert report is None
    for stderr in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with progress.shown(None) as report:
            assert report is None


def test_a_function_is_called_as_it_is() -> None:
    def mine(done: int, total: int, stage: str) -> None:
        pass

    with progress.shown(mine) as report:
        assert report is mine


@pytest.mark.parametrize("value", [True, 1, "bar"])
def test_what_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="progress must be None, False or a function"):
        progress.shown(value)
