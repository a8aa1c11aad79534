"""Plot the loss and the metric of one or several runs."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("plot"))
