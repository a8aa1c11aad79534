"""The training step with the embedding tables of torchrec: fbgemm-gpu's table-batched embeddings (TBE).

torchrec stores tables in this module, which updates them in its backward pass. It is called without torchrec's own
sparse tensors here, which would only add time. The rest of the step is plain PyTorch.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from mlperf.data.batch import Batch
from mlperf.engines.torchrec.packages import FBGEMM, PYTORCH, TORCHREC
from mlperf.models.dlrm import Architecture, make_interaction, top_widths
from mlperf.models.layers.mlp import make_mlp
from mlperf.models.reference import ReferenceDLRM
from training_baselines import DenseStep

PACKAGES = f"torchrec=={TORCHREC} and fbgemm-gpu=={FBGEMM}, or fbgemm-gpu-cpu=={FBGEMM}, go with PyTorch {PYTORCH}"


def unavailable() -> str | None:
    """Return why the step cannot be measured, None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about optimizers that are not used here
            import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed ({PACKAGES})"
    except (ImportError, OSError) as error:  # built for another PyTorch
        reason = str(error).partition("\n")[0]
        return f"fbgemm-gpu does not load beside PyTorch {torch.__version__}: {reason} ({PACKAGES})"
    return None


class TorchRecStep:
    """A training step with table-batched embeddings and their fused optimizer.

    optimizer: "sgd", "adagrad" or "rwsadagrad"; the MLPs get Adagrad for both of the latter.
    Rows in 16 bits (`architecture.embedding_precision`) are rounded stochastically if fbgemm-gpu supports that on
    the device.
    """

    def __init__(
        self,
        architecture: Architecture,
        batch: Batch,
        precision: str,
        device: torch.device,
        rate: float,
        *,
        optimizer: str = "sgd",
    ) -> None:
        with torch.device(device):
            self._model = ReferenceDLRM(
                (),
                make_mlp(architecture.mlp_bot, architecture.activation),
                make_mlp(top_widths(architecture), architecture.activation, last="sigmoid"),
                make_interaction(architecture),
                loss_threshold=architecture.loss_threshold,
            )
        dense_optimizer = "sgd" if optimizer == "sgd" else "adagrad"
        self._dense = DenseStep(self._model, batch, precision, device, rate, dense_optimizer)
        self._tables = _make_tables(architecture, device, rate, optimizer)
        for table, rows in zip(self._tables.split_embedding_weights(), architecture.rows_per_table, strict=True):
            table.uniform_(-(rows**-0.5), rows**-0.5)
        self._offsets = bag_starts(batch).to(device)
        self._shape = (batch.size, len(architecture.rows_per_table), architecture.feature_size)

    def copy_weights(self, model: ReferenceDLRM) -> None:
        """Take over all weights of `model`."""
        self._model.bot_l.load_state_dict(model.bot_l.state_dict())
        self._model.top_l.load_state_dict(model.top_l.state_dict())
        self._model.interaction.load_state_dict(model.interaction.state_dict())
        for own, table in zip(self._tables.split_embedding_weights(), model.emb_l, strict=True):
            weight = table.weight
            assert isinstance(weight, torch.Tensor)
            own.copy_(weight.detach())

    def __call__(self) -> torch.Tensor:
        """Train on the batch. Returns the mean loss before the update."""
        return self._dense.train(self._pooled)

    def _pooled(self, batch: Batch) -> torch.Tensor:
        pooled: torch.Tensor = self._tables(batch.indices.flatten(), self._offsets)
        return pooled.view(self._shape)


def bag_starts(batch: Batch) -> torch.Tensor:
    """Return the position of the first id of each bag, table by table, and the number of ids: [T * B + 1]."""
    count = batch.indices.numel()
    if batch.offsets is None:
        return torch.arange(count + 1)
    return torch.cat((batch.offsets.flatten(), batch.offsets.new_tensor([count])))


def _make_tables(architecture: Architecture, device: torch.device, rate: float, optimizer: str) -> Any:
    from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        BoundsCheckMode,
        ComputeDevice,
        EmbeddingLocation,
        PoolingMode,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    on_gpu = device.type == "cuda"
    place = (
        EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST,
        ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU,
    )
    kinds = {
        "sgd": EmbOptimType.EXACT_SGD,
        "adagrad": EmbOptimType.EXACT_ADAGRAD,
        "rwsadagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    }
    stored = {"fp32": SparseType.FP32, "fp16": SparseType.FP16, "bf16": SparseType.BF16}
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, architecture.feature_size, *place) for rows in architecture.rows_per_table],
        weights_precision=stored[architecture.embedding_precision],
        optimizer=kinds[optimizer],
        learning_rate=rate,
        eps=1e-10,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,
        device=device,
    )
