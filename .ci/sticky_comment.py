"""Put the model report of a finished run under its pull request: one comment, brought up to date, never a second one.

Runs with a token that may write, on a report that code of a fork may have made. So the report is only text: it is taken
apart from everything that GitHub would make something of, and the pull request comes from GitHub's event, not from it.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = "<!-- boucle: model report -->"
AUTHOR = "github-actions[bot]"
MOST_BYTES = 30_000
"""Of one report; GitHub takes 65,536 characters a comment, and taking a report apart makes it longer."""
MOST_REPORTS = 2
_NOTHING = "&#8203;"
_INSTEAD = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "&#91;", "]": "&#93;"}
_MEANT_FOR_GITHUB = re.compile(r"(?i)[&<>\[\]@]|:(?=//)|www(?=\.)|#(?=\w)|GH-(?=\d)")
_NAME = re.compile(r"model-report-[a-z][a-z0-9_]{0,40}\.md")
_SHA = re.compile(r"[0-9a-f]{40}")


class RefusedError(Exception):
    """The report, or what the event says, is not what it must be; nothing was posted."""


def harmless(text: str) -> str:
    """Markdown tables and headings stay; HTML, links, pictures, mentions and references to issues become plain text."""
    if odd := sorted({character for character in text if not character.isprintable() and character != "\n"}):
        raise RefusedError(f"the report holds control characters: {', '.join(map(repr, odd[:3]))}")
    return _MEANT_FOR_GITHUB.sub(lambda found: _INSTEAD.get(found.group()) or f"{found.group()}{_NOTHING}", text)


def report_in(folder: Path) -> str:
    """The reports that were taken from the run, one below the other, made harmless.

    Raises:
        RefusedError: There is none, or one too many, one is too large, no plain file, or not UTF-8.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if not 0 < len(files) <= MOST_REPORTS:
        raise RefusedError(f"{len(files)} files were handed over, not 1 to {MOST_REPORTS}")
    texts = []
    for file in files:
        if not _NAME.fullmatch(file.name) or file.is_symlink() or not file.is_file():
            raise RefusedError(f"{file.name!r:.80} is no model report")
        raw = file.read_bytes()
        if len(raw) > MOST_BYTES:
            raise RefusedError(f"{file.name} has {len(raw)} bytes, more than {MOST_BYTES}")
        try:
            texts.append(harmless(raw.decode()))
        except UnicodeDecodeError as error:
            raise RefusedError(f"{file.name} is not UTF-8") from error
    return "\n\n".join(texts)


@dataclass(frozen=True)
class Run:
    """The finished run, as GitHub's event describes it. The branch of a fork is whatever its owner called it."""

    repository: str
    head_owner: str
    head_branch: str
    head_sha: str
    page: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Run":
        """From the variables that the workflow sets.

        Raises:
            RefusedError: The commit is none.
        """
        if not _SHA.fullmatch(environment["HEAD_SHA"]):
            raise RefusedError(f"{environment['HEAD_SHA']!r:.60} is no commit")
        names = ("GITHUB_REPOSITORY", "HEAD_OWNER", "HEAD_BRANCH", "HEAD_SHA", "RUN_PAGE")
        return cls(*(environment[name] for name in names))


@dataclass(frozen=True)
class GitHub:
    """GitHub's API, as far as it is needed here."""

    url: str
    token: str

    def ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        """One call; the answer as JSON."""
        request = urllib.request.Request(  # noqa: S310 - the address is GitHub's own, from the runner
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.token}", "accept": "application/vnd.github+json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def pull_request(self, run: Run) -> int | None:
        """The open pull request whose newest commit was run; None when there is none (any more)."""
        head = urllib.parse.quote(f"{run.head_owner}:{run.head_branch}", safe="")
        found = self.ask("GET", f"/repos/{run.repository}/pulls?state=open&head={head}")
        return next((int(pull["number"]) for pull in found if pull["head"]["sha"] == run.head_sha), None)

    def put_comment(self, run: Run, number: int, text: str) -> str:
        """Write over our comment, or make it; its address. Somebody else's comment with our marker is not ours."""
        page = 1
        while comments := self.ask("GET", f"/repos/{run.repository}/issues/{number}/comments?per_page=100&page={page}"):
            for comment in comments:
                if comment["user"]["login"] == AUTHOR and comment["body"].startswith(MARKER):
                    path = f"/repos/{run.repository}/issues/comments/{int(comment['id'])}"
                    return str(self.ask("PATCH", path, {"body": text})["html_url"])
            page += 1
        return str(self.ask("POST", f"/repos/{run.repository}/issues/{number}/comments", {"body": text})["html_url"])


def main() -> int:
    """`sticky_comment.py FOLDER`: exit 1 when the report was refused or GitHub could not be asked."""
    folder = Path(sys.argv[1])
    if not folder.is_dir() or not any(folder.iterdir()):
        print("The run ended before its gates and handed no report over: nothing to say.")
        return 0
    try:
        run = Run.of(os.environ)
        text = f"{MARKER}\n{report_in(folder)}\n\nOf commit {run.head_sha[:12]}, [all of it]({run.page}).\n"
        github = GitHub(os.environ.get("GITHUB_API_URL", "https://api.github.com"), os.environ["GITHUB_TOKEN"])
        number = github.pull_request(run)
        if number is None:
            print("No open pull request has this commit as its newest: nothing to say.")
            return 0
        print(github.put_comment(run, number, text))
    except (RefusedError, urllib.error.URLError) as error:
        print(f"No comment was written: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
