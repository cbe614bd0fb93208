"""What a family says about a config on paper, in closed form; `estimate` makes FLOPs and bytes of it.

Letters in formulas: V vocabulary, T tokens of a sequence, C width of the residual stream. Buffers (rotary tables,
the bias of a router) are no parameters.
"""

from abc import ABC, abstractmethod


class Formulas(ABC):
    """Numbers of one config. They equal what is counted on the modules, where there is something to count."""

    layers: int
    """Layers of the residual stream, each with an input that training keeps."""
    width: int
    """C."""
    attention_layers: int
    """Layers whose cost and memory grow with the number of visible tokens."""
    query_width: int = 0
    """Query heads of an attention layer times their width."""
    kv_width: int = 0
    """Key/value heads of an attention layer times their width."""

    @abstractmethod
    def parameters_by_kind(self) -> dict[str, int]:
        """Return the parameters by what they are for; a tied head counts once. The parts sum to the whole."""

    @abstractmethod
    def looked_up_parameters(self) -> int:
        """Return the parameters of tables that a token only looks up: an untied embedding, learned positions."""

    def unrouted_parameters(self) -> int:
        """Return the parameters of experts that a token is not sent to; 0 unless a router chooses."""
        return 0

    def training_flops(self) -> dict[str, int]:
        """Return FLOPs of forward and backward per token beside those of parameters and attention, by cause."""
        return {}

    def state_bytes(self, bytes_per_value: int = 2) -> int:
        """Return what generation keeps of a sequence of any length; 0 for attention alone."""
        return 0

    def table_layers(self) -> int:
        """Return the rows of the family's layer table; the number of layers where there is none."""
        return self.layers

    def layer_groups(self) -> dict[str, int]:
        """Return the groups that the layers are counted in, such as superblocks; most have none."""
        return {}


def swiglu_parameters(width: int, inner: int) -> int:
    """Return the parameters of a SwiGLU block without biases."""
    return 3 * width * inner


def gelu_parameters(width: int, inner: int) -> int:
    """Return the parameters of two projections with biases around a GELU."""
    return 2 * width * inner + inner + width
