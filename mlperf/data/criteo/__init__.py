"""The Criteo click logs."""
