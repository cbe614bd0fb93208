"""What a training minimizes: next-token cross entropy, and for a world model its heads and auxiliary losses.

    cross entropy + 0.05 (tone + field) + 0.02 utility + balance + z        each a mean over what it counts

Cross entropy, tone and field are means over the whole update. Utility, balance and z are means over one
micro-batch of one process, weighted with its share of the update's tokens: they depend on the size of a
micro-batch and on which sequences share one. The balance loss of `softmax_aux` multiplies scores of its own
micro-batch with a load counted over the micro-batches that all processes compute at the same time, not over the
update. Which positions the utility loss samples as queries follows from the seed, the step, the rank and the
order of the micro-batches; in sequences of 64 tokens or fewer it takes all.

The objective wraps the model, since DeepSpeed and compilation hook into the forward pass of one module.
Shapes: B sequences, T tokens, V vocabulary, N classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.families.world.balance import expert_loads, load_metrics, router_loss, update_expert_biases
from model.families.world.context.utility import utility_loss, utility_targets
from model.families.world.network import WorldModel
from model.families.world.trace import Trace
from model.layers.cache import number_documents
from model.layers.language_model import LanguageModel
from model.training.batch import Batch, Totals
from model.training.config import TrainConfig
from model.training.schedules.cosine import expert_bias_rate

LABEL_SMOOTHING = 0.1
"""The labels of tone and field come from rules and sources: weak ones."""

CLASS_WEIGHTS = (0.2, 5.0)
"""Limits of the weight of a class, 1/sqrt(frequency) before the mean is brought to 1."""


@dataclass(frozen=True)
class LabelCounts:
    """How often each class is a label in the training data; () without probe tokens."""

    tone: tuple[int, ...] = ()
    field: tuple[int, ...] = ()


class Objective(nn.Module):
    """The loss of one micro-batch, and what follows an update."""

    def __init__(self, model: LanguageModel, config: TrainConfig, labels: LabelCounts | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.metrics: dict[str, Tensor] = {}
        """Parts of the loss of the last micro-batch in training, unweighted means."""
        labels = labels or LabelCounts()
        self.class_weights = {name: class_weights(getattr(labels, name)) for name in ("tone", "field")}
        self._loads: Tensor | None = None

    def forward(self, batch: Batch, totals: Totals | None = None) -> tuple[Tensor, Tensor]:
        """Return the share of this micro-batch in the update's loss, and its summed cross entropy in nats.

        Without totals only the latter is computed, for validation.
        """
        trace = Trace() if totals is not None and isinstance(self.model, WorldModel) else None
        if trace is None:
            hidden = self.model.hidden(batch.inputs, batch.documents)
        else:
            assert isinstance(self.model, WorldModel), "only world models leave a trace"
            hidden = self.model.hidden(batch.inputs, batch.documents, trace=trace)
        summed = sequence_loss(self.model.logits(hidden), batch.targets, batch.mask)
        if totals is None:
            return summed, summed
        loss = summed / totals.tokens
        if trace is not None:
            # Means over a micro-batch are weighted with its share of the update's tokens.
            loss = loss + self._auxiliary(batch, trace) * (batch.tokens / totals.tokens)
            loss = loss + self._classification(batch, hidden, totals)
        return loss, summed

    def _auxiliary(self, batch: Batch, trace: Trace) -> Tensor:
        loss = router_loss(trace.routers)
        self.metrics["router_loss"] = loss.detach()
        if trace.contexts and self.config.utility_weight:
            utility = self._utility(batch, trace)
            self.metrics["utility_loss"] = utility.detach()
            loss = loss + self.config.utility_weight * utility
        return loss

    def _utility(self, batch: Batch, trace: Trace) -> Tensor:
        losses, documents = [], number_documents(batch.documents)
        for scores, (queries, keys) in zip(trace.contexts, trace.queries_keys, strict=True):
            scale, window = queries.shape[-1] ** -0.5, self.model.config.context_window
            targets = utility_targets(queries, keys, scale, window, documents)
            losses.append(utility_loss(scores, targets))
        return torch.stack(losses).mean()

    def _classification(self, batch: Batch, hidden: Tensor, totals: Totals) -> Tensor:
        model = self.model
        loss = hidden.new_zeros(())
        if not isinstance(model, WorldModel) or not model.config.n_tones:
            return loss
        read = hidden.detach() if model.config.classification_detach else hidden
        tone, field = split_labels(batch)
        # At every position, not only at probes: it costs a thousandth, its shape is fixed, and heads have
        # gradients in every process and step.
        for name, head, labels, count in (
            ("tone", model.tone_head, tone, totals.tone_labels),
            ("field", model.field_head, field, totals.field_labels),
        ):
            weights = self.class_weights[name]
            summed = head_loss(head(read), labels, weights)
            if batch.labels is not None:
                self.metrics[f"{name}_loss"] = summed.detach() / (labels >= 0).sum().clamp_min(1)
            loss = loss + self.config.classification_weight * summed / max(1.0, count)
        return loss

    def after_step(self, total: Callable[[Sequence[float]], list[float]], step: int) -> None:
        """Favour idle experts; called by all processes after the update that completes `step`."""
        if not isinstance(self.model, WorldModel):
            return
        loads = expert_loads(self.model)
        summed = torch.tensor(total(loads.flatten().tolist()), dtype=torch.float64).view_as(loads)
        update_expert_biases(self.model, summed, expert_bias_rate(self.config, step))
        self._loads = summed

    def read_metrics(self) -> dict[str, float]:
        """Return the parts of the last micro-batch's loss, and the load of the experts in the last update."""
        found = {name: float(value) for name, value in self.metrics.items()}
        return found if self._loads is None else found | load_metrics(self.model, self._loads)


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


def split_labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the labels of the tone and of the field head (B, T), -100 where there is none."""
    nothing = torch.full_like(batch.inputs, -100)
    if batch.labels is None or batch.probes is None:
        return nothing, nothing
    at_tone, at_field = (batch.inputs == token for token in (batch.probes.tone_id, batch.probes.field_id))
    return torch.where(at_tone, batch.labels, nothing), torch.where(at_field, batch.labels, nothing)


def class_weights(counts: Sequence[int]) -> Tensor | None:
    """Return a weight per class from how often it occurs: rare ones weigh more, within limits, 1 on average."""
    if not sum(counts):
        return None
    frequency = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    weights = frequency.clamp_min(1e-12).rsqrt().clamp(*CLASS_WEIGHTS)
    return (weights / weights.mean()).float()
