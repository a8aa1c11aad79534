"""Synthetic sample in the layout of the Criteo Terabyte data."""
