"""Profile a trace into a distribution of stack distances, or generate a trace from one."""

import sys

from environment import run

if __name__ == "__main__":
    sys.exit(run("stack_distances"))
