"""Train or evaluate DLRM, the MLPerf recommendation benchmark. See README.md, or --help for the flags."""

import sys

from mlperf.cli.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
