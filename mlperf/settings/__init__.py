"""Settings of a run and of a preparation, each declared with its flag. Nothing here imports PyTorch."""
