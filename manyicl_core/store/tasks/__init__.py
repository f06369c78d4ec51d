"""Tasks out of a project's files, and the copies of them that jobs and evaluations keep."""
