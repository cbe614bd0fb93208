"""Work for a training engine: a tiny model is trained, in processes of the engine's own or in this one."""

import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from model.layers.language_model import LanguageModel
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.engines.base import Engine, EngineConfig
from model.training.model_state import MOMENTS, ModelState
from model.training.objective import Objective

REPOSITORY = Path(__file__).parents[2]

VOCABULARY, LENGTH, WIDTH, STEPS = 23, 12, 8, 4

CONFIG = TrainConfig(
    max_steps=STEPS,
    warmup_steps=0,
    global_batch_size=8,
    micro_batch_size=2,
    learning_rate=1e-2,
    max_grad_norm=0.5,  # the gradient of the first steps is larger, that of the last smaller
)

RATES = (1e-2, 8e-3, 5e-3, 1e-3)

SECONDS = 270
"""In which processes must have ended."""


class Gain(torch.nn.Module):
    """A gain of its own module, as all parameters of our families are: ZeRO-3 gathers them by module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class TinyModel(LanguageModel):
    """A model that no family has: matrices, which decay, and a gain and a bias, which do not."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=VOCABULARY, learned_positions=False)
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.gain = Gain()
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)
        self.register_buffer("seen", torch.tensor(3.0))

    def hidden(self, ids_BT: Tensor, documents_BT: Tensor | None = None, cache: Any = None) -> Tensor:
        x = self.embedding(ids_BT)
        return self.gain(torch.tanh(x.cumsum(1)))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


def tiny_model() -> TinyModel:
    """Return the model with its first weights."""
    torch.manual_seed(0)
    model = TinyModel()
    with torch.no_grad():
        model.head.weight.mul_(6)  # so that gradients are clipped
    return model


def rows(step: int) -> tuple[Tensor, Tensor]:
    """Return the sequences of a step (0 for validation) and where they count, differently in each row."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, VOCABULARY, (CONFIG.global_batch_size, LENGTH + 1), generator=generator)
    lengths = torch.randint(1, LENGTH + 1, (CONFIG.global_batch_size, 1), generator=generator)
    return tokens, torch.arange(LENGTH) < lengths


def batch_of(step: int, start: int, stop: int) -> Batch:
    """Return some sequences of a step."""
    tokens, mask = (tensor[start:stop] for tensor in rows(step))
    return Batch(tokens[:, :-1], tokens[:, 1:], mask, int(mask.sum()))


# ---- what is done -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What an engine is to do, in each of its processes."""

    engine: EngineConfig
    micro_batch_size: int = 2
    resume: ModelState | None = None
    fails: bool = False
    """Whether an exception is raised after the first step."""


@dataclass
class Outcome:
    """What rank 0 saw."""

    losses: list[float] = field(default_factory=list)
    """Mean cross entropy of each step over all processes."""
    norms: list[float] = field(default_factory=list)
    states: dict[int, ModelState] = field(default_factory=dict)
    """States by step."""
    evaluations: list[float] = field(default_factory=list)
    """Mean cross entropy of the validation rows, before the first step and after the last."""
    states_around_evaluation: list[ModelState] = field(default_factory=list)
    modes: list[bool] = field(default_factory=list)
    """Whether the model was in training mode: in an evaluation, and after it."""
    needs_gradient: bool = False
    """Whether an evaluation's result would pass gradients on."""
    total: list[float] = field(default_factory=list)
    settings: Any = None


def do(work: Work, folder: Path) -> Outcome:
    """Do the work, as one of the engine's processes."""
    model = tiny_model()
    if work.resume is not None:
        model.load_state_dict(work.resume.weights)
    first = work.resume.step if work.resume else 0
    config = CONFIG.model_copy(update={"micro_batch_size": work.micro_batch_size})
    objective, outcome = Objective(model, config), Outcome()
    with work.engine.open(objective, torch.device("cpu"), str(folder), work.resume) as engine:
        modes: list[bool] = []
        model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
        outcome.evaluations.append(_evaluate(engine, work, outcome))
        for step in range(first + 1, STEPS + 1):
            loss, norm = _step(engine, work, step)
            outcome.losses.append(loss)
            outcome.norms.append(norm)
            outcome.states[step] = _copied(engine.state(step))
            if work.fails:
                raise ZeroDivisionError("this went wrong")
        outcome.states_around_evaluation.append(_copied(engine.state(STEPS)))
        outcome.evaluations.append(_evaluate(engine, work, outcome))
        outcome.states_around_evaluation.append(_copied(engine.state(STEPS)))
        outcome.modes.append(objective.training and model.training)
        outcome.total = engine.total([engine.rank + 1, 0.1, 2.0**40 + 1])
        outcome.settings = engine.settings()
    return outcome


def _shares(engine: Engine, micro_batch_size: int) -> list[tuple[int, int]]:
    share = CONFIG.global_batch_size // engine.world
    first = engine.rank * share
    return [(start, start + micro_batch_size) for start in range(first, first + share, micro_batch_size)]


def _step(engine: Engine, work: Work, step: int) -> tuple[float, float]:
    totals = Totals(float(rows(step)[1].sum()), CONFIG.global_batch_size)
    shares = _shares(engine, work.micro_batch_size)
    summed = [engine.backward(batch_of(step, *share), totals) for share in shares]
    norm = engine.step(RATES[step - 1])
    (loss,) = engine.total([float(torch.stack(summed).sum())])
    return loss / totals.tokens, float(norm)


def _evaluate(engine: Engine, work: Work, outcome: Outcome) -> float:
    results = [engine.evaluate(batch_of(0, *share)) for share in _shares(engine, work.micro_batch_size)]
    outcome.needs_gradient |= any(result.requires_grad for result in results)
    summed, tokens = engine.total([float(sum(results)), 0.0])[0], float(rows(0)[1].sum())
    return summed / tokens


def _copied(state: ModelState) -> ModelState:
    moments = {moment: {name: t.clone() for name, t in state.moments[moment].items()} for moment in MOMENTS}
    return ModelState(state.step, {name: t.clone() for name, t in state.weights.items()}, moments)


# ---- where it is done ----------------------------------------------------------------------------------


class EndedBadly(Exception):
    """A process did not end as it should."""


def in_processes(work: Work, processes: int, folder: Path, *, abruptly: bool = False) -> Outcome:
    """Do the work in processes as torchrun starts them. Raises: EndedBadly.

    `abruptly` spares an engine that is no member the end of the interpreter, at which gloo aborts some.
    """
    folder.mkdir(parents=True)
    (folder / "work").write_bytes(pickle.dumps(work))
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.engine_process", str(folder), *["abruptly"] * abruptly],
            cwd=REPOSITORY,
            stdout=(folder / f"output-{rank}").open("wb"),
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "1",  # engines meet in the folder
                "OMP_NUM_THREADS": "1",
                "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            },
        )
        for rank in range(processes)
    ]
    try:
        deadline = time.monotonic() + SECONDS
        while any(child.poll() is None for child in children):
            if any(child.returncode for child in children):
                break  # the others wait for it in vain; torchrun would end them
            if time.monotonic() > deadline:
                raise EndedBadly(f"the processes must end, found them at work after {SECONDS} s")
            time.sleep(0.05)
    finally:
        for child in children:
            child.kill()
            child.wait()
    codes = [child.returncode for child in children]
    if codes != [0] * processes:
        said = [(folder / f"output-{rank}").read_text() for rank in range(processes)]
        raise EndedBadly(f"exit codes {codes}: {' '.join(text[-2000:] for text in said)}")
    return pickle.loads((folder / "outcome").read_bytes())
