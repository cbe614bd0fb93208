"""What the model card says that the pipeline cannot know."""

from pydantic import Field

from storage.config import Config

FOLDER = "huggingface"
"""The part of a publish artifact."""


class PublishConfig(Config):
    """What the model card says that the pipeline cannot know."""

    name: str = Field(default="model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """Name of the model, as a repository on a model hub could be called."""
    license: str = Field(default="other", pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")
    """SPDX identifier of the licence of the weights, such as `apache-2.0`, or `other`."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages of the training text, such as `en` or `tt`."""
    description: str = ""
    """A sentence or more on what the model is for."""
