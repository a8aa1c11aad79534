"""Embedding tables in 16 bits (--embedding-precision): stochastic rounding, training, checkpoints, memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from dlrm_models import make_batch, make_model, train_steps
from program import run_program
from small_runs import error_of, load, train

from mlperf.models.dlrm import ROW_TYPES, DLRM_Net
from mlperf.models.layers.embedding.flat_tables import FlatTables
from mlperf.models.layers.embedding.rows import RowParameter
from mlperf.optim.optimizer import make_optimizer
from mlperf.optim.rounding import philox, random_bits, round_stochastically
from mlperf.registry import OPTIMIZERS
from mlperf.runner import memory as run_memory
from mlperf.settings.from_flags import parse
from mlperf.util.errors import RunError

HALVES = ("bf16", "fp16")
SAVE = ("--save-model=own.pt", "--mlperf-auc-threshold=0.01")


def metrics_in(line: str) -> list[float]:
    """Return the numbers of a line with metrics."""
    return [float(number) for number in re.findall(r"\d+\.\d+", line)]


def rows_of(model: DLRM_Net) -> RowParameter:
    (rows,) = model.row_parameters()
    return rows


def neighbours(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the representable values next to finite float32 `values`: at or below them, at or above them."""
    nearest = values.to(dtype)
    down, up = (torch.nextafter(nearest, nearest.new_tensor(limit)) for limit in (-torch.inf, torch.inf))
    below = torch.where(nearest.float() > values, down, nearest)
    return below.float(), torch.where(nearest.float() < values, up, nearest).float()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_generator_gives_the_published_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    assert tuple(int(word) for word in philox((c0, c1, c2, c3), key)) == words


def test_random_bits_depend_on_seed_step_row_and_column_only() -> None:
    rows = torch.tensor([5, 0, 1 << 33, 7])
    bits = random_bits(rows, 20, seed=3, step=4)
    assert bits.shape == (4, 20)
    assert bits.min() >= 0
    assert bits.max() < 1 << 16
    assert torch.equal(bits.flip(0), random_bits(rows.flip(0), 20, seed=3, step=4))
    assert torch.equal(bits[:, :9], random_bits(rows, 9, seed=3, step=4))
    for others in (
        random_bits(rows, 20, seed=4, step=4),
        random_bits(rows, 20, seed=3 + (1 << 32), step=4),
        random_bits(rows, 20, seed=3, step=5),
        random_bits(rows + 1, 20, seed=3, step=4),
        random_bits(rows + (1 << 32), 20, seed=3, step=4),
    ):
        assert (others == bits).float().mean() < 0.1
    assert len(bits.unique()) > 70  # 80 draws of 65,536


@pytest.mark.parametrize("precision", HALVES)
def test_representable_values_are_never_changed(precision: str) -> None:
    dtype = ROW_TYPES[precision]
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    values = every.view(dtype).float()
    for bits in (0, 0x8000, 0xFFFF):
        rounded = round_stochastically(values, dtype, torch.full((1 << 16,), bits))
        assert torch.equal(rounded.view(torch.int16)[~values.isnan()], every[~values.isnan()])
        assert rounded[values.isnan()].isnan().all()


@pytest.mark.parametrize("precision", HALVES)
def test_values_are_rounded_to_a_neighbour_without_bias(precision: str) -> None:
    dtype = ROW_TYPES[precision]
    generator = torch.Generator().manual_seed(1)
    # From values that are subnormal in float16 to large ones, of both signs.
    values = torch.randn(100, generator=generator) * torch.logspace(-8, 4, 100)
    below, above = neighbours(values, dtype)
    bits = torch.randint(0, 1 << 16, (20_000, 100), generator=generator)
    rounded = round_stochastically(values.expand(20_000, 100).contiguous(), dtype, bits).float()
    assert ((rounded == below) | (rounded == above)).all()
    bias = (rounded.double().mean(0) - values) / (above - below).clamp(min=1e-30)
    assert bias.abs().max() < 0.02  # more than 5 standard deviations of a mean of 20,000
    assert abs(bias.mean()) < 0.002


@pytest.mark.parametrize("precision", HALVES)
def test_values_beyond_the_range_become_infinite_and_infinities_stay(precision: str) -> None:
    dtype = ROW_TYPES[precision]
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest * 1.0001 if precision == "bf16" else 65535.0, 3.4e38, torch.inf, -torch.inf])
    up = round_stochastically(values, dtype, torch.full((4,), 0xFFFF))
    assert up.tolist() == [torch.inf, torch.inf, torch.inf, -torch.inf]
    assert float(round_stochastically(values, dtype, torch.zeros(4, dtype=torch.int64))[0]) == largest


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("precision", HALVES)
def test_step_gives_a_neighbour_of_the_float32_result(precision: str, name: str) -> None:
    """Both start from the same weights. Rows that occur several times are rounded once."""
    half = make_model(embedding_precision=precision)
    exact = make_model()
    rows_of(exact).values.copy_(rows_of(half).values)
    before = rows_of(half).values.clone()
    for model in (half, exact):
        train_steps(model, make_optimizer(name, model), range(1))
    below, above = neighbours(rows_of(exact).values, ROW_TYPES[precision])
    found = rows_of(half).values.float()
    # The same sums in another order can differ by a unit of float32.
    slack = 1e-6 * found.abs()
    assert ((found >= below - slack) & (found <= above + slack)).all()
    changed = (rows_of(exact).values != before.float()).any(1)
    assert changed.any()
    assert torch.equal(found[~changed], before[~changed].float())
    torch.testing.assert_close(dict(half.top_l.named_parameters()), dict(exact.top_l.named_parameters()))


@pytest.mark.parametrize("precision", HALVES)
def test_changes_too_small_for_the_precision_add_up(precision: str) -> None:
    """1000 steps of a 64th of a unit each; rounding to the nearest would leave the weights at 1."""
    model = make_model(embedding_precision=precision)
    rows = rows_of(model)
    rows.values.fill_(1.0)
    optimizer = make_optimizer("sgd", model, seed=5)
    unit = torch.finfo(rows.values.dtype).eps
    indices = torch.arange(len(rows.values))
    for _ in range(1000):
        optimizer.update_rows(rows, indices, torch.full(rows.values.shape, -1.0), unit / 64)
        optimizer.note_step(unit / 64)
    change = (rows.values.double() - 1).mean() / unit
    assert abs(float(change) - 1000 / 64) < 1.5


def test_seed_and_step_select_the_random_bits() -> None:
    def trained(seed: int, first_step: int) -> torch.Tensor:
        model = make_model(embedding_precision="bf16")
        optimizer = make_optimizer("sgd", model, seed)
        optimizer.continue_at(first_step)
        train_steps(model, optimizer, range(1))
        return rows_of(model).values.clone()

    assert torch.equal(trained(1, 0), trained(1, 0))
    assert not torch.equal(trained(1, 0), trained(2, 0))
    assert not torch.equal(trained(1, 0), trained(1, 1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_continues_after_more_steps_than_float32_can_count(name: str) -> None:
    """The state of Adagrad has the number of steps in float32, as that of torch.optim."""
    steps = (1 << 24) + 1
    optimizer, continued = (make_optimizer(name, make_model(embedding_precision="bf16")) for _ in range(2))
    optimizer.steps = steps
    continued.load_state_dict(optimizer.state_dict(), "saved.pt")
    continued.continue_at(steps)
    assert continued.steps == steps


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("precision", HALVES)
def test_lookup_sums_the_rows_in_float32(precision: str, several: bool) -> None:
    half, exact = make_model(embedding_precision=precision), make_model()
    rows_of(exact).values.copy_(rows_of(half).values)
    batch = make_batch(1, several)
    found, expected = (model.look_up(batch).pooled for model in (half, exact))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(half(batch), exact(batch))


@pytest.mark.parametrize("precision", HALVES)
def test_initial_values_are_those_of_float32_rounded_to_the_nearest(precision: str) -> None:
    for generator in ("numpy", "device"):
        half = make_model(embedding_init=generator, embedding_precision=precision)
        exact = make_model(embedding_init=generator)
        assert torch.equal(rows_of(half).values, rows_of(exact).values.to(ROW_TYPES[precision]))
        assert torch.equal(*(model.state_dict()["bot_l.0.weight"] for model in (half, exact)))


def test_tables_in_16_bits_need_half_the_memory() -> None:
    model, half = make_model(), make_model(embedding_precision="bf16")
    assert isinstance(half.tables, FlatTables)
    assert 2 * half.tables.weight.nbytes == 2 * half.table_bytes() == model.table_bytes()


@pytest.mark.parametrize("optimizer", ["sgd", "rwsadagrad"])
def test_continued_run_rounds_like_an_undisturbed_one(optimizer: str, terabyte: Path, tmp_path: Path) -> None:
    flags = ("--embedding-precision=bf16", f"--optimizer={optimizer}")
    whole = train(terabyte, tmp_path, *flags, "--save-model=whole.pt")
    train(terabyte, tmp_path, *flags, "--save-model=part.pt", "--num-batches=0", "--nepochs=1")
    rest = load(tmp_path / "part.pt", terabyte, tmp_path, *flags, "--mlperf-log-file=rest.log")
    assert rest.status == 0, rest.stderr
    assert rest.metric_lines
    assert whole.metric_lines[-len(rest.metric_lines) :] == rest.metric_lines


@pytest.mark.parametrize("saved", ["bf16", "fp16"])
def test_checkpoint_is_evaluated_in_any_precision_but_resumed_in_its_own_only(
    saved: str, terabyte: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.pt"
    train(terabyte, tmp_path, f"--embedding-precision={saved}", *SAVE)
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert {value.dtype for name, value in weights.items() if name.startswith("emb_l")} == {ROW_TYPES[saved]}
    assert weights["bot_l.0.weight"].dtype == torch.float32
    runs = {
        precision: load(path, terabyte, tmp_path, f"--embedding-precision={precision}", "--inference-only")
        for precision in ROW_TYPES
    }
    assert {run.status for run in runs.values()} == {0}
    converted = f"{path}: the embedding tables are stored in {saved} and are converted"
    assert [precision for precision, run in runs.items() if converted not in run.stderr] == [saved]
    assert runs["fp32"].metric_lines == runs[saved].metric_lines  # float32 represents every value
    error = error_of(load(path, terabyte, tmp_path))
    assert f"{path}: cannot resume: was saved with --embedding-precision={saved};" in error


def test_float32_checkpoint_is_evaluated_with_half_the_memory(terabyte: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    train(terabyte, tmp_path, *SAVE)
    exact = load(path, terabyte, tmp_path, "--inference-only")
    half = load(path, terabyte, tmp_path, "--inference-only", "--embedding-precision=bf16")
    assert half.status == 0
    found, expected = (metrics_in(run.metric_lines[-1]) for run in (half, exact))
    assert found == pytest.approx(expected, abs=0.5)  # in %


def test_value_beyond_the_range_of_fp16_is_named(terabyte: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    train(terabyte, tmp_path, *SAVE)
    contents = torch.load(path, weights_only=True)
    contents["state_dict"]["emb_l.3.weight"][2, 1] = 1e5
    torch.save(contents, path)
    assert load(path, terabyte, tmp_path, "--inference-only", "--embedding-precision=bf16").status == 0
    run = load(path, terabyte, tmp_path, "--inference-only", "--embedding-precision=fp16")
    assert f"{path}: emb_l.3.weight has values beyond 65,504" in error_of(run)


def test_mlp_in_16_bits_is_refused(terabyte: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    train(terabyte, tmp_path, *SAVE)
    contents = torch.load(path, weights_only=True)
    contents["state_dict"]["bot_l.0.weight"] = contents["state_dict"]["bot_l.0.weight"].bfloat16()
    torch.save(contents, path)
    run = load(path, terabyte, tmp_path, "--inference-only", "--embedding-precision=bf16")
    assert "bot_l.0.weight is bfloat16 of shape [16, 13], must be float32" in error_of(run)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--qr-flag",), "--embedding-precision=bf16 cannot be combined with --qr-flag or --md-flag"),
        (("--md-flag",), "--embedding-precision=bf16 cannot be combined with --qr-flag or --md-flag"),
        (
            ("--inference-only", "--quantize-emb-with-bit=8", "--data-generation=dataset", "--raw-data-file=x"),
            "--embedding-precision=bf16 cannot be combined with quantization",
        ),
    ],
)
def test_contradicting_flags_are_refused(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    run = run_program("--embedding-precision=bf16", *flags, cwd=tmp_path)
    assert run.status == 2
    assert words in run.stderr


@pytest.mark.parametrize(("optimizer", "kept"), [("sgd", 0), ("rwsadagrad", 4), ("adagrad", 512)])
def test_memory_that_is_missing_is_told_with_the_flags_that_help(
    optimizer: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark's tables have 187,767,399 rows of 128 values."""
    rows = 187_767_399
    shape = f"--arch-sparse-feature-size=128 --arch-mlp-bot=13-128 --arch-embedding-size={rows}"
    flags = f"{shape} --optimizer={optimizer}"

    def refusal(available: int, *more: str) -> str:
        monkeypatch.setattr(run_memory, "available_on_gpu", lambda device: available)
        settings = parse([*flags.split(), *more])
        sizes = run_memory.RunSizes.of(settings, None)
        try:
            run_memory.require_run_memory(settings, settings.model.architecture, torch.device("cuda"), sizes)
        except RunError as error:
            return str(error)
        return ""

    halved = rows * (256 + kept) + 10**6
    text = refusal(halved)
    assert "of memory of the GPU" in text
    assert "96.1 GB for the embedding tables (--embedding-precision," in text
    assert text.endswith("; --embedding-precision=bf16 needs 48.1 GB less")
    assert ("for Adagrad's sums of squares, one for each value of the tables (--optimizer)" in text) == (
        optimizer == "adagrad"
    )
    assert refusal(halved, "--embedding-precision=bf16") == ""
    assert ("less" in refusal(halved - 2 * 10**6)) == (optimizer == "adagrad")  # row-wise Adagrad needs less
    assert refusal(halved - 2 * 10**6, "--embedding-precision=bf16") != ""
