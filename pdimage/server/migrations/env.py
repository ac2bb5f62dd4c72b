"""How alembic runs the migrations: in the transaction of who calls (:mod:`pdimage.server.migrate`)."""

from alembic import context

from pdimage.server.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
