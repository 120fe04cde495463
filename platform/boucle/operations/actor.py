"""Who acts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who decides, when, and from which code and run. `commit_author` is a person, as the ledger names people."""

    name: str
    at: datetime
    git_commit: str = ""
    dagster_run_id: str = ""
    commit_author: str = ""
