"""Preparation of raw Criteo text."""
