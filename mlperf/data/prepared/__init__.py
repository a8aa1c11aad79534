"""Prepared data sets: files, manifest, verification."""
