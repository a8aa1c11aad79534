"""Write one HTML page about one or several runs."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("report"))
