"""Draw a trained model and its data."""

import sys

from environment import run

if __name__ == "__main__":
    sys.exit(run("visualize"))
