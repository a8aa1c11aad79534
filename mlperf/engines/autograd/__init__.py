"""The general engine, with autograd."""
