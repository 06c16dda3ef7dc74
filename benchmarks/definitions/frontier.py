"""Recall and speed of every method of every installed library, one query a call and all at once, k = 10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench.adapters import NAMES

if TYPE_CHECKING:
    from session import Session

LIMITS = True
SETS = ("wordnet", "photos")


def measure(session: Session) -> None:
    settings = session.with_settings(rounds=3)
    for spec in SETS:
        data = session.data(spec)
        if data is None:
            continue
        for mode, n_threads in (("single", 1), ("batch", 2)):
            session.compare(
                f"{spec}, {mode}",
                data,
                NAMES,
                only=lambda parameters: not parameters.environment,
                mode=mode,
                n_threads=n_threads,
                build_threads=2,
                settings=settings,
            )
