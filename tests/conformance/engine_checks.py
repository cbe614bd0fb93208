"""What every training engine promises (model/training/engines/base.py), one check per promise, on any member.

An engine trains a tiny model, and what comes out is compared with plain torch, written once more and slowly.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.training.engines.base import EngineConfig
from model.training.model_state import MOMENTS, ModelState
from model.training.objective import Objective
from storage.errors import InputError
from tests.conformance.engine_work import (
    CONFIG,
    RATES,
    STEPS,
    EndedBadly,
    Outcome,
    TinyModel,
    Work,
    rows,
    tiny_model,
)


@dataclass(frozen=True)
class Member:
    """An engine with its options, in a number of processes."""

    engine: EngineConfig
    run: Callable[[Work], Outcome]
    """Does work in the engine's processes; raises what was raised in them."""
    processes: int = 1

    @cached_property
    def straight(self) -> Outcome:
        """The training from the first step to the last."""
        return self.run(Work(self.engine))


# ---- the same in plain torch ---------------------------------------------------------------------------


@cache
def reference() -> Outcome:
    """Return what must come out: one process, one batch, in a loop that knows nothing of engines."""
    model, outcome = tiny_model(), Outcome()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    outcome.evaluations.append(_plain_loss(model, 0).item())
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATES[step - 1]
        optimizer.zero_grad()
        loss = _plain_loss(model, step)
        loss.backward()
        outcome.losses.append(loss.item())
        norm = sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()) ** 0.5
        outcome.norms.append(norm)
        for p in model.parameters():
            p.grad.mul_(min(1.0, 0.5 / (norm + 1e-6)))
        optimizer.step()
        moments = {
            moment: {name: optimizer.state[p][moment].clone() for name, p in model.named_parameters()}
            for moment in MOMENTS
        }
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        outcome.states[step] = ModelState(step, weights, moments)
    outcome.evaluations.append(_plain_loss(model, 0).item())
    return outcome


def _plain_loss(model: TinyModel, step: int) -> Tensor:
    tokens, mask = rows(step)
    hidden = model.gain.weight * torch.tanh(torch.cumsum(model.embedding.weight[tokens[:, :-1]], 1))
    logits = hidden @ model.head.weight.T + model.head.bias
    return F.cross_entropy(logits[mask], tokens[:, 1:][mask])


# ---- the promises ----------------------------------------------------------------------------------------


def losses_are_those_of_plain_torch(member: Member) -> None:
    assert member.straight.losses == pytest.approx(reference().losses, abs=1e-6)


def norms_are_those_before_clipping(member: Member) -> None:
    assert max(reference().norms) > CONFIG.max_grad_norm
    assert member.straight.norms == pytest.approx(reference().norms, rel=1e-5)


def states_are_those_of_plain_torch(member: Member) -> None:
    for step, state in reference().states.items():
        found = member.straight.states[step]
        assert found.step == step
        assert_close(found.weights, state.weights, atol=1e-6)
        for moment in MOMENTS:
            assert_close(found.moments[moment], state.moments[moment], atol=1e-6)


def micro_batches_do_not_matter(member: Member) -> None:
    found = member.run(Work(member.engine, CONFIG.global_batch_size // member.processes))
    assert found.losses == pytest.approx(member.straight.losses, abs=1e-6)
    assert_close(found.states[STEPS].weights, member.straight.states[STEPS].weights, atol=1e-6)


def continued_training_gives_the_same_bits(member: Member) -> None:
    found = member.run(Work(member.engine, resume=member.straight.states[2]))
    assert found.losses == member.straight.losses[2:]
    assert_same(found.states[STEPS], member.straight.states[STEPS])


def state_of_another_engine_is_continued(member: Member) -> None:
    found = member.run(Work(member.engine, resume=reference().states[2]))
    assert found.losses == pytest.approx(reference().losses[2:], abs=1e-6)
    assert_close(found.states[STEPS].weights, reference().states[STEPS].weights, atol=1e-6)


def evaluation_is_right(member: Member) -> None:
    assert member.straight.evaluations == pytest.approx(reference().evaluations, abs=1e-6)


def evaluation_leaves_nothing(member: Member) -> None:
    assert not member.straight.needs_gradient
    assert_same(*member.straight.states_around_evaluation)
    assert member.straight.modes == [True]


def totals_are_summed_exactly(member: Member) -> None:
    n = member.processes
    assert member.straight.total == pytest.approx([n * (n + 1) / 2, n * 0.1, n * (2.0**40 + 1)], rel=1e-15)


def settings_are_json(member: Member) -> None:
    assert json.loads(json.dumps(member.straight.settings)) == member.straight.settings
    assert isinstance(member.straight.settings, dict)


def error_ends_the_processes_as_it_is(member: Member) -> None:
    with pytest.raises((ZeroDivisionError, EndedBadly)) as raised:
        member.run(Work(member.engine, fails=True))
    assert "this went wrong" in str(raised.value)
    assert "SIGABRT" not in str(raised.value)


def options_survive_json(member: Member) -> None:
    engine = member.engine
    assert type(engine).model_validate_json(engine.model_dump_json()) == engine
    assert type(engine)().name == engine.name


def label_tells_the_engine(member: Member) -> None:
    assert member.engine.name in member.engine.label()
    assert type(member.engine).model_validate(dict(member.engine)).label() == member.engine.label()


def label_tells_the_options(member: Member) -> None:
    engines = {member.engine, *type(member.engine).examples()}
    for engine in engines:
        for name, value in engine:
            if name != "name" and value != type(engine).model_fields[name].default:
                assert str(value) in engine.label(), f"{name} is not in the label"
    assert len({engine.label() for engine in engines}) == len(engines)


def device_that_it_cannot_use_is_refused(member: Member) -> None:
    for device in ("cpu", "mps", "cuda"):
        try:
            member.engine.check(member.processes, device)
        except InputError:
            with pytest.raises(InputError), tempfile.TemporaryDirectory() as folder:
                member.engine.open(Objective(tiny_model(), CONFIG), torch.device(device), folder, None)


CHECKS: dict[str, Callable[[Member], None]] = {
    check.__name__: check
    for check in (
        losses_are_those_of_plain_torch,
        norms_are_those_before_clipping,
        states_are_those_of_plain_torch,
        micro_batches_do_not_matter,
        continued_training_gives_the_same_bits,
        state_of_another_engine_is_continued,
        evaluation_is_right,
        evaluation_leaves_nothing,
        totals_are_summed_exactly,
        settings_are_json,
        error_ends_the_processes_as_it_is,
        options_survive_json,
        label_tells_the_engine,
        label_tells_the_options,
        device_that_it_cannot_use_is_refused,
    )
}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], *, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, atol=atol, rtol=0, msg=lambda text, at=name: f"{at}: {text}"
        )


def assert_same(found: ModelState, expected: ModelState) -> None:
    assert found.step == expected.step
    assert_close(found.weights, expected.weights, atol=0)
    for moment in MOMENTS:
        assert_close(found.moments[moment], expected.moments[moment], atol=0)
