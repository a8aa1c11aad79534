"""The documentation: its links lead somewhere, and the programs, flags and files that it names exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "mlperf" / "docs").glob("*.md")])
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# Flags of programs that are not of this project.
FOREIGN_FLAGS = {"--usage", "--ruleset"}
# Folders in which a path in the text is one of this repository.
FOLDERS = ("mlperf/", "bench/", "tools/", "test/", "input/dist", ".ci/", ".github/")


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """Return the code blocks of a page, continued lines joined."""
    found = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def commands(page: Path) -> list[list[str]]:
    """Return the words of each line in a code block, without comments and leading variables."""
    lines = [line.partition("#")[0].split() for block in blocks(page) for line in block.splitlines()]
    stripped = []
    for words in lines:
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words:
            stripped.append(words)
    return stripped


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_and_picture_is_linked() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    files = [*(ROOT / "mlperf" / "docs").glob("*.md"), *(ROOT / "mlperf" / "docs" / "pictures").iterdir()]
    assert [file.name for file in files if file.name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_are_programs_of_this_project(page: Path) -> None:
    missing = []
    for words in commands(page):
        program = words[0]
        script = words[1] if program == "python" and len(words) > 1 else program
        if program.startswith("dlrm-"):
            missing += [program] if program not in PROGRAMS else []
        elif script == "-m":
            missing += [words[2]] if importlib.util.find_spec(words[2]) is None else []
        elif script.endswith((".py", ".sh")) and not (ROOT / script).is_file():
            missing.append(script)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_paths_in_the_text_exist(page: Path) -> None:
    named = re.findall(r"`([\w./-]+)`", page.read_text())
    paths = [name for name in named if name.startswith(FOLDERS) and "NAME" not in name]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """Return every flag that --help of a program of this project names."""
    import contextlib
    import io

    flags: set[str] = set()
    for entry in PROGRAMS.values():
        module, _, function = entry.partition(":")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            getattr(importlib.import_module(module), function)(["--help"])
        flags.update(re.findall(r"--[a-z][\w-]*", printed.getvalue()))
    for script in (ROOT / "bench").glob("*.py"):
        flags.update(re.findall(r'"(--[a-z][\w-]*)"', script.read_text()))
    return flags


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_flags_in_the_text_exist(page: Path, known_flags: set[str]) -> None:
    code = "\n".join([*blocks(page), *re.findall(r"`([^`\n]+)`", page.read_text())])
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code))
    assert named - known_flags - FOREIGN_FLAGS == set()


def test_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
