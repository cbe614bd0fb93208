"""What a training minimizes: next-token cross entropy, the model's classification heads, its auxiliary losses.

    cross entropy + 0.05 heads + auxiliary losses, for a world model 0.02 utility + balance + z

All are means over the whole update: cross entropy over its targets, heads over their labels, auxiliary losses
over its rows. So an update is the same, but for rounding, however it is cut into micro-batches and processes. Two
models are exceptions and say so (`mixes_rows`): the router `softmax_aux` counts the load of experts over the
micro-batches that all processes compute at the same time, and dropout is drawn for each micro-batch. What a loss
samples follows from the seed and the step; what dropout draws also from the rank and the order of micro-batches.

The objective wraps the model, since DeepSpeed and compilation hook into the forward pass of one module.
Shapes: B sequences, T tokens, V vocabulary, N classes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.language_model import LanguageModel
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.schedules.cosine import balance_rate
from storage.formats.probes import NO_LABEL, PROBE_KINDS

LABEL_SMOOTHING = 0.1
"""The labels of heads come from rules and sources: weak ones."""

CLASS_WEIGHTS = (0.2, 5.0)
"""Limits of the weight of a class, 1/sqrt(frequency) before the mean is brought to 1."""


LabelCounts = Mapping[str, Sequence[int]]
"""How often each class of a kind is a label in the training data; nothing without probe tokens."""


class Objective(nn.Module):
    """The loss of one micro-batch, and what follows an update."""

    def __init__(self, model: LanguageModel, config: TrainConfig, labels: LabelCounts | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.metrics: dict[str, Tensor] = {}
        """Parts of the loss of the last micro-batch in training, unweighted means."""
        self.class_weights = {kind: class_weights(counts) for kind, counts in (labels or {}).items()}

    def forward(self, batch: Batch, totals: Totals | None = None) -> tuple[Tensor, Tensor]:
        """Return the share of this micro-batch in the update's loss, and its summed cross entropy in nats.

        Without totals only the latter is computed, for validation.
        """
        if totals is None:
            hidden = self.model.hidden(batch.inputs, batch.documents)
            summed = sequence_loss(self.model.logits(hidden), batch.targets, batch.mask)
            return summed, summed
        hidden, trace = self.model.training_pass(batch.inputs, batch.documents)
        summed = sequence_loss(self.model.logits(hidden), batch.targets, batch.mask)
        loss = summed / totals.tokens
        losses = self.model.auxiliary_losses(trace, batch.documents, self.config.auxiliary_weights)
        if losses:
            # Means over the rows of a micro-batch are weighted with its share of the update's rows.
            loss = loss + self._auxiliary(losses) * (len(batch.inputs) / totals.rows)
        return loss + self._classification(batch, hidden, totals), summed

    def _auxiliary(self, losses: Mapping[str, Tensor]) -> Tensor:
        self.metrics |= {name: loss.detach() for name, loss in losses.items()}
        weights = self.config.auxiliary_weights
        return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def _classification(self, batch: Batch, hidden: Tensor, totals: Totals) -> Tensor:
        loss, labels, counts = hidden.new_zeros(()), split_labels(batch), totals.labels()
        # At every position, not only at probes: it costs a thousandth, its shape is fixed, and heads have
        # gradients in every process and step.
        for kind, logits in self.model.head_logits(hidden).items():
            summed = head_loss(logits, labels[kind], self.class_weights.get(kind))
            if batch.labels is not None:
                self.metrics[f"{kind}_loss"] = summed.detach() / (labels[kind] >= 0).sum().clamp_min(1)
            loss = loss + self.config.classification_weight * summed / max(1.0, counts[kind])
        return loss

    def before_step(self, seed: int, length: int) -> None:
        """Let the model draw what its losses sample; called by all processes before each update, all alike."""
        self.model.before_step(seed, length)

    def after_step(self, total: Callable[[Sequence[float]], list[float]], step: int) -> None:
        """Let the model do what follows an update; called by all processes after the one that completes `step`."""
        self.model.after_step(total, balance_rate(self.config, step))

    def read_metrics(self) -> dict[str, float]:
        """Return the parts of the last micro-batch's loss, and what the model says of the last update."""
        return {name: float(value) for name, value in self.metrics.items()} | self.model.step_metrics()


def sequence_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the summed cross entropy in nats (float32).

    Shapes: logits (B, T, V), targets and mask (B, T). Where `mask` is False nothing is predicted. The mean is left
    to the caller, who alone knows over which micro-batches and processes it goes.
    """
    wanted = targets.masked_fill(~mask, -100)
    return F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum")


def head_loss(logits_BTN: Tensor, labels_BT: Tensor, weights_N: Tensor | None) -> Tensor:
    """Return the summed, smoothed and class-weighted cross entropy of a head over its labels (-100: none)."""
    logits = logits_BTN.float().flatten(0, 1)
    weights = weights_N.to(logits.device) if weights_N is not None else None
    return F.cross_entropy(logits, labels_BT.flatten(), weights, reduction="sum", label_smoothing=LABEL_SMOOTHING)


def split_labels(batch: Batch) -> dict[str, Tensor]:
    """Return the labels of each kind of head (B, T), -100 where there is none."""
    nothing = torch.full_like(batch.inputs, NO_LABEL)
    if batch.labels is None or batch.probes is None:
        return dict.fromkeys(PROBE_KINDS, nothing)
    probes = batch.probes.ids()
    return {kind: torch.where(batch.inputs == token, batch.labels, nothing) for kind, token in probes.items()}


def class_weights(counts: Sequence[int]) -> Tensor | None:
    """Return a weight per class from how often it occurs: rare ones weigh more, within limits, 1 on average."""
    if not sum(counts):
        return None
    frequency = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    weights = frequency.clamp_min(1e-12).rsqrt().clamp(*CLASS_WEIGHTS)
    return (weights / weights.mean()).float()
