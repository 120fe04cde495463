"""Imported by the process that warm ones are forked from, and by nobody else."""

import os
from importlib import import_module

from assets_tests.warm import WIDTH
from boucle_adapters.settings import quiet_environment

os.environ["COLUMNS"] = WIDTH  # the consoles of the command take it when they are made
quiet_environment()  # before what reads its switches

for name in (
    "boucle_cli.main",
    "boucle_cli.verbs",
    "boucle_platform.definitions",
    "boucle_platform.instance",
    "dagster_dbt",
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "mlflow.onnx",
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.ensemble",
):
    import_module(name)
