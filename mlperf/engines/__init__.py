"""Engines, which train and evaluate a model."""
