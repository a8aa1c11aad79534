"""Criteo click logs: preparing, reading, verifying and imitating them."""
