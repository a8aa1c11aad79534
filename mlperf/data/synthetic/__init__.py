"""Random and synthetic batches, which need no data set."""
