"""The code location of a real daemon, whose runs meet what files in the home say.

- `kill`: the next training set is not kept, its process dies; the file is gone then;
- `hold`: whoever has registered a version waits until this file is gone.
"""

import time
from typing import Any

from assets_tests.faults.killed_run import HOLD, KILL, die
from boucle_adapters.mlflow_registry import MlflowRegistry
from boucle_adapters.settings import Settings
from boucle_platform.definitions import defs_of
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps import training

HOME = Settings().home_dir
store_rows, register = training.store_rows, MlflowRegistry.register


def stored(*args: Any, **options: Any) -> Any:
    """In the midst of a step that has the warehouse's pool to itself."""
    if (HOME / KILL).exists():
        (HOME / KILL).unlink()
        die()
    return store_rows(*args, **options)


def registered(*args: Any, **options: Any) -> Any:
    """A step that takes longer than it may, and has left something behind already."""
    version = register(*args, **options)
    while (HOME / HOLD).exists():
        time.sleep(0.05)
    return version


training.store_rows = stored
MlflowRegistry.register = registered
defs = defs_of(catalogue.spec_of("repurchase"))
