"""Convert a checkpoint between a file and a folder of shards."""

import sys

from launch import run

if __name__ == "__main__":
    sys.exit(run("convert_checkpoint"))
