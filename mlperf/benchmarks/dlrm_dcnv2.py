"""DLRM-DCNv2 on several ids per table: the recommendation benchmark of MLPerf Training 3.0 to 6.0.

Sources: the rule files of the official checker for each edition (mlperf_logging/compliance_checker/training_*),
the training rules (github.com/mlcommons/training_policies) and the reference implementation
(github.com/mlcommons/training, recommendation_v2/torchrec_dlrm). The official convergence checker contains the
reference convergence points.
"""

from __future__ import annotations

from datetime import date

from mlperf.benchmarks import dlrm
from mlperf.benchmarks.benchmark import Benchmark, DataSet, Edition, LoggedHyperparameter, Network
from mlperf.benchmarks.data_sets import TERABYTE_DCNV2

DLRM_DCNV2 = Benchmark(
    name="dlrm_dcnv2",
    network=Network(
        bottom_mlp=(13, 512, 256, 128),
        top_mlp=(1024, 1024, 512, 256, 1),
        interaction="dcn",
        loss="bce_logits",
        cross_layers=3,
        cross_rank=512,
    ),
    data=DataSet(
        traits=TERABYTE_DCNV2,
        index_limit=40_000_000,
        table_rows=(
            *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10),
            *(2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36),
        ),
        ids_per_table=(3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1),
        train_samples=dlrm.DLRM.data.train_samples,  # the splits of the logs are the same
        eval_samples=dlrm.DLRM.data.eval_samples,
        held_out_samples=dlrm.DLRM.data.held_out_samples,
    ),
    optimizer="adagrad",
    adagrad_epsilon=1e-8,
    auc_target=0.80275,
    evaluations_per_epoch=20,
    rounds_interval_up=False,
    first_epoch=0,
    runs=10,
    fixes_eval_samples=True,
    # Without decay of the rate or of the weights, and with sums of squares that start at 0, as in mlperf/optim/.
    hyperparameters=(
        LoggedHyperparameter("opt_base_learning_rate", setting="schedule.learning_rate"),
        LoggedHyperparameter("opt_adagrad_learning_rate_decay", value=0),
        LoggedHyperparameter("opt_weight_decay", value=0),
        LoggedHyperparameter("opt_adagrad_initial_accumulator_value", value=0),
        LoggedHyperparameter("opt_adagrad_epsilon", setting="adagrad_epsilon"),
        LoggedHyperparameter("opt_learning_rate_warmup_steps", setting="schedule.warmup_steps"),
        LoggedHyperparameter("opt_learning_rate_decay_start_step", setting="schedule.decay_start_step"),
        LoggedHyperparameter("opt_learning_rate_decay_steps", setting="schedule.decay_steps"),
    ),
)

_KEYS_5_0 = frozenset(entry.key for entry in DLRM_DCNV2.hyperparameters) | {
    *("submission_benchmark", "submission_division", "cache_clear", "init_start", "init_stop", "run_start"),
    *("run_stop", "block_start", "block_stop", "epoch_start", "epoch_stop", "eval_start", "eval_stop"),
    *("eval_accuracy", "train_samples", "eval_samples", "global_batch_size", "gradient_accumulation_steps"),
    *("opt_name", "seed"),
}
_KEYS_4_1 = _KEYS_5_0 | {"submission_org", "submission_platform"}  # again from 5.1 on
_KEYS_3_0 = _KEYS_4_1 | {"submission_status"}
_NEW_3_0 = _KEYS_3_0 - dlrm.EDITIONS[-1].required_keys
_OPTIONAL_6_0 = frozenset(
    {
        *(f"lowest_numerical_precision_in_{part}" for part in ("linear", "attn", "comm")),
        *(f"{kind}_parallelism" for kind in ("tensor", "pipeline", "context", "expert")),
        *("micro_batch_size", "config_filename"),
    }
)

# The dates are those of MLCommons' announcements of the results.
EDITIONS = (
    Edition("3.0.0", DLRM_DCNV2, date(2023, 6, 27), _KEYS_3_0, checks_package=True, new_keys=_NEW_3_0),
    Edition("3.1.0", DLRM_DCNV2, date(2023, 11, 8), _KEYS_3_0, checks_package=True),
    Edition("4.0.0", DLRM_DCNV2, date(2024, 6, 12), _KEYS_3_0, checks_package=True),
    Edition("4.1.0", DLRM_DCNV2, date(2024, 11, 13), _KEYS_4_1, checks_package=True),
    Edition("5.0.0", DLRM_DCNV2, date(2025, 6, 4), _KEYS_5_0, checks_package=True),
    Edition("5.1.0", DLRM_DCNV2, date(2025, 11, 12), _KEYS_4_1, checks_package=True),
    Edition(
        "6.0.0",
        DLRM_DCNV2,
        date(2026, 6, 16),
        _KEYS_4_1,
        checks_package=True,
        new_optional_keys=_OPTIONAL_6_0,
    ),
)
