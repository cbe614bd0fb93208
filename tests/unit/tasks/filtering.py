"""Small corpora, and the filter run on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import Document, DocumentWriter
from storage.formats.shingling import Shingles
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.filter.config import FilterConfig
from tasks.filter.policies import Policy
from tasks.filter.rules.registry import rule_config
from tasks.filter.stage import STAGE

CONFIG = FilterConfig(
    policies={
        "prose": Policy(rules=(rule_config("gopher-quality", min_doc_words=5, min_stop_words=1),)),
        "code": Policy(rules=(rule_config("code", max_line_characters=80),), near_duplicates=False),
        "mild": Policy(rules=(rule_config("length", min_characters=4),)),
    },
    subsets={"Books": "prose", "Program.Source": "code"},
    default_policy="mild",
    shingles=Shingles(words=3),
)

PAIRS = [
    ("Books", "The cat and the dog sat on the mat, and then they had to be off."),
    ("Books", "too short"),
    ("Program.Source", "y = 1\n" * 9),
    ("Program.Source", "z" * 100),
    ("New one", "  ok, it is mild  "),
    ("New one", "x"),
]


def make_corpus(root: Path, parts: Mapping[str, Sequence[tuple[str, str]]]) -> Artifact:
    """Write a download artifact of (subset, text) pairs."""
    writer = ArtifactWriter(Store(str(root)), "download", "0" * 16)
    committed = []
    for part, pairs in parts.items():
        path = writer.scratch() / f"{part}.jsonl.zst"
        with DocumentWriter(path) as out:
            for line, (subset, text) in enumerate(pairs):
                out.write(Document(f"{part}:{line}", subset, text, {"line": line}))
        committed.append(writer.commit(part, {"documents": path}, counts=out.counts()))
    nothing = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    return writer.publish(committed, version=1, run_id="run", code_commit="", started="", seconds=0.0, **nothing)


def run_filter(corpus: Artifact, config: FilterConfig = CONFIG, workers: int = 1) -> Artifact:
    """Return the filter artifact of a corpus."""
    context = RunContext(corpus.store, "run", {}, Execution(workers=workers))
    return run_stage(STAGE, config, {"corpus": corpus}, context).artifact
