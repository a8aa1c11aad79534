"""Optimizers that update only the rows a batch used."""
