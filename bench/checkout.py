"""Makes this checkout importable: scripts of this folder import it before `mlperf`, and need no installation."""

import site
from pathlib import Path

site.addsitedir(str(Path(__file__).resolve().parent.parent))
