"""Who acts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who decides, when, and from which code and run."""

    name: str
    at: datetime
    git_commit: str = ""
    dagster_run_id: str = ""
