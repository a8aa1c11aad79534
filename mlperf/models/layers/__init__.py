"""Layers of DLRM: MLPs, embedding tables and feature interactions."""
