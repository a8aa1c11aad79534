"""Generated batches: random data and synthetic traces."""
