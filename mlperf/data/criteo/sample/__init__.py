"""The synthetic sample in the Criteo format."""
