"""The world model for transformers: the modules it was trained with, behind the interface of a causal LM.

Shapes: B sequences, T new tokens, S tokens read so far and new ones, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from model.evaluation.classify import classify
from model.families.world.export.code.configuration_world import WorldConfig
from model.families.world.network import WorldModel
from model.generation.generate import generate
from model.layers.basic import INIT_STD
from model.layers.cache import Cache


class Classification(NamedTuple):
    """Probabilities of the classes, in float32."""

    tone_BN: Tensor
    field_BN: Tensor


class WorldCache(Cache):
    """What the model remembers of a batch, with the methods that `generate` asks for."""

    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens read, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Continue row `beam_idx[i]` as row i; for beam search."""
        raise NotImplementedError("beam search needs a cache that can be reordered; pass use_cache=False to it")


class WorldGenerationConfig(GenerationConfig):
    """Generation settings of a model for which none are stored."""

    @classmethod
    def from_model_config(cls, model_config: Any) -> GenerationConfig:
        """Take the special tokens alone: `top_k` is a number of experts there, not of tokens to draw from."""
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return GenerationConfig(**{name: getattr(model_config, name) for name in names})


class WorldForCausalLM(PreTrainedModel, GenerationMixin):
    """A world model with its language-model head and, if it has them, its two classification heads."""

    config_class = WorldConfig
    generation_config_class = WorldGenerationConfig
    base_model_prefix = "model"
    _no_split_modules = ["Sublayer"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["e_score_correction_bias", "A_log", "dt_bias", "gain_"]  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = WorldModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: WorldCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> Any:
        """Return the logits (B, T, V) of the next token, those of the last `logits_to_keep` positions if not 0.

        `attention_mask` (B, S) is 0 for padding, left or right of the text; with a cache only left of it. With
        `use_cache` the result has `past_key_values`, to be given with the tokens that follow. With `labels`, equal
        to `input_ids` or -100 where no prediction counts, it has the mean loss in nats.

        Raises: ValueError for a mask with gaps, or padding that a cache would take for text.
        """
        cache: Any = past_key_values
        if cache is None and use_cache:
            cache = WorldCache(self.model.new_cache().blocks)
        documents_BT = document_numbers(input_ids, attention_mask, cache)
        hidden_BTC = self.model.hidden(input_ids, documents_BT, cache)
        logits_BTV = self.model.logits(hidden_BTC[:, -logits_to_keep:] if logits_to_keep else hidden_BTC)
        loss = next_token_loss(logits_BTV, labels) if labels is not None else None
        output = CausalLMOutputWithPast(loss=loss, logits=logits_BTV, past_key_values=cache)
        return output.to_tuple() if return_dict is False else output

    def classify(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: WorldCache | None = None,
        add_end: bool = True,
    ) -> Classification:
        """Return the probabilities of tone and field of whole texts (B, T), padded on the left if at all.

        `config.tone_names` and `config.field_names` name the classes. Each head reads at its probe token behind
        the text, which is added here, and before them the end of text unless `add_end` is off. Text that a cache
        has read comes before `input_ids`; the cache stays as it is.

        Raises: ValueError if the model has no heads, untrained ones or no probe tokens, and for an empty text.
        """
        if not self.config.has_trained_heads:
            raise ValueError(
                "the model must have trained classification heads, found none; if you have trained them, set "
                "config.has_trained_heads = True"
            )
        tone_id, field_id = self.config.tone_token_id, self.config.field_token_id
        if tone_id is None or field_id is None:
            raise ValueError("config must have tone_token_id and field_token_id to classify with, found none")
        end = self.config.eos_token_id if add_end else None
        chances = classify(
            self.model,
            input_ids,
            {"tone": tone_id, "field": field_id},
            eot_id=end,
            attention_mask=attention_mask,
            cache=past_key_values,
        )
        return Classification(chances["tone"], chances["field"])

    def generate_within_budget(
        self, input_ids: Tensor, max_new_tokens: int, kv_budget: int, **settings: Any
    ) -> Tensor:
        """Return (B, T + N) tokens as `generate` does, remembering at most `kv_budget` keys per attention layer.

        What is kept is what the context layers predict to be of use; the text can differ from `generate`'s.
        `settings` are those of `generation.generate`, such as do_sample, temperature, top_k, top_p and seed.
        """
        settings.setdefault("stop_tokens", self.generation_config.eos_token_id)
        settings.setdefault("suppress_tokens", self.generation_config.suppress_tokens or ())
        return generate(self.model, input_ids, max_new_tokens, kv_budget=kv_budget, **settings)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the head; None if it is the token embedding."""
        return self.model.lm_head

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding; `resize_token_embeddings` does."""
        self.model.embed_tokens = value

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head of a model whose head is not the token embedding.

        Raises: ValueError if it is: the embedding is what to replace.
        """
        if self.model.lm_head is None:
            raise ValueError(
                "the model must have a head of its own to replace it, found one whose head is the token embedding "
                "(tie_embeddings); call set_input_embeddings"
            )
        self.model.lm_head = new_embeddings

    def _init_weights(self, module: nn.Module) -> None:
        reset = getattr(module, "reset_parameters", None)
        if isinstance(module, nn.Embedding | nn.Linear) and type(module).__module__.startswith("torch."):
            nn.init.normal_(module.weight, std=INIT_STD)  # new rows, made by `resize_token_embeddings`
        elif callable(reset):
            reset()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` makes the cache: keys and values alone would not do


def document_numbers(ids_BT: Tensor, attention_mask: Tensor | None, cache: WorldCache | None) -> Tensor | None:
    """Return document numbers (B, T) that keep padding apart from text; None if nothing is padded.

    Raises: ValueError for a mask with gaps, or padding that a cache would take for text.
    """
    if attention_mask is None:
        return None
    mask_BT = attention_mask[:, -ids_BT.shape[1] :].to(ids_BT.device, torch.long)
    begun = cache is not None and cache.length > 0
    if (begun and ids_BT.shape[1] == 1) or bool(mask_BT.all()):
        return None
    begins_B = mask_BT[:, 0] + (mask_BT.diff(dim=1) == 1).sum(dim=1)
    if begun or bool((begins_B > 1).any()) or (cache is not None and not bool(mask_BT[:, -1].all())):
        raise ValueError(
            "attention_mask must be 1 for one run of tokens in each row, to the row's end with a cache, and all 1 "
            "for tokens that continue a cache; pad on the left (padding_side='left')"
        )
    return mask_BT


def next_token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the mean cross entropy of the labels (-100: none) under the logits one position before."""
    logits_NV = logits_BTV[:, :-1].float().flatten(0, 1)
    return F.cross_entropy(logits_NV, labels_BT[:, 1:].flatten().to(logits_NV.device))
