"""Compute the stack-distance distribution of a trace, or generate a trace from a distribution."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("stack_distances"))
