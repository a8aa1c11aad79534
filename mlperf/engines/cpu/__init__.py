"""The CPU engine, with compiled loops."""
