"""Prepared Criteo data: its files, its manifest, and their verification."""
