"""What single parts of a finished artifact hold, without opening their files."""

from collections import Counter

from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter


def part_counts(artifact: Artifact, prefix: str) -> Counter[str] | None:
    """Return the sum of the counts of the parts whose names begin with `prefix`; None if a record is not readable.

    A manifest holds the sums over all parts only. Records of parts outlive it, but nobody promises them: whoever
    asks must do without.
    """
    manifest = artifact.manifest
    reader = ArtifactWriter(artifact.store, manifest.stage, manifest.key)
    counts: Counter[str] = Counter()
    for name in sorted({file.part for file in manifest.files if file.part.startswith(prefix)}):
        part = reader.part(name)
        if part is None:
            return None
        counts.update(part.counts)
    return counts
