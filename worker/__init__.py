"""Faces the queue: takes jobs, runs their processes, records what they report. No torch."""
