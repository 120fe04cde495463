"""The newest look at a model's rollout, in a file: `<data>/<model>/rollout.json`; serving and people read it."""

from pathlib import Path

from pydantic import ValidationError

from boucle.contracts.ids import ModelName
from boucle.contracts.look import RolloutLook
from boucle_adapters.atomic_file import replace_bytes


class LookFiles:
    """Looks by model; only the newest is kept, the decisions that followed are in the ledger."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def write(self, look: RolloutLook) -> None:
        """Keep a look; a reader sees a whole one."""
        file = self._file(look.model)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, look.model_dump_json(indent=1).encode())

    def newest(self, model: ModelName) -> RolloutLook | None:
        """The newest look; None when there was none, or it cannot be read."""
        try:
            return RolloutLook.model_validate_json(self._file(model).read_bytes())
        except (OSError, ValidationError):
            return None

    def _file(self, model: ModelName) -> Path:
        return self._data_dir / model / "rollout.json"
