"""The settings of a run and of a preparation, each with the flag that fills it. Nothing here imports PyTorch."""
