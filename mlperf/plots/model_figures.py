"""Figures of a trained model and its data: tables, norms, categories, and the last hidden layer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlperf.data.source import BatchSource
    from mlperf.models.dlrm import DLRM_Net

Points = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

# Rows of rarer ids are hardly trained, and their click rates are noise.
FREQUENT = 20
# A median over fewer rows is noise.
MIN_ROWS_PER_MEDIAN = 50

_MAX_NORMS_DRAWN = 20_000
_WIDTH = 12.0  # inches, the full width of a page


@dataclass(frozen=True)
class TableCounts:
    """Occurrences of each row of a table in the training samples, and the number of those with a click."""

    occurrences: Counts  # [rows]
    clicks: Counts  # [rows]

    @property
    def frequent(self) -> int:
        """The number of ids that occur at least `FREQUENT` times."""
        return int((self.occurrences >= FREQUENT).sum())

    def most_frequent(self, max_rows: int) -> Counts:
        """Return up to `max_rows` of the most frequent ids; rare ids only if there are few others."""
        rows: Counts = np.argsort(-self.occurrences, kind="stable")[:max_rows]
        return rows[: max(self.frequent, 10)]


def count_ids(train: BatchSource, rows_per_table: Sequence[int], max_samples: int) -> list[TableCounts]:
    """Count ids and clicks in the first `max_samples` training samples, one entry per table.

    An id that occurs several times in a sample is counted as often.
    """
    tables = [TableCounts(np.zeros(rows, np.int64), np.zeros(rows, np.int64)) for rows in rows_per_table]
    seen = 0
    for batch in train.batches(0):
        clicked = batch.labels[:, 0] > 0
        for table, (ids, samples) in zip(tables, batch.ids_by_table(), strict=True):
            rows, has_click = len(table.occurrences), clicked if samples is None else clicked[samples]
            np.add(table.occurrences, np.bincount(ids, minlength=rows), out=table.occurrences)
            np.add(table.clicks, np.bincount(ids[has_click], minlength=rows), out=table.clicks)
        seen += batch.size
        if seen >= max_samples:
            break
    return tables


def choose_tables(counts: Sequence[TableCounts], max_tables: int) -> list[int]:
    """Return the numbers of the tables with the most frequent ids, in ascending order."""
    order = sorted(range(len(counts)), key=lambda k: (-counts[k].frequent, -len(counts[k].occurrences)))
    return sorted(order[:max_tables])


def table_rows(model: DLRM_Net, table: int, rows: Counts) -> Points:
    """Return the vectors [len(rows), D] of ids `rows` of any table. Only they are moved to the host."""
    import torch

    ids = torch.from_numpy(rows).unsqueeze(1).to(model.tables.device)
    with torch.no_grad():
        vectors: Points = model.emb_l[table](ids).cpu().numpy()
    return vectors


def last_hidden_layer(model: DLRM_Net, test: BatchSource, max_samples: int) -> tuple[Points, Points]:
    """Return the inputs [N, width] of the top MLP's last linear layer for N samples, and their labels [N]."""
    import torch

    seen: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    hook = model.top_l[-2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].cpu()))
    with torch.no_grad():
        for batch in test.batches(0):
            model(batch.to(model.tables.device))
            labels.append(batch.labels)
            if sum(map(len, seen)) >= max_samples:
                break
    hook.remove()
    return torch.cat(seen)[:max_samples].numpy(), torch.cat(labels)[:max_samples, 0].numpy()


def to_plane(vectors: Points, method: str) -> Points:
    """Return the vectors in two dimensions. method: "umap" or "tsne"."""
    if len(vectors) < 5 or vectors.shape[1] <= 2:  # too few points for UMAP or t-SNE: use the first two dimensions
        return np.pad(vectors, ((0, 0), (0, 2)))[:, :2]
    plane: Points
    if method == "tsne":
        from sklearn.manifold import TSNE

        plane = TSNE(perplexity=min(30, (len(vectors) - 1) / 3), random_state=0).fit_transform(vectors)
        return plane
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        neighbors = min(15, len(vectors) - 1)
        start = "random" if len(vectors) < 20 else "pca"
        plane = UMAP(n_neighbors=neighbors, init=start, random_state=0, n_jobs=1).fit_transform(vectors)
    return plane


def draw_tables(
    model: DLRM_Net, counts: Sequence[TableCounts], tables: Sequence[int], max_rows: int, method: str
) -> Figure:
    """Draw the rows of frequent ids in two dimensions, coloured by click rate."""
    from matplotlib.colors import CenteredNorm

    figure, axes = _figure(len(tables), 4.4)
    mean = sum(counts[table].clicks.sum() for table in tables) / sum(counts[t].occurrences.sum() for t in tables)
    colors = CenteredNorm(mean, halfrange=min(mean, 0.15))
    for axis, table in zip(axes, tables, strict=True):
        rows = counts[table].most_frequent(max_rows)
        occurrences = counts[table].occurrences[rows]
        # Add FREQUENT / 4 samples with the mean rate, because few samples give extreme rates.
        rates = (counts[table].clicks[rows] + mean * FREQUENT / 4) / (occurrences + FREQUENT / 4)
        points = to_plane(table_rows(model, table, rows), method)
        dots = axis.scatter(points[:, 0], points[:, 1], c=rates, s=11, lw=0, cmap="coolwarm", norm=colors)
        axis.set_title(f"table {table}: {len(rows):,} of {len(counts[table].occurrences):,} rows")
        axis.set(xticks=[], yticks=[])
    figure.colorbar(dots, ax=axes, label="click rate of the id", extend="both", pad=0.01)
    return figure


def draw_norms(model: DLRM_Net, counts: Sequence[TableCounts], tables: Sequence[int]) -> Figure:
    """Draw the norms of the rows against the occurrences of their ids, with medians; the axes are shared."""
    figure, axes = _figure(len(tables), 4.2, shared=True)
    for axis, table in zip(axes, tables, strict=True):
        rows = np.arange(len(counts[table].occurrences))
        if len(rows) > _MAX_NORMS_DRAWN:
            rows = np.sort(np.random.default_rng(0).choice(rows, _MAX_NORMS_DRAWN, replace=False))
        norms = np.linalg.norm(table_rows(model, table, rows), axis=1)
        occurrences = counts[table].occurrences[rows] + 1
        axis.scatter(occurrences, norms, s=5, alpha=0.3, lw=0, color="C0", label="a row")
        medians = _medians(occurrences, norms)
        axis.plot(
            *medians.T, color="C3", lw=2, marker="o", ms=4, label=f"median of {MIN_ROWS_PER_MEDIAN} rows or more"
        )
        axis.set(xscale="log", xlabel="occurrences in training + 1", title=f"table {table}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("norm of the row")
    axes[0].legend(frameon=False, loc="upper left")
    return figure


def _medians(x: Counts, y: Points) -> Points:
    """Return median x and median y [bins, 2] of bins of growing x, each of `MIN_ROWS_PER_MEDIAN` rows or more."""
    bins = np.digitize(x, np.geomspace(1, x.max() + 1, 15))
    groups: list[npt.NDArray[np.bool_]] = []
    open_bins: list[int] = []
    for number in np.unique(bins):
        open_bins.append(int(number))
        chosen = np.isin(bins, open_bins)
        if chosen.sum() >= MIN_ROWS_PER_MEDIAN:
            groups.append(chosen)
            open_bins = []
    if open_bins:  # merge a remainder that is too small into the last bin
        rest = np.isin(bins, open_bins)
        groups[-1:] = [groups[-1] | rest] if groups else [rest]
    return np.array([(np.median(x[group]), np.median(y[group])) for group in groups], np.float32)


def draw_categories(counts: Sequence[TableCounts]) -> Figure:
    """Draw the sorted frequencies of the ids of each table, coloured by the size of the table."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    figure, (axis,) = _figure(1, 5.2)
    tables = sorted(counts, key=lambda table: -len(table.occurrences))
    rows = np.array([len(table.occurrences) for table in tables])
    scale = ScalarMappable(LogNorm(rows.min(), max(rows.max(), rows.min() + 1)), colormaps["viridis_r"])
    for table, color in zip(tables, scale.to_rgba(rows), strict=True):
        occurrences = -np.sort(-table.occurrences[table.occurrences > 0])
        ranks = np.arange(1, len(occurrences) + 1)
        axis.plot(ranks, occurrences, color=color, lw=1.6)
        axis.plot(ranks[-1:], occurrences[-1:], "o", color=color, ms=5)
    axis.set(xscale="log", yscale="log", xlabel="rank of the id in its table", ylabel="occurrences in training")
    axis.grid(alpha=0.3)
    figure.colorbar(scale, ax=axis, label="rows of the table", pad=0.01)
    return figure


def draw_hidden(vectors: Points, labels: Points, method: str) -> Figure:
    """Draw the activations of samples in the last hidden layer, coloured by label."""
    figure, (axis,) = _figure(1, 5.2)
    points = to_plane(vectors, method)
    order = np.random.default_rng(0).permutation(len(points))  # so that neither label covers the other
    clicked = labels[order] > 0
    points = points[order]
    axis.scatter(points[:, 0], points[:, 1], c=np.where(clicked, "C1", "C0"), s=11, lw=0, alpha=0.7)
    for color, text, number in (("C0", "no click", (~clicked).sum()), ("C1", "click", clicked.sum())):
        axis.scatter([], [], color=color, s=30, label=f"{text} ({number:,} samples)")
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{len(points):,} test samples in the last hidden layer ({vectors.shape[1]} units)")
    axis.legend(frameon=False)
    return figure


def _figure(panels: int, height: float, *, shared: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of the full width with up to three panels of `height` inches in a line."""
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    lines = -(-panels // columns)
    figure = Figure(figsize=(_WIDTH, height * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=shared, sharey=shared).ravel()
    for surplus in axes[panels:]:
        surplus.axis("off")
    return figure, list(axes[:panels])
