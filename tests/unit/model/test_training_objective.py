"""The loss of a world model: what it adds to the cross entropy, and how its parts are averaged."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from model.families.presets import preset_shape
from model.families.registry import build_model
from model.families.world.balance import expert_loads
from model.families.world.config import WorldConfig
from model.families.world.network import WorldModel
from model.families.world.presets import WORLD_1M
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.engines.local.engine import LocalEngine
from model.training.objective import Objective, class_weights, split_labels
from model.training.optimizers.adamw import build_optimizer, set_learning_rate
from model.training.schedules.cosine import balance_rate
from model.training.update import count, update
from storage.config import changed
from storage.formats.probes import Probes

CONFIG = changed(WORLD_1M, d_model=32, num_experts=4, top_k=2, vocab_size=64)
TRAIN = TrainConfig(model=preset_shape("world-1m"), max_steps=100, warmup_steps=1, expert_bias_rate=0.01)
PROBES = Probes(tone_id=1, field_id=2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def world(config: WorldConfig = CONFIG) -> WorldModel:
    model = build_model(config)
    assert isinstance(model, WorldModel)
    return model


def make_batch(rows: int = 2, length: int = 24, seed: int = 0) -> Batch:
    """Rows with two probe pairs each; one tone of the first row has no label."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 64, (rows, length + 1), generator=generator)
    labels = torch.full((rows, length), -100)
    for place in (8, 18):
        ids[:, place], ids[:, place + 1] = PROBES.tone_id, PROBES.field_id
        labels[:, place] = torch.randint(6, (rows,), generator=generator)
        labels[:, place + 1] = torch.randint(12, (rows,), generator=generator)
    labels[0, 8] = -100
    inputs, targets = ids[:, :-1], ids[:, 1:]
    mask = (inputs > 2) & (targets > 2)
    tones, fields = int((labels[inputs == 1] >= 0).sum()), int((labels[inputs == 2] >= 0).sum())
    return Batch(inputs, targets, mask, int(mask.sum()), None, PROBES, labels, tones, fields)


def gradients(model: WorldModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_head_losses_are_those_of_a_plain_loop_over_the_labels() -> None:
    model, batch = world(), make_batch()
    counts = {"tone": (5, 1, 1, 1, 1, 1), "field": (0, 3, *[1] * 10)}
    config = changed(TRAIN, utility_weight=0.0)
    objective = Objective(model, config, counts).eval()
    loss, summed = objective(batch, Totals(*count([batch])))
    hidden = model.hidden(batch.inputs)
    assert batch.labels is not None
    expected = float(summed.detach()) / batch.tokens
    for head, token, frequencies in ((model.tone_head, 1, counts["tone"]), (model.field_head, 2, counts["field"])):
        raw = [min(5.0, max(0.2, math.sqrt(sum(frequencies) / n) if n else 5.0)) for n in frequencies]
        weights = [weight / (sum(raw) / len(raw)) for weight in raw]
        values = []
        for row, place in torch.nonzero(batch.inputs == token).tolist():
            label = int(batch.labels[row, place])
            if label >= 0:
                logs = head(hidden[row, place]).log_softmax(-1).tolist()
                smooth = -sum(w * value for w, value in zip(weights, logs, strict=True)) * 0.1 / len(logs)
                values.append(0.9 * -weights[label] * logs[label] + smooth)
        expected += 0.05 * sum(values) / len(values)
    expected += float(objective.metrics["router_loss"])
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)


def test_labels_are_split_by_the_probe_they_stand_at() -> None:
    batch = make_batch()
    tone, field = split_labels(batch).values()
    assert int((tone >= 0).sum()) == batch.tone_labels == 3
    assert int((field >= 0).sum()) == batch.field_labels == 4
    assert ((tone >= 0) <= (batch.inputs == 1)).all()
    assert ((field >= 0) <= (batch.inputs == 2)).all()


def test_gradient_does_not_depend_on_how_labels_fall_into_micro_batches() -> None:
    """Each label weighs the same, though the micro-batches hold three and four of them."""
    config = changed(TRAIN, utility_weight=0.0)
    whole = make_batch()
    parts = [_row(whole, 0), _row(whole, 1)]
    assert parts[0].tone_labels != parts[1].tone_labels
    totals = Totals(*count([whole]))
    # The balance loss is a mean over a micro-batch by definition; only the rest must not change.
    found = []
    for batches in ([whole], parts):
        torch.manual_seed(0)
        model = world(changed(CONFIG, context_rank=0))
        objective = Objective(model, config)
        for batch in batches:
            summed = objective(batch)[0]
            hidden = model.hidden(batch.inputs, batch.documents)
            loss = summed / totals.tokens + objective._classification(batch, hidden, totals)
            loss.backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-7)


def _row(batch: Batch, row: int) -> Batch:
    assert batch.labels is not None
    part: dict[str, Any] = {
        name: getattr(batch, name)[row : row + 1] for name in ("inputs", "targets", "mask", "labels")
    }
    tones = int((part["labels"][part["inputs"] == 1] >= 0).sum())
    fields = int((part["labels"][part["inputs"] == 2] >= 0).sum())
    return Batch(**part, tokens=int(part["mask"].sum()), probes=PROBES, tone_labels=tones, field_labels=fields)


def test_batch_without_labels_gives_heads_a_gradient_of_zero() -> None:
    """So that every process of a sharded training runs the same graph."""
    model, batch = world(), make_batch()
    bare = Batch(batch.inputs, batch.targets, batch.mask, batch.tokens)
    Objective(model, TRAIN)(bare, Totals(*count([bare])))[0].backward()
    for head in (model.tone_head, model.field_head):
        assert head.weight.grad is not None
        assert not head.weight.grad.any()


def test_detached_heads_leave_the_trunk_alone() -> None:
    batch = make_batch()
    for detach in (False, True):
        model = world(changed(CONFIG, classification_detach=detach))
        objective = Objective(model, TRAIN)
        hidden = model.hidden(batch.inputs)
        objective._classification(batch, hidden, Totals(*count([batch]))).backward()
        assert model.tone_head.weight.grad is not None
        trunk = model.layers[0].linear_attn.out_proj.weight.grad
        assert (trunk is None or not trunk.any()) == detach


def test_utility_loss_trains_the_scorer_and_nothing_else() -> None:
    torch.manual_seed(0)
    found = {}
    for weight in (0.0, 0.02):
        torch.manual_seed(1)
        model, batch = world(), make_batch(length=80)
        torch.manual_seed(2)
        Objective(model, changed(TRAIN, utility_weight=weight))(batch, Totals(*count([batch])))[0].backward()
        found[weight] = gradients(model)
    changed_names = {name for name, gradient in found[0.02].items() if not torch.equal(gradient, found[0.0][name])}
    assert changed_names
    assert all(name.startswith(("context.0.score", "context.0.down", "context.0.norm")) for name in changed_names)


def test_bias_of_experts_moves_towards_the_idle_ones_and_stops_at_the_end() -> None:
    model, batch = world(), make_batch()
    engine = LocalEngine(objective := Objective(model, TRAIN), torch.device("cpu"))
    update(engine, objective, 1, [batch], Totals(*count([batch])))
    router = model.layers[0].mlp.gate
    assert not expert_loads(model).any()
    assert model.loads_LE is not None
    load = model.loads_LE[0]
    moved = router.e_score_correction_bias.double()
    assert float(moved.sum()) == pytest.approx(0, abs=1e-7)
    assert bool((moved[load < load.mean()] > moved[load > load.mean()].max()).all())
    assert balance_rate(TRAIN, 50) == TRAIN.expert_bias_rate
    assert balance_rate(TRAIN, 97) == pytest.approx(TRAIN.expert_bias_rate * 3 / 5)
    assert balance_rate(TRAIN, 100) == 0


def test_optimizer_decays_matrices_only_and_lets_gains_learn_faster() -> None:
    model = world()
    optimizer = build_optimizer(model, TRAIN)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {
        names[id(parameter)]: (group["weight_decay"], group["rate_scale"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert settings.keys() == dict(model.named_parameters()).keys()
    for name, (decay, scale) in settings.items():
        last = name.rpartition(".")[2]
        kept = last in ("bias", "A_log", "dt_bias") or "norm" in name or last.startswith("gain_")
        assert decay == (0.0 if kept else TRAIN.weight_decay), name
        assert scale == (10.0 if last.startswith("gain_") else 1.0), name
    set_learning_rate(optimizer, 1e-3)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3, 1e-2}


def test_class_weights_are_one_on_average_and_larger_for_rare_classes() -> None:
    weights = class_weights((1000, 10, 0))
    assert weights is not None
    assert float(weights.mean()) == pytest.approx(1)
    assert weights[0] < weights[1] == weights[2]
    assert class_weights(()) is None
    assert class_weights((0, 0)) is None


def test_cross_entropy_counts_only_where_the_mask_is_set() -> None:
    model, batch = world(), make_batch()
    _, summed = Objective(model, TRAIN).eval()(batch)
    logits = model(batch.inputs).detach()
    expected = sum(
        float(F.cross_entropy(logits[row, place], batch.targets[row, place]))
        for row, place in torch.nonzero(batch.mask).tolist()
    )
    assert float(summed.detach()) == pytest.approx(expected, rel=1e-5)
