"""Calls whose outputs would harm a file: each must be refused in one line, before anything is changed.

`make_files` creates the files that the calls refer to, and `PATH_CASES` lists the calls, which refused_call.py
makes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import raw_text
import torch
from easy_data import write_easy_data
from odd_files import ODD_FILES

from mlperf.data.prepare.work_folder import WorkFolder
from mlperf.data.prepared.paths import DatasetPaths

TRAIN = (
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mini-batch-size=128", "--test-freq=2"),
    *("--num-batches=2", "--mlperf-logging"),
)
_DATA = "--processed-data-file=data/easy"


@dataclass(frozen=True)
class PathCase:
    """A call that must be refused.

    name: unique. arguments: of the call, in the folder of `make_files`. words: what the error message contains.
    change: creates further files in that folder.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    words: tuple[str, ...] = ()
    change: Callable[[Path], None] = lambda folder: None
    statuses: tuple[int, ...] = (2,)


def make_files(folder: Path) -> None:
    """Create a data set, raw text, checkpoint, logs and traces, and other names for all of them."""
    (folder / "data").mkdir()
    write_easy_data(folder / "data")
    raw_text.write_days(folder / "data", [3] * 24, seed=1)
    torch.save({"state_dict": {}}, folder / "model.pt")
    (folder / "trace.log").write_text("1, 2, 1, 3\n")
    (folder / "notes.txt").write_text("notes\n")
    (folder / "folder").mkdir()
    (folder / "linked").symlink_to("data")


def _links_to(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "here").symlink_to(".")
        (folder / "link.log").symlink_to(name)
        (folder / "link2.log").symlink_to(folder / "link.log")
        if (folder / name).exists():
            os.link(folder / name, folder / "hard.log")

    return change


_SPELLINGS = {
    "the same path": "{}",
    "an absolute path": "{folder}/{}",
    "a path with ..": "folder/../{}",
    "a path with //": ".//{}",
    "a path through /proc": "/proc/self/cwd/{}",
    "a path through a linked folder": "here/{}",
    "a link": "link.log",
    "a link to a link": "link2.log",
    "a hard link": "hard.log",
}
_INPUTS_OF_TRAINING = ("easy_train.bin", "easy_test.bin", "easy_val.bin", "easy_fea_count.npz", "easy.json")


def _training_cases() -> Iterator[PathCase]:
    """Yield runs whose checkpoint or log is one of their inputs, or both of which are the same."""
    for output in ("--save-model", "--mlperf-log-file"):
        for how, spelled in _SPELLINGS.items():
            for name in _INPUTS_OF_TRAINING:
                target = f"data/{name}"
                if how == "a hard link" and name == "easy.json":  # which does not exist
                    continue
                yield PathCase(
                    f"{output} is {name} by {how}",
                    "dlrm_s_pytorch.py",
                    (*TRAIN, _DATA, f"{output}={spelled.format(target, folder='{folder}')}"),
                    (output, "--processed-data-file=data/easy"),
                    _links_to(target),
                )
            yield PathCase(
                f"{output} is the raw data by {how}",
                "dlrm_s_pytorch.py",
                (
                    *(*TRAIN, "--raw-data-file=data/day"),
                    f"{output}={spelled.format('data/day_7', folder='{folder}')}",
                ),
                (output, "--raw-data-file=data/day"),
                _links_to("data/day_7"),
            )
    for how, spelled in _SPELLINGS.items():
        if how != "a hard link":
            yield PathCase(
                f"--save-model and --mlperf-log-file are the same by {how}",
                "dlrm_s_pytorch.py",
                (
                    *(*TRAIN, _DATA, f"--mlperf-log-file={spelled.format('new', folder='{folder}')}"),
                    "--save-model=new",
                ),
                ("--save-model", "--mlperf-log-file"),
                _links_to("new"),
            )
        yield PathCase(
            f"--mlperf-log-file is the loaded checkpoint by {how}",
            "dlrm_s_pytorch.py",
            (
                *(*TRAIN, _DATA, "--load-model=model.pt"),
                f"--mlperf-log-file={spelled.format('model.pt', folder='{folder}')}",
            ),
            ("--load-model=model.pt", "--mlperf-log-file"),
            _links_to("model.pt"),
        )


_TOO_LONG = "x" * 256
# Names that no output can have.
_WRONG_NAMES = {
    "in a missing folder": "none/x",
    "in a file": "notes.txt/x",
    "too long": _TOO_LONG,
    "in a folder with a name that is too long": f"{_TOO_LONG}/x",
    "in many folders": "x/" * 2000 + "x",
    "longer than a path may be": "x/" * 2500 + "x",
    "with a line end": "a\nb",
    "with an escape sequence": "a\x1b[2Jb",
    "a folder": "folder",
    "a folder with a final slash": "new/",
    "the folder above": "..",
    "empty": "",
}


def _name_cases() -> Iterator[PathCase]:
    """Yield calls with outputs that cannot be files, or whose file must not be replaced."""
    calls: dict[str, tuple[str, tuple[str, ...]]] = {
        "--save-model=": ("dlrm_s_pytorch.py", (*TRAIN, _DATA)),
        "--mlperf-log-file=": ("dlrm_s_pytorch.py", (*TRAIN, _DATA)),
        "result": ("tools/stack_distances.py", ("profile", "trace.log")),
    }
    for flag, (program, arguments) in calls.items():
        words = (flag.removesuffix("="),)
        for kind, name in _WRONG_NAMES.items():
            yield PathCase(f"{flag} {kind}", program, (*arguments, f"{flag}{name}".removeprefix("result")), words)
        for kind, make in ODD_FILES.items():
            if flag != "--mlperf-log-file=" or kind != "device":  # a log may be a device
                yield PathCase(
                    f"{flag} a {kind}",
                    program,
                    (*arguments, f"{flag}odd".removeprefix("result")),
                    words,
                    lambda folder, make=make: make(folder / "odd"),  # type: ignore[misc]
                    (1, 2),
                )


def _other_outputs_of_training() -> Iterator[PathCase]:
    """Yield runs with two outputs of the same name, one of which the user may not think of."""
    train = (*TRAIN, _DATA)
    for name, arguments, words in (
        ("lock", ("--save-model=new.pt", "--mlperf-log-file=.new.pt.lock"), ("the lock of --save-model",)),
        ("folder of the data", ("--mlperf-log-file=data",), ("--mlperf-log-file=data is a folder",)),
        ("lock of the data", ("--mlperf-log-file=data/easy.lock",), ("--mlperf-log-file", "the lock easy.lock")),
        ("file in the working folder", ("--save-model=data/easy.preparation/x",), ("--save-model",)),
        ("working folder", ("--save-model=data/easy.preparation",), ("--save-model", "the working folder")),
        ("default log", ("--save-model=mlperf_dlrm.log",), ("--mlperf-log-file=mlperf_dlrm.log",)),
        ("curves", ("--save-model=x", "--tensor-board-filename=x"), ("--save-model=x", "--tensor-board-filename")),
        ("folder of curves", ("--save-model=x", "--tensor-board-filename=x/y"), ("inside --save-model=x",)),
        ("profile", ("--save-model=dlrm_s_pytorch.prof", "--enable-profiling"), ("of --enable-profiling",)),
        ("trace", ("--save-model=dlrm_s_pytorch.json", "--enable-profiling"), ("of --enable-profiling",)),
        ("times", ("--save-model=dlrm_s_pytorch_time.json", "--time-breakdown"), ("of --time-breakdown",)),
        ("picture", ("--save-model=dlrm_s_pytorch_time.png", "--time-breakdown"), ("of --time-breakdown",)),
        ("curves in a file", ("--tensor-board-filename=notes.txt/x",), ("--tensor-board-filename",)),
        ("curves in the data", ("--tensor-board-filename=data/easy_train.bin",), ("easy_train.bin of",)),
    ):
        yield PathCase(f"an output of a run is also its {name}", "dlrm_s_pytorch.py", (*train, *arguments), words)
    yield PathCase(
        "an output is also the next default log",
        "dlrm_s_pytorch.py",
        (*train, "--save-model=mlperf_dlrm_2.log"),
        ("--save-model", "--mlperf-log-file=mlperf_dlrm_2.log"),
        lambda folder: os.rename(folder / "notes.txt", folder / "mlperf_dlrm.log"),
    )


def _prediction_cases() -> Iterator[PathCase]:
    """Yield evaluations whose predictions cannot be written, or would replace what is read."""
    program, call = "dlrm_s_pytorch.py", (*TRAIN, _DATA, "--inference-only")
    for kind, name in _WRONG_NAMES.items():
        words = ("--save-predictions",)
        yield PathCase(f"predictions {kind}", program, (*call, f"--save-predictions={name}"), words)
        named = f"--save-predictions={name}.csv"
        if kind not in ("a folder", "a folder with a final slash", "the folder above", "empty"):
            yield PathCase(f"predictions as text {kind}", program, (*call, named), words)
    for kind, make in ODD_FILES.items():
        yield PathCase(
            f"predictions are a {kind}",
            program,
            (*call, "--save-predictions=odd.npy"),
            ("--save-predictions=odd.npy",),
            lambda folder, make=make: make(folder / "odd.npy"),  # type: ignore[misc]
            (1, 2),
        )
    for how, spelled in _SPELLINGS.items():

        def change(folder: Path) -> None:
            shutil.copy(folder / "data" / "day_0", folder / "day.csv")
            _links_to("day.csv")(folder)
            for name in ("link", "link2", "hard"):
                os.rename(folder / f"{name}.log", folder / f"{name}.csv")
            (folder / "link2.csv").unlink()
            (folder / "link2.csv").symlink_to("link.csv")

        text = spelled.format("day.csv", folder="{folder}").replace(".log", ".csv")
        yield PathCase(
            f"predictions replace the scored text by {how}",
            program,
            (*call, "--load-model=model.pt", f"--score-text={text}", "--save-predictions=day.csv"),
            ("--save-predictions=day.csv is the same file as --score-text=",),
            change,
        )


def _preparation_cases() -> Iterator[PathCase]:
    """Yield preparations that would write to their raw data, to links, or to the files of others."""
    program = "tools/prepare_criteo.py"
    for name in ("new_train.bin", "new_test.bin", "new_val.bin", "new.json", "new.npz", "new.lock"):
        for how in ("the same path", "a link", "a hard link"):
            raw = _SPELLINGS[how].format(f"data/{name}")

            def change(folder: Path, name: str = name) -> None:
                shutil.copy(folder / "data" / "day_0", folder / "data" / name)
                _links_to(f"data/{name}")(folder)

            yield PathCase(
                f"the raw data is {name} by {how}",
                program,
                (f"--raw-data-file={raw}", "--processed-data-file=data/new"),
                ("--processed-data-file=data/new", f"--raw-data-file={raw}"),
                change,
            )
    call = ("--data-set=terabyte", "--raw-data-file=data/day", "--processed-data-file=data/new")
    for name in ("new_train.bin", "new_val.bin", "new.json", "new.lock", "new.preparation"):
        for kind, make in ODD_FILES.items():
            if (name, kind) != ("new.preparation", "folder"):  # an empty folder is used

                def change_odd(folder: Path, name: str = name, make: Callable[[Path], None] = make) -> None:
                    make(folder / "data" / name)

                yield PathCase(f"{name} is a {kind}", program, call, (name,), change_odd, (1, 2))
    for entry, content in (
        ("notes.txt", "notes"),
        ("train.bin", "rows of another program"),
        ("README.txt", "mine"),
    ):

        def change_work(folder: Path, entry: str = entry, content: str = content) -> None:
            (folder / "data" / "new.preparation").mkdir()
            (folder / "data" / "new.preparation" / entry).write_text(content)

        yield PathCase(
            f"the working folder has a foreign {entry}", program, call, ("new.prep",), change_work, (1,)
        )
    for kind in ("link", "hard link", "folder"):

        def change_entry(folder: Path, kind: str = kind) -> None:
            _mark_work_folder(folder / "data" / "new")
            entry = folder / "data" / "new.preparation" / "train.bin"
            if kind == "link":
                entry.symlink_to(folder / "notes.txt")
            elif kind == "hard link":
                os.link(folder / "notes.txt", entry)
            else:
                entry.mkdir()

        yield PathCase(f"a working file is a {kind}", program, call, ("train.bin",), change_entry, (1,))
    yield PathCase(
        "the lock has content",
        program,
        call,
        ("new.lock",),
        lambda folder: os.rename(folder / "notes.txt", folder / "data" / "new.lock"),
        (1,),
    )
    yield PathCase(
        "the working folder is a link to a folder",
        program,
        call,
        ("new.preparation",),
        lambda folder: (folder / "data" / "new.preparation").symlink_to(folder / "folder"),
        (1,),
    )


def _mark_work_folder(prefix: Path) -> None:
    work = WorkFolder(DatasetPaths(prefix))
    work.clear()


def _other_program_cases() -> Iterator[PathCase]:
    """Yield calls of the other programs."""
    for how, spelled in _SPELLINGS.items():
        for program, arguments, flag in (
            ("tools/stack_distances.py", ("profile", "trace.log"), ""),
            ("tools/plot_run.py", ("trace.log",), "--output="),
            ("tools/plot_run.py", ("data", "."), "--output="),
        ):
            output = f"{flag}{spelled.format('trace.log', folder='{folder}')}"
            yield PathCase(
                f"{program} {len(arguments)} writes to its input by {how}",
                program,
                (*arguments, output),
                ("is the same file as", "name another file"),
                _links_to("trace.log"),
            )
    for name, kind, make in (
        *(("day_3", kind, make) for kind, make in ODD_FILES.items()),
        *(("sample.json", kind, make) for kind, make in ODD_FILES.items()),
        *((".sample.lock", kind, make) for kind, make in ODD_FILES.items()),
        ("day_3", "link to a file", lambda path: path.symlink_to("../notes.txt")),
        ("sample.json", "file of another program", lambda path: path.write_text('{"rows": 1}')),
        (".sample.lock", "file with content", lambda path: path.write_text("content")),
        (".sample.lock", "link to a file", lambda path: path.symlink_to("../notes.txt")),
    ):

        def change(folder: Path, name: str = name, make: Callable[[Path], object] = make) -> None:
            make(folder / "folder" / name)

        yield PathCase(
            f"{name} of a sample is a {kind}",
            "tools/make_sample.py",
            ("--folder=folder", "--rows=2000"),
            (name,),
            change,
            (1,),
        )
    for place in ("notes.txt", "notes.txt/x", _TOO_LONG, "a\nb"):
        yield PathCase(
            f"--folder={place!r}", "tools/make_sample.py", (f"--folder={place}", "--rows=2000"), ("--folder",)
        )
        yield PathCase(
            f"--output={place!r}",
            "tools/make_submission.py",
            ("--submitter=Ours", "--system=box", f"--output={place}"),
            ("--output",),
        )
    for given in ("--logs", "--system-file"):
        yield PathCase(
            f"{given} is in the package",
            "tools/make_submission.py",
            ("--submitter=Ours", "--system=box", "--output=out", given, "out/Ours/results/box/x"),
            (given, "the package of --submitter=Ours"),
        )


PATH_CASES = [
    *_training_cases(),
    *_other_outputs_of_training(),
    *_name_cases(),
    *_prediction_cases(),
    *_preparation_cases(),
    *_other_program_cases(),
]


def copy_files(source: Path, target: Path) -> Path:
    """Copy the files of `make_files`, which takes less time than creating them."""
    shutil.copytree(source, target, symlinks=True)
    return target
