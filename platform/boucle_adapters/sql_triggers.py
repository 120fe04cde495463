"""What became of retraining triggers, and the alerts that ask for one, in the SQL state store."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName
from boucle.contracts.trigger import AlertRequest, TriggerAnswer
from boucle.errors import StateStoreError

D = TypeVar("D", bound=Document)
METADATA = sa.MetaData()
TRIGGER_ANSWER = sa.Table(
    "trigger_answer",
    METADATA,
    sa.Column("run_key", sa.String(256), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),
)
ALERT = sa.Table(
    "alert",
    METADATA,
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("incident", sa.String(256), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)


def read_row(kind: type[D], row: sa.Row[Any]) -> D:
    """The document of a row. Raises StateStoreError when it is none any more."""
    try:
        return kind.model_validate_json(row.document)
    except ValidationError as error:
        raise StateStoreError(
            f"The state store holds a {kind.__name__} that cannot be read ({row.document[:40]!r}): it was changed, or "
            "a newer release wrote it. Restore the state store from its backup. Nothing was changed."
        ) from error


class TriggerTables(ABC):
    """The part of `boucle.ports.StateStore` that is about answers and alerts."""

    @abstractmethod
    def _read(self) -> AbstractContextManager[sa.Connection]: ...

    @abstractmethod
    def _write(self) -> AbstractContextManager[sa.Connection]: ...

    def record_answer(self, answer: TriggerAnswer) -> None:
        """Keep what became of a trigger, in place of what was known before."""
        row = {"run_key": answer.run_key, "model": answer.model, "document": answer.model_dump_json()}
        with self._write() as connection:
            connection.execute(sa.delete(TRIGGER_ANSWER).where(TRIGGER_ANSWER.c.run_key == answer.run_key))
            connection.execute(sa.insert(TRIGGER_ANSWER), row)

    def answers(self, model: ModelName) -> Mapping[str, TriggerAnswer]:
        """What became of the triggers of a model, by run key."""
        query = sa.select(TRIGGER_ANSWER).where(TRIGGER_ANSWER.c.model == model)
        with self._read() as connection:
            return {row.run_key: read_row(TriggerAnswer, row) for row in connection.execute(query)}

    def record_alert(self, alert: AlertRequest) -> None:
        """Keep what was last said of an incident."""
        same = (ALERT.c.model == alert.model, ALERT.c.incident == alert.incident)
        row = {"model": alert.model, "incident": alert.incident, "document": alert.model_dump_json()}
        with self._write() as connection:
            connection.execute(sa.delete(ALERT).where(*same))
            connection.execute(sa.insert(ALERT), row)

    def alerts(self, model: ModelName) -> Sequence[AlertRequest]:
        """Every incident of a model, as last heard of, in the order of their starts."""
        query = sa.select(ALERT).where(ALERT.c.model == model)
        with self._read() as connection:
            found = [read_row(AlertRequest, row) for row in connection.execute(query)]
        return sorted(found, key=lambda alert: (alert.starts_at, alert.fingerprint))
