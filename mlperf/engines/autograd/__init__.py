"""General engine: PyTorch modules and autograd."""
