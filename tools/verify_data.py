"""Verify prepared data: rows, label rate, index ranges, checksums, manifest."""

import sys

from environment import run

if __name__ == "__main__":
    sys.exit(run("verify"))
