"""Engines: how a model is scored and trained on a device."""
