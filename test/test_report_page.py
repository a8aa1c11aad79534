"""The HTML page of runs: what it says, and that it is one safe file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
from foreign_logs import Entry, write_log
from metrics_files import START, at, evaluation, progress, stop, write
from program import Finished, golden_flags, run_program

from mlperf.page.document import page_of
from mlperf.page.elements import element
from mlperf.page.numbers import duration, significant, size, tick_labels, ticks
from mlperf.page.runs import read_reports
from mlperf.util.errors import RunError

_VOID = ("meta", "input")


class _Page(HTMLParser):
    """Reads a page. text: of each element by its id or its name. Fails if elements are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data
            if self._open and {"td", "th"} & set(self._open):
                self.cells[-1][-1] += data

    def row(self, heading: str) -> list[str]:
        """Return the other cells of the row with this heading."""
        return next(cells[1:] for cells in self.cells if cells and cells[0].strip() == heading)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(*arguments: str | Path, cwd: Path) -> Finished:
    return run_program(*map(str, arguments), cwd=cwd, program="tools/report.py")


def page(*arguments: str | Path, cwd: Path) -> _Page:
    run = report(*arguments, cwd=cwd)
    assert run.status == 0, run.stderr
    return _Page(cwd / "report.html")


def write_run(folder: Path, auc: float = 0.81, settings: Mapping[str, Any] | None = None) -> Path:
    """Write the metrics of a run into a folder."""
    folder.mkdir(parents=True)
    start = {**START, "settings": dict(settings or {}), "system": {"cpu": "Example", "memory": 64_000_000_000}}
    losses = [progress(1000.0 + number, number, 0.7 - number / 50) for number in range(1, 11)]
    epoch = [at("epoch_start", 1000.5, 0), *losses, evaluation(1011.0, 10, auc)]
    write(folder / "metrics.jsonl", start, *epoch, stop(1012.0, 10))
    return folder


def test_page_of_one_run_says_how_it_ended_and_how_good_it_is(tmp_path: Path) -> None:
    write_run(tmp_path / "first", settings={"learning-rate": 0.5})
    found = page("first", cwd=tmp_path)
    for text in ("✓ success", "0.81000", "target 0.8025: reached", "time to target", "11.0 s", "of 12.0 s"):
        assert text in found.text
    assert "32,000" in found.text  # 64 samples in 2 ms
    assert found.row("--learning-rate") == ["0.5"]
    assert found.row("memory") == ["64.0 GB"]
    assert found.row("target AUC") == ["0.8025"]
    titles = re.findall(r"(AUC on the test split|Training loss|Learning rate|Training speed) against", found.text)
    assert len(titles) == 4 * 3  # each over epochs, iterations and time


def test_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    found = page("first", cwd=tmp_path)
    loading = [attributes for _, attributes in found.tags if {"src", "href", "action", "data"} & attributes.keys()]
    assert loading == []
    assert not {"link", "img", "iframe", "object", "a"} & {tag for tag, _ in found.tags}
    text = (tmp_path / "report.html").read_text()
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    policy = next(each["content"] for each in found.of("meta") if "http-equiv" in each)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_text_of_the_files_cannot_become_markup(tmp_path: Path) -> None:
    bad = "</td></table><script>alert(1)</script>\"'&\x1b[31m\u202e"
    folder = write_run(tmp_path / "first", settings={"mlperf-platform": bad, bad: "x"})
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"success"', json.dumps(bad)))
    found = page("first", f"--labels={bad.replace(',', '')}", f"--title={bad}", cwd=tmp_path)
    assert len(found.of("script")) == 1
    assert "alert(1)" in found.text
    assert "\x1b" not in (tmp_path / "report.html").read_text()


def test_comparison_shows_the_best_and_what_differs(tmp_path: Path) -> None:
    write_run(tmp_path / "slow", 0.79, {"learning-rate": 0.1, "nepochs": 1})
    write_run(tmp_path / "good", 0.81, {"learning-rate": 0.5, "nepochs": 1})
    found = page("slow", "good", "--title=Two rates", cwd=tmp_path)
    assert "Two rates" in found.text
    headings = found.cells[0]
    good = dict(zip(headings, [" good", *found.row("good")], strict=True))
    slow = dict(zip(headings, [" slow", *found.row("slow")], strict=True))
    assert (good["best AUC"], good["time to target"]) == ("0.81000", "11.0 s")
    assert (slow["best AUC"], slow["time to target"]) == ("0.79000", "")
    text = (tmp_path / "report.html").read_text()
    assert "<strong>0.81000</strong>" in text
    assert "<strong>0.79000</strong>" not in text
    assert found.row("--learning-rate") == ["0.1", "0.5"]
    assert found.row("--nepochs") == ["1"]
    assert found.cells.index(["--learning-rate", "0.1", "0.5"]) < found.cells.index(["--nepochs", "1"])


def test_runs_with_the_same_label_have_the_same_colour_and_are_numbered(tmp_path: Path) -> None:
    for name in "abc":
        write_run(tmp_path / name)
    found = page("a", "b", "c", "--labels=SGD,SGD,Adagrad", cwd=tmp_path)
    colors = [each["class"] for each in found.of("g") if each.get("data-run") is not None]
    assert colors[:3] == ["run c0", "run c0", "run c1"]
    assert [cells[0].strip() for cells in found.cells[1:4]] == ["SGD (1)", "SGD (2)", "Adagrad"]
    assert "SGD, 2 runs" in found.text


def test_a_folder_of_runs_has_one_label(tmp_path: Path) -> None:
    for name in ("sgd/a", "sgd/b", "adagrad"):
        write_run(tmp_path / name)
    found = page("sgd", "adagrad", "--labels=SGD,Adagrad", cwd=tmp_path)
    assert [cells[0].strip() for cells in found.cells[1:4]] == ["SGD (1)", "SGD (2)", "Adagrad"]


def test_target_is_that_of_the_run(tmp_path: Path) -> None:
    write_run(tmp_path / "first", 0.81, {"mlperf-acc-threshold": 0.75})
    found = page("first", cwd=tmp_path)
    assert "target 0.75: reached" in found.text
    assert "11.0 s" in found.text
    assert found.row("target accuracy") == ["0.75"]
    assert "0.8025" not in found.text
    write_run(tmp_path / "second", 0.81, {"mlperf-auc-threshold": 0.82})
    missed = page("second", cwd=tmp_path)
    assert "target 0.82: 0.01000 below" in missed.text
    assert "time to target" not in missed.text


def test_same_runs_give_the_same_page(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    first = page("first", cwd=tmp_path)
    content = (tmp_path / "report.html").read_text()
    assert page("first", cwd=tmp_path).text == first.text
    assert (tmp_path / "report.html").read_text() == content


def test_page_of_a_real_run_has_its_evaluations_and_checkpoint(terabyte: Path, tmp_path: Path) -> None:
    flags = ("--metrics-file=run/metrics.jsonl", "--save-model=run/model.pt", "--mlperf-log-file=run/mlperf.log")
    (tmp_path / "run").mkdir()
    run = run_program(*golden_flags("sgd", terabyte), *flags, cwd=tmp_path)
    assert run.status == 0, run.stderr
    (tmp_path / "run/old.pt").write_bytes(b"no checkpoint")
    found = page("run", cwd=tmp_path)
    assert "run: 11 evaluations" in found.text
    printed = [float(auc) for auc in re.findall(r" auc ([\d.]+), best", run.stdout)]
    shown = [float(found.row(f"{each / 11:.4f}")[2]) for each in range(1, 12)]
    assert shown == pytest.approx(printed, abs=1e-4)
    kind, position, auc = found.row("model.pt")[:3]
    assert kind == "best"
    assert re.fullmatch(r"epoch 0, iteration \d+ of 55", position)
    assert float(auc) == pytest.approx(max(printed), abs=1e-4)
    assert (
        found.row("old.pt")[-1]
        == "damaged, or not a PyTorch checkpoint: it has neither of the two formats of torch.save"
    )


def test_page_of_a_compliance_log_has_its_times_and_hyperparameters(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("submission_benchmark", "dlrm", {}, 0),
        ("submission_platform", "Example 8000", {}, 0),
        ("global_batch_size", 1000, {}, 0),
        ("train_samples", 100_000, {}, 0),
        ("run_start", None, {}, 1000),
        ("eval_accuracy", 0.79, {"epoch_num": 0.5}, 61_000),
        ("eval_accuracy", 0.8030, {"epoch_num": 1.0}, 121_000),
        ("run_stop", None, {"status": "success"}, 122_000),
    ]
    write_log(tmp_path / "result_0.txt", entries)
    found = page("result_0.txt", cwd=tmp_path)
    for text in ("✓ success", "0.80300", "2 min 00 s", "of 2 min 01 s", "2022-04-15"):
        assert text in found.text
    assert found.row("global batch size") == ["1000"]
    assert found.row("platform") == ["Example 8000"]


TIMES = {
    "phases": [
        {
            "name": "training",
            "seconds": 8.0,
            "ms": 80.0,
            "parts": [
                {"name": "lookup", "seconds": 6.0, "ms": 60.0},
                {"name": "top MLP", "seconds": 2.0, "ms": 20.0, "min_ms": 15.0, "max_ms": 25.0},
            ],
        },
        {
            **{"name": "evaluation", "seconds": 2.0, "parts": []},
            "read_ahead": {"threads": 2, "seconds": 1.0, "ms": 5.0},
        },
    ]
}


def test_time_breakdown_is_drawn_with_its_shares(tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    (tmp_path / "first/time.json").write_text(json.dumps(TIMES))
    found = page("first", cwd=tmp_path)
    assert found.row("lookup") == ["6.0 s", "60.0", "60.0"]
    assert found.row("top MLP") == ["2.0 s", "20.0", "20.0 (15.0 to 25.0)"]  # of several processes
    assert found.row("evaluation") == ["2.0 s", "20.0", ""]
    assert "Beside the evaluation, 2 threads read and decoded batches: 5.00 ms each." in found.text
    widths = [each["style"] for each in found.of("span") if each.get("style")]
    assert widths == ["width:60.000%", "width:20.000%", "width:20.000%"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "it is not JSON"),
        ("[]", "no time breakdown: must be an object"),
        ("{}", "the time breakdown has no list of phases"),
        ('{"phases": [{"name": "x", "seconds": -1}]}', "a part of the time breakdown has no name, or no seconds"),
        ('{"phases": [7]}', "a part of the time breakdown has no name, or no seconds"),
    ],
)
def test_wrong_time_breakdown_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    (tmp_path / "first/time.json").write_text(content)
    with pytest.raises(RunError, match=re.escape(reason)):
        page_of(read_reports([tmp_path / "first"], None)[0], "title")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--output=first/metrics.jsonl",), "--output=first/metrics.jsonl: must end in .html"),
        (("--output=first",), "--output=first is a folder; must be a file name, such as first/report.html"),
        (("--output=no/report",), "--output=no/report.html: folder no does not exist"),
        (("--labels=a,b",), "--labels=a,b: 2 labels for 1 run"),
    ],
)
def test_wrong_call_is_refused_in_one_line(flags: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    write_run(tmp_path / "first")
    run = report("first", *flags, cwd=tmp_path)
    assert run == Finished(2, "", f"report.py: error: {reason}\n")
    assert not (tmp_path / "report.html").exists()


ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 10**18, 10**400, 5e-324, 1e299, -1e299, 0.5, "", "<b>", "\ud800"),
    *([], [1], {}, {"phases": [{"name": "x", "seconds": 1e299}]}),
]


def changed(value: Any, random: Random) -> Any:
    """Return a JSON value with one value in it replaced or removed."""
    value = json.loads(json.dumps(value))
    place = value
    while True:
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and random.random() < 0.8:
            place = place[key]
            continue
        if random.random() < 0.15:
            del place[key]
        else:
            place[key] = random.choice(ODD_VALUES)
        return value


@pytest.mark.parametrize("seed", range(100))
def test_changed_metrics_give_a_page_or_an_error_of_one_line(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    path = write_run(tmp_path / "first", settings={"mlperf-auc-threshold": 0.5}) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records.insert(-1, {"event": "time_breakdown", "time": 1011.5, "breakdown": TIMES})
    number = random.randrange(len(records))
    records[number] = changed(records[number], random)
    write(path, *records)
    content, error = page_or_error(path)
    assert "\n" not in error
    content.encode()
    assert not re.search(r"\b(nan|inf|None)\b", content, re.IGNORECASE)


def page_or_error(path: Path) -> tuple[str, str]:
    """Return the text of the page of a file, without style and script, or the error."""
    try:
        content = page_of(read_reports([path], None)[0], "title")
    except RunError as error:
        return "", str(error)
    return content.partition("</head>")[2].partition("<script>")[0], ""


def test_run_that_failed_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "first", 0.5)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"success"', '"diverged"'))
    found = page("first", cwd=tmp_path)
    assert "✕ diverged" in found.text
    assert "the run learned nothing or diverged: its last AUC is 0.5000" in found.text


def test_ticks_are_round_numbers_within_the_range() -> None:
    assert ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.7812, 0.8031, 5) == pytest.approx([0.785, 0.79, 0.795, 0.8])
    assert tick_labels(ticks(0.7812, 0.8031, 5)) == ["0.785", "0.790", "0.795", "0.800"]
    assert tick_labels([0.0, 20_000.0, 40_000.0]) == ["0", "20k", "40k"]
    assert tick_labels([0.0, 1e-5, 2e-5]) == ["0", "1e-05", "2e-05"]
    assert ticks(3.0, 3.0, 5) == [3.0]


def test_numbers_are_written_as_people_read_them() -> None:
    times = [0.0451, 45.24, 200, 7500, None]
    assert [duration(each) for each in times] == ["45.1 ms", "45.2 s", "3 min 20 s", "2 h 05 min", None]
    assert [significant(each) for each in (12345.6, 0.01234, 1.5, 0.0)] == ["12,300", "0.0123", "1.50", "0"]
    assert [size(each) for each in (25_276_510_208, 8_790_000, 12)] == ["25.3 GB", "8.79 MB", "12 bytes"]


def test_elements_escape_text_and_attributes() -> None:
    found = element("p", "1 < 2", element("b", "&"), class_='a"b', data_x=None)
    assert found == '<p class="a&quot;b">1 &lt; 2<b>&amp;</b></p>'
