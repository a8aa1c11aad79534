"""The checkpoint from which a run continues (--resume, --load-model=latest)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from mlperf.distributed.agreement import decided_by_first, values_of_all
from mlperf.settings.run import BEST_MODEL, LAST_MODEL
from mlperf.settings.settings import Settings
from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.checkpoint_place import has_been_saved
from mlperf.util.errors import RunError
from mlperf.util.failures import system_failures
from mlperf.util.folders import replaced_name, restore_folder

_log = logging.getLogger(__name__)


def with_latest(settings: Settings) -> Settings:
    """Return the settings with the checkpoint to continue from as --load-model.

    With --resume, that is the newest intact one in the folder of the run; if there is none yet, the run starts as
    its flags say. With --load-model=latest, it is that of --save-model, if it exists. The first process decides
    for all. RunError if there are checkpoints in the folder, and none of them is intact.
    """
    if settings.run.resume:
        newest = _newest_intact(settings)
        return settings if newest is None else replace(settings, load_model=newest, load_weights=None)
    path = settings.save_model
    if not settings.loads_latest or path is None:
        return settings
    exists = decided_by_first(lambda: _can_be_loaded(path))
    if not exists:
        _log.info("--load-model=latest: --save-model=%s does not exist yet: starting from initial weights", path)
    return replace(settings, load_model=path if exists else None)


def _can_be_loaded(path: Path) -> bool:
    with system_failures(path, "the checkpoint cannot be read"):
        return has_been_saved(path) or replaced_name(path).is_dir()


def _is_there(path: Path, settings: Settings) -> bool:
    """Return whether there is a checkpoint.

    In the folder of the run, which is reserved, one that a killed run was replacing gets its name back.
    """
    with system_failures(path, "the checkpoint cannot be read"):
        if path.parent == settings.run.output_dir:
            restore_folder(path)
    return _can_be_loaded(path)


@dataclass(frozen=True)
class _Saved:
    """A checkpoint in the folder of the run. position: epoch and iteration. problem: why it cannot be used."""

    path: Path
    position: tuple[int, int]
    problem: str | None = None


def _newest_intact(settings: Settings) -> Path | None:
    """Return the checkpoint with the latest position whose values all have their checksums, None without any."""
    found = decided_by_first(lambda: [path for path in _candidates(settings) if _is_there(path, settings)])
    problems: list[str] = []
    # The unreadable ones come first, so that they are named even if another one is intact.
    newest_first = sorted(map(_examined, found), key=lambda saved: saved.position, reverse=True)
    for saved in sorted(newest_first, key=lambda saved: saved.problem is None):
        problem = saved.problem or _damage(saved.path)
        if problem is None:
            return saved.path
        problems.append(problem)
        _log.warning("--resume: not from %s", problem)
    if problems:
        raise RunError(f"--resume: no checkpoint of the run is intact: {problems[0]}")
    _log.info("--resume: %s has no checkpoint yet: the run starts", settings.run.output_dir)
    return None


def _candidates(settings: Settings) -> list[Path]:
    """Return the names that the checkpoints of the run may have; of equal ones, the first is preferred."""
    names = [settings.run.path(name) for each in (LAST_MODEL, BEST_MODEL) for name in (each, each.with_suffix(""))]
    return names if settings.save_model is None or settings.save_model in names else [*names, settings.save_model]


def _examined(path: Path) -> _Saved:
    """Read the position in a checkpoint."""
    try:
        with open_checkpoint(path) as file:
            epoch, iteration = file.contents.get("epoch"), file.contents.get("iter")
    except RunError as error:
        return _Saved(path, (-1, -1), str(error))
    if not isinstance(epoch, int) or not isinstance(iteration, int):
        return _Saved(path, (-1, -1), f"{path}: has no epoch and iteration")
    return _Saved(path, (epoch, iteration))


def _damage(path: Path) -> str | None:
    """Return what is wrong with the values in a checkpoint, None if they have their checksums.

    Of a sharded checkpoint, each process reads a part.
    """
    problem = None
    try:
        with open_checkpoint(path) as file:
            file.verify()
    except RunError as error:
        problem = str(error)
    return next((found for found in values_of_all(problem) if found is not None), None)
