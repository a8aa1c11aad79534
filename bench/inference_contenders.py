"""What `measure_inference.py` compares: this program, plain PyTorch and onnxruntime, in several precisions."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference_subject import Subject
from mlperf.engines.choose import choose_engine
from mlperf.export.onnx import save_onnx
from mlperf.export.quantize import quantize_mlps
from mlperf.models.dlrm import DLRM_Net
from mlperf.models.reference import ReferenceDLRM
from mlperf.settings.reports import QuantizationSettings
from mlperf.util.errors import RunError, UsageError
from mlperf.util.memory import require_memory


@dataclass(frozen=True)
class Variant:
    """Precision of MLPs and interaction, and bits of the values of the tables.

    mlp: fp32, tf32, bf16, fp16 (weights only) or int8.
    """

    mlp: str
    table_bits: int

    @property
    def name(self) -> str:
        """Such as "int8, tables in 4 bits"."""
        return self.mlp if self.table_bits == 32 else f"{self.mlp}, tables in {self.table_bits} bits"

    @property
    def mlp_bits(self) -> int:
        """The value of --quantize-mlp-with-bit."""
        return {"int8": 8, "fp16": 16}.get(self.mlp, 32)

    @property
    def precision(self) -> str:
        """The value of --precision."""
        return "fp32" if self.mlp_bits != 32 else self.mlp


VARIANTS = {
    "fp32": Variant("fp32", 32),
    "tf32": Variant("tf32", 32),
    "bf16": Variant("bf16", 32),
    "fp32-8": Variant("fp32", 8),
    "fp32-4": Variant("fp32", 4),
    "fp16-8": Variant("fp16", 8),
    "int8": Variant("int8", 32),
    "int8-8": Variant("int8", 8),
    "int8-4": Variant("int8", 4),
}
ON_CPU = ("fp32", "bf16", "fp32-8", "fp16-8", "int8", "int8-8", "int8-4")
ON_GPU = ("fp32", "tf32", "bf16", "fp32-8", "fp32-4")


@dataclass(frozen=True)
class Contender:
    """A program that scores.

    inputs: returns the input of `score` for `size` samples from number `start` on. score: returns their
    probabilities, [B], on any device.
    """

    program: str
    variant: Variant
    inputs: Callable[[int, int], Any]
    score: Callable[[Any], torch.Tensor]

    @property
    def name(self) -> str:
        """The program and the variant."""
        return f"{self.program} {self.variant.name}"


@dataclass(frozen=True)
class Missing:
    """A contender that cannot be measured, and why."""

    name: str
    reason: str


def contenders(subject: Subject, names: list[str], folder: Path) -> Iterator[Contender | Missing]:
    """Yield this program in each variant, then plain PyTorch and onnxruntime. folder: for exported models."""
    variants = [VARIANTS[name] for name in names]
    for variant in variants:
        yield _attempt("this project", variant, partial(_own, subject))
    for variant in variants:
        yield _attempt("PyTorch", variant, partial(_pytorch, subject))
    if subject.model.tables.device.type == "cpu":
        for variant in variants:
            if variant.name in ("fp32", "int8"):
                yield _attempt("onnxruntime", variant, partial(_onnxruntime, subject, folder))


def _attempt(program: str, variant: Variant, make: Callable[[Variant], Contender]) -> Contender | Missing:
    try:
        contender = make(variant)
        contender.score(contender.inputs(0, 1))  # compiles, and fails if something is not supported
        return contender
    except (ImportError, RunError, UsageError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip() or type(error).__name__
        return Missing(f"{program} {variant.name}", reason.partition("\n")[0])


def _own(subject: Subject, variant: Variant) -> Contender:
    bits = QuantizationSettings(variant.mlp_bits, variant.table_bits)
    settings = replace(subject.settings, precision=variant.precision, quantization=bits)
    if not settings.use_gpu:  # also for small models, which by default reproduce published metrics in 8 bits
        settings = replace(settings, processes=replace(settings.processes, engine="cpu"))
    model = _copied(subject, variant)
    if variant.mlp_bits != 32:
        quantize_mlps(model, variant.mlp_bits)
    if variant.table_bits != 32:
        model.tables.quantize(variant.table_bits)
    with _quiet("mlperf.engines.choose"):
        engine = choose_engine(model, settings)
    program = "this project" if not engine.description.startswith("autograd") else "this project (autograd)"
    scorer = engine.make_scorer(model, settings)
    is_raw = engine.description.startswith("gpu")

    def score(batch: Any) -> torch.Tensor:
        return scorer.score(batch)[0]

    return Contender(program, variant, subject.raw_batch if is_raw else subject.batch, score)


@contextmanager
def _quiet(name: str | None = None) -> Iterator[None]:
    """Do not show messages below an error of a logger within a `with` block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _copied(subject: Subject, variant: Variant) -> DLRM_Net:
    """Return the model, or a copy if it is to be quantized. RunError if the memory does not suffice."""
    if variant.table_bits != 32:
        if subject.model.tables.device.type == "cpu":
            require_memory(2 * subject.model.table_bytes(), "copies of the tables")
        return copy.deepcopy(subject.model)
    if variant.mlp_bits == 32:
        return subject.model
    return _with_own_layers(subject.model)


def _with_own_layers(model: DLRM_Net) -> DLRM_Net:
    """Return a model with copies of all layers but the tables, which both models share."""
    copied = copy.copy(model)
    copied._modules = dict(model._modules)
    for part in ("bot_l", "top_l", "interaction"):
        setattr(copied, part, copy.deepcopy(getattr(model, part)))
    return copied


def _pytorch(subject: Subject, variant: Variant) -> Contender:
    """Return PyTorch's modules: one nn.EmbeddingBag per table, nn.Linear, their quantized forms, autocast."""
    device = subject.model.tables.device
    if variant.mlp_bits != 32 and device.type == "cuda":
        raise RunError("PyTorch's dynamic quantization runs on the CPU only")
    if variant.table_bits != 32 and device.type == "cuda":
        raise RunError("PyTorch has no quantized embedding bag for a GPU")
    model = _with_own_layers(subject.model)
    if variant.mlp_bits != 32:
        quantize_mlps(model, variant.mlp_bits)
    weights = [table.get_parameter("weight").data for table in subject.model.tables]
    tables = [_bag(weight, variant.table_bits) for weight in weights]
    plain = ReferenceDLRM(
        tables,
        model.bot_l,
        model.top_l,
        model.interaction,
        loss_threshold=subject.architecture.loss_threshold,
    )

    def inputs(start: int, size: int) -> tuple[torch.Tensor, ...]:
        return tuple(plain.inputs(subject.batch(start, size)).values())

    def score(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        torch.backends.cuda.matmul.allow_tf32 = variant.mlp == "tf32"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=variant.mlp == "bf16"):
            probability: torch.Tensor = plain(*(tensor.to(device, non_blocking=True) for tensor in batch))
            return probability.squeeze(1)

    return Contender("PyTorch", variant, inputs, score)


def _bag(weight: torch.Tensor, bits: int) -> nn.Module:
    if bits == 32:
        return nn.EmbeddingBag.from_pretrained(weight, mode="sum")
    return QuantizedBag(weight, bits)


class QuantizedBag(nn.Module):
    """PyTorch's quantized embedding bag: rows of 8 or 4 bits with a scale and an offset each."""

    def __init__(self, weight: torch.Tensor, bits: int) -> None:
        super().__init__()
        pack = {
            8: torch.ops.quantized.embedding_bag_byte_prepack,
            4: torch.ops.quantized.embedding_bag_4bit_prepack,
        }
        lookup = {
            8: torch.ops.quantized.embedding_bag_byte_rowwise_offsets,
            4: torch.ops.quantized.embedding_bag_4bit_rowwise_offsets,
        }
        self._rows, self._lookup = pack[bits](weight), lookup[bits]

    def forward(
        self,
        ids: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sums of the rows, float32 [B, D]. Arguments as of nn.EmbeddingBag."""
        if offsets is None:
            offsets = torch.arange(0, ids.numel(), ids.shape[1])
        sums: torch.Tensor = self._lookup(self._rows, ids.flatten(), offsets, mode=0)
        return sums


def _onnxruntime(subject: Subject, folder: Path, variant: Variant) -> Contender:
    """Return the exported model in onnxruntime; for int8, with its own dynamic quantization."""
    import onnxruntime

    counts = subject.architecture.ids_per_table
    path = folder / "model.onnx"
    if not path.exists():
        save_onnx(subject.model, path, multi_hot=counts is not None)
    if variant.mlp == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantized = folder / "int8.onnx"
        with _quiet():
            quantize_dynamic(
                path,
                quantized,
                op_types_to_quantize=["MatMul", "Gemm"],
                weight_type=QuantType.QInt8,
                use_external_data_format=path.with_name("model.onnx.data").exists(),
            )
        path = quantized
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def inputs(start: int, size: int) -> dict[str, Any]:
        named = ReferenceDLRM.inputs(subject.batch(start, size))
        return {name: tensor.numpy() for name, tensor in named.items()}

    def score(batch: dict[str, Any]) -> torch.Tensor:
        return torch.from_numpy(session.run(None, batch)[0]).squeeze(1)

    return Contender("onnxruntime", variant, inputs, score)
