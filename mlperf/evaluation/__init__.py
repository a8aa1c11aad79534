"""Evaluation and its metrics."""
