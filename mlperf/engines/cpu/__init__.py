"""CPU engine: matrix products of PyTorch and oneDNN, with fused loops in between."""
