"""An OPT as transformers loads it."""

from typing import Any

from torch.nn import functional as F

from example_plugin.opt.config import OPTConfig
from model.export.architecture import Architecture, CardText, Tensors
from model.export.fields import Fields
from model.export.tensors import LazyTensors, renamed

PREFIX = "model.decoder."
POSITIONS = "embed_positions.weight"
OFFSET = 2
"""Rows of transformers' position table that no token uses."""


class OPTForCausalLM(Architecture[OPTConfig]):
    """Hugging Face's OPT."""

    name = "OPTForCausalLM"
    model_type = "opt"
    tied = ("lm_head.weight", PREFIX + "embed_tokens.weight")
    card = CardText("A decoder-only transformer (OPT architecture)", ("opt",), ())

    def to_tensors(self, tensors: Tensors, config: OPTConfig) -> LazyTensors:
        """Return the tensors on disk: the position table has two rows before ours."""

        def maker(name: str) -> Any:
            pad = (0, 0, OFFSET, 0) if name == POSITIONS else (0, 0)
            return lambda: F.pad(tensors[name], pad)

        return LazyTensors({PREFIX + name: maker(name) for name in tensors})

    def from_tensors(self, tensors: Tensors, config: OPTConfig) -> LazyTensors:
        """Return our state dict."""
        ours = renamed(tensors, lambda name: name.removeprefix(PREFIX))

        def maker(name: str) -> Any:
            return lambda: ours[name][OFFSET if name == POSITIONS else 0 :]

        return LazyTensors({name: maker(name) for name in ours})

    def write_config(self, config: OPTConfig) -> dict[str, Any]:
        """Return config.json."""
        return {
            "activation_function": "relu",
            "architectures": [self.name],
            "do_layer_norm_before": True,
            "dropout": 0.0,
            "ffn_dim": 4 * config.d_model,
            "hidden_size": config.d_model,
            "max_position_embeddings": config.max_seq_len,
            "model_type": self.model_type,
            "num_attention_heads": config.n_heads,
            "num_hidden_layers": config.n_layers,
            "vocab_size": config.vocab_size,
            "word_embed_proj_dim": config.d_model,
        }

    def read_config(self, fields: Fields) -> OPTConfig:
        """Return our config."""
        width = fields.take_size("hidden_size", 768)
        fields.take("dropout", 0.1)
        fields.expect("activation_function", "relu", "relu")
        fields.expect("do_layer_norm_before", True, True)
        fields.expect("ffn_dim", 4 * width, 3072)
        fields.expect("word_embed_proj_dim", width, width)
        return fields.config(
            OPTConfig,
            vocab_size=fields.take("vocab_size", 50_272),
            max_seq_len=fields.take("max_position_embeddings", 2048),
            n_layers=fields.take("num_hidden_layers", 12),
            n_heads=fields.take("num_attention_heads", 12),
            d_model=width,
        )
