"""Print the section of CHANGELOG.md about a release, `release_notes.py v0.1.0`; exit 1 when tag and package differ."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(changelog: str, version: str) -> str:
    """The text under the heading `## VERSION`.

    Raises:
        ValueError: There is no such heading, or nothing under it.
    """
    found = re.search(rf"^## {re.escape(version)}(?= |$).*?$(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    text = found.group(1).strip() if found else ""
    if not text:
        raise ValueError(f"CHANGELOG.md says nothing under '## {version}': write what changed, then tag again.")
    return text + "\n"


def main() -> int:
    """Print the notes of the tag in the first argument."""
    version = sys.argv[1].removeprefix("v")
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if packaged != version:
        print(f"The tag says {version}, pyproject.toml says {packaged}: make them the same.", file=sys.stderr)
        return 1
    try:
        print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
