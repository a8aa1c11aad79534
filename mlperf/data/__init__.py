"""Data: sources of batches, the binary file format, and its preparation."""
