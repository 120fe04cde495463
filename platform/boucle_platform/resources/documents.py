"""What passes between assets: a document, kept as JSON, so that a person and the next release can read it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from boucle.contracts.document import Document
from boucle_adapters.atomic_file import replace_bytes


class DocumentIOManager(dg.ConfigurableIOManager):
    """Stores each asset's document as `<root>/<asset key>[/<partition>].json`, put in place by rename.

    An asset by period returns its documents by partition key: a run may hold several periods.
    """

    root: str

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write the documents; an asset without one (`None`) writes nothing."""
        by_partition = obj if isinstance(obj, Mapping) else {None: obj}
        for partition, document in by_partition.items():
            if document is None:
                continue
            if not isinstance(document, Document) or (partition is None) is context.has_asset_partitions:
                raise TypeError(f"{context.asset_key.to_user_string()} returned {type(obj).__name__}, not a Document.")
            replace_bytes(self._file(context, partition), document.model_dump_json(indent=1).encode())

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the document as the type that the asset function declares."""
        wanted = context.dagster_type.typing_type
        file = self._file(context, context.asset_partition_key if context.has_asset_partitions else None)
        if not file.exists():
            raise dg.Failure(
                f"{context.asset_key.to_user_string()} has no document yet"
                f"{f' for {file.stem}' if context.has_asset_partitions else ''}: materialise it first."
            )
        return wanted.model_validate(json.loads(file.read_text()))

    def _file(self, context: dg.InputContext | dg.OutputContext, partition: str | None) -> Path:
        base = Path(self.root, *context.asset_key.path)
        return base.with_suffix(".json") if partition is None else base / f"{partition}.json"
