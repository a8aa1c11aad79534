"""A folder of golden data of DLRM-DCNv2: its sizes, its expectations, and whether it is complete."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray

DAYS = range(24)
PARTS = ("dense", "sparse", "labels")
OPTIMIZERS = ("adagrad", "sgd")
# Days whose expanded ids are in the folder.
MULTI_HOT_DAYS = (DAYS[0], DAYS[-1])
_SUM_TOLERANCE = 1e-6  # relative; the sums in golden.json are of float32 numbers


class Disagreement(Exception):
    """A comparison failed. The message says how, in one line."""


@dataclass(frozen=True)
class Split:
    """Metrics of a golden run on one half of the last day."""

    samples: int
    positives: int
    auc: float


@dataclass(frozen=True)
class GoldenRun:
    """A golden run. splits: by the reference's names, "val" (the first half of the last day) and "test"."""

    rate: float
    epsilon: float | None
    losses: list[float]
    splits: dict[str, Split]


class Golden:
    """The folder. Its attributes raise an exception if something is missing or contradicts the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def content(self) -> dict[str, Any]:
        """The contents of golden.json."""
        found: dict[str, Any] = json.loads((self.folder / "golden.json").read_text())
        return found

    @property
    def steps(self) -> int:
        """Number of iterations."""
        return int(self.content["steps"])

    @property
    def table_rows(self) -> list[int]:
        """Rows of each table."""
        return [len(self.initial[f"emb.{number}.weight"]) for number in range(self._count("emb"))]

    @property
    def multi_hot_sizes(self) -> list[int]:
        """Number of ids of each table."""
        return [int(size) for size in self.content["model"]["multi_hot_sizes"]]

    @cached_property
    def initial(self) -> dict[str, Array]:
        """The initial weights by name."""
        return self._archive("initial.npz")

    @cached_property
    def runs(self) -> dict[str, GoldenRun]:
        """The golden runs by the name of their optimizer."""
        runs = {}
        for name, run in self.content["runs"].items():
            splits = {
                split: Split(run[split]["samples"], run[split]["positives"], run[split]["auc"])
                for split in ("val", "test")
            }
            runs[name] = GoldenRun(run["lr"], run.get("eps"), run["loss"], splits)
        return runs

    def final_weights(self, name: str) -> dict[str, Array]:
        """Return the weights after the run `name`."""
        return self._archive(f"final_{name}.npz")

    def one_hot(self, day: int, part: str) -> Array:
        """Return the prepared rows of a day: "dense", "sparse" or "labels"."""
        found: Array = np.load(self.folder / "onehot" / f"day_{day}_{part}.npy")
        return found

    def _archive(self, name: str) -> dict[str, Array]:
        with np.load(self.folder / name) as archive:
            return dict(archive)

    def _count(self, part: str) -> int:
        """Return the number of tables, of layers of an MLP or of cross layers."""
        numbers = {int(name.split(".")[1]) for name in self.initial if name.startswith(f"{part}.")}
        if numbers != set(range(len(numbers))) or not numbers:
            raise Disagreement(f"initial.npz has {part}.{sorted(numbers)}")
        return len(numbers)

    def _widths(self, part: str) -> list[int]:
        """Return the widths of an MLP."""
        shapes = [self.initial[f"{part}.{number}.weight"].shape for number in range(self._count(part))]
        return [shapes[0][1], *(rows for rows, _ in shapes)]

    def sizes(self) -> dict[str, Any]:
        """Return the sizes of the model that initial.npz shows, by their names in golden.json."""
        rank, width = self.initial["cross.0.V"].shape
        return {
            "table_rows": self.table_rows,
            "embedding_dim": self.initial["emb.0.weight"].shape[1],
            "bottom": self._widths("bottom"),
            "cross_layers": self._count("cross"),
            "cross_rank": rank,
            "cross_width": width,
            "top": self._widths("top"),
        }

    def data_flags(self, lookup_file: Path) -> list[str]:
        """Return the flags of the data and the model. lookup_file: of --multi-hot-tables, not in this folder."""
        sizes = self.sizes()

        def joined(numbers: list[int]) -> str:
            return "-".join(map(str, numbers))

        return [
            *("--data-generation=dataset", "--data-set=terabyte_dcnv2"),
            f"--processed-data-file={self.folder / 'onehot'}",
            f"--arch-embedding-size={joined(self.table_rows)}",
            f"--multi-hot-sizes={joined(self.multi_hot_sizes)}",
            f"--multi-hot-tables={lookup_file}",
            f"--arch-sparse-feature-size={sizes['embedding_dim']}",
            f"--arch-mlp-bot={joined(sizes['bottom'])}",
            f"--arch-mlp-top={joined(sizes['top'][1:])}",
            *("--arch-interaction-op=dcn", "--loss-function=bce_logits"),
            f"--dcn-num-layers={sizes['cross_layers']}",
            f"--dcn-low-rank-dim={sizes['cross_rank']}",
            f"--mini-batch-size={int(self.content['batch'])}",
        ]

    def flags(self, name: str, lookup_file: Path) -> list[str]:
        """Return the flags of the run `name`. lookup_file: as for `data_flags`."""
        run = self.runs[name]
        flags = [*self.data_flags(lookup_file), f"--optimizer={name}", f"--learning-rate={run.rate!r}"]
        return flags if run.epsilon is None else [*flags, f"--adagrad-epsilon={run.epsilon!r}"]

    def check(self) -> str:
        """Raise Disagreement, KeyError or OSError unless the folder is complete and agrees with golden.json."""
        sizes = self.sizes()
        for name, value in self.content["model"].items():
            if name in sizes and sizes[name] != value:
                raise Disagreement(f"golden.json has {name} {value}, initial.npz {sizes[name]}")
        if not self.runs or not set(self.runs) <= set(OPTIMIZERS):
            raise Disagreement(f"golden.json has runs {list(self.runs)}, not of {', '.join(OPTIMIZERS)}")
        if self.steps < 1 or int(self.content["batch"]) < 1:
            raise Disagreement("golden.json has no iterations")
        _check_sums("initial.npz", self.initial, self.content.get("initial", {}))
        for name in self.runs:
            final = self.final_weights(name)
            if {key: value.shape for key, value in final.items()} != {
                key: value.shape for key, value in self.initial.items()
            }:
                raise Disagreement(f"final_{name}.npz has other arrays than initial.npz")
            _check_sums(f"final_{name}.npz", final, self.content["runs"][name].get("final", {}))
        files = list(self._files())
        for path in files:
            expected = self.content.get("files", {}).get(path.name, self.content.get(path.name, {}))
            if "md5" in expected and hashlib.md5(path.read_bytes()).hexdigest() != expected["md5"]:
                raise Disagreement(f"{path} is not the file of golden.json: its MD5 differs")
        return f"{len(files)} files of data, runs {', '.join(self.runs)}"

    def _files(self) -> Iterator[Path]:
        """Yield the files of data. Disagreement if one is missing."""
        required = [self.folder / "onehot" / f"day_{day}_{part}.npy" for day in DAYS for part in PARTS]
        required += [self.multi_hot_file(day) for day in MULTI_HOT_DAYS]
        for path in required:
            if not path.is_file():
                raise Disagreement(f"{path} is missing")
        yield from required
        yield from (path for path in map(self.multi_hot_file, DAYS[1:-1]) if path.is_file())
        if self.binary_file is not None:
            yield self.binary_file

    def multi_hot_file(self, day: int) -> Path:
        """Return the path of the expanded ids of a day."""
        return self.folder / "multihot" / f"day_{day}_sparse_multi_hot.npz"

    @property
    def binary_file(self) -> Path | None:
        """The first training rows in the binary format, or None. Disagreement if they are missing."""
        named = [name for name in self.content if name.startswith("onehot_train_") and name.endswith(".bin")]
        found = [path.name for path in self.folder.glob("onehot_train_*.bin")]
        names = sorted({*named, *found})
        if len(names) > 1:
            raise Disagreement(f"there are several binary files: {', '.join(names)}")
        if named and not found:
            raise Disagreement(f"{self.folder / named[0]} is missing")
        return self.folder / names[0] if names else None


def _check_sums(file: str, arrays: dict[str, Array], expected: dict[str, Any]) -> None:
    """Raise Disagreement if arrays do not have the shapes, sums and first values that golden.json says."""
    if expected and expected.keys() != arrays.keys():
        raise Disagreement(f"{file} has other arrays than golden.json says")
    for name, facts in expected.items():
        values = arrays[name].astype(np.float64)
        found = {
            "shape": list(values.shape),
            "sum": values.sum(),
            "abs_sum": np.abs(values).sum(),
            "sum_sq": (values * values).sum(),
            "first": values.ravel()[:3].tolist(),
        }
        for fact, value in facts.items():
            if fact not in found:
                continue
            if fact in ("shape", "first"):
                same = found[fact] == value
            else:
                same = math.isclose(found[fact], value, rel_tol=_SUM_TOLERANCE, abs_tol=_SUM_TOLERANCE)
            if not same:
                raise Disagreement(f"{fact} of {name} in {file} is {found[fact]}, golden.json has {value}")
