"""What one forward pass is given, and what the losses of an update count."""

from dataclasses import dataclass

from torch import Tensor

from storage.formats.probes import PROBE_KINDS, Probes


@dataclass(frozen=True)
class Batch:
    """Sequences for one forward pass, all (B, T): each token of `inputs` is to predict the one in `targets`."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    """False where nothing is to be learned: padding, and the first token of another document."""
    tokens: int
    """Targets that count."""
    documents: Tensor | None = None
    """Number of the document in its sequence that each input belongs to; None lets tokens see other documents."""
    probes: Probes | None = None
    """The probe tokens in the data, if it has any."""
    labels: Tensor | None = None
    """Class at each probe token among the inputs, NO_LABEL elsewhere; None if the data has no probe tokens."""
    tone_labels: int = 0
    """Tone probes with a label."""
    field_labels: int = 0
    """Field probes with a label."""


@dataclass(frozen=True)
class Totals:
    """What the losses of one update count, over all its micro-batches and processes."""

    tokens: float
    rows: float
    """Sequences: what the means over rows are weighted with."""
    tone_labels: float = 0.0
    field_labels: float = 0.0

    def labels(self) -> dict[str, float]:
        """Return the labels by kind of probe."""
        return dict(zip(PROBE_KINDS, (self.tone_labels, self.field_labels), strict=True))
