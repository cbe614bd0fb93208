"""Continue token sequences with a trained model, the same for all families.

Shapes: B sequences, T prompt tokens, N new tokens, V vocabulary.
"""

import contextlib
import logging
import operator
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from model.generation.sampling import Sampling, choose, penalize
from model.layers.eval_mode import evaluating
from model.layers.eviction import check_budget
from model.layers.language_model import LanguageModel
from model.layers.prompts import as_batch, prompt_documents, seen_tokens

log = logging.getLogger(__name__)

ROOM_AHEAD = 4096
"""New tokens for which the cache has room from the start; beyond it grows, which costs a copy."""


def generate(
    model: LanguageModel,
    input_ids: Tensor | Sequence[Sequence[int]],
    max_new_tokens: int = 128,
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop_tokens: int | Iterable[int] | None = None,
    use_cache: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    kv_budget: int | None = None,
    attention_mask: Tensor | None = None,
    suppress_tokens: Iterable[int] = (),
) -> Tensor:
    """Return the prompts (B, T) with up to `max_new_tokens` more tokens, (B, T + N), on the model's device.

    Prompts of several lengths are padded on the left with an `attention_mask` (B, T) of 0 for padding and 1, or
    given as lists of ids (see `pad_prompts`); each row is continued as if it were alone.

    Greedy, or with `do_sample` drawn, see `Sampling`; the repetition penalty counts prompt and output, without
    padding. Draws depend on `seed`, or on a CPU `generator`, and not on the global random state; without
    either each call draws anew. A row that has chosen one of `stop_tokens` is filled with the first of them, and
    the work ends when all rows have. `suppress_tokens` are never chosen.

    `use_cache=False` reads the whole row again for each token: the slow reference. `kv_budget` bounds the keys
    that each attention layer remembers once the prompt is read; what is forgotten no longer affects the text.

    Raises: ValueError for prompts or settings that cannot be; for a model of learned positions also if the text
        could outgrow them. A rotary model goes on beyond the length it was trained on, with a warning.
    """
    stop_tokens = _as_ids(stop_tokens)
    input_ids, attention_mask = as_batch(input_ids, attention_mask, stop_tokens)
    steps = stream(
        model,
        input_ids,
        max_new_tokens,
        do_sample=do_sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop_tokens=stop_tokens,
        use_cache=use_cache,
        seed=seed,
        generator=generator,
        kv_budget=kv_budget,
        attention_mask=attention_mask,
        suppress_tokens=suppress_tokens,
    )
    new = list(steps)
    prompt_BT = input_ids.to(model.device, torch.long)
    return torch.cat((prompt_BT, torch.stack(new, dim=1)), dim=1) if new else prompt_BT.clone()


def stream(
    model: LanguageModel,
    input_ids: Tensor | Sequence[Sequence[int]],
    max_new_tokens: int = 128,
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop_tokens: int | Iterable[int] | None = None,
    use_cache: bool = True,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    kv_budget: int | None = None,
    attention_mask: Tensor | None = None,
    suppress_tokens: Iterable[int] = (),
) -> Iterator[Tensor]:
    """Return an iterator over the tokens (B) that `generate` appends, each as soon as it is chosen.

    Raises: ValueError as `generate` does, at once.
    """
    sampling = Sampling(do_sample, temperature, top_k, top_p, repetition_penalty)
    stop, suppress = _as_ids(stop_tokens), _as_ids(suppress_tokens)
    ids_BT, attention_mask = as_batch(input_ids, attention_mask, stop)
    model.check_ids(ids_BT)
    ids_BT = ids_BT.to(model.device, torch.long)
    documents_BT = prompt_documents(attention_mask, ids_BT)
    _check_settings(model, max_new_tokens, stop, suppress, use_cache, kv_budget)
    _check_room(model, ids_BT.shape[1], max_new_tokens)
    draws = _generator(seed, generator)
    reader = _Reader(model, ids_BT, documents_BT, max_new_tokens, use_cache, kv_budget)
    return _steps(reader, max_new_tokens, sampling, stop, suppress, draws)


class _Reader:
    """Reads the tokens of a batch and predicts the next ones, with a cache or from the whole rows again."""

    def __init__(
        self,
        model: LanguageModel,
        ids_BT: Tensor,
        documents_BT: Tensor | None,
        max_new_tokens: int,
        use_cache: bool,
        budget: int | None,
    ) -> None:
        self.model, self.budget = model, budget
        self.ids_BT, self.documents_BT = ids_BT, documents_BT
        ahead = min(max_new_tokens, ROOM_AHEAD if budget is None else budget + 1)
        self.cache = model.new_cache(ids_BT.shape[1] + ahead) if use_cache else None

    def next_logits(self, new_B: Tensor | None) -> Tensor:
        """Read one more token per row, at first the prompts, and return float32 logits (B, V) of the next one."""
        with evaluating(self.model):
            if self.cache is None:
                return self._read_all(new_B)
            if new_B is None:
                hidden_BTC = self.model.hidden(self.ids_BT, self.documents_BT, self.cache)
            else:
                hidden_BTC = self.model.hidden(new_B[:, None], None, self.cache)
            if self.budget is not None:
                self.cache.evict(self.budget)
            return self.model.logits(hidden_BTC[:, -1]).float()

    def _read_all(self, new_B: Tensor | None) -> Tensor:
        if new_B is not None:
            self.ids_BT = torch.cat((self.ids_BT, new_B[:, None]), dim=1)
            if self.documents_BT is not None:
                self.documents_BT = F.pad(self.documents_BT, (0, 1))
        return self.model.logits(self.model.hidden(self.ids_BT, self.documents_BT)[:, -1]).float()


def _steps(
    reader: _Reader,
    max_new_tokens: int,
    sampling: Sampling,
    stop: list[int],
    suppress: list[int],
    generator: torch.Generator,
) -> Iterator[Tensor]:
    device, batch = reader.ids_BT.device, len(reader.ids_BT)
    suppress_S = torch.tensor(suppress, dtype=torch.long, device=device)
    stop_S = torch.tensor(stop, dtype=torch.long, device=device)
    finished_B = torch.zeros(batch, dtype=torch.bool, device=device)
    new_B, seen_BV = None, None
    if sampling.repetition_penalty != 1:
        seen_BV = seen_tokens(reader.ids_BT, reader.documents_BT, reader.model.config.vocab_size)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits_BV = reader.next_logits(new_B)
            if suppress:
                logits_BV = logits_BV.index_fill(1, suppress_S, -torch.inf)
            if seen_BV is not None:
                logits_BV = penalize(logits_BV, seen_BV, sampling.repetition_penalty)
            new_B = choose(logits_BV, sampling, generator)
            if stop:
                new_B = new_B.masked_fill(finished_B, stop[0])
                finished_B = finished_B | torch.isin(new_B, stop_S)
            if seen_BV is not None:
                seen_BV = seen_BV.scatter(1, new_B[:, None], True)
        # An ordinary tensor, which may be trained on; so may the model between steps.
        yield new_B.clone()
        if stop and bool(finished_B.all()):
            return


def _as_ids(ids: int | Iterable[int] | None) -> list[int]:
    if ids is None:
        return []
    with contextlib.suppress(TypeError):  # of several ids; a tensor or numpy's number may be one, too
        return [operator.index(ids)]  # type: ignore[arg-type]
    return [int(token) for token in ids]  # type: ignore[union-attr]


def _generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator:
    if seed is not None and generator is not None:
        raise ValueError(f"seed and generator must not both be given, found seed={seed} too; leave one out")
    if generator is None:
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
    elif generator.device.type != "cpu":
        raise ValueError(
            f"generator must be on the CPU, where tokens are drawn, found {generator.device}; "
            f"use torch.Generator()"
        )
    return generator


def _check_settings(
    model: LanguageModel,
    max_new_tokens: int,
    stop: list[int],
    suppress: list[int],
    use_cache: bool,
    kv_budget: int | None,
) -> None:
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be a number from 0 on, found {max_new_tokens}")
    vocabulary = range(model.config.vocab_size)
    for name, ids in (("stop_tokens", stop), ("suppress_tokens", suppress)):
        if foreign := [token for token in ids if token not in vocabulary]:
            raise ValueError(
                f"{name} must be ids from 0 to {len(vocabulary) - 1}, found {foreign[:5]}; "
                f"use the tokenizer that the model was trained with"
            )
    if len(set(suppress)) == len(vocabulary):
        raise ValueError("suppress_tokens must leave a token to choose, found all of them")
    if kv_budget is not None:
        check_budget(kv_budget)
        if not use_cache:
            raise ValueError(f"kv_budget must be None without a cache, found {kv_budget}; set use_cache=True")


def _check_room(model: LanguageModel, length: int, max_new_tokens: int) -> None:
    limit = model.config.max_seq_len
    if length + max_new_tokens <= limit:
        return
    if model.config.learned_positions:
        raise ValueError(
            f"prompt and new tokens must be at most max_seq_len={limit} together, as many as the model has "
            f"positions, found {length} + {max_new_tokens}; shorten the prompt or lower max_new_tokens"
        )
    log.warning(
        "the text may grow to %d tokens, but the model was trained on max_seq_len=%d; it may get worse from there",
        length + max_new_tokens,
        limit,
    )
