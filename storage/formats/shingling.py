"""What two documents are compared by; apart from the files of it, since recipes are read without pyarrow."""

from pydantic import Field

from storage.config import Config


class Shingles(Config):
    """What two documents are compared by: the set of all runs of so many neighbouring words."""

    words: int = Field(default=5, ge=1, le=100)
    """Words of a run. Documents with fewer have none, and only exact duplicates of them are found."""
