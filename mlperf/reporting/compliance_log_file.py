"""The file of the compliance log: its name, and whether it can be written. Does not need mlperf-logging."""

from __future__ import annotations

from pathlib import Path

from mlperf.distributed.launchers import attempts
from mlperf.settings.reports import ComplianceSettings
from mlperf.settings.run import LOG_FILE
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError, UsageError
from mlperf.util.files import has_content
from mlperf.util.new_file import NewFile, first_free, numbered, open_new
from mlperf.util.output_files import require_writable_file, require_writable_folder, try_to_write

_DEFAULT_FILE = ComplianceSettings().log_file


def is_default_log(settings: Settings) -> bool:
    """Return whether the log has the default name, which gets a number if there is such a file.

    In the folder of a run (--output-dir), these are the logs of the run as it was continued.
    """
    path, in_folder = settings.compliance.log_file, settings.run.path(LOG_FILE)
    return path == _DEFAULT_FILE or (settings.run.output_dir is not None and path == in_folder)


def _is_numbered(settings: Settings) -> bool:
    """Return whether the log gets a number if there is such a file.

    Those with the default name do, and those of a run that torchrun has started again after a failure
    (--max-restarts): the first attempt has taken the name.
    """
    return is_default_log(settings) or attempts() > 0


def require_mlperf_logging() -> None:
    """Raise UsageError if the package that formats the log is missing. Called before anything is opened."""
    try:
        import mlperf_logging.mllog  # noqa: F401
    except ImportError:
        raise UsageError(
            "--mlperf-logging requires the package mlperf-logging (pip install mlperf-logging)"
        ) from None


def check_log_file(settings: Settings) -> None:
    """Raise an error if the log cannot be written or would replace another one, before any other work.

    UsageError if --mlperf-log-file names a file with content, unless the log gets a number.
    """
    path = settings.compliance.log_file
    if is_default_log(settings):
        require_writable_folder("--mlperf-log-file", path.parent)
    else:
        require_writable_file("--mlperf-log-file", path, allow_streams=True)
    if not _is_numbered(settings) and has_content(path):
        raise UsageError(_refusal(path))
    if not path.exists():
        try_to_write("--mlperf-log-file", path)


def log_name(settings: Settings) -> Path:
    """Return the name that the log will have if no other run takes it before."""
    path = settings.compliance.log_file
    return first_free(path) if _is_numbered(settings) else path


def open_log_file(settings: Settings) -> tuple[Path, NewFile]:
    """Return the name of the log and the open file, which replaces no other one. Errors as for ComplianceLog."""
    path = settings.compliance.log_file
    names = numbered(path) if _is_numbered(settings) else iter([path])
    for name in names:
        try:
            return name, open_new(name)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"--mlperf-log-file={name}: cannot be written: {error.strerror}") from None
    raise UsageError(_refusal(path))


def _refusal(path: Path) -> str:
    return f"--mlperf-log-file={path}: exists and is not overwritten; name another file, or remove this one"
