"""The code location: every model of `defs/`, the resources they share, one executor."""

import os
import warnings
from pathlib import Path

import dagster as dg

from boucle_adapters.settings import Settings, quiet_environment
from boucle_platform.model_loop.dbt_project import dbt_environment
from boucle_platform.resources.documents import DocumentIOManager
from boucle_platform.resources.home import HomeResource

quiet_environment()
# dagster-mlflow and dagster-dbt's decorators are marked beta as a whole: we chose them, and pin their versions.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """All models of `defs/` on the home that the environment names."""
    settings = Settings()
    os.environ.update(dbt_environment(settings))
    models = dg.load_from_defs_folder(path_within_project=Path(__file__).parent / "defs")
    return dg.Definitions.merge(
        models,
        dg.Definitions(
            resources={
                "home": HomeResource.of(settings),
                "io_manager": DocumentIOManager(root=str(settings.data_dir / "documents")),
            },
            # One process per run: the multiprocess executor re-imports everything for each step (ADR 0003).
            executor=dg.in_process_executor,
        ),
    )
