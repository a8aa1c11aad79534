"""Profile a trace into a distribution of stack distances, or generate a trace from one."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("stack_distances"))
