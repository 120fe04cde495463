-- Beside the state store's own: runs and events of Dagster, and what MLflow keeps.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
