"""What a recipe is: one config per stage, and where the work runs."""

from typing import Self

from pydantic import model_validator

from model.families.world.config import WorldShape
from storage.config import Config
from tasks.core.execution import Execution
from tasks.dedup.config import DedupConfig
from tasks.download.config import DownloadConfig
from tasks.evaluate.stage import EvaluateConfig
from tasks.filter.config import FilterConfig
from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES
from tasks.pack.stage import PackConfig
from tasks.publish.config import PublishConfig
from tasks.tokenize.stage import TokenizeConfig
from tasks.train.stage import TrainConfig
from tasks.train_tokenizer.stage import TrainTokenizerConfig


class Recipe(Config):
    """One config per stage, and where the work runs."""

    name: str
    """Runs of one name are compared with each other by `pile plan` and kept together by `pile gc`."""
    description: str = ""
    download: DownloadConfig
    filter: FilterConfig = FilterConfig()
    dedup: DedupConfig = DedupConfig()
    train_tokenizer: TrainTokenizerConfig = TrainTokenizerConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    pack: PackConfig = PackConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    publish: PublishConfig = PublishConfig()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        model = self.train.model
        if not isinstance(model, WorldShape) or not model.n_tones:
            return self
        for kind, found, classes in (("tone", model.n_tones, TONES), ("field", model.n_fields, FIELDS)):
            if found != len(classes):
                other = "n_fields" if kind == "tone" else "n_tones"
                raise ValueError(
                    f"train.model.n_{kind}s must be {len(classes)}, the {kind}s that labels know, or 0 together "
                    f"with {other}=0; found {found}"
                )
        return self
