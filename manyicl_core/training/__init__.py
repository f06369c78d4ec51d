"""The trainer: one process that trains one job. Read ``trainer`` top to bottom."""
