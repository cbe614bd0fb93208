"""The job that a trainer process is started with, and how it says that it ended. Importing it loads no torch."""

import signal
from typing import Literal, Self

from pydantic import Field

from model.training.config import TrainConfig
from model.training.engines.registry import AnyEngine
from storage.artifacts.lease import Claim
from storage.canonical import fingerprint
from storage.config import Config

PARENT_VARIABLE = "PILE_TRAINER_PARENT"
"""Environment variable with the number of the process that the trainer must not outlive."""


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
    engine: AnyEngine
    device: Literal["auto", "cpu", "mps", "cuda"]
    processes: int = Field(ge=1)
    threads: int = Field(ge=1)
    """CPU threads of each process."""
    wandb: Literal["disabled", "offline", "online"]
    checkpoints: tuple[str, ...]
    """Parts of the intact checkpoints, oldest first; the last one is continued."""
    store_patience: float = Field(default=0.0, ge=0)
    """Seconds for which a store that is away is waited for."""
    claim: Claim | None = None
    """The lease on the output, looked at before each commit."""
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

    state: Literal["stopped", "input-error", "store-away", "fault", "failed"]
    """`stopped` on request, after a checkpoint; the error classes by name; `failed` for anything else."""
    message: str

    @classmethod
    def of_exit(cls, code: int) -> Self:
        """Return the status of a process that ended with this exit code (-9: by signal 9) and told nothing."""
        if code >= 0:
            return cls(state="failed", message=f"it ended with exit code {code}")
        hint = " (often the kernel, out of memory)" if code == -signal.SIGKILL else ""
        return cls(state="failed", message=f"it was killed by signal {signal.Signals(-code).name}{hint}")
