"""Where an artifact comes from: its manifest, those of its inputs, and so on down to the sources.

What is missing or damaged on the way is shown in its place; a question about the past must not fail because a part
of the past has been deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from storage.artifacts.records import Manifest
from storage.artifacts.store import Store
from storage.errors import CorruptRecordError
from storage.wording import minute

State = Literal["finished", "changed", "missing", "damaged"]


@dataclass(frozen=True)
class Lineage:
    """One artifact and what it was made from. Equal artifacts are shown wherever they were used."""

    stage: str
    key: str
    state: State
    """`changed`: since it was used as an input it was rebuilt with another content."""
    message: str = ""
    """What is wrong, empty if nothing is."""
    content_digest: str = ""
    """Of the artifact as it was used; if it is gone, all that is known about it."""
    finished: str = ""
    run_id: str = ""
    code_commit: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """What came from outside the store (name -> content digest)."""
    inputs: dict[str, "Lineage"] = field(default_factory=dict)


def lineage(store: Store, stage: str, key: str) -> Lineage:
    """Return the artifact's ancestry as a tree. Every manifest is read once."""
    return _Reader(store).lineage(stage, key, "", ())


def as_lines(tree: Lineage) -> list[str]:
    """Draw the tree with two spaces a level; what was shown before is named, and not repeated."""
    return list(_lines(tree, "", "", set()))


class _Reader:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifests: dict[tuple[str, str], Manifest | CorruptRecordError | None] = {}
        self.done: dict[tuple[str, str, str], Lineage] = {}

    def lineage(self, stage: str, key: str, used_digest: str, below: tuple[tuple[str, str], ...]) -> Lineage:
        known = (stage, key, used_digest)
        if known not in self.done:
            self.done[known] = self._read(stage, key, used_digest, below)
        return self.done[known]

    def _read(self, stage: str, key: str, used_digest: str, below: tuple[tuple[str, str], ...]) -> Lineage:
        if (stage, key) in below:
            return Lineage(stage, key, "damaged", "it is recorded as made from itself", used_digest)
        manifest = self._manifest(stage, key)
        if manifest is None:
            return Lineage(stage, key, "missing", "it is not in the store any more", used_digest)
        if isinstance(manifest, CorruptRecordError):
            return Lineage(stage, key, "damaged", str(manifest), used_digest)
        changed = used_digest not in ("", manifest.content_digest)
        return Lineage(
            stage=stage,
            key=key,
            state="changed" if changed else "finished",
            message=f"it was rebuilt, and now has the content {manifest.content_digest}" if changed else "",
            content_digest=used_digest or manifest.content_digest,
            finished=manifest.finished,
            run_id=manifest.run_id,
            code_commit=manifest.code_commit,
            counts=manifest.counts,
            sources=manifest.sources,
            inputs={
                name: self.lineage(used.stage, used.key, used.content_digest, (*below, (stage, key)))
                for name, used in manifest.inputs.items()
            },
        )

    def _manifest(self, stage: str, key: str) -> Manifest | CorruptRecordError | None:
        if (stage, key) not in self.manifests:
            try:
                self.manifests[stage, key] = self.store.manifest(stage, key)
            except CorruptRecordError as error:
                self.manifests[stage, key] = error
        return self.manifests[stage, key]


def _lines(tree: Lineage, indent: str, name: str, shown: set[tuple[str, str, str]]) -> Iterator[str]:
    label = f"{indent}{name + ': ' if name else ''}{tree.stage}/{tree.key}"
    details = f"{tree.content_digest:.8}  {minute(tree.finished)}".strip()
    problem = f"  {tree.state.upper()}: {tree.message}" if tree.message else ""
    identity = (tree.stage, tree.key, tree.content_digest)
    if identity in shown and (tree.inputs or tree.sources):
        yield f"{label}  (see above)"
        return
    shown.add(identity)
    yield f"{label}  {details}{problem}"
    for source, digest in sorted(tree.sources.items()):
        yield f"{indent}  source {source}  {digest:.8}"
    for input_name, upstream in tree.inputs.items():
        yield from _lines(upstream, indent + "  ", input_name, shown)
