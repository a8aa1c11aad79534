"""What stands at the path of an output file."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from odd_files import make_socket

# Puts something into the case's folder and returns the path to name on the command line, relative to it.
Trap = Callable[[Path, random.Random], str]


def another_file(name: str) -> Trap:
    """Name an existing file, in one of the ways in which a path can be written."""

    def trap(folder: Path, draw: random.Random) -> str:
        return draw.choice(
            [name, f"./{name}", f"out/../{name}", str(folder / name), f"{name.partition('/')[0]}/../{name}"]
        )

    return trap


def link_to(name: str) -> Trap:
    def trap(folder: Path, draw: random.Random) -> str:
        target = draw.choice([Path("..") / name, folder / name])
        (folder / "out" / "target").symlink_to(target)
        return "out/target"

    return trap


def hard_link_to(name: str) -> Trap:
    def trap(folder: Path, draw: random.Random) -> str:
        os.link(folder / name, folder / "out" / "target")
        return "out/target"

    return trap


def folder_link_to(name: str) -> Trap:
    """Name a file through a link to its folder."""

    def trap(folder: Path, draw: random.Random) -> str:
        (folder / "out" / "way").symlink_to((folder / name).parent)
        return f"out/way/{Path(name).name}"

    return trap


def device(name: str) -> Trap:
    return lambda folder, draw: f"/dev/{name}"


def pipe(folder: Path, draw: random.Random) -> str:
    os.mkfifo(folder / "out" / "target")
    return "out/target"


def unix_socket(folder: Path, draw: random.Random) -> str:
    make_socket(folder / "out" / "target")
    return "out/target"


def occupied(content: bytes) -> Trap:
    """Name an existing file with this content."""

    def trap(folder: Path, draw: random.Random) -> str:
        (folder / "out" / "target").write_bytes(content)
        return "out/target"

    return trap


def unwritable(kind: str) -> Trap:
    def trap(folder: Path, draw: random.Random) -> str:
        target = folder / "out" / "target"
        if kind == "file":
            target.write_bytes(b"")
            target.chmod(0o444)
        else:
            (folder / "out" / "closed").mkdir(mode=0o555 if kind == "folder" else 0)
            return "out/closed/target"
        return "out/target"

    return trap


def strange(name: str) -> Trap:
    return lambda folder, draw: name


def a_folder(folder: Path, draw: random.Random) -> str:
    (folder / "out" / "target").mkdir()
    return draw.choice(["out/target", "out/target/", "out", "."])


IN_USE = ("data/processed_train.bin", "data/processed_test.bin", "data/processed_val.bin", "data/processed.json")
TRAPS: dict[str, Trap] = {
    **{f"{name} itself": another_file(name) for name in IN_USE},
    **{f"link to {name}": link_to(name) for name in IN_USE},
    **{f"hard link to {name}": hard_link_to(name) for name in IN_USE},
    "a split through a folder that is a link": folder_link_to(IN_USE[0]),
    "the other output": another_file("out/own.pt"),
    "the other output, a log": another_file("out/own.log"),
    "link to the other output": link_to("out/own.pt"),
    "link to the other output, a log": link_to("out/own.log"),
    "the default log": another_file("mlperf_dlrm.log"),
    "link to the default log": link_to("mlperf_dlrm.log"),
    "link to nothing": link_to("out/nothing"),
    "link to itself": link_to("out/target"),
    "link to a precious file": link_to("precious.txt"),
    "hard link to a precious file": hard_link_to("precious.txt"),
    "link to an older checkpoint": link_to("older.pt"),
    "an older checkpoint": another_file("older.pt"),
    "a precious file": another_file("precious.txt"),
    "a file that is no checkpoint": occupied(b"precious\n"),
    "an empty file": occupied(b""),
    **{f"/dev/{name}": device(name) for name in ("null", "full", "zero", "random", "stdin")},
    "a pipe": pipe,
    "a socket": unix_socket,
    "a folder": a_folder,
    "a read-only file": unwritable("file"),
    "a file in a read-only folder": unwritable("folder"),
    "a file in a closed folder": unwritable("closed"),
    "a name of 300 characters": strange("out/" + "x" * 300),
    "a name of 255 characters": strange("out/" + "x" * 255),
    "a path of 5,000 characters": strange("out/" + "x/" * 2500 + "x"),
    "a folder that does not exist": strange("out/none/x"),
    "a file as a folder": strange("precious.txt/x"),
    "a name with a line break": strange("out/a\nb"),
    "a name with control characters": strange("out/\x1b[31mred\x07"),
    "a name with a byte that is not UTF-8": strange("out/\udcff"),
    "a name with a slash at its end": strange("out/x/"),
    "an empty name": strange(""),
    "a name that looks like a flag": strange("--save-model"),
    "the parent folder": strange(".."),
    "a file of the process": strange("/proc/self/mem"),
    "a file of the system": strange("/sys/kernel/uevent_helper"),
}


def _linked_file(path: Path, folder: Path) -> None:
    path.symlink_to(folder / "precious.txt")


def _linked_folder(path: Path, folder: Path) -> None:
    path.symlink_to(folder / "precious")


def _folder_with_files(path: Path, folder: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def _dangling_link(path: Path, folder: Path) -> None:
    path.symlink_to(folder / "nothing")


def _pipe(path: Path, folder: Path) -> None:
    os.mkfifo(path)


def _file(path: Path, folder: Path) -> None:
    path.write_bytes(b"mine\n")


PREPARATION_TRAPS = {
    "a link to a file": _linked_file,
    "a link to a folder": _linked_folder,
    "a link to nothing": _dangling_link,
    "a folder with files": _folder_with_files,
    "a pipe": _pipe,
    "a foreign file": _file,
}
