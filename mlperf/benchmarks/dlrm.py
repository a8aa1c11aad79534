"""DLRM on the Criteo Terabyte click logs: the recommendation benchmark of MLPerf Training 0.7 to 2.1.

Sources: the rule files of the official checker for each edition (mlperf_logging/compliance_checker/training_*),
the training rules (github.com/mlcommons/training_policies) and the figures of the reference implementation.
"""

from __future__ import annotations

from datetime import date

from mlperf.benchmarks.benchmark import Benchmark, DataSet, Edition, LoggedHyperparameter, Network
from mlperf.benchmarks.data_sets import TERABYTE

DLRM = Benchmark(
    name="dlrm",
    network=Network(bottom_mlp=(13, 512, 256, 128), top_mlp=(1024, 1024, 512, 256, 1)),
    data=DataSet(
        traits=TERABYTE,
        index_limit=40_000_000,
        table_rows=(
            *(39_884_406, 39_043, 17_289, 7_420, 20_263, 3, 7_120, 1_543, 63, 38_532_951, 2_953_546, 403_346, 10),
            *(2_208, 11_938, 155, 4, 976, 14, 39_979_771, 25_641_295, 39_664_984, 585_935, 12_972, 108, 36),
        ),
        train_samples=4_195_197_692,
        eval_samples=89_137_319,
        held_out_samples=89_137_318,
    ),
    optimizer="sgd",
    auc_target=0.8025,
    evaluations_per_epoch=20,
    rounds_interval_up=True,
    first_epoch=1,
    runs=5,
    fixes_eval_samples=False,
    hyperparameters=(
        LoggedHyperparameter("opt_base_learning_rate", setting="schedule.learning_rate"),
        LoggedHyperparameter("opt_learning_rate_warmup_steps", setting="schedule.warmup_steps"),
        LoggedHyperparameter("lr_decay_start_steps", setting="schedule.decay_start_step"),
        LoggedHyperparameter("sgd_opt_base_learning_rate", setting="schedule.learning_rate"),
        LoggedHyperparameter("sgd_opt_learning_rate_decay_poly_power", value=2),
        LoggedHyperparameter("sgd_opt_learning_rate_decay_steps", setting="schedule.decay_steps"),
    ),
)

_KEYS_0_7 = frozenset(
    {
        *("submission_benchmark", "submission_org", "submission_division", "submission_status"),
        *("submission_platform", "cache_clear", "init_start", "init_stop", "run_start", "run_stop"),
        *("block_start", "block_stop", "epoch_start", "epoch_stop", "eval_start", "eval_stop", "eval_accuracy"),
        *("train_samples", "eval_samples", "global_batch_size"),
        *(hyperparameter.key for hyperparameter in DLRM.hyperparameters),
    }
)
_NEW_1_0 = frozenset({"gradient_accumulation_steps"})
_NEW_1_1 = frozenset({"weights_initialization"})
_KEYS_1_0 = _KEYS_0_7 | _NEW_1_0 | {"seed"}
_KEYS_1_1 = _KEYS_1_0 | _NEW_1_1

# The dates are those of MLCommons' announcements of the results.
EDITIONS = (
    Edition("0.7.0", DLRM, date(2020, 7, 29), _KEYS_0_7, checks_package=False, open_target=DLRM.auc_target),
    Edition(
        "1.0.0",
        DLRM,
        date(2021, 6, 30),
        _KEYS_1_0,
        checks_package=True,
        new_keys=_NEW_1_0,
        early_keys=_NEW_1_1,
    ),
    Edition("1.1.0", DLRM, date(2021, 12, 1), _KEYS_1_1, checks_package=True, new_keys=_NEW_1_1),
    Edition("2.0.0", DLRM, date(2022, 6, 29), _KEYS_1_1, checks_package=True),
    Edition("2.1.0", DLRM, date(2022, 11, 9), _KEYS_1_1, checks_package=True),
)
