"""Preparation of Criteo data: from raw text to binary files."""
