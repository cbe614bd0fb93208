"""`fit` against a plain loop in torch, and as it is used in a notebook: loaders, seeds, interrupts, mistakes."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from model.families.gpt2.config import GPT2Config
from model.families.registry import build_model
from model.families.rope.config import RopeConfig
from model.families.world.balance import Router
from model.families.world.config import WorldConfig
from model.families.world.presets import WORLD_1M
from model.layers.language_model import LanguageModel
from model.notebook.callbacks import Callback, FitState
from model.notebook.fit import fit, to_batch
from model.training.batch import Batch
from storage.config import changed
from storage.errors import InputError
from storage.formats.probes import Probes

VOCAB_SIZE = 32
Config = GPT2Config | RopeConfig | WorldConfig
CONFIGS: dict[str, Config] = {
    "gpt2": GPT2Config(n_layers=2, n_heads=2, d_model=16, vocab_size=VOCAB_SIZE, max_seq_len=16),
    "rope": RopeConfig(
        n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_ff=24, vocab_size=VOCAB_SIZE, max_seq_len=16
    ),
    "world": changed(
        WORLD_1M, d_model=32, n_heads=2, n_kv_heads=1, head_dim=8, n_key_heads=1, key_dim=8, n_value_heads=2,
        value_dim=8, num_experts=4, top_k=2, d_expert=16, d_shared=16, context_rank=4, n_tones=3, n_fields=5,
        vocab_size=VOCAB_SIZE, max_seq_len=16,
    ),
}  # fmt: skip
ROPE = CONFIGS["rope"]
CPU = torch.device("cpu")
IGNORED = -100


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build(config: Config = ROPE) -> LanguageModel:
    torch.manual_seed(1)
    return build_model(config)


def ids(rows: int, length: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(seed))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def plain_losses(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


@pytest.mark.parametrize("family", ["gpt2", "rope"])
def test_fit_equals_a_plain_loop_in_torch(family: str) -> None:
    train, valid = [ids(4), ids(2, seed=1)], [ids(3, seed=2), ids(1, seed=3)]
    model = build(CONFIGS[family])
    reference = copy.deepcopy(model).train()

    state = fit(
        model, train, valid, num_epochs=3, learning_rate=1e-2, weight_decay=0.3, max_grad_norm=0.5, device="cpu"
    )

    matrices = [p for p in reference.parameters() if p.dim() > 1]
    vectors = [p for p in reference.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    step_losses, train_losses, valid_losses = [], [], []
    for _ in range(3):
        for batch in train:
            loss = plain_losses(reference(batch[:, :-1]), batch[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
            optimizer.step()
            step_losses.append(loss.item())
        train_losses.append((4 * step_losses[-2] + 2 * step_losses[-1]) / 6)
        with torch.no_grad():
            first, second = (plain_losses(reference(batch[:, :-1]), batch[:, 1:]).item() for batch in valid)
        valid_losses.append((3 * first + second) / 4)
    # The same float32 operations up to the order of sums.
    assert state.step_losses == pytest.approx(step_losses, rel=1e-5)
    assert state.train_losses == pytest.approx(train_losses, rel=1e-5)
    assert state.valid_losses == pytest.approx(valid_losses, rel=1e-5)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert (state.epoch, state.step, state.stop) == (3, 6, False)


@pytest.mark.parametrize(("family", "num_epochs"), [("gpt2", 60), ("rope", 80), ("world", 40)])
def test_fit_learns_a_batch_by_heart(family: str, num_epochs: int) -> None:
    model = build(CONFIGS[family])
    batch = ids(4)

    state = fit(model, [batch], [batch], num_epochs, learning_rate=1e-2, weight_decay=0.0, device="cpu")

    with torch.inference_mode():
        loss = float(plain_losses(model(batch[:, :-1]), batch[:, 1:]))
    assert loss < 0.1
    assert state.valid_losses[-1] == pytest.approx(loss, rel=1e-4)
    assert state.train_losses[0] == pytest.approx(math.log(VOCAB_SIZE), abs=0.2)


LOADERS: dict[str, Callable[[Tensor], Any]] = {
    "list": lambda rows: [rows[:2], rows[2:4], rows[4:]],
    "int32": lambda rows: [rows[:2].int(), rows[2:4].int(), rows[4:].int()],
    "pairs": lambda rows: [(part[:, :-1], part[:, 1:]) for part in rows.split(2)],
    "data-loader": lambda rows: DataLoader(list(rows), batch_size=2),
    "tensor-dataset": lambda rows: DataLoader(TensorDataset(rows), batch_size=2),
    "tensor-dataset-of-pairs": lambda rows: DataLoader(TensorDataset(rows[:, :-1], rows[:, 1:]), batch_size=2),
    "batches": lambda rows: [to_batch(part, build(), CPU) for part in rows.split(2)],
    "generator": lambda rows: (part for part in rows.split(2)),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_fit_takes_every_kind_of_loader_alike(kind: str) -> None:
    rows = ids(5)
    wanted, found = build(), build()
    fit(wanted, list(rows.split(2)), device="cpu")
    fit(found, LOADERS[kind](rows), LOADERS[kind](rows), device="cpu")
    assert same(weights(found), weights(wanted))


def test_negative_targets_are_not_predicted() -> None:
    batch = ids(3)
    inputs, targets = batch[:, :-1], batch[:, 1:].clone()
    targets[0, 2:], targets[1, 0] = IGNORED, -1
    model = build()
    with torch.inference_mode():
        by_hand = [
            float(F.cross_entropy(model(inputs)[row, column], targets[row, column]))
            for row, column in itertools.product(range(3), range(8))
            if targets[row, column] >= 0
        ]
    nothing = (inputs, torch.full_like(targets, IGNORED))
    steps = []

    class Count(Callback):
        def before_step(self, state: FitState) -> None:
            steps.append(state.step)

    loader = [nothing, (inputs, targets)]
    state = fit(model, loader, loader, callbacks=[Count()], device="cpu")

    assert len(by_hand) == 2 + 7 + 8
    assert state.step_losses == pytest.approx([sum(by_hand) / len(by_hand)], rel=1e-5)
    assert state.train_losses == state.step_losses
    assert steps == [0]


def test_documents_of_a_batch_are_learned_apart() -> None:
    first, second = ids(1, 6), ids(1, 4, seed=1)
    packed = torch.cat((first, second), dim=1)
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, 5] = False  # the first token of the second document
    documents = torch.tensor([[0] * 6 + [1] * 3])
    batch = Batch(packed[:, :-1], packed[:, 1:], mask, 8, documents)
    model = build()
    with torch.inference_mode():
        wanted = [float(plain_losses(model(part[:, :-1]), part[:, 1:])) for part in (first, second)]
    state = fit(model, [batch], device="cpu")
    assert state.train_losses == pytest.approx([(5 * wanted[0] + 3 * wanted[1]) / 8], rel=1e-5)


def test_probe_tokens_of_a_batch_train_the_heads() -> None:
    rows = ids(2)
    rows[rows >= 30] = 1
    rows[:, -2] = 30
    plain = to_batch(rows, build(), CPU)
    labels = torch.full_like(plain.inputs, IGNORED)
    labels[:, -1] = 2
    probed = Batch(plain.inputs, plain.targets, plain.mask, plain.tokens, None, Probes(30, 31), labels, 2, 0)
    model = build(CONFIGS["world"])
    fit(model, [probed], num_epochs=20, learning_rate=1e-2, device="cpu")
    with torch.inference_mode():
        tones = model.tone_head(model.hidden(plain.inputs))[:, -1]
    assert tones.argmax(dim=-1).tolist() == [2, 2]


def test_experts_stay_balanced_however_long_the_loader() -> None:
    """The bias moves by 1e-3 towards the experts with too few tokens, less the mean of all moves."""
    model, batch = build(CONFIGS["world"]), ids(4)
    counted = copy.deepcopy(model).train()
    counted(batch[:, :-1])
    fit(model, (part for part in [batch]), device="cpu")
    routers = [[m for m in net.modules() if isinstance(m, Router)] for net in (counted, model)]
    for before, after in zip(*routers, strict=True):
        direction = (before.load.double().mean() - before.load).sign()
        wanted = 1e-3 * (direction - direction.mean())
        assert after.e_score_correction_bias.tolist() == pytest.approx(wanted.tolist(), abs=1e-8)
        assert after.load.tolist() == [0] * 4


def fit_with_chance(seed: int = 0, valid: bool = False) -> dict[str, Tensor]:
    model = build(changed(ROPE, dropout=0.2))
    loader = DataLoader(list(ids(8)), batch_size=2, shuffle=True)
    torch.manual_seed(torch.seed())  # whatever the notebook drew before
    fit(model, loader, loader if valid else None, num_epochs=3, seed=seed, device="cpu")
    return weights(model)


def test_seed_alone_decides_what_is_drawn() -> None:
    first = fit_with_chance()
    assert same(fit_with_chance(), first)
    assert not same(fit_with_chance(seed=1), first)


def test_validation_changes_nothing_in_training() -> None:
    assert same(fit_with_chance(valid=True), fit_with_chance())


def test_random_state_of_the_notebook_is_left_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    model = build_model(changed(ROPE, dropout=0.2))
    torch.manual_seed(5)
    fit(model, DataLoader(list(ids(4)), shuffle=True), device="cpu")
    assert torch.equal(torch.rand(3), wanted)


def test_model_learns_in_training_mode_and_is_shown_in_eval_mode() -> None:
    seen = []

    class Watch(Callback):
        def before_step(self, state: FitState) -> None:
            seen.append(state.model.training)

        def after_epoch(self, state: FitState) -> None:
            seen.append(state.model.training)

    model = build()
    fit(model, [ids(2), ids(2)], [ids(2)], num_epochs=2, callbacks=[Watch()], device="cpu")
    assert seen == [True, True, False] * 2
    assert not any(module.training for module in model.modules())


def test_an_interrupted_fit_leaves_a_model_that_can_be_trained_on() -> None:
    def interrupted() -> Iterator[Tensor]:
        yield ids(2)
        raise KeyboardInterrupt

    model = build()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted(), device="cpu")
    assert not model.training

    wanted = copy.deepcopy(model)
    for parameter in model.parameters():  # as of a step that was interrupted after its backward pass
        parameter.grad = torch.ones_like(parameter)
    for one in (model, wanted):
        fit(one, [ids(2)], device="cpu")
    assert same(weights(model), weights(wanted))


@pytest.mark.parametrize("which", ["train_loader", "valid_loader"])
def test_a_generator_is_refused_for_several_epochs(which: str) -> None:
    loaders: dict[str, Any] = {"train_loader": [ids(2)], which: (batch for batch in [ids(2)])}
    model = build()
    before = weights(model)
    with pytest.raises(InputError, match=f"{which} .* generator"):
        fit(model, **loaders, num_epochs=2, device="cpu")
    assert same(weights(model), before)


NOTHING = torch.full((2, 8), IGNORED)


@pytest.mark.parametrize("loader", [[], [(ids(2, 8), NOTHING)]], ids=["empty", "nothing-to-predict"])
def test_a_loader_without_predictions_is_refused(loader: list[Any]) -> None:
    with pytest.raises(InputError, match="train_loader"):
        fit(build(), loader, device="cpu")
    with pytest.raises(InputError, match="valid_loader"):
        fit(build(), [ids(2)], loader, device="cpu")


REFUSED: dict[str, tuple[Any, str]] = {
    "one-sequence": (ids(1)[0], r"Tensor of shape \(9,\)"),
    "one-token": (ids(3, 1), r"Tensor of shape \(3, 1\)"),
    "three-dimensions": (ids(3)[None], r"Tensor of shape \(1, 3, 9\)"),
    "dictionary": ({"input_ids": ids(2)}, "dict"),
    "lists": ([[1, 2, 3], [4, 5, 6]], "list"),
    "text": ("a", "str"),
    "array": (ids(2).numpy(), "ndarray"),
    "fractions": (ids(2).float(), "float32"),
    "unequal-pair": ((ids(2, 8), ids(2, 7)), r"\(2, 8\) and \(2, 7\)"),
    "two-rows": ((ids(1)[0], ids(1)[0]), r"\(9,\) and \(9,\)"),
    "high-input": (torch.tensor([[1, VOCAB_SIZE, 2]]), f"1 to {VOCAB_SIZE}"),
    "negative-input": (torch.tensor([[1, -1, 2]]), "-1 to 1"),
    "high-target": (torch.tensor([[1, 2, VOCAB_SIZE]]), str(VOCAB_SIZE)),
}


@pytest.mark.parametrize(("item", "found"), REFUSED.values(), ids=REFUSED)
def test_a_batch_that_cannot_be_is_refused(item: Any, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        fit(build(), [item], device="cpu")


def test_rows_longer_than_learned_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="max_seq_len=16"):
        fit(build(CONFIGS["gpt2"]), [ids(2, 18)], device="cpu")


def test_a_loss_that_is_not_a_number_ends_the_fit_at_once() -> None:
    epochs = []

    class Note(Callback):
        def before_step(self, state: FitState) -> None:
            if state.step == 2:
                nn.init.constant_(next(state.model.parameters()), math.nan)

        def after_epoch(self, state: FitState) -> None:
            epochs.append(state.epoch)

    with pytest.raises(InputError, match=r"found loss nan and norm nan at step 3 .*0\.001"):
        fit(build(), [ids(2), ids(2)], num_epochs=5, callbacks=[Note()], device="cpu")
    assert epochs == [1]


@pytest.mark.parametrize(
    "settings",
    [{"num_epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"weight_decay": -1.0}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        fit(build(), [ids(2)], **settings, device="cpu")


def test_a_wrapped_model_is_refused() -> None:
    """As `torch.compile` wraps: it would hide which family it is, and with it the losses of a world model."""
    wrapper: Any = nn.Sequential(build())
    with pytest.raises(ValueError, match="Sequential"):
        fit(wrapper, [ids(2)], device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    model = build()
    with pytest.raises(InputError, match="cuda"):
        fit(model, [ids(2)], device="cuda")
    fit(model, [ids(2)])
    assert model.device.type in ("cpu", "mps")


def test_every_tensor_of_a_batch_goes_to_the_device() -> None:
    plain = to_batch(ids(2), build(), CPU)
    batch = Batch(plain.inputs, plain.targets, plain.mask, plain.tokens, plain.inputs, None, plain.targets)
    moved = to_batch(batch, build(), torch.device("meta"))
    for tensor in (moved.inputs, moved.targets, moved.mask, moved.documents, moved.labels):
        assert tensor is not None
        assert tensor.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fit_on_a_gpu_learns_and_leaves_the_random_state_alone() -> None:
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    model = build(changed(ROPE, dropout=0.1))
    state = fit(model, [to_batch(ids(4), model, CPU), ids(4)], [ids(4)], num_epochs=30, learning_rate=1e-2)
    assert model.device.type == "cuda"
    assert state.valid_losses[-1] < state.valid_losses[0] / 4
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_the_page_about_notebooks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "notebook.md"
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    cells: dict[str, Any] = {"__name__": "notebook"}
    for number, block in enumerate(blocks, start=1):
        code = block.partition("```")[0]
        exec(compile(code, f"{page.name}, block {number}", "exec"), cells)
