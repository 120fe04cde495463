"""Print JUnit files as Markdown: one row a file, then what failed. For `$GITHUB_STEP_SUMMARY`."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

COUNTS = ("tests", "failures", "errors", "skipped")
SHOWN = 50


def summary(folder: Path) -> str:
    """The Markdown; it says so when there is no file, because then the tests did not come to their end."""
    files = sorted(folder.glob("*.xml")) if folder.is_dir() else []
    if not files:
        return "No JUnit file was written: the job ended before its tests did.\n"
    rows = ["| tests of | " + " | ".join(COUNTS) + " | seconds |", "|---|" + "---:|" * (len(COUNTS) + 1)]
    failed: list[str] = []
    for file in files:
        suites = list(ET.parse(file).getroot().iter("testsuite"))  # noqa: S314 - our own tests wrote it
        numbers = [str(sum(int(suite.get(name, 0)) for suite in suites)) for name in COUNTS]
        seconds = sum(float(suite.get("time", 0)) for suite in suites)
        rows.append(f"| {file.stem} | {' | '.join(numbers)} | {seconds:.0f} |")
        failed += [name for suite in suites for name in _failed(suite)]
    more = [f"- and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    return "\n".join([*rows, "", *(f"- failed: `{name}`" for name in failed[:SHOWN]), *more, ""])


def _failed(suite: ET.Element) -> list[str]:
    return [
        f"{case.get('classname')}::{case.get('name')}".replace("`", "'")
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
