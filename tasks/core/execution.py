"""How and where the work of a run is done."""

from typing import Literal

from pydantic import Field

from model.training.engines.registry import AnyEngine, engine_config
from storage.config import Config


class Execution(Config):
    """How and where the work runs. It is not meant to change a result, so none of it is part of a key.

    The data stages give the same bytes with any of it. A training or an evaluation does so on one kind of machine
    with the same number of threads and processes: otherwise sums are rounded in another order.
    """

    workers: int = Field(default=0, ge=0)
    """Processes for the data stages; 0 means one per core that it may use."""
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto"
    """Where the model is trained and evaluated; `auto` takes a GPU if there is one."""
    engine: AnyEngine = engine_config()
    """Training engine: its name, or `name` and its options. `local` is plain torch in one process, `deepspeed`
    spreads over `processes` and has options of its own; `pile plugins engine deepspeed` lists them."""
    processes: int = Field(default=1, ge=1)
    """Training processes on this machine."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of each training process; 0 means all cores, divided."""
    store_patience_minutes: float = Field(default=10.0, gt=0)
    """How long a run waits for a store that is away, once it is under way; training goes on meanwhile."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Whether metrics also go to Weights & Biases; a failure there never stops a run."""
