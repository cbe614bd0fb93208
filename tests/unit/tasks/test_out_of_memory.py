"""What is said of a trainer that memory did not suffice for."""

import pytest

from model.families.presets import preset_shape
from model.families.registry import AnyShape
from model.families.rope.config import RopeShape
from model.families.world.config import WorldShape
from model.training.config import TrainConfig
from model.training.job import ArtifactRef, TrainerStatus, TrainingJob
from storage.errors import Fault, InputError
from tasks.train.build import out_of_memory

ROPE = RopeShape(n_layers=1, n_heads=2, n_kv_heads=1, d_model=16, d_ff=24)


def job(micro_batch_size: int = 8, processes: int = 1, model: AnyShape = ROPE) -> TrainingJob:
    config = TrainConfig(model=model, global_batch_size=48, micro_batch_size=micro_batch_size)
    ref = ArtifactRef(stage="s", key="k" * 16)
    return TrainingJob(
        store="s", output=ref, sequences=ref, sequences_digest="", tokenizer_digest="", vocab_size=512,
        config=config, engine={"name": "local"}, device="cpu", processes=processes, threads=1, wandb="disabled",
        checkpoints=(), folder="f",
    )  # fmt: skip


def said(status: TrainerStatus, checkpoints: tuple[str, ...] = (), **fields: object) -> str:
    error = out_of_memory(job(**fields), status, checkpoints)  # type: ignore[arg-type]
    assert isinstance(error, Fault)
    assert not isinstance(error, InputError), "a retry continues"
    return str(error)


KILLED = TrainerStatus.of_exit(-9)


@pytest.mark.parametrize(
    "message",
    [
        "torch.OutOfMemoryError: CUDA out of memory",
        "MemoryError: ",
        "[enforce fail] can't allocate memory: 8 bytes",
    ],
)
def test_every_way_to_run_out_of_memory_is_known(message: str) -> None:
    assert message in said(TrainerStatus(state="failed", message=message))


def test_a_kill_is_perhaps_for_want_of_memory() -> None:
    assert "if memory ran out, set train.micro_batch_size=4 (now 8)" in said(KILLED)


@pytest.mark.parametrize(
    "status",
    [
        TrainerStatus(state="failed", message="KeyError: 'x'"),
        TrainerStatus(state="input-error", message="out of memory"),
        TrainerStatus.of_exit(-15),
        TrainerStatus.of_exit(1),
    ],
)
def test_other_ends_are_told_otherwise(status: TrainerStatus) -> None:
    assert out_of_memory(job(), status, ()) is None


@pytest.mark.parametrize(
    ("micro_batch_size", "processes", "smaller"),
    [(8, 1, 4), (6, 1, 3), (16, 1, 8), (8, 2, 4), (16, 3, 8), (12, 4, 6), (3, 1, 1), (2, 1, 1)],
)
def test_the_largest_smaller_micro_batch_that_fits_the_update_is_named(
    micro_batch_size: int, processes: int, smaller: int
) -> None:
    text = said(KILLED, micro_batch_size=micro_batch_size, processes=processes)
    assert f"train.micro_batch_size={smaller} (now {micro_batch_size})" in text


def test_where_nothing_is_smaller_the_model_or_the_rows_must_be() -> None:
    text = said(KILLED, micro_batch_size=1)
    assert "train.micro_batch_size=" not in text
    assert "a smaller train.model or a shorter pack.sequence_length" in text


def test_where_it_continues_is_the_newest_checkpoint() -> None:
    assert "then continues from step 300" in said(KILLED, ("step-000200", "step-000300"))
    assert said(KILLED).endswith("else run it again: it begins anew, since it had saved no checkpoint")


def test_a_model_whose_rows_are_mixed_starts_anew_with_another_micro_batch() -> None:
    shape = preset_shape("world-1m")
    assert isinstance(shape, WorldShape)
    text = said(KILLED, ("step-000200",), model=shape.model_copy(update={"router": "softmax_aux"}))
    assert "set train.micro_batch_size=4 (now 8); the run then begins anew" in text
    assert "else run it again: it continues from step 200" in text
