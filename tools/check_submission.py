"""Check a log, a result or a submission package with the official checkers."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("check"))
