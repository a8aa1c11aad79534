"""Make this checkout importable. The scripts of this folder import this module before `mlperf`."""

import site
from pathlib import Path

site.addsitedir(str(Path(__file__).resolve().parent.parent))
