"""Verify prepared data: rows, label rate, index ranges, checksums, manifest."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("verify"))
