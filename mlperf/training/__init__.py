"""The training loop, its events, the learning rate and checkpoints."""
