"""Draw a trained model and its data."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("visualize"))
