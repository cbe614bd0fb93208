"""An update is the same however it is cut into micro-batches: in float64 but for the last digits."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from model.families.base import ModelConfig
from model.families.registry import FAMILIES, build_model
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.objective import Objective
from model.training.update import count
from storage.formats.probes import NO_LABEL, PROBE_KINDS, Probes

ROWS, LENGTH = 8, 80
PROBES = Probes(tone_id=1, field_id=2)
CONFIGS = [
    pytest.param(config, id=f"{name}-{tiny}")
    for name in FAMILIES.names()
    for tiny, config in FAMILIES.get(name).tiny.items()
]


@pytest.fixture(autouse=True)
def everything_in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What computes in float32 on purpose (routers, losses) would hide a difference behind its rounding."""
    torch.set_num_threads(1)
    usual = torch.get_default_dtype()
    for family in FAMILIES.names():  # its modules are loaded before float32 means something else
        build_model(next(iter(FAMILIES.get(family).tiny.values())))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(usual)


def uneven_batch(config: ModelConfig) -> Batch:
    """Rows with different numbers of targets, documents and labels; the third row has no target at all."""
    generator = torch.Generator().manual_seed(0)
    length = min(LENGTH, config.max_seq_len)
    ids = torch.randint(3, config.vocab_size, (ROWS, length + 1), generator=generator)
    mask = torch.rand((ROWS, length), generator=generator) < torch.linspace(0.2, 1, ROWS)[:, None]
    mask[2] = False
    documents = torch.zeros((ROWS, length), dtype=torch.int64)
    for row in range(ROWS):
        documents[row, 3 * row + 1 :] = 1
    labels = torch.full((ROWS, length), NO_LABEL)
    for row in range(1, ROWS):
        for place in range(2, 2 + 2 * row, 2):
            ids[row, place], ids[row, place + 1] = PROBES.tone_id, PROBES.field_id
            labels[row, place], labels[row, place + 1] = row % 3, row % 2
    return Batch(ids[:, :-1], ids[:, 1:], mask, int(mask.sum()), documents, PROBES, labels)


def cut(batch: Batch, size: int) -> list[Batch]:
    parts = []
    for start in range(0, ROWS, size):
        named = ("inputs", "targets", "mask", "documents", "labels")
        pieces = {name: getattr(batch, name)[start : start + size] for name in named}
        tones, fields = (
            int((pieces["labels"][pieces["inputs"] == probe] >= 0).sum())
            for probe in (PROBES.tone_id, PROBES.field_id)
        )
        tokens = int(pieces["mask"].sum())
        parts.append(replace(batch, **pieces, tokens=tokens, tone_labels=tones, field_labels=fields))
    return parts


def gradients(config: ModelConfig, size: int) -> dict[str, torch.Tensor]:
    """The gradient of one update in micro-batches of `size` rows."""
    torch.manual_seed(0)
    model = build_model(config).double().train()
    weights = {"tone": (5, 1, 1, 1, 1, 1), "field": (3, *[1] * 11)}
    labels = {kind: weights[kind][:classes] for kind, classes in config.classes().items() if kind in PROBE_KINDS}
    objective = Objective(model, TrainConfig(utility_weight=0.5), labels)
    objective.class_weights = {kind: weight.double() for kind, weight in objective.class_weights.items()}
    batches = cut(uneven_batch(config), size)
    totals = Totals(*count(batches))
    torch.manual_seed(1)
    objective.before_step(7, batches[0].inputs.shape[1])
    for batch in batches:
        objective(batch, totals)[0].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def difference(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest


@pytest.mark.parametrize("config", CONFIGS)
def test_gradient_of_an_update_does_not_depend_on_its_micro_batches(config: ModelConfig) -> None:
    """But where the shape says that it does, and so the key of the training."""
    whole = gradients(config, ROWS)
    differences = [difference(gradients(config, size), whole) for size in (1, 2, 4)]
    if config.mixes_rows:
        assert max(differences) > 1e-8
    else:
        assert max(differences) < 1e-10
