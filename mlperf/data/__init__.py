"""Data of a run: batches, the binary row format, Criteo data sets and generated data."""
