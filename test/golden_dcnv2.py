"""Compare the program with golden data of DLRM-DCNv2, such as test/golden/dcnv2 (see test/golden/README.md).

    python test/golden_dcnv2.py FOLDER [--raw-data-file=PREFIX]

Trains dlrm_s_pytorch.py with the weights of FOLDER/initial.npz on FOLDER/onehot, read in place, once for each run
in FOLDER/golden.json, evaluates the saved models, and compares losses, final weights, AUCs and expanded ids. With
--raw-data-file, the prefix of the raw text day_0 ... day_23, it also compares the files that
tools/prepare_criteo.py --reference-files makes of it with FOLDER/onehot, byte for byte.

Prints one line for each comparison. The exit status is 0 if everything agrees, 1 if not, and 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from golden_folder import DAYS, PARTS, Disagreement, Golden, GoldenRun
from golden_ids import (
    ReadData,
    compare_binary_rows,
    compare_expanded_ids,
    compare_lookup_tables,
    compare_rows,
)

ROOT = Path(__file__).resolve().parent.parent
LOOKUP_FILE = "lookup_tables.npz"  # made by the first training
LOSS_TOLERANCE = 2e-5
# Adagrad divides a gradient that is nothing but rounding errors by its own size.
WEIGHT_TOLERANCE = {"adagrad": 1e-4, "sgd": 1e-5}
# This program's names of the halves of the last day, and those of the reference.
SPLITS = {"test": "val", "val": "test"}
PRINTED_DIGITS = 0.5e-4  # of an AUC

_PROGRESS = re.compile(r"^Finished training it (\d+)/(\d+) of epoch (\d+), .* ms/it, loss (\S+), accuracy ")
_AUC = re.compile(r"^recall .*, auc (\S+), best auc ", re.MULTILINE)


class Report:
    """Prints a line for each comparison and remembers whether one failed."""

    def __init__(self) -> None:
        self.failed = False

    def compare(self, what: str, comparison: Callable[[], str]) -> bool:
        """Run a comparison, which returns what agrees or raises an exception. Return whether it agrees."""
        try:
            text = comparison()
        except Exception as error:
            reason = str(error).strip().splitlines()
            name = "" if isinstance(error, Disagreement) else f"{type(error).__name__}: "
            print(f"FAILED {what}: {name}{reason[0] if reason else ''}", flush=True)
            self.failed = True
            return False
        print(f"agrees {what}: {text}", flush=True)
        return True


def run(program: str, flags: Sequence[str], folder: Path) -> str:
    """Run a program of this repository in `folder` with the interpreter of this one, and return its output."""
    command = [sys.executable, str(ROOT / program), *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Disagreement(f"exit status {done.returncode}: {last}")
    return done.stdout


def train(golden: Golden, name: str, folder: Path) -> str:
    """Train as the golden run did; the model is saved to `folder`. Return the output."""
    flags = [
        *golden.flags(name, folder.parent / LOOKUP_FILE),
        *(f"--load-weights={golden.folder / 'initial.npz'}", f"--num-batches={golden.steps}", "--print-freq=1"),
        *(f"--test-freq={golden.steps}", f"--save-model={folder / 'model.pt'}"),
    ]
    return run("dlrm_s_pytorch.py", flags, folder)


def compare_losses(output: str, expected: GoldenRun, steps: int) -> str:
    """Compare the printed losses of all iterations."""
    lines = [match.groups() for line in output.splitlines() if (match := _PROGRESS.match(line))]
    positions = [line[:3] for line in lines]
    if positions != [(str(step), str(steps), "0") for step in range(1, steps + 1)]:
        raise Disagreement(f"{len(lines)} iterations were printed, not 1 to {steps} of epoch 0")
    if len(expected.losses) != steps:
        raise Disagreement(f"golden.json has {len(expected.losses)} losses for {steps} iterations")
    differences = np.abs(np.array([float(line[3]) for line in lines]) - np.array(expected.losses))
    for step in np.flatnonzero(~(differences <= LOSS_TOLERANCE)):
        raise Disagreement(f"iteration {step + 1} has loss {lines[step][3]}, expected {expected.losses[step]:.6f}")
    return f"{steps} losses to {LOSS_TOLERANCE:.0e}, largest difference {differences.max():.1e}"


def compare_weights(golden: Golden, name: str, model: Path) -> str:
    """Compare the weights in a checkpoint of this program with the final ones."""
    import torch

    saved = torch.load(model, map_location="cpu", weights_only=True)
    if saved["iter"] != golden.steps:
        raise Disagreement(f"the checkpoint is of iteration {saved['iter']}, not {golden.steps}")
    found = {key: value.numpy() for key, value in saved["state_dict"].items()}
    expected = golden.final_weights(name)
    names = {own_name(key): key for key in expected}
    if found.keys() != names.keys():
        raise Disagreement(f"other weights: {', '.join(sorted(found.keys() ^ names.keys())[:3])}")
    worst, tolerance = 0.0, WEIGHT_TOLERANCE[name]
    for key, value in found.items():
        array = expected[names[key]]
        if value.shape != array.shape or value.dtype != array.dtype:
            raise Disagreement(f"{names[key]} is {value.dtype}{value.shape}, expected {array.dtype}{array.shape}")
        difference = float(np.abs(value.astype(np.float64) - array).max())
        if not difference <= tolerance:
            raise Disagreement(f"{names[key]} differs by {difference:.1e}, allowed is {tolerance:.0e}")
        worst = max(worst, difference)
    return f"{len(found)} arrays to {tolerance:.0e}, largest difference {worst:.1e}"


def own_name(name: str) -> str:
    """Return the name in a checkpoint of this program for a name in the golden archives."""
    part, number, kind = name.split(".")
    if part == "cross":
        layer = {"V": "V", "W": "W", "bias": "W"}[kind]
        return f"interaction.{layer}.{number}.{'bias' if kind == 'bias' else 'weight'}"
    if part == "emb":
        return f"emb_l.{number}.{kind}"
    return f"{ {'bottom': 'bot_l', 'top': 'top_l'}[part] }.{2 * int(number)}.{kind}"


def compare_auc(golden: Golden, name: str, split: str, folder: Path) -> str:
    """Evaluate the saved model on one half of the last day and compare the printed AUC.

    Rounding gives some pairs of scores the same value, so the AUC may differ by what one pair counts.
    """
    flags = [
        *golden.flags(name, folder.parent / LOOKUP_FILE),
        *("--inference-only", f"--load-model={folder / 'model.pt'}", "--mlperf-logging", f"--split={split}"),
    ]
    found = _AUC.findall(run("dlrm_s_pytorch.py", flags, folder))
    if len(found) != 1:
        raise Disagreement(f"{len(found)} AUCs were printed")
    expected = golden.runs[name].splits[SPLITS[split]]
    one_pair = 1 / (expected.positives * (expected.samples - expected.positives))
    if not abs(float(found[0]) - expected.auc) <= one_pair + PRINTED_DIGITS:
        raise Disagreement(f"{found[0]}, expected {expected.auc:.6f}")
    return f"{found[0]}, expected {expected.auc:.6f}"


def compare_run(golden: Golden, name: str, folder: Path, report: Report) -> None:
    """Repeat the golden run `name` in the new folder `folder`."""
    folder.mkdir()
    expected = golden.runs[name]
    report.compare(f"{name} losses", lambda: compare_losses(train(golden, name, folder), expected, golden.steps))
    report.compare(f"{name} weights", lambda: compare_weights(golden, name, folder / "model.pt"))
    report.compare(f"{name} AUC on {SPLITS['test']}", lambda: compare_auc(golden, name, "test", folder))
    report.compare(f"{name} AUC on {SPLITS['val']}", lambda: compare_auc(golden, name, "val", folder))


def compare_reference_files(golden: Golden, raw: Path, folder: Path) -> str:
    """Prepare the raw text and compare the reference's files with those of `golden`."""
    made = folder / "reference"
    flags = ["--data-set=terabyte_dcnv2", f"--raw-data-file={raw}", f"--processed-data-file={made}"]
    run("tools/prepare_criteo.py", [*flags, "--reference-files"], folder)
    names = [f"day_{day}_{part}.npy" for day in DAYS for part in PARTS]
    for name in names:
        if not (made / name).is_file():
            raise Disagreement(f"{name} was not made")
        if (made / name).read_bytes() != (golden.folder / "onehot" / name).read_bytes():
            raise Disagreement(f"{name} differs")
    return f"{len(names)} files, byte for byte"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments. Exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder laid out like test/golden/dcnv2")
    parser.add_argument(
        "--raw-data-file", type=Path, metavar="PREFIX", help="prefix of the raw text day_0 ... day_23"
    )
    args = parser.parse_args(arguments)
    if not (args.folder / "golden.json").is_file():
        parser.error(f"{args.folder / 'golden.json'}: no such file")
    raw = args.raw_data_file
    if raw is not None and not Path(f"{raw}_0").is_file() and not Path(f"{raw}_0.gz").is_file():
        parser.error(f"--raw-data-file={raw}: there is no {raw}_0")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and return the exit status."""
    args = parse(arguments)
    report = Report()
    golden = Golden(args.folder.resolve())
    with TemporaryDirectory(prefix="golden-dcnv2-") as name:
        folder = Path(name)
        if report.compare("golden data", golden.check):
            for run_name in golden.runs:
                compare_run(golden, run_name, folder / run_name, report)
            data = ReadData(golden, folder / LOOKUP_FILE)
            report.compare("rows of all days", lambda: compare_rows(data))
            report.compare("expanded ids", lambda: compare_expanded_ids(data))
            report.compare("lookup tables", lambda: compare_lookup_tables(data))
            if (binary := golden.binary_file) is not None:
                report.compare(binary.name, lambda: compare_binary_rows(data, binary))
            if args.raw_data_file is not None:
                raw = args.raw_data_file.resolve()
                report.compare("reference files", lambda: compare_reference_files(golden, raw, folder))
    print("something DISAGREES" if report.failed else "everything agrees")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
