"""Classes of a text, read by a model's classification heads at the probe tokens behind it.

Shapes: B sequences, T tokens, P probes, N classes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from model.layers.eval_mode import evaluating
from model.layers.prompts import prompt_documents

if TYPE_CHECKING:
    from model.layers.cache import Cache
    from model.layers.language_model import LanguageModel


def classify(
    model: "LanguageModel",
    ids_BT: Tensor,
    probe_ids: Mapping[str, int],
    *,
    eot_id: int | None = None,
    attention_mask: Tensor | None = None,
    cache: "Cache | None" = None,
) -> dict[str, Tensor]:
    """Return by kind the probabilities (B, N), in float32, of each text: `text [end of text] probes`.

    `probe_ids` are the probe tokens by kind in the order of training, as `storage.formats.probes.Probes.ids` gives
    them. There the end-of-text token also led every document, so a text should begin with it.
    Texts of several lengths are padded on the left with an `attention_mask`, see
    `model.layers.prompts.pad_prompts`.

    What `cache` has read comes before the text, which then may be empty, (B, 0); the cache stays as it is. Give
    `eot_id` unless a text goes on or already ends with it.

    Raises: ValueError for a model without heads, an empty text, or ids that the model does not have.
    """
    if not model.config.classes():
        raise ValueError(
            "the model must have classification heads, found one without; train a model of a family that has "
            "them, such as the preset world-1m"
        )
    has_read = cache is not None and cache.length > 0
    if has_read and attention_mask is not None:
        raise ValueError(
            "attention_mask must be None with a cache that has read something, found both; leave it out"
        )
    if not has_read or ids_BT.dim() != 2 or ids_BT.shape[1]:
        model.check_ids(ids_BT)
    ends = [*([] if eot_id is None else [eot_id]), *probe_ids.values()]
    ends_BP = torch.tensor(ends, device=model.device).expand(len(ids_BT), -1)
    documents_BT = prompt_documents(attention_mask, ids_BT)
    if documents_BT is not None:
        documents_BT = F.pad(documents_BT.to(model.device), (0, len(ends)))
    read_BT = torch.cat((ids_BT.to(model.device, torch.long), ends_BP), dim=1)
    model.check_ids(read_BT)

    with evaluating(model), torch.inference_mode():
        hidden_BTC = model.hidden(read_BT, documents_BT, cache.clone() if cache is not None else None)
        found = {
            kind: model.head_logits(hidden_BTC[:, place - len(probe_ids)])[kind].float().softmax(dim=-1)
            for place, kind in enumerate(probe_ids)
            if kind in model.config.classes()
        }
    return {kind: chances_BN.clone() for kind, chances_BN in found.items()}  # ordinary tensors
