"""The MLflow run of a Dagster run, through dagster-mlflow."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from boucle_adapters.home import Home


@dg.resource(
    config_schema={"experiment_name": str}, required_resource_keys={"home"}, description="MLflow run of this run"
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """`dagster_mlflow.mlflow_tracking`, with the experiment's artifacts kept in the home.

    Imported here and not at the top: importing MLflow takes longer than starting the code server.
    """
    import dagster_mlflow

    home: Home = context.resources.home.connect()
    name = context.resource_config["experiment_name"]
    home.registry.ensure_experiment(name)
    config = {"experiment_name": name, "mlflow_tracking_uri": home.registry.tracking_uri, "env": {}, "extra_tags": {}}
    tracking: Any = dagster_mlflow.mlflow_tracking.resource_fn
    yield from tracking(context.replace_config(config))
