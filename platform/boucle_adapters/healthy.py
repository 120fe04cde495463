"""`python -m boucle_adapters.healthy [PATH]`: exit code 0 when what this container runs is well.

With a path, the HTTP server at the port of the settings is asked for it; without, what `boucle start` noted as it
started it.
"""

import json
import os
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from boucle_adapters.environment import environment_values, project_dir

TIMEOUT_SECONDS = 4
HEARTBEAT_SECONDS = 120
"""Dagster's daemon writes one every 30 s."""


def note_file() -> Path:
    """Where `boucle start` notes how its service is asked; one container runs one service."""
    return Path(tempfile.gettempdir(), "boucle-service.json")


def note(question: Mapping[str, str]) -> None:
    """Note how a service is asked: by `url`, by `address` (host:port), or by Dagster's `heartbeat` in its store."""
    note_file().write_text(json.dumps(dict(question)))


def problem(question: Mapping[str, str]) -> str:
    """What is wrong with the service; empty when it is well."""
    try:
        if "url" in question:
            with urllib.request.urlopen(question["url"], timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - our own
                return "" if response.status == 200 else f"{question['url']} answers {response.status}"
        if "address" in question:
            host, _, port = question["address"].rpartition(":")
            socket.create_connection((host, int(port)), timeout=TIMEOUT_SECONDS).close()
            return ""
    except (OSError, urllib.error.URLError) as error:
        return f"{question.get('url') or question.get('address')} does not answer: {error}"
    return _late_heartbeat()


def _late_heartbeat() -> str:
    import sqlalchemy as sa

    from boucle_adapters.settings import Settings

    engine = sa.create_engine(Settings().dagster_store, poolclass=sa.NullPool)
    # By the database's clock: the heartbeat is a time stamp in UTC without its zone.
    young = f"timestamp > (now() AT TIME ZONE 'UTC') - interval '{HEARTBEAT_SECONDS} seconds'"
    query = sa.text(f"SELECT daemon_type FROM daemon_heartbeats WHERE daemon_type = 'SENSOR' AND {young}")  # noqa: S608
    try:
        with engine.connect() as connection:
            beats = connection.execute(query).first() is not None
    except sa.exc.DatabaseError as error:
        return f"the heartbeat of Dagster's daemon cannot be read: {error.orig}"
    return "" if beats else f"the sensors of Dagster's daemon gave no heartbeat for {HEARTBEAT_SECONDS} s"


def _port() -> str:
    # As `Settings` has it, which takes longer to import than the answer takes.
    return os.environ.get("BOUCLE_PORT") or str(environment_values(project_dir()).get("port") or 8000)


def main() -> int:
    """Ask, and say what is wrong."""
    if len(sys.argv) > 1:
        question = {"url": f"http://127.0.0.1:{_port()}{sys.argv[1]}"}
    elif note_file().exists():
        question = json.loads(note_file().read_text())
    else:
        sys.stderr.write("No service has started yet: `boucle start` notes how it is asked.\n")
        return 1
    wrong = problem(question)
    sys.stderr.write(f"{wrong}\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
