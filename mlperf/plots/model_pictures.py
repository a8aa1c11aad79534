"""Pictures of a trained model and its data: tables, norms, categories, and the last hidden layer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mlperf.data.source import BatchSource
    from mlperf.models.dlrm import DLRM_Net

Points = npt.NDArray[np.float32]


def count_ids(train: BatchSource, rows_per_table: tuple[int, ...], most: int) -> list[npt.NDArray[np.int64]]:
    """Return how often each row of each table occurs in the first `most` training samples."""
    counts = [np.zeros(rows, np.int64) for rows in rows_per_table]
    seen = 0
    for batch in train.batches(0):
        for of_table, ids in zip(counts, batch.indices.numpy(), strict=True):
            np.add(of_table, np.bincount(ids, minlength=len(of_table)), out=of_table)
        seen += batch.size
        if seen >= most:
            break
    return counts


def table_rows(model: DLRM_Net, table: int, rows: npt.NDArray[np.int64]) -> Points:
    """Return the vectors [len(rows), D] that ids `rows` of a table have, compressed or not."""
    import torch

    bag: Any = model.emb_l[table]
    with torch.no_grad():
        parts = [weight.index_select(0, part) for weight, part in bag.parts(torch.from_numpy(rows))]
        vectors: Points = bag.combine(parts).numpy()
    return vectors


def last_hidden_layer(model: DLRM_Net, test: BatchSource, most: int) -> tuple[Points, Points]:
    """Return what the last linear layer of the top MLP sees of the first samples, and their labels."""
    import torch

    seen: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    hook = model.top_l[-2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for batch in test.batches(0):
            model(batch)
            labels.append(batch.labels)
            if sum(map(len, seen)) >= most:
                break
    hook.remove()
    return torch.cat(seen)[:most].numpy(), torch.cat(labels)[:most, 0].numpy()


def to_plane(vectors: Points, method: str) -> Points:
    """Return the vectors in two dimensions."""
    few = len(vectors) < 5  # too few for neighbourhoods: the first two dimensions as they are
    if few or vectors.shape[1] <= 2:
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


def _figure(panels: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    lines = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns, 3.7 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for surplus in axes[panels:]:
        surplus.axis("off")
    return figure, list(axes[:panels])


def draw_tables(
    model: DLRM_Net, counts: list[npt.NDArray[np.int64]], drawn: list[int], most: int, method: str
) -> Figure:
    """Draw rows of tables in two dimensions, coloured by how often they occur."""
    from matplotlib.colors import LogNorm

    figure, axes = _figure(len(drawn))
    largest = max(counts[table].max() for table in drawn) + 1
    for axis, table in zip(axes, drawn, strict=True):
        rows = np.argsort(-counts[table], kind="stable")[:most]
        points = to_plane(table_rows(model, table, rows), method)
        often = counts[table][rows] + 1
        dots = axis.scatter(*points[::-1].T, c=often[::-1], s=5, cmap="viridis", norm=LogNorm(1, largest), lw=0)
        axis.set_title(f"table {table}: {len(rows):,} of {len(counts[table]):,} rows", fontsize=10)
        axis.set(xticks=[], yticks=[])
    figure.colorbar(dots, ax=axes, label="occurrences in training + 1", shrink=0.7)
    return figure


def draw_norms(model: DLRM_Net, counts: list[npt.NDArray[np.int64]], drawn: list[int]) -> Figure:
    """Draw the norm of each row against how often it occurs."""
    figure, axes = _figure(len(drawn))
    for axis, table in zip(axes, drawn, strict=True):
        rows = np.arange(len(counts[table]))
        if len(rows) > 20_000:
            rows = np.sort(np.random.default_rng(0).choice(rows, 20_000, replace=False))
        norms = np.linalg.norm(table_rows(model, table, rows), axis=1)
        often = counts[table][rows] + 1
        axis.scatter(often, norms, s=4, alpha=0.25, lw=0, color="C0")
        bounds = np.geomspace(1, often.max() + 1, 15)
        place = np.digitize(often, bounds)
        middles = [(often[place == k].mean(), np.median(norms[place == k])) for k in np.unique(place)]
        axis.plot(*zip(*middles, strict=True), color="C3", lw=1.5, label="median")
        axis.set(xscale="log", xlabel="occurrences in training + 1", ylabel="norm of the row")
        axis.set_title(f"table {table}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_categories(counts: list[npt.NDArray[np.int64]]) -> Figure:
    """Draw how often the ids of each column occur, the most frequent first."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axis = figure.add_subplot()
    colors = colormaps["turbo"](np.linspace(0.03, 0.97, len(counts)))
    for number, of_table in enumerate(counts):
        often = -np.sort(-of_table[of_table > 0])
        axis.plot(
            np.arange(1, len(often) + 1), often, color=colors[number], lw=1.2, marker=".", ms=2, label=str(number)
        )
    axis.set(xscale="log", yscale="log", xlabel="rank of the id in its column", ylabel="occurrences in training")
    axis.grid(alpha=0.3)
    axis.legend(title="column", ncols=2, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def draw_hidden(vectors: Points, labels: Points, method: str) -> Figure:
    """Draw samples as the last hidden layer has them, coloured by label."""
    figure, (axis,) = _figure(1)
    figure.set_size_inches(6.5, 5)
    points = to_plane(vectors, method)
    for label, text, color in ((0, "no click", "C0"), (1, "click", "C1")):
        chosen = labels == label
        axis.scatter(*points[chosen].T, s=6, lw=0, alpha=0.6, color=color, label=f"{text} ({chosen.sum():,})")
    axis.set(xticks=[], yticks=[])
    axis.set_title(
        f"{len(points):,} test samples in the last hidden layer ({vectors.shape[1]} units)", fontsize=10
    )
    axis.legend(frameon=False, markerscale=2)
    return figure
