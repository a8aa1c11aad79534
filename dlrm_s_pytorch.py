"""Train or evaluate DLRM, the MLPerf recommendation benchmark. See README.md, or --help for the flags."""

import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports prints no traceback
    from mlperf.cli.train import main

    sys.exit(main(sys.argv[1:]))
