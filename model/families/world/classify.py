"""Tone and field of a text, read by the world model's heads at two probe tokens behind it.

Shapes: B sequences, T tokens, N classes.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers.eval_mode import evaluating
from model.layers.prompts import prompt_documents

if TYPE_CHECKING:
    from model.layers.cache import Cache
    from model.layers.language_model import LanguageModel


class Classification(NamedTuple):
    """Probabilities of the classes, in float32."""

    tone_BN: Tensor
    field_BN: Tensor


def classify(
    model: "LanguageModel",
    ids_BT: Tensor,
    tone_id: int,
    field_id: int,
    *,
    eot_id: int | None = None,
    attention_mask: Tensor | None = None,
    cache: "Cache | None" = None,
) -> Classification:
    """Return the tone and the field of each text: `text [end of text] <|tone|> <|field|>`, as in training.

    There the end-of-text token also led every document, so a text should begin with it.
    Texts of several lengths are padded on the left with an `attention_mask`, see
    `model.layers.prompts.pad_prompts`.

    What `cache` has read comes before the text, which then may be empty, (B, 0); the cache stays as it is. Give
    `eot_id` unless a text goes on or already ends with it.

    Raises: ValueError for a model without heads, an empty text, or ids that the model does not have.
    """
    tone_head: nn.Module | None = getattr(model, "tone_head", None)
    field_head: nn.Module | None = getattr(model, "field_head", None)
    if tone_head is None or field_head is None:
        raise ValueError(
            "the model must have classification heads, found one without; train a model of the world family with "
            "n_tones and n_fields above 0"
        )
    has_read = cache is not None and cache.length > 0
    if has_read and attention_mask is not None:
        raise ValueError(
            "attention_mask must be None with a cache that has read something, found both; leave it out"
        )
    if not has_read or ids_BT.dim() != 2 or ids_BT.shape[1]:
        model.check_ids(ids_BT)
    probes = [tone_id, field_id] if eot_id is None else [eot_id, tone_id, field_id]
    ends_BP = torch.tensor(probes, device=model.device).expand(len(ids_BT), -1)
    documents_BT = prompt_documents(attention_mask, ids_BT)
    if documents_BT is not None:
        documents_BT = F.pad(documents_BT.to(model.device), (0, len(probes)))
    read_BT = torch.cat((ids_BT.to(model.device, torch.long), ends_BP), dim=1)
    model.check_ids(read_BT)

    with evaluating(model), torch.inference_mode():
        hidden_BTC = model.hidden(read_BT, documents_BT, cache.clone() if cache is not None else None)
        tone_BN = tone_head(hidden_BTC[:, -2]).float().softmax(dim=-1)
        field_BN = field_head(hidden_BTC[:, -1]).float().softmax(dim=-1)
    return Classification(tone_BN.clone(), field_BN.clone())
