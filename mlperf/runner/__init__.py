"""Assemble and execute a run from its settings; the Python API."""
