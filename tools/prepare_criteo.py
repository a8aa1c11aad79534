"""Prepare Criteo data: turn raw text into the binary files that training reads."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("prepare"))
