"""Text files, plain or compressed, read in blocks of whole lines."""
