"""Showing how far long work has come."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeAlias

    Progress: TypeAlias = Callable[[int, int, str], object]

# A bar that comes and goes at once is noise.
_SHOW_AFTER_SECONDS = 1.0
_REDRAW_SECONDS = 0.1


class shown:
    """``with shown(progress) as report``: what to call with (done, total, stage), or None if nobody looks.

    `progress` is None (a bar on a terminal, after a second), False (nothing) or the caller's own function.
    """

    def __init__(self, progress: Any) -> None:
        self._bar: _Bar | None = None
        self._report: Progress | None = None
        if progress is None:
            if sys.stderr is not None and sys.stderr.isatty():
                self._report = self._bar = _Bar()
        elif callable(progress):
            self._report = progress
        elif progress is not False:
            raise ArgumentError(f"progress must be None, False or a function of (done, total, stage), got {progress!r}")

    def __enter__(self) -> Progress | None:
        return self._report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _Bar:
    """One line on stderr: tqdm's if it is installed, else a plain one."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._next = self._start + _SHOW_AFTER_SECONDS
        self._stage: str | None = None
        self._tqdm: Any = None
        self._drawn = False

    def __call__(self, done: int, total: int, stage: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REDRAW_SECONDS
        if not self._drawn:
            self._drawn = True
            try:
                from tqdm import tqdm
            except ImportError:
                pass
            else:
                self._tqdm = tqdm(total=total, desc=stage, file=sys.stderr, leave=False)
        if self._tqdm is None:
            share = done / total if total else 1.0
            sys.stderr.write(f"\r{stage}: {share:6.1%} of {total:,}, {now - self._start:.0f} s \x1b[K")
            sys.stderr.flush()
            return
        if stage != self._stage:
            self._stage = stage
            self._tqdm.set_description(stage, refresh=False)
            self._tqdm.reset(total=total)
        self._tqdm.n = done
        self._tqdm.refresh()

    def close(self) -> None:
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
