"""The documentation: links are valid, and the programs, flags, files and numbers that it names exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from dlrm_models import make_batch, make_model

from mlperf.benchmarks import DLRM, KAGGLE
from mlperf.data.columns.description_file import read_description
from mlperf.data.columns.log_file import open_log
from mlperf.models.loss import Loss
from mlperf.settings.from_flags import parse
from mlperf.settings.model import EMBEDDING_PRECISIONS
from mlperf.training.events import Position, Progress

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "mlperf" / "docs").glob("*.md")])
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# Flags of other programs, and the flag of an example.
FOREIGN_FLAGS = {"--no-deps", "--usage", "--ruleset", "--check", "--lr-min"}
FOREIGN_FLAGS |= {"--nproc-per-node", "--nnodes", "--node-rank", "--standalone", "--master-addr"}  # of torchrun
FOREIGN_FLAGS |= {"--max-restarts", "--rdzv-backend", "--rdzv-endpoint"}
FOREIGN_FLAGS |= {"--nodes", "--gpus-per-node"}  # of sbatch
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
    return [words for block in blocks(page) for words in commands_of(block)]


def commands_of(block: str) -> list[list[str]]:
    """Return the words of each line of a block; see `commands`."""
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
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


def test_every_page_and_image_is_linked() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    files = [*(ROOT / "mlperf" / "docs").glob("*.md"), *(ROOT / "mlperf" / "docs" / "images").iterdir()]
    assert [file.name for file in files if file.name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_are_programs_of_this_project(page: Path) -> None:
    missing = []
    for words in commands(page):
        program = words[0]
        script = words[1] if program == "python" else program if "/" in program else ""
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
    for entry in (*PROGRAMS.values(), "mlperf.benchmarks.__main__:main"):
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


def test_commands_for_published_data_use_the_published_networks() -> None:
    """The front page trains on the Kaggle data; the page about checkpoints evaluates a published model."""
    pages = (ROOT / "README.md", ROOT / "mlperf" / "docs" / "checkpoints.md")
    lines = [set(words) for page in pages for words in commands(page) if words[0] == "dlrm-train"]
    published = [words for words in lines if words & {"--data-set=kaggle", "--load-model=tb00_40M.pt"}]
    widths = [{word for word in words if word.startswith("--arch-")} for words in published]
    networks = [
        {flag for flag in workload.network.flags if not flag.startswith(("--arch-interaction", "--loss"))}
        for workload in (KAGGLE, DLRM)
    ]
    assert widths == networks


def test_front_page_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [page_name(page) for page in (ROOT / "mlperf" / "docs").glob("*.md")]
    assert [page for page in pages if f"({page})" not in text] == []


def test_front_page_describes_the_clicks_that_its_model_fits(tmp_path: Path) -> None:
    """Its description fits the example of own_data.md, and its commands follow each other."""
    (described,) = [block for block in blocks(ROOT / "README.md") if "split = {" in block]
    (tmp_path / "columns.toml").write_text(described)
    description = read_description(tmp_path / "columns.toml")
    log = next(block for block in blocks(ROOT / "mlperf" / "docs" / "own_data.md") if block.startswith("day,"))
    (tmp_path / "clicks.csv").write_text(log)
    opened = open_log(tmp_path / "clicks.csv", description)
    assert opened.has_label
    (block,) = [block for block in blocks(ROOT / "README.md") if "--columns=" in block]
    _, trained, resumed, predicted, _ = commands_of(block)
    training = parse(trained[1:])
    assert training.model.architecture.mlp_bot[0] == len(description.dense)
    folder = training.run.output_dir
    assert folder is not None
    assert f"--output-dir={folder}" in resumed
    assert {f"--config={folder}/settings.toml", f"--load-model={folder}/model.pt"} <= set(predicted)
    loaded = f'mlperf.load("{folder}/model.pt", data="{training.data.processed_data_file}")'
    assert loaded in (ROOT / "README.md").read_text()


def test_commands_that_train_show_the_time_per_iteration() -> None:
    """Only the first example of the original implementation prints -1.00 ms/it, as published."""
    text = "\n".join(block for page in PAGES for block in blocks(page))
    variables = dict(re.findall(r'^(\w+)="([^"]*)"', text, re.MULTILINE))
    silent = []
    for words in (words for page in PAGES for words in commands(page) if words[0] == "dlrm-train"):
        flags = " ".join(variables.get(word.removeprefix("$"), word) for word in words[1:])
        if not re.search("--help|--inference-only|--print-time", flags):
            silent.append(flags)
    assert silent == ["--mini-batch-size=2 --data-size=6"]


def test_published_counts_are_those_of_the_benchmark() -> None:
    text = (ROOT / "mlperf" / "docs" / "data.md").read_text()
    data = DLRM.data
    assert f"| training rows | {data.train_samples:,} |" in text
    assert f"| rows of day 23 | {data.eval_samples + data.held_out_samples:,} |" in text
    assert f"| test rows | {data.eval_samples:,} |" in text
    assert f"{data.train_samples + data.eval_samples + data.held_out_samples:,}" in text


def test_layers_are_those_that_the_imports_are_checked_for() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    (layers,) = [block for block in blocks(ROOT / "mlperf" / "docs" / "architecture.md") if "cli\nrunner" in block]
    assert layers.split("\n")[:-1] == configuration["layers"]


def test_every_package_is_described() -> None:
    (packages, *_) = blocks(ROOT / "mlperf" / "docs" / "architecture.md")
    folders = {path.name for path in (ROOT / "mlperf").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert set(re.findall(r"^  (\w+)/", packages, re.MULTILINE)) | {"systems"} == folders


def test_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def examples() -> dict[str, str]:
    """Return the worked examples: the files that adding.md shows in full, by their names."""
    found = {}
    for block in blocks(ROOT / "mlperf" / "docs" / "adding.md"):
        if block.startswith("# mlperf/"):
            name, _, source = block.partition("\n")
            found[name.removeprefix("# ")] = source
    return found


def run_example(name: str) -> dict[str, Any]:
    """Return what the example file defines."""
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(examples()[name], name, "exec"), namespace)
    return namespace


def test_interaction_example_works_in_a_model() -> None:
    interaction = run_example("mlperf/models/layers/product.py")["ProductInteraction"](3, 4)
    bottom, pooled = torch.rand(5, 4), torch.rand(5, 2, 4)
    combined = interaction(bottom, pooled)
    assert combined.shape == (5, interaction.out_features)
    torch.testing.assert_close(combined, bottom * pooled[:, 0] * pooled[:, 1])


@pytest.mark.parametrize("precision", EMBEDDING_PRECISIONS)
def test_optimizer_example_trains_a_model(precision: str) -> None:
    model = make_model(embedding_precision=precision)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = run_example("mlperf/optim/sign_sgd.py")["SignSGD"](model)
    batch = make_batch(1, several=True)
    lookup = model.look_up(batch)
    Loss("bce")(model.predict(batch.dense, lookup.pooled), batch.labels).backward()
    optimizer.add(lookup)
    optimizer.step(0.5)
    weights = model.state_dict().items()
    changes = torch.cat([(value.float() - before[name].float()).abs().flatten() for name, value in weights])
    changed = changes[changes > 0]
    assert 0 < len(changed) < len(changes)
    distance = {"fp32": 1e-6, "bf16": 2.0**-7, "fp16": 2.0**-10}[precision]  # of representable values up to 2
    torch.testing.assert_close(changed, torch.full_like(changed, 0.5), rtol=0, atol=distance)


def test_listener_example_receives_progress_events(tmp_path: Path) -> None:
    listener = run_example("mlperf/reporting/csv_file.py")["CsvFile"](tmp_path / "loss.csv")
    listener.progress(Position(1, 5, 10), Progress(0.25, 0.5, 1.0, samples=60, learning_rate=0.1))
    assert (tmp_path / "loss.csv").read_text() == "1.5,0.25\n"
