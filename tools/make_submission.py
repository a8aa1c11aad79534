"""Create a submission package: run the benchmark or take logs, describe the system, copy the code."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("submit"))
