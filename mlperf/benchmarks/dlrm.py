"""What the editions of MLPerf Training that had this benchmark ask for, as data.

Source: the rule files of the official checker for each edition (mlperf_logging/compliance_checker/training_*)
and the training rules (github.com/mlcommons/training_policies).
"""

from __future__ import annotations

from dataclasses import dataclass

_KEYS_0_7 = frozenset(
    {
        *("submission_benchmark", "submission_org", "submission_division", "submission_status"),
        *("submission_platform", "cache_clear", "init_start", "init_stop", "run_start", "run_stop"),
        *("block_start", "block_stop", "epoch_start", "epoch_stop", "eval_start", "eval_stop", "eval_accuracy"),
        *("train_samples", "eval_samples", "global_batch_size", "opt_base_learning_rate"),
        *("opt_learning_rate_warmup_steps", "lr_decay_start_steps", "sgd_opt_base_learning_rate"),
        *("sgd_opt_learning_rate_decay_poly_power", "sgd_opt_learning_rate_decay_steps"),
    }
)
_KEYS_1_0 = _KEYS_0_7 | {"gradient_accumulation_steps", "seed"}
_KEYS_1_1 = _KEYS_1_0 | {"weights_initialization"}

STATUSES = ("cloud", "onprem", "preview", "research")  # values of submission_status


@dataclass(frozen=True)
class Edition:
    """One edition; keys and target are those of the closed division.

    auc_target: the test AUC that ends a run. open_target: the least in the open division, where later editions
    leave the target to the submitter. runs: how many a result takes; a reference convergence point takes twice as
    many. evaluations_per_epoch: the schedule. checks_package: whether its package check looks at seeds, system
    descriptions and convergence.
    """

    name: str
    required_keys: frozenset[str]
    checks_package: bool
    open_target: float = 0.0
    auc_target: float = 0.8025
    runs: int = 5
    evaluations_per_epoch: int = 20

    def target(self, division: object) -> float:
        """Return the AUC that a run of this division must reach; of what is no division, as of closed."""
        return self.open_target if division == "open" else self.auc_target


EDITIONS = {
    edition.name: edition
    for edition in (
        Edition("0.7.0", _KEYS_0_7, checks_package=False, open_target=0.8025),
        Edition("1.0.0", _KEYS_1_0, checks_package=True),
        Edition("1.1.0", _KEYS_1_1, checks_package=True),
        Edition("2.0.0", _KEYS_1_1, checks_package=True),
        Edition("2.1.0", _KEYS_1_1, checks_package=True),
    )
}
DEFAULT_EDITION = EDITIONS["2.1.0"]
