"""Exit 1 when the lines or the branches that tests reached are fewer than they must be.

coverage's own `fail_under` looks at the sum of both, in which many lines hide a few branches.
"""

import json
import sys
from pathlib import Path


def shortfalls(totals: dict[str, float], floor: float) -> list[str]:
    """A sentence for each figure below the floor (per cent); nothing measured is below any."""
    figures = {
        "lines": (totals["covered_lines"], totals["num_statements"]),
        "branches": (totals["covered_branches"], totals["num_branches"]),
    }
    return [
        f"{name}: {covered:g} of {number:g} were reached, at least {floor:g} % must be."
        for name, (covered, number) in figures.items()
        if number == 0 or 100 * covered / number < floor
    ]


def main() -> int:
    """`coverage_floor.py FILE PERCENT`: the file is what `coverage json` writes."""
    file, floor = Path(sys.argv[1]), float(sys.argv[2])
    report = json.loads(file.read_text(encoding="utf-8"))
    found = shortfalls(report["totals"], floor)
    for sentence in found:
        print(f"Coverage of the core, {sentence}")
    for name, measured in sorted(report["files"].items() if found else []):
        missing = measured["missing_lines"] + [tuple(branch) for branch in measured["missing_branches"]]
        if missing:
            print(f"  {name}: {', '.join(map(str, missing))}")
    if not found:
        totals = report["totals"]
        lines, branches = (
            100 * totals[f"covered_{kind}"] / totals[number]
            for kind, number in (("lines", "num_statements"), ("branches", "num_branches"))
        )
        print(f"Coverage of the core: {lines:.1f} % of lines, {branches:.1f} % of branches; at least {floor:g} %.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
