"""What a forward pass of a world model leaves for losses, metrics and pictures.

Passed down as one object, not as lists: DeepSpeed copies a list that is an argument of a module's forward pass,
and what is appended to the copy is lost.

Shapes: B sequences, T tokens, E experts, H query heads, K key/value heads, D head width.
"""

from dataclasses import dataclass, field

from torch import Tensor

from model.families.world.context.layer import ContextScores


@dataclass(frozen=True)
class RouterTrace:
    """What the training needs to know of one router's pass; scalars, so that no large tensor is kept."""

    counts_E: Tensor
    """Tokens that chose each expert in this process, int64, without gradient."""
    balance: Tensor
    """Balance loss: 1 when the load is even, up to E / K when all tokens choose the same experts."""
    z: Tensor
    """Mean square of the logits or of their logsumexp."""
    loss: Tensor
    """Both, with the weights of the router's mode: to be added to the language loss."""


@dataclass
class Trace:
    """Filled by `WorldModel.hidden`; new for each pass."""

    routers: list[RouterTrace] = field(default_factory=list)
    """One per sublayer."""
    contexts: list[ContextScores] = field(default_factory=list)
    """One per superblock, if there is a context layer."""
    queries_keys: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Rotated, of the last attention layer of each superblock, if there is a context layer: (B, H, T, D) and
    (B, K, T, D)."""
