"""Make a sample in the Criteo format, with a planted signal."""

import sys

from environment import run

if __name__ == "__main__":
    sys.exit(run("sample"))
