"""What a user may choose about training. Importing it loads no torch: recipes and `pile plan` read it."""

from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from model.families.base import ModelConfig, ModelShape
from model.families.presets import DEFAULT, preset_shape, shape_fields
from model.families.registry import AnyShape, sized
from storage.config import Config

VOCAB_MULTIPLE = 64
"""The embedding is padded to this many rows: matrix kernels want even sizes, padded ids never occur."""

FINAL = "final"
"""Part of a train artifact: the trained weights and their description."""

REPORT = "training-report"
"""Part that holds metrics and settings; committed before FINAL, it becomes the artifact's reports."""

METRICS_LOG = "metrics.jsonl"
"""File of REPORT: a line per logged step with `loss` or `val_loss`."""

CHECKPOINT_PREFIX = "step-"
"""Begins the name of a checkpoint's part: `step-000100` was taken after 100 updates."""


class TrainConfig(Config):
    """How a model is trained: shape, data per step, optimizer, and how often it is looked at and saved."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint_every", "keep_checkpoints", "log_every", "eval_every", "eval_sequences", "micro_batch_size"}
    )
    """How often a training is looked at and saved changes no weight, so that a stopped one continues with other
    values; what chose by the validation loss (early stopping, the best checkpoint) would have to take `eval_every`
    and `eval_sequences` back in `outside_key`. Of the micro-batch see there. `max_steps` stays in the key: the
    learning rate falls to its end, so that a longer training differs from its first step after the warm-up."""

    def outside_key(self) -> frozenset[str]:
        """Return what does not decide the weights.

        `micro_batch_size` is how memory is used, like threads: gradients are sums over the update, so that only
        their rounding differs. It decides where a model's rows are not independent (`mixes_rows`).
        """
        return self.excluded_from_key - ({"micro_batch_size"} if self.model.mixes_rows else set())

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
