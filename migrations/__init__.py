"""Alembic migrations: the one way in which the database's shape changes."""
