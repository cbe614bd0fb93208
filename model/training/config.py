"""What a user may choose about training, and the job file that the trainer process is started with.

Importing it loads no torch: the recipes and `pile plan` read these classes.
"""

import signal
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from model.families.base import ModelConfig, ModelShape
from model.families.presets import DEFAULT, preset_shape, shape_fields
from model.families.registry import AnyShape, sized
from storage.canonical import fingerprint
from storage.config import Config

VOCAB_MULTIPLE = 64
"""The embedding is padded to this many rows: matrix kernels want even sizes, padded ids never occur."""

PARENT_VARIABLE = "PILE_TRAINER_PARENT"
"""Environment variable with the number of the process that the trainer must not outlive."""

FINAL = "final"
"""Part of a train artifact: the trained weights and their description."""

REPORT = "training-report"
"""Part that holds metrics and settings; committed before FINAL, it becomes the artifact's reports."""


class TrainConfig(Config):
    """How a model is trained: shape, data per step, optimizer, and how often it is looked at and saved."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"checkpoint_every", "keep_checkpoints", "log_every"})

    model: AnyShape = preset_shape(DEFAULT)
    """The shape of the model: a preset's name such as `world-1m`, or its fields, on top of a `preset` or of a
    `family`; vocabulary and length follow from the data."""
    max_steps: int = Field(default=300, ge=1)
    """Optimizer steps of the whole training."""
    global_batch_size: int = Field(default=8, ge=1)
    """Sequences per optimizer step, over all processes."""
    micro_batch_size: int = Field(default=4, ge=1)
    """Sequences per forward pass of one process; what memory allows."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate, reached after the warm-up."""
    min_learning_rate_fraction: float = Field(default=0.1, ge=0, le=1)
    """Where the cosine decay ends, as a fraction of the peak."""
    warmup_steps: int = Field(default=30, ge=0)
    """Steps over which the learning rate rises linearly."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of AdamW, on matrices only."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay rate of the mean gradient."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's decay rate of the mean squared gradient."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this L2 norm."""
    isolate_documents: bool = True
    """Let no token see another document of its packed sequence, as in evaluation and generation."""
    classification_weight: float = Field(default=0.05, ge=0)
    """Weight of each classification head's cross entropy in the loss."""
    utility_weight: float = Field(default=0.02, ge=0)
    """Weight of the loss that teaches a context layer importance and urgency."""
    expert_bias_rate: float = Field(default=1e-3, ge=0)
    """Step by which routers favour idle experts after each update."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides the initial weights and the order of the sequences."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """The newest checkpoints are kept, so that one damaged file does not cost the run."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two measurements of the validation loss; the last step is always measured."""
    eval_sequences: int = Field(default=32, ge=0)
    """Sequences of the validation split to measure on, its first ones; 0 measures nothing."""
    log_every: int = Field(default=10, ge=1)
    """Steps between two lines of metrics; the first and the last step are always logged."""

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Weights of the auxiliary losses by name; one that is not named here has the weight 1."""
        return {"utility_loss": self.utility_weight}

    @field_validator("model", mode="before")
    @classmethod
    def _expand_preset(cls, value: Any) -> Any:
        return shape_fields(value)

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size must be a multiple of micro_batch_size, found {self.global_batch_size} and "
                f"{self.micro_batch_size}; try global_batch_size="
                f"{-(-self.global_batch_size // self.micro_batch_size) * self.micro_batch_size}"
            )
        if self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps must be less than max_steps, found {self.warmup_steps} and {self.max_steps}; "
                f"else the peak learning rate is never reached"
            )
        return self


def model_config_for(shape: ModelShape, vocab_size: int, max_seq_len: int) -> ModelConfig:
    """Return the model config for a tokenizer of `vocab_size` tokens and packed sequences."""
    return sized(shape, -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE, max_seq_len)


class ArtifactRef(Config):
    """Where a finished artifact lies in the store."""

    stage: str
    key: str


class TrainingJob(Config):
    """Everything the trainer process is told, in one JSON file."""

    store: str
    """URL of the artifact store."""
    output: ArtifactRef
    """The artifact that is being built."""
    sequences: ArtifactRef
    """The packed sequences to train on."""
    sequences_digest: str
    """Content digest of the packed sequences."""
    tokenizer_digest: str
    """Content digest of the tokenizer."""
    vocab_size: int = Field(ge=1)
    """Tokens of the tokenizer."""
    config: TrainConfig
    engine: Literal["local", "deepspeed"]
    zero_stage: Literal[0, 1, 2, 3]
    device: Literal["auto", "cpu", "mps", "cuda"]
    processes: int = Field(ge=1)
    threads: int = Field(ge=1)
    """CPU threads of each process."""
    wandb: Literal["disabled", "offline", "online"]
    checkpoints: tuple[str, ...]
    """Parts of the intact checkpoints, oldest first; the last one is continued."""
    folder: str
    """A local folder, new for each start: here the processes find each other."""

    def identity_digest(self) -> str:
        """Identify what is being trained: a checkpoint of another identity must not be continued."""
        return fingerprint(
            {
                "config": self.config.identity(),
                "sequences": self.sequences_digest,
                "tokenizer": self.tokenizer_digest,
                "vocab_size": self.vocab_size,
            }
        )


class TrainerStatus(Config):
    """How a trainer process ended, as told to the process that started it."""

    state: Literal["stopped", "input-error", "fault", "failed"]
    """`stopped` on request, after a checkpoint; the error classes by name; `failed` for anything else."""
    message: str

    @classmethod
    def of_exit(cls, code: int) -> Self:
        """Return the status of a process that ended with this exit code (-9: by signal 9) and told nothing."""
        if code >= 0:
            return cls(state="failed", message=f"it ended with exit code {code}")
        hint = " (often the kernel, out of memory)" if code == -signal.SIGKILL else ""
        return cls(state="failed", message=f"it was killed by signal {signal.Signals(-code).name}{hint}")
