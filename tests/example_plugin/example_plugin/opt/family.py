"""The member of the registry. It is loaded with every recipe, and so loads no torch."""

from typing import Any, ClassVar

from example_plugin.opt.config import OPTConfig, OPTFormulas, OPTShape
from model.families.base import Family
from storage.registry import LazyFunction


class OPTFamily(Family[OPTConfig]):
    """OPT as published, in any size."""

    name = "opt"
    shape = OPTShape
    config = OPTConfig
    formulas = OPTFormulas
    presets: ClassVar = {"opt-tiny": OPTConfig(vocab_size=4096, max_seq_len=256)}
    tiny: ClassVar = {"opt": OPTConfig(d_model=16, vocab_size=64, max_seq_len=128)}

    def build(self, config: OPTConfig) -> Any:
        """Return a new model."""
        return LazyFunction("example_plugin.opt.network:OPT")(config)

    def architectures(self) -> tuple[Any, ...]:
        """Return the architecture of transformers."""
        return (LazyFunction("example_plugin.opt.export:OPTForCausalLM")(),)


FAMILY = OPTFamily()
