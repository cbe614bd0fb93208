"""What the probe tokens behind a document are labelled with."""

from tasks.labels.field import FIELDS
from tasks.labels.tone import TONES

CLASSES: dict[str, tuple[str, ...]] = {"tone": TONES, "field": FIELDS}
"""Classes by kind of probe, in the order of their numbers."""
