"""boucle's own app with a part of its path left out, to see what each part costs.

    python boucle_part.py PORT "model only"|"with log"|"with look-up"

`model only` neither looks up nor logs; `with log` logs; `with look-up` does both. The whole path is the product itself.
"""

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import uvicorn

from boucle.contracts.ids import EntityKey
from boucle.contracts.prediction import PredictionFields, PredictionRecord
from boucle.ports import OnlineRow
from boucle_adapters.online_store import OnlineStore, Snapshot
from boucle_adapters.settings import Settings
from boucle_serving.app import create_app
from boucle_serving.main import parts_of, server_config


class NoLog:
    """Forgets every record."""

    def append(self, *records: PredictionFields) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def repair(self, replica: str) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def close(self) -> None:
        """Nothing."""

    def read(self, stream: str, start: datetime, end: datetime) -> Iterator[PredictionRecord]:
        """Nothing."""
        return iter(())


class OneRow(Snapshot):
    """Gives everybody the first row."""

    def look_up(self, entity_key: EntityKey, as_of: datetime, *, max_age_days: float) -> OnlineRow:
        """The first row, of the moment asked about."""
        return OnlineRow(values=self.features[0].tolist(), as_of=as_of)


class OneRowStore(OnlineStore):
    """A store whose snapshot has one row for all."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in force, in disguise."""
        found = super().snapshot
        return OneRow(**vars(found))


def main() -> None:
    """Serve until told to end."""
    port, part = int(sys.argv[1]), sys.argv[2]
    settings = Settings()
    bound = socket.create_server(("127.0.0.1", port))
    parts = parts_of(settings, "")
    if part != "with look-up":
        parts = replace(parts, open_online=lambda model: OneRowStore(settings.online_dir / model))
    if part == "model only":
        parts = replace(parts, log=NoLog())
    uvicorn.Server(server_config(create_app(parts))).run([bound])


if __name__ == "__main__":
    main()
