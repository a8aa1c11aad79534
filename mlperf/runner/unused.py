"""Report flags of a run that have no effect."""

from __future__ import annotations

import logging

from mlperf.settings.settings import Settings
from mlperf.settings.unused import unused_flags

_log = logging.getLogger(__name__)


def report_unused_flags(settings: Settings) -> None:
    """Log the flags that have no effect. Called when the run can no longer be refused."""
    for line in unused_flags(settings):
        _log.warning(line)
