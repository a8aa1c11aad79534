"""Checkpoints record the numbering of the ids and the columns, and refuse data with others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from own_data import DENSE, SEVERAL, flags_for, write_own_data

from mlperf.data.columns.description import DenseColumn, Transform
from mlperf.data.prepared.dataset import PreparedData
from mlperf.settings.from_flags import parse
from mlperf.training.checkpoint_flags import check_flags, recorded_flags
from mlperf.util.errors import RunError

OTHER_TRANSFORM = (DENSE[0], DENSE[1], DenseColumn("score", Transform.LOG1P, is_integer=False))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return write_own_data(tmp_path_factory.mktemp("own"))


def check(trained: PreparedData, loaded: PreparedData) -> None:
    saved, current = (recorded_flags(parse(flags_for(each)), each) for each in (trained, loaded))
    check_flags(saved, current, Path("m.pt"), weights=[], same_shapes=True, trains=False)


def test_data_with_another_numbering_is_refused(prepared: PreparedData) -> None:
    other = replace(prepared, numbering="f" * 16, train=prepared.train.with_name("y_train.bin"))
    with pytest.raises(RunError) as caught:
        check(prepared, other)
    assert str(caught.value).startswith(
        "m.pt: was trained with the numbering 0123456789abcdef of x.json, this data has the numbering "
        "ffffffffffffffff of y.json: ids have other rows; prepare the data with --ids-from="
    )


@pytest.mark.parametrize(
    "change",
    [
        {"means": (0.0, 3.25, 0.0)},
        {"deviations": (1.0, 2.5, 1.0)},
        {"columns": "another transform"},
        {"columns": "several ids"},
    ],
    ids=str,
)
def test_data_whose_columns_give_other_features_is_refused(
    change: dict[str, object], prepared: PreparedData, tmp_path: Path
) -> None:
    if change.get("columns") == "another transform":
        change = {"columns": write_own_data(tmp_path, OTHER_TRANSFORM).columns}
    elif "columns" in change:
        change = {"columns": write_own_data(tmp_path, DENSE, SEVERAL).columns}
    with pytest.raises(RunError, match=r"m\.pt: was trained with the columns [0-9a-f]{16} of x\.json, this "):
        check(prepared, replace(prepared, **change))  # type: ignore[arg-type]


def test_data_under_another_name_with_the_same_numbering_is_accepted(prepared: PreparedData) -> None:
    check(prepared, replace(prepared, train=prepared.train.with_name("renamed_train.bin"), train_rows=3))


def test_checkpoint_and_data_without_a_numbering_are_accepted(prepared: PreparedData) -> None:
    older = replace(prepared, numbering=None)
    check(older, prepared)
    check(prepared, older)


def test_model_of_own_data_is_not_loaded_for_criteo_data(prepared: PreparedData) -> None:
    criteo = parse(
        [
            *("--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-8"),
            *("--arch-sparse-feature-size=8", "--loss-function=bce", "--arch-mlp-top=16-1"),
        ]
    )
    saved = recorded_flags(parse(flags_for(prepared)), prepared)
    current = recorded_flags(criteo, replace(prepared, data_set="kaggle"))
    with pytest.raises(RunError, match="was trained on data prepared with --data-set=columns, this data was prep"):
        check_flags(saved, current, Path("m.pt"), weights=[], same_shapes=True, trains=False)
