"""Listeners of the training loop: console, compliance log, debug output, TensorBoard, profile."""
