"""How documents become sequences."""

from pydantic import Field, model_validator

from storage.config import Config
from storage.formats.probes import MIN_PROBED_TOKENS, PROBE_TOKENS
from tasks.labels.field import FieldName


class PackConfig(Config):
    """How documents become sequences."""

    sequence_length: int = Field(default=2048, ge=8, le=1 << 20)
    """Tokens that the model sees at once, and predictions per sequence."""
    row_group_sequences: int = Field(default=1024, ge=1)
    """Sequences per row group of the files: what a reader of object storage fetches at once."""
    probe_tokens: bool = False
    """End every document of at least 64 tokens with two probe tokens, at which a world model's heads read tone and
    field."""
    field_map: dict[str, FieldName | None] = Field(default_factory=dict)
    """Field of a collection by its name, or null for none; goes before what is known of The Pile's collections."""

    @property
    def row_room(self) -> int:
        """Tokens of a row for documents and their probes."""
        return self.sequence_length if self.probe_tokens else self.sequence_length + 1

    @property
    def longest_piece(self) -> int:
        """Tokens of a document that a row has room for, its probes not counted."""
        return self.row_room - PROBE_TOKENS if self.probe_tokens else self.row_room

    @model_validator(mode="after")
    def _has_room_for_probes(self) -> "PackConfig":
        if self.probe_tokens and self.longest_piece < MIN_PROBED_TOKENS:
            raise ValueError(
                f"sequence_length must be at least {MIN_PROBED_TOKENS + PROBE_TOKENS} with probe_tokens, found "
                f"{self.sequence_length}; raise it"
            )
        if self.field_map and not self.probe_tokens:
            raise ValueError("field_map needs probe_tokens, found them off; set probe_tokens or remove field_map")
        return self

    @model_validator(mode="after")
    def _fits_in_a_page(self) -> "PackConfig":
        if self.row_group_sequences * (self.sequence_length + 1) * 4 >= 1 << 30:
            raise ValueError(
                f"a row group must be smaller than 1 GiB, found {self.row_group_sequences} sequences of "
                f"{self.sequence_length} tokens of up to 4 bytes; lower row_group_sequences"
            )
        return self
