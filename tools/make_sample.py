"""Generate a synthetic sample in the Criteo format, with a planted signal."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("sample"))
