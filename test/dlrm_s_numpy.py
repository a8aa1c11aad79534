"""Independent NumPy reference implementation of DLRM and DLRM-DCNv2: forward pass, backward pass and SGD.

It shares no code with the package and does not use torch. It accepts the flags of dlrm_s_pytorch.py for random
data, the model, SGD and debug mode, and prints the same lines. dlrm_dcnv2_numpy.py repeats the golden runs of
DLRM-DCNv2.

B batch, T tables, D embedding dimension, F = T + 1 features.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from numpy_layers import Array, CrossNetwork, Mlp, cross_entropy


@dataclass
class Sample:
    """One mini-batch: dense [B, n], ids[table][sample], targets [B, 1]."""

    dense: Array
    ids: list[list[Array]]
    targets: Array


def draw_data(flags: argparse.Namespace, stream: np.random.RandomState) -> list[Sample]:
    """Draw the inputs of all batches, and then the targets of all batches."""
    total = flags.num_batches * flags.mini_batch_size if flags.num_batches else flags.data_size
    sizes = [min(flags.mini_batch_size, total - start) for start in range(0, total, flags.mini_batch_size)]
    inputs = []
    for size in sizes:
        dense = stream.rand(size, flags.arch_mlp_bot[0]).astype(np.float32)
        tables = []
        for rows in flags.arch_embedding_size:
            tables.append([draw_ids(flags, stream, rows) for _ in range(size)])
        inputs.append((dense, tables))
    samples = []
    for size, (dense, tables) in zip(sizes, inputs, strict=True):
        targets = stream.rand(size, 1).astype(np.float32)
        samples.append(Sample(dense, tables, targets.round() if flags.round_targets else targets))
    return samples


def draw_ids(flags: argparse.Namespace, stream: np.random.RandomState, rows: int) -> Array:
    """Draw the sorted distinct ids of one sample in one table."""
    count = flags.num_indices_per_lookup
    if not flags.num_indices_per_lookup_fixed:
        count = int(np.round(max(1.0, stream.rand() * min(rows, count))))
    return np.unique(np.round(stream.rand(count) * (rows - 1)).astype(np.int64))


class Dlrm:
    """The model. `train` takes one SGD step and returns the loss and the predictions before the step."""

    def __init__(self, flags: argparse.Namespace, stream: np.random.RandomState) -> None:
        self.flags = flags
        self.tables = []
        for rows in flags.arch_embedding_size:
            bound = np.sqrt(1 / rows)
            drawn = stream.uniform(-bound, bound, (rows, flags.arch_sparse_feature_size))
            self.tables.append(drawn.astype(np.float32))
        features = len(self.tables) + 1
        self.pairs = [(i, j) for i in range(features) for j in range(i + flags.arch_interaction_itself)]
        size = flags.arch_sparse_feature_size
        widths = {"dot": size + len(self.pairs), "sum": size, "cat": features * size, "dcn": features * size}
        self.top_widths = [widths[flags.arch_interaction_op], *flags.arch_mlp_top]
        self.has_cross = flags.arch_interaction_op == "dcn"
        init = {"auto": "pytorch" if self.has_cross else "uniform"}.get(flags.mlp_init, flags.mlp_init)
        hidden = [flags.activation_function] * (len(flags.arch_mlp_bot) + len(self.top_widths))
        self.bottom = Mlp.drawn(flags.arch_mlp_bot, hidden[: len(flags.arch_mlp_bot) - 1], init, stream)
        layers = flags.dcn_num_layers if self.has_cross else 0
        self.cross = CrossNetwork.drawn(features * size, flags.dcn_low_rank_dim, layers, stream)
        self.top = Mlp.drawn(self.top_widths, [*hidden[: len(self.top_widths) - 2], "none"], init, stream)

    def train(self, batch: Sample, rate: np.float32) -> tuple[float, Array]:
        features = [self.bottom.forward(batch.dense)]
        for table, ids in zip(self.tables, batch.ids, strict=True):
            features.append(np.stack([table[of_sample].sum(0) for of_sample in ids]))
        logits = self.top.forward(self.interact(features))
        raw = 1 / (1 + np.exp(-logits))
        threshold = np.float32(self.flags.loss_threshold)
        probability = raw.clip(threshold, 1 - threshold) if threshold > 0 else raw
        if self.flags.loss_function == "bce_logits":
            loss, gradient = cross_entropy(logits, batch.targets)
        else:
            loss, gradient = self.loss(probability, batch.targets)
            if threshold > 0:
                gradient = gradient * ((raw >= threshold) & (raw <= 1 - threshold))
            gradient = gradient * (raw * (1 - raw))
        gradients = self.interact_backward(features, self.top.backward(gradient))
        self.bottom.backward(gradients[0])
        for table, ids, of_table in zip(self.tables, batch.ids, gradients[1:], strict=True):
            total = np.zeros_like(table)
            for of_sample, row in zip(ids, of_table, strict=True):
                np.add.at(total, of_sample, row)
            np.subtract(table, rate * total, out=table)
        parameters = [*self.bottom.parameters(), *self.cross.parameters(), *self.top.parameters()]
        changes = [*self.bottom.gradients, *self.cross.gradients, *self.top.gradients]
        for parameter, change in zip(parameters, changes, strict=True):
            np.subtract(parameter, rate * change, out=parameter)
        return loss, probability

    def interact(self, features: list[Array]) -> Array:
        if self.flags.arch_interaction_op == "sum":
            return np.sum(features, 0)
        if self.flags.arch_interaction_op == "cat":
            return np.concatenate(features, 1)
        if self.has_cross:
            return self.cross.forward(np.concatenate(features, 1))
        products = [(features[i] * features[j]).sum(1, keepdims=True) for i, j in self.pairs]
        return np.concatenate([features[0], *products], 1)

    def interact_backward(self, features: list[Array], gradient: Array) -> list[Array]:
        """Return the gradient of each feature, [B, D] each."""
        if self.flags.arch_interaction_op == "sum":
            return [gradient] * len(features)
        size = self.flags.arch_sparse_feature_size
        if self.flags.arch_interaction_op == "cat":
            return np.split(gradient, len(features), 1)
        if self.has_cross:
            return np.split(self.cross.backward(gradient), len(features), 1)
        found = [np.zeros_like(feature) for feature in features]
        found[0] += gradient[:, :size]
        for number, (i, j) in enumerate(self.pairs, start=size):
            found[i] += gradient[:, number : number + 1] * features[j]
            found[j] += gradient[:, number : number + 1] * features[i]
        return found

    def loss(self, probability: Array, targets: Array) -> tuple[float, Array]:
        """Return the mean loss and its gradient with respect to the probabilities."""
        count = np.float32(len(targets))
        difference = probability - targets
        if self.flags.loss_function == "mse":
            return float(np.mean(difference * difference)), 2 * difference / count
        no_click, click = self.flags.loss_weights if self.flags.loss_function == "wbce" else (1.0, 1.0)
        weight = (no_click + (click - no_click) * targets).astype(np.float32)
        terms = -targets * np.log(probability) - (1 - targets) * np.log1p(-probability)
        gradient = difference / np.maximum((1 - probability) * probability, np.float32(1e-12))
        return float(np.mean(weight * terms)), weight * gradient / count

    def parameters(self) -> list[Array]:
        downs = [down for down, _, _ in self.cross.layers]
        ups = [value for _, *pair in self.cross.layers for value in pair]
        return [*self.tables, *downs, *ups, *self.bottom.parameters(), *self.top.parameters()]

    def __str__(self) -> str:
        lines = ["DLRM_DCNv2(" if self.has_cross else "DLRM_Net(", "  (emb_l): ModuleList("]
        for number, table in enumerate(self.tables):
            lines.append(f"    ({number}): EmbeddingBag({table.shape[0]}, {table.shape[1]}, mode=sum)")
        lines += ["  )", *(self.cross_lines() if self.has_cross else [])]
        printed = {"relu": "ReLU()", "sigmoid": "Sigmoid()", "tanh": "Tanh()", "none": "Sigmoid()"}
        for name, mlp in (("bot_l", self.bottom), ("top_l", self.top)):
            lines.append(f"  ({name}): Sequential(")
            for number, (weight, activation) in enumerate(zip(mlp.weights, mlp.activations, strict=True)):
                fan_out, fan_in = weight.shape
                lines.append(
                    f"    ({2 * number}): Linear(in_features={fan_in}, out_features={fan_out}, bias=True)"
                )
                lines.append(f"    ({2 * number + 1}): {printed[activation]}")
            lines.append("  )")
        return "\n".join([*lines, ")"])

    def cross_lines(self) -> list[str]:
        count, (rank, width) = len(self.cross.layers), self.cross.layers[0][0].shape
        number, times = ("0", "") if count == 1 else (f"0-{count - 1}", f"{count} x ")
        lines = ["  (interaction): CrossInteraction("]
        for name, fan_in, fan_out in (("V", width, rank), ("W", rank, width)):
            layer = f"{times}Linear(in_features={fan_in}, out_features={fan_out}, bias={name == 'W'})"
            lines += [f"    ({name}): ModuleList(", f"      ({number}): {layer}", "    )"]
        return [*lines, "  )"]


def print_before(flags: argparse.Namespace, model: Dlrm, batches: list[Sample]) -> None:
    tables, size = len(model.tables), flags.arch_sparse_feature_size
    print(f"model arch:\nmlp top arch {len(model.top_widths) - 1} layers, with input to output dimensions:")
    print(np.array(model.top_widths))
    print(f"# of interactions\n{model.top_widths[0]}")
    print(f"mlp bot arch {len(flags.arch_mlp_bot) - 1} layers, with input to output dimensions:")
    print(np.array(flags.arch_mlp_bot))
    print(f"# of features (sparse and dense)\n{tables + 1}")
    print(f"dense feature size\n{flags.arch_mlp_bot[0]}\nsparse feature size\n{size}")
    print(f"# of embeddings (= # of sparse features) {tables}, with dimensions {size}x:")
    print(np.array(flags.arch_embedding_size))
    print("data (inputs and targets):")
    for number, batch in enumerate(batches):
        print(f"mini-batch: {number}")
        print(batch.dense)
        print([[ids.tolist() for ids in table] for table in batch.ids])
        print(batch.targets)
    print_parameters("initial", model)
    print(model)


def print_parameters(which: str, model: Dlrm) -> None:
    print(f"{which} parameters (weights and bias):")
    for parameter in model.parameters():
        print(parameter)


def train(flags: argparse.Namespace, model: Dlrm, batches: list[Sample]) -> None:
    """Train for all epochs. Each printed line shows means over the samples since the previous line."""
    print("time/loss/accuracy (if enabled):")
    loss = correct = 0.0
    samples = 0
    for epoch in range(flags.nepochs):
        for number, batch in enumerate(batches, start=1):
            of_batch, probability = model.train(batch, np.float32(flags.learning_rate))
            size = len(batch.targets)
            loss += of_batch * size
            correct += (probability.round() == batch.targets).sum()
            samples += size
            if number % flags.print_freq == 0 or number == len(batches):
                print(
                    f"Finished training it {number}/{len(batches)} of epoch {epoch}, -1.00 ms/it, "
                    f"loss {loss / samples:.6f}, accuracy {100 * correct / samples:.3f}%"
                )
                loss = correct = 0.0
                samples = 0


def parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split("-")]

    def boolean(text: str) -> bool:
        return text.lower() in ("true", "1", "yes")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--arch-sparse-feature-size", type=int, default=2)
    add("--arch-embedding-size", type=numbers, default=[4, 3, 2])
    add("--arch-mlp-bot", type=numbers, default=[4, 3, 2])
    add("--arch-mlp-top", type=numbers, default=[4, 2, 1])
    add("--arch-interaction-op", choices=("dot", "cat", "sum", "dcn"), default="dot")
    add("--dcn-num-layers", type=int, default=3)
    add("--dcn-low-rank-dim", type=int, default=512)
    add("--arch-interaction-itself", action="store_true")
    add("--activation-function", choices=("relu", "sigmoid", "tanh"), default="relu")
    add("--mlp-init", choices=("auto", "normal", "uniform", "pytorch"), default="auto")
    add("--loss-function", choices=("mse", "bce", "wbce", "bce_logits"), default="mse")
    add("--loss-weights", type=lambda text: [float(part) for part in text.split("-")], default=[1.0, 1.0])
    add("--loss-threshold", type=float, default=0.0)
    add("--data-generation", choices=("random",), default="random")
    add("--data-size", type=int, default=1)
    add("--num-batches", type=int, default=0)
    add("--mini-batch-size", type=int, default=1)
    add("--num-indices-per-lookup", type=int, default=10)
    add("--num-indices-per-lookup-fixed", type=boolean, nargs="?", const=True, default=False)
    add("--round-targets", type=boolean, nargs="?", const=True, default=False)
    add("--nepochs", type=int, default=1)
    add("--learning-rate", type=float, default=0.01)
    add("--numpy-rand-seed", type=int, default=123)
    add("--print-freq", type=int, default=1)
    add("--print-precision", type=int, default=5)
    add("--debug-mode", action="store_true")
    add("--use-gpu", action="store_true", help="accepted for compatibility with dlrm_s_pytorch.py; ignored")
    return parser.parse_args()


def main() -> None:
    flags = parse()
    if flags.use_gpu:
        print("dlrm_s_numpy.py: --use-gpu is ignored, NumPy runs on the CPU", file=sys.stderr)
    np.set_printoptions(precision=flags.print_precision)
    stream = np.random.RandomState(flags.numpy_rand_seed)
    batches = draw_data(flags, stream)
    model = Dlrm(flags, stream)
    if flags.debug_mode:
        print_before(flags, model, batches)
    train(flags, model, batches)
    if flags.debug_mode:
        print_parameters("updated", model)


if __name__ == "__main__":
    main()
