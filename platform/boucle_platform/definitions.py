"""The code location: every model of `defs/`, the resources they share, one executor."""

import os
import warnings
from pathlib import Path

import dagster as dg

from boucle_adapters.settings import Settings, quiet_environment
from boucle_platform.logs import configure_code_location, run_logger
from boucle_platform.model_loop.component import loop_definitions
from boucle_platform.model_loop.dbt_project import dbt_environment
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.documents import DocumentIOManager
from boucle_platform.resources.home import HomeResource

quiet_environment()
# dagster-mlflow and dagster-dbt's decorators are marked beta as a whole: we chose them, and pin their versions.
warnings.filterwarnings("ignore", category=dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """All models of `defs/` on the home that the environment names."""
    settings = prepared_settings()
    return on_home(dg.load_from_defs_folder(path_within_project=Path(__file__).parent / "defs"), settings)


def defs_of(spec: LoopSpec) -> dg.Definitions:
    """One model as this spec declares it, on the home that the environment names."""
    settings = prepared_settings()
    return on_home(loop_definitions(spec), settings)


def prepared_settings() -> Settings:
    """The settings of the environment, with what dbt reads put into it."""
    settings = Settings()
    configure_code_location(settings)
    os.environ.update(dbt_environment(settings))
    return settings


def on_home(models: dg.Definitions, settings: Settings) -> dg.Definitions:
    """Models with the resources of a home and the executor they share."""
    return dg.Definitions.merge(
        models,
        dg.Definitions(
            resources={
                "home": HomeResource.of(settings),
                "io_manager": DocumentIOManager(root=str(settings.data_dir / "documents")),
            },
            loggers={"console": run_logger(settings)} if settings.log_format == "json" else None,
            # One process per run: the multiprocess executor re-imports everything for each step (ADR 0003).
            executor=dg.in_process_executor,
        ),
    )
