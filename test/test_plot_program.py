"""plot_run.py: which files of a folder are plotted, and where the figure is written."""

from __future__ import annotations

from pathlib import Path

from foreign_logs import foreign_entries, foreign_results, unchanged, write_log
from program import Finished, run_program


def plot(*arguments: str, cwd: Path) -> Finished:
    return run_program(*arguments, cwd=cwd, program="tools/plot_run.py")


def test_logs_beside_the_folder_of_results_are_named(tmp_path: Path) -> None:
    foreign_results(tmp_path / "results", "1.0.0", unchanged)
    for name in ("requirements.txt", "results/package_checker_params_reason.txt"):
        (tmp_path / name).write_text("not a log\n")
    assert plot(".", cwd=tmp_path) == Finished(0, "run.png: 5 runs\n", "")
    write_log(tmp_path / "mlperf_dlrm.log", foreign_entries(1, edition="1.0.0"))
    run = plot(".", cwd=tmp_path)
    assert run.stdout == "run.png: 5 runs\n"
    assert run.stderr == "warning: left out: mlperf_dlrm.log: only the logs in results/ are plotted\n"


def test_printed_name_of_the_figure_is_that_of_the_file(tmp_path: Path) -> None:
    write_log(tmp_path / "run.log", foreign_entries(1, edition="1.0.0"))
    assert plot("run.log", "--output=curves", cwd=tmp_path) == Finished(0, "curves.png: 1 run\n", "")
    assert (tmp_path / "curves.png").is_file()
    for output, said in (
        (".", "is a folder; must be a file name, such as run.png"),
        ("no/run.png", ": folder no does not exist"),
    ):
        run = plot("run.log", f"--output={output}", cwd=tmp_path)
        assert run == Finished(2, "", f"plot_run.py: error: --output={output} {said}\n".replace(" :", ":"))
