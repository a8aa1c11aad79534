"""Helpers without knowledge of the benchmark."""
