"""Figures of runs, of models and of their data."""
