"""Train or evaluate a model: python -m mlperf [flags], the same as dlrm-train and dlrm_s_pytorch.py."""

import sys

from mlperf.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
