"""Content of the plots (not their appearance)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from dlrm_models import COMPRESSIONS, make_model
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlperf.data.batch import Batch
from mlperf.models.dlrm import Architecture, DLRM_Net
from mlperf.models.initialization import initialize
from mlperf.models.layers.mlp import linear_layers
from mlperf.plots.compute_graph import make_graph
from mlperf.plots.curves import Curves, Point
from mlperf.plots.model_figures import (
    FREQUENT,
    MIN_ROWS_PER_MEDIAN,
    TableCounts,
    choose_tables,
    count_ids,
    draw_categories,
    draw_norms,
    draw_tables,
)
from mlperf.plots.run_figure import draw_runs


class TwoBatches:
    """A data source of one table: ids 0, 0, 2 and then 2, with their labels."""

    samples = 4
    batches_per_epoch = 2

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield both batches."""
        for ids, labels in (([0, 0, 2], [1, 0, 1]), ([2], [1])):
            size = len(ids)
            yield Batch(
                torch.zeros(size, 1), torch.tensor([ids]), None, torch.tensor(labels).float().view(size, 1)
            )


@pytest.mark.parametrize(
    ("max_samples", "occurrences", "clicks"), [(4, [2, 0, 2], [1, 0, 2]), (1, [2, 0, 1], [1, 0, 1])]
)
def test_ids_and_clicks_are_counted_in_whole_batches(
    max_samples: int, occurrences: list[int], clicks: list[int]
) -> None:
    (table,) = count_ids(TwoBatches(), (3,), max_samples)
    assert table.occurrences.tolist() == occurrences
    assert table.clicks.tolist() == clicks


def test_every_id_of_a_sample_is_counted() -> None:
    ids, offsets = torch.tensor([0, 1, 1, 1, 2, 0]), torch.tensor([[0, 2], [4, 5]])
    source = TwoBatches()
    source.batches = lambda epoch, first=0: iter(  # type: ignore[method-assign]
        [Batch(torch.zeros(2, 1), ids, offsets, torch.tensor([[1.0], [0.0]]), (2, 1))]
    )
    first, second = count_ids(source, (2, 3), 2)
    assert (first.occurrences.tolist(), first.clicks.tolist()) == ([1, 3], [1, 1])
    assert (second.occurrences.tolist(), second.clicks.tolist()) == ([1, 0, 1], [0, 0, 1])


def counts_of(occurrences: list[int]) -> TableCounts:
    return TableCounts(np.array(occurrences), np.array(occurrences) // 4)


def test_tables_with_the_most_frequent_ids_are_chosen() -> None:
    few = counts_of([1000, 1] * 50)
    many = counts_of([FREQUENT] * 80)
    none = counts_of([FREQUENT - 1] * 500)
    assert choose_tables([few, none, many], 2) == [0, 2]
    assert choose_tables([few, none, many], 5) == [0, 1, 2]


def test_rare_ids_are_drawn_only_if_there_are_few_others() -> None:
    assert counts_of([5, 100, 50, 200] * 10).most_frequent(1000).tolist()[:2] == [3, 7]
    assert len(counts_of([5, 100, 50, 200] * 10).most_frequent(1000)) == 30
    assert len(counts_of([5, 100, 50, 200] * 10).most_frequent(7)) == 7
    assert len(counts_of([1] * 40).most_frequent(1000)) == 10


def model_of(*rows: int) -> DLRM_Net:
    """Return a model with tables of these rows."""
    architecture = Architecture(rows_per_table=rows, dimension=4, mlp_bot=(3, 4), mlp_top=(5, 1))
    model = DLRM_Net(architecture, torch.device("cpu"))
    initialize(model, np.random.RandomState(3), mlp_init="normal", embedding_init="numpy", seed=3)
    return model


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_norms_share_their_axes_and_have_medians_over_many_rows() -> None:
    model = model_of(300, 400)
    stream = np.random.default_rng(0)
    counts = [counts_of(np.sort(stream.zipf(1.5, rows).clip(max=10**5)).tolist()) for rows in (300, 400)]
    first, second = panels(draw_norms(model, counts, [0, 1]))
    assert (first.get_xlim(), first.get_ylim()) == (second.get_xlim(), second.get_ylim())
    for axes, rows in ((first, 300), (second, 400)):
        (medians,) = axes.lines
        occurrences = np.asarray(medians.get_xdata())
        assert 2 <= len(occurrences) <= rows // MIN_ROWS_PER_MEDIAN
        assert (np.diff(occurrences) > 0).all()


def test_category_curves_are_coloured_by_table_size() -> None:
    (axes,) = panels(draw_categories([counts_of([3] * rows) for rows in (1000, 10, 1000)]))
    largest, also_largest, smallest = (line.get_color() for line in axes.lines[::2])
    np.testing.assert_array_equal(largest, also_largest)
    assert not np.array_equal(largest, smallest)


def test_rows_are_coloured_by_click_rate() -> None:
    model = model_of(40, 40)
    table = TableCounts(np.full(40, 100), np.arange(40))
    (axes,) = panels(draw_tables(model, [table, table], [1], 1000, "tsne"))
    rates = np.asarray(axes.collections[0].get_array())
    assert np.argsort(rates).tolist() == list(range(40))


def test_compute_graph_shows_the_cross_network() -> None:
    drawn = make_graph(make_model(interaction_op="dcn")).string()
    assert drawn.count("x = x0 * (Linear 16 to 3 to 16) + x") == 2
    assert "[B, 4, 4] to [B, 16]" in drawn


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_compute_graph_names_every_layer_and_every_weight_of_a_table(kind: str) -> None:
    model = make_model(kind)
    drawn = make_graph(model).string()
    for name, weight in model.state_dict().items():
        if name.startswith("emb_l"):
            assert str(list(weight.shape)) in drawn
    for linear in (*linear_layers(model.bot_l), *linear_layers(model.top_l)):
        assert f"Linear {linear.in_features} to {linear.out_features}" in drawn
    assert f"to [B, {model.top_widths[0]}]" in drawn


def test_steep_start_of_a_run_does_not_determine_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))
    losses = [100.0, *np.linspace(0.6, 0.5, 99)]
    run = Curves(loss=[Point(step, step / 100, loss) for step, loss in enumerate(losses, start=1)])
    draw_runs([("run", run)], "auc", "iterations", {"target 0.8": 0.8}, "", tmp_path / "run.png")
    (axes,) = saved[0].axes
    assert axes.get_ylim()[1] < 1
