"""Prepare Criteo data: convert raw text to the binary files used for training."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("prepare"))
