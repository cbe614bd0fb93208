"""Prompts of several lengths as one batch: padding on the left, which no token of a prompt sees.

Shapes: B sequences, T tokens of the longest prompt, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return prompts of several lengths as ids (B, T), padded on the left, and their attention mask (B, T).

    Raises: ValueError if there is none, one is empty, or they are no lists of ids.
    """
    try:
        lengths = [len(prompt) for prompt in prompts]
    except TypeError:
        raise ValueError(
            f"prompts must be lists of ids, one for each, found {prompts!r:.80}; put a single one into a list, as "
            f"in [[1, 2, 3]]"
        ) from None
    if not lengths or 0 in lengths:
        raise ValueError(
            f"there must be a prompt, and each must have a token or more, found lengths {lengths}; "
            f"begin an empty text with the end-of-text token"
        )
    width = max(lengths)
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - length) + [1] * length for length in lengths]
    return torch.tensor(ids), torch.tensor(mask)


def as_batch(
    input_ids: Tensor | Sequence[Sequence[int]], attention_mask: Tensor | None, stop: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Return prompts as ids and attention mask; lists of ids are padded, with the first stop token or 0.

    Raises: ValueError for lists of ids together with a mask.
    """
    if isinstance(input_ids, Tensor):
        return input_ids, attention_mask
    if attention_mask is not None:
        raise ValueError("attention_mask must be None for lists of ids, found one; it follows from their lengths")
    return pad_prompts(input_ids, stop[0] if stop else 0)


def prompt_documents(attention_mask: Tensor | None, ids_BT: Tensor) -> Tensor | None:
    """Return document numbers (B, T), 0 for the prompt and -1 for padding; None if nothing is padded.

    Raises: ValueError unless the mask is 0 on the left, for padding, and 1 to the end of each row.
    """
    if attention_mask is None:
        return None
    if attention_mask.shape != ids_BT.shape:
        raise ValueError(
            f"attention_mask must have the shape of the ids, {tuple(ids_BT.shape)}, found "
            f"{tuple(attention_mask.shape)}; give one number for each id"
        )
    mask_BT = attention_mask.to(ids_BT.device, torch.long)
    ordered = bool((mask_BT == attention_mask.to(ids_BT.device)).all()) and bool((mask_BT.diff(dim=1) >= 0).all())
    if not ordered or bool((mask_BT[:, -1] != 1).any()) or bool((mask_BT[:, 0] < 0).any()):
        raise ValueError(
            "attention_mask must be 0 for padding on the left and 1 from there to the end of each row, found "
            "another order or other numbers; pad prompts on the left, see pad_prompts"
        )
    return None if bool(mask_BT.all()) else mask_BT - 1


def seen_tokens(ids_BT: Tensor, documents_BT: Tensor | None, vocab_size: int) -> Tensor:
    """Return which tokens of the vocabulary stand in each prompt, padding aside, (B, V)."""
    own_BT = torch.ones_like(ids_BT, dtype=torch.bool) if documents_BT is None else documents_BT == 0
    rows_BT = torch.arange(len(ids_BT), device=ids_BT.device)[:, None].expand_as(ids_BT)
    seen_BV = torch.zeros(len(ids_BT), vocab_size, dtype=torch.bool, device=ids_BT.device)
    seen_BV[rows_BT[own_BT], ids_BT[own_BT]] = True
    return seen_BV
