"""Layers of the DLRM."""
