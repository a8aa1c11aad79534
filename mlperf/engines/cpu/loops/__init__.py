"""Loops of the CPU engine, compiled by numba."""
