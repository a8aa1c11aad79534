"""Embedding tables: plain, compressed and quantized."""
