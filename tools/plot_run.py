"""Plot the loss and the metric of one or several runs."""

import sys

from environment import run

if __name__ == "__main__":
    sys.exit(run("plot"))
