"""Evaluation of a model on the test split: predictions and metrics."""
