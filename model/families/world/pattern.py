"""Which sublayers a superblock of the world family has. Loads nothing, so that configs can import it."""

PATTERN = "DDDADDDA"
"""D is Gated DeltaNet, A is gated attention."""
