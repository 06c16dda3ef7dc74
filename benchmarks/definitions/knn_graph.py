"""The 15 nearest others of every member of photos: each pair computed once, against Faiss, 2 threads; and peak memory.

Faiss searches for a sample of the members in its turns, and its time is scaled to all of them (`sampled_rows`). Its
faster way also runs once over all members, where that should take no more than three minutes, to show what scaling is
worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearest.bench import report

if TYPE_CHECKING:
    from session import Session

LIMITS = True
SET = "photos"
SAMPLED_ROWS = 30_000
MOST_SECONDS = 180
MOST_EXTRA_BYTES = 300_000_000


def measure(session: Session) -> None:
    data = session.data(SET)
    if data is None:
        return
    n = len(data.vectors)
    sampled = {"faiss": min(SAMPLED_ROWS, n // 2)}
    comparison = session.compare(
        SET,
        data,
        ("nearest", "faiss"),
        mode="graph",
        k=15,
        n_threads=2,
        graph_rows=sampled,
        settings=session.with_settings(rounds=3),
    )
    best = comparison.best("faiss")
    if best is None:
        return
    expected = best.summary["seconds"]["median"]
    whole: dict[str, object] = {"method": best.label, "scaled_seconds": expected, "sampled_rows": sampled["faiss"]}
    if expected <= MOST_SECONDS:
        session.say(f"  {best.label} over all members, about {report.duration(expected)}")
        with session.worker(best.label, 2, best.environment) as worker:
            worker.ask(
                "build",
                data=str(data.folder),
                adapter="faiss",
                params=best.params,
                n_threads=2,
                build_threads=2,
                seed=0,
            )
            whole["whole_seconds"] = worker.ask("graph", k=15, seconds=0.0, n_rows=n, answer=None)["seconds"]
    else:
        whole["whole_seconds"] = f"not measured: more than {MOST_SECONDS} s expected"
    session.figures["Faiss over all members"] = whole


def claims(session: Session) -> None:
    comparison = session.comparisons.get(SET)
    if comparison is None:
        return
    own = comparison.best("nearest")
    session.claim_ratio(f"{SET}: against Faiss", comparison.best("faiss"), own, 3)
    session.claim_exact(f"{SET}: neighbors equal float64 brute force", own)
    if own is None or own.built.get("graph_peak_bytes") is None:
        session.claim("peak memory", "data + result + 300 MB", "not measured", None)
        return
    data = session.data(SET)
    assert data is not None
    peak, result = own.built["graph_peak_bytes"], own.built["graph_result_bytes"]
    extra = peak - data.vectors.nbytes - result
    parts = f"data {data.vectors.nbytes / 1e6:,.0f} + result {result / 1e6:,.0f} + {extra / 1e6:,.0f}"
    measured = f"{peak / 1e6:,.0f} MB: {parts}"
    session.claim("peak memory of its process", "≤ data + result + 300 MB", measured, extra <= MOST_EXTRA_BYTES)
