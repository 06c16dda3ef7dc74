"""Results for people: a table in Markdown, and a plot of recall and speed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from . import sweep
from .runner import Comparison, Contender, ratio


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned so that it reads as text too; the first column to the left.

    Examples
    --------
    >>> print(table(["what", "n"], [["a", "10"], ["b", "7"]]))
    | what |  n |
    |:-----|---:|
    | a    | 10 |
    | b    |  7 |
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|" + "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits that mean something.

    Examples
    --------
    >>> number(1234.56), number(0.00123456), number(12.3456), number(None)
    ('1,235', '0.00123', '12.3', '')
    """
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them.

    Examples
    --------
    >>> duration(0.0000123), duration(0.0451), duration(75.2)
    ('12.3 µs', '45.1 ms', '75.2 s')
    """
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e9)} ns"


def megabytes(n_bytes: float | None) -> str:
    """Bytes as MB, which are 10^6."""
    return "" if n_bytes is None else f"{n_bytes / 1e6:,.0f} MB"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def frontier(contenders: Sequence[Contender]) -> list[Contender]:
    """Those that no other beats in both recall and speed, by growing recall."""
    best: list[Contender] = []
    measured = [contender for contender in contenders if contender.summary and contender.score]
    for contender in sorted(measured, key=lambda one: (-_recall(one), -float(one.summary["queries_per_second"]))):
        if not best or contender.summary["queries_per_second"] > best[-1].summary["queries_per_second"]:
            best.append(contender)
    return best[::-1]


def worth_showing(comparison: Comparison) -> list[Contender]:
    """Everything exhaustive, and the frontier of each library."""
    measured = comparison.measured()
    names = dict.fromkeys(one.adapter for one in measured)
    best = {id(one) for name in names for one in frontier(comparison.measured(name))}
    return [one for one in measured if one.exhaustive or id(one) in best]


def _recall(contender: Contender) -> float:
    return float(contender.score["recall"]) if contender.score else 0.0


def title(comparison: Comparison) -> str:
    """What was compared, in a line."""
    about = comparison.data
    kind = " synthetic" if about["synthetic"] else ""
    how = {
        "batch": f"{comparison.n_queries:,} queries at once",
        "single": "one query a call",
        "graph": "the neighbors of all members",
    }[comparison.mode]
    threads = "1 thread" if comparison.n_threads == 1 else f"{comparison.n_threads} threads"
    return (
        f"{about['spec']}: {about['n']:,} × {about['width']} {about['dtype']}{kind}, {about['metric']}; "
        f"{how}, k = {comparison.k}, {threads}"
    )


def comparison_table(comparison: Comparison, only: Sequence[Contender] | None = None) -> str:
    """What was measured, the fastest first: all of it, or `only` these.

    Spread is that of turns around their median; noise is how far sessions in fresh processes are apart.
    """
    single, graph = comparison.mode == "single", comparison.mode == "graph"
    chosen = comparison.contenders if only is None else only
    measured = sorted((one for one in chosen if one.summary), key=lambda one: one.summary["seconds"]["median"])
    head = ["method", "recall", "wrong", "speed", "spread", "noise", "cpus"]
    head += ["p50", "p99"] if single else ["per call"]
    head += ["of stream", "GB/s"] if single else ["of int8 peak", "of f32 peak"]
    head += ["peak"] if graph else ["build", "build peak", "resident", "file"]
    rows = []
    for one in measured:
        summary, built = one.summary, one.built
        seconds = summary["seconds"]
        low, high = (seconds[name] / seconds["median"] - 1 for name in ("min", "max"))
        row = [one.label]
        row += [f"{one.score['recall']:.4f}", str(one.score["n_wrong"])] if one.score else ["", ""]
        row += [f"{number(summary['queries_per_second'])}/s", f"{100 * low:+.0f} … {100 * high:+.0f} %"]
        row += [_percent(summary["noise"]), f"{summary['cpus']:.2f}"]
        if single:
            row += [duration(summary["p50_seconds"]), duration(summary["p99_seconds"])]
            row += [_percent(summary.get("of_stream")), number(summary.get("stream_gb_per_second"))]
        else:
            row += [duration(seconds["median"])]
            row += [_percent(summary.get("of_int8_peak")), _percent(summary.get("of_f32_peak"))]
        if graph:
            row += [megabytes(built.get("graph_peak_bytes"))]
        else:
            before, peak = built.get("memory_before_bytes"), built.get("build_peak_bytes")
            above = None if before is None or peak is None or built["build_peak_since_start"] else peak - before
            row += [duration(summary["build_seconds"]), megabytes(above)]
            row += [megabytes(built.get("resident_bytes")), megabytes(built.get("file_bytes"))]
        rows.append(row)
    lines = [table(head, rows)] if rows else ["nothing was measured"]
    # All efforts of one build fail together, with one text.
    failures = dict.fromkeys(f"- {one.error.splitlines()[0]}" for one in comparison.contenders if one.error)
    lines += ["", "Failed:", "", *failures] if failures else []
    if comparison.skipped:
        lines += ["", "Left out: " + "; ".join(f"{one['adapter']} ({one['reason']})" for one in comparison.skipped)]
    return "\n".join(lines)


def ratio_text(slower: Contender, faster: Contender) -> str:
    """A ratio of medians with its spread, in words."""
    value = ratio(slower, faster)
    rounds = value["rounds"]
    sessions = " and ".join(f"{one:.2f}" for one in value["sessions"])
    return (
        f"{faster.label} is {value['ratio']:.2f} × as fast as {slower.label} "
        f"(turns {rounds['min']:.2f} – {rounds['max']:.2f}, middle half {rounds['q1']:.2f} – {rounds['q3']:.2f}; "
        f"sessions {sessions})"
    )


def comparison_text(comparison: Comparison) -> str:
    """Title, table, and this library's ratios to the best of each other one."""
    shown = worth_showing(comparison)
    parts = [f"### {title(comparison)}", "", comparison_table(comparison, shown)]
    n_more = len(comparison.measured()) - len(shown)
    parts += (
        ["", f"{n_more} more points, which another of the same library beats, are in the record."] if n_more else []
    )
    own = comparison.best("nearest")
    if own is not None:
        others = dict.fromkeys(one.adapter for one in comparison.measured() if one.adapter != "nearest")
        recall = _recall(own) - 0.001
        best = (comparison.best(name, recall=recall) for name in others)
        texts = [f"- {ratio_text(other, own)}" for other in best if other is not None]
        parts += ["", f"Against the best of each at recall ≥ {recall:.3f}:", "", *texts] if texts else []
    if comparison.interrupted:
        parts += ["", "Interrupted: fewer turns than planned."]
    return "\n".join(parts)


AT_RECALL_HEAD = ["method", "recall", "speed", "turns", "nearest / it", "measured at", "bytes a vector"]


def at_recall_rows(results: Sequence[sweep.AtRecall]) -> list[list[str]]:
    """What each method does at exactly a recall, the fastest first, with the ratio to this library's best tuned one."""
    own = sweep.best_own(results)
    rows = []
    for one in results:
        speeds = [number(speed) for speed in (min(one.turns), max(one.turns))]
        against = ""
        if own is not None and one is not own:
            value = sweep.ratio(own, one)
            against = f"{value['median']:.2f} ({value['min']:.2f} – {value['max']:.2f})"
        efforts = (
            " ".join([*(f"{name}={value}" for name, value in point.effort.items()), f"→ {recall:.4f}"])
            for point, recall in zip(one.points, one.got, strict=True)
        )
        size = one.bytes_a_vector()["account_bytes_a_vector"]
        name = one.label if one.label.startswith(one.family) else f"{one.label} [{one.family}]"
        row = [name, f"{one.recall:g}", f"{number(one.queries_per_second)}/s", " – ".join(speeds), against]
        rows.append([*row, "; ".join(efforts), number(size)])
    return rows


def plot(comparison: Comparison, path: str | os.PathLike[str]) -> str | None:
    """Recall and speed of the frontier of each library, as PNG; why there is none if matplotlib is not installed."""
    names = dict.fromkeys(one.adapter for one in comparison.measured() if one.score)
    curves = {
        name: [(_recall(one), one.summary["queries_per_second"]) for one in frontier(comparison.measured(name))]
        for name in names
    }
    return plot_curves(curves, comparison.k, title(comparison), path)


def plot_curves(
    curves: dict[str, list[tuple[float, float]]], k: int, heading: str, path: str | os.PathLike[str]
) -> str | None:
    """Pairs of recall and queries a second by name, as PNG; why there is none if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed (pip install nearest[report])"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not any(curves.values()):
        return "no plot: nothing was measured"
    figure, axes = pyplot.subplots(figsize=(9, 5.5), constrained_layout=True)
    markers = "osD^vP*X<>"
    for number_, (name, points) in enumerate(curves.items()):
        axes.plot(
            [recall for recall, _ in points],
            [speed for _, speed in points],
            marker=markers[number_ % len(markers)],
            linewidth=2.4 if sweep.is_own(name) else 1.2,
            zorder=3 if sweep.is_own(name) else 2,
            label=name,
        )
    axes.set_yscale("log")
    axes.set_xlabel(f"recall@{k}, by distance")
    axes.set_ylabel("queries a second")
    axes.set_title(heading, fontsize=9)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(os.fspath(path), dpi=130)
    pyplot.close(figure)
    return None


def claims_table(claims: Sequence[dict[str, Any]]) -> str:
    """What was to be shown, and whether it was."""
    rows = [
        [one["text"], one["target"], one["measured"], {True: "yes", False: "NO", None: "not measured"}[one["met"]]]
        for one in claims
    ]
    return table(["to be shown", "target", "measured", "met"], rows)
