"""Uploaded and result files."""
