"""Write docs/performance.md from bench/results/*.json: `python bench/report.py`."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
HEAD = """# Performance

Made by `python bench/report.py` from bench/results/*.json; each table names the machine and the commit it was measured at. Times
are medians in milliseconds of runs that alternate between the competitors in one process; a ratio is the competitor's time over
kdsl's (above 1: kdsl is faster). "Wanted" is the ratio the project aims at against the first competitor; where it is not
reached the row says so. With two threads the competitors' workers go on spinning after a call and take a core from whoever
runs next: the rows of one thread are the dependable ones.
"""


def table(name: str, kept: dict) -> str:
    """One file of results as a section."""
    lines = [f"\n## {name}", "", f"{kept['machine']}; commit {kept['commit']}; NumPy {kept['numpy']}", ""]
    lines += ["| question | threads | kdsl ms | others ms | ratio | wanted |", "|---|---|---|---|---|---|"]
    for row in kept["rows"]:
        times, ratios = row["median_ms"], row["ratios"]
        if not ratios:
            rest = ", ".join(f"{n} {t:.1f}" for n, t in times.items())
            lines.append(f"| {row['question']} | {row['threads']} | | {rest} | | at most {row['target']} ms |")
            continue
        first = next(iter(ratios))
        reached = (
            "" if row["target"] is None else f"{row['target']}" + ("" if ratios[first] >= row["target"] else " (not reached)")
        )
        others = ", ".join(f"{n} {t:.3f}" for n, t in times.items() if n != "kdsl")
        shown = ", ".join(f"{r:.2f} ({n})" for n, r in ratios.items())
        lines.append(f"| {row['question']} | {row['threads']} | {times['kdsl']:.3f} | {others} | {shown} | {reached} |")
    return "\n".join(lines)


def report() -> str:
    """The whole page."""
    files = sorted((HERE / "results").glob("*.json"))
    return HEAD + "\n".join(table(f.stem, json.loads(f.read_text())) for f in files) + "\n"


if __name__ == "__main__":
    (HERE.parent / "docs" / "performance.md").write_text(report())
