"""Alembic's entry: `sql_connections.migrate` hands it an open connection."""

from alembic import context

from boucle_adapters.sql_triggers import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
