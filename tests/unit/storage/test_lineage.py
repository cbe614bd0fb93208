import dataclasses
import json
from collections import Counter
from typing import Any

import pytest

from storage.artifacts.lineage import Lineage, as_lines, lineage
from storage.artifacts.records import InputRef, encode_record
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from tests.unit.storage.stored import MakeArtifact

KEYS = {stage: f"{index:016x}" for index, stage in enumerate(("download", "filter", "train-tokenizer", "train"))}


@pytest.fixture
def chain(store: Store, make_artifact: MakeArtifact) -> dict[str, Artifact]:
    """A model from sequences and a tokenizer, both from one corpus."""
    made: dict[str, Artifact] = {}

    def make(stage: str, **fields: Any) -> None:
        made[stage] = make_artifact(store, stage, KEYS[stage], **fields)

    make("download", sources={"https://mirror/pile-00.zst": "f" * 64}, code_commit="c0ffee")
    make("filter", inputs={"corpus": made["download"]})
    make("train-tokenizer", inputs={"corpus": made["filter"]})
    make("train", inputs={"sequences": made["filter"], "tokenizer": made["train-tokenizer"]}, run_id="r7")
    return made


def of_model(store: Store) -> Lineage:
    return lineage(store, "train", KEYS["train"])


def manifest_path(stage: str) -> str:
    return f"artifacts/{stage}/{KEYS[stage]}/manifest.json"


def test_lineage_reaches_from_a_model_to_its_sources(store: Store, chain: dict[str, Artifact]) -> None:
    tree = of_model(store)
    assert (tree.stage, tree.key, tree.state, tree.run_id) == ("train", KEYS["train"], "finished", "r7")
    assert tree.content_digest == chain["train"].content_digest
    corpus = tree.inputs["sequences"]
    assert tree.inputs["tokenizer"].inputs["corpus"] == corpus
    download = corpus.inputs["corpus"]
    assert download.sources == {"https://mirror/pile-00.zst": "f" * 64}
    assert (download.code_commit, download.counts, download.inputs) == ("c0ffee", {"documents": 1}, {})


def test_lineage_is_json(store: Store, chain: dict[str, Artifact]) -> None:
    tree = json.loads(json.dumps(dataclasses.asdict(of_model(store))))
    assert tree["inputs"]["tokenizer"]["inputs"]["corpus"]["inputs"]["corpus"]["stage"] == "download"


def test_lineage_reads_every_manifest_once(local_store: Store, make_artifact: MakeArtifact) -> None:
    previous = [make_artifact(local_store, "download", "0" * 16)] * 2
    for level in range(1, 20):  # two ways to every level below: 2**19 paths
        pair = {"left": previous[0], "right": previous[1]}
        previous = [
            make_artifact(local_store, stage, f"{level:016x}", inputs=pair) for stage in ("filter", "dedup")
        ]
    reads: Counter[str] = Counter()

    class Counting:
        def __init__(self) -> None:
            self.files = local_store.backend

        def __getattr__(self, name: str) -> Any:
            return getattr(self.files, name)

        def read(self, path: str) -> bytes:
            reads[path] += 1
            return self.files.read(path)

    local_store.backend = Counting()
    tree = lineage(local_store, "filter", f"{19:016x}")
    assert set(reads.values()) == {1}
    assert len(reads) == 1 + 2 * 18 + 1
    assert len(as_lines(tree)) < 4 * len(reads)


def test_lineage_shows_what_is_missing_with_the_content_it_had(store: Store, chain: dict[str, Artifact]) -> None:
    store.backend.delete(manifest_path("filter"))
    for tree in (of_model(store).inputs["sequences"], of_model(store).inputs["tokenizer"].inputs["corpus"]):
        assert (tree.state, tree.content_digest) == ("missing", chain["filter"].content_digest)
        assert tree.inputs == {}
    assert any("MISSING" in line for line in as_lines(of_model(store)))


def test_lineage_shows_what_is_damaged(store: Store, chain: dict[str, Artifact]) -> None:
    store.backend.write(manifest_path("filter"), b"{}")
    tree = of_model(store).inputs["sequences"]
    assert tree.state == "damaged"
    assert "manifest.json" in tree.message
    assert any("DAMAGED" in line for line in as_lines(of_model(store)))


def test_lineage_shows_what_was_rebuilt_with_another_content(
    store: Store, chain: dict[str, Artifact], make_artifact: MakeArtifact
) -> None:
    ArtifactWriter(store, "filter", KEYS["filter"]).forget_parts()
    new = make_artifact(
        store, "filter", KEYS["filter"], {"a": b"something else"}, inputs={"corpus": chain["download"]}
    )
    tree = of_model(store).inputs["sequences"]
    assert tree.state == "changed"
    assert tree.content_digest == chain["filter"].content_digest
    assert new.content_digest in tree.message
    assert tree.inputs["corpus"].state == "finished"
    assert lineage(store, "filter", KEYS["filter"]).state == "finished"


def test_lineage_of_what_was_never_there_is_missing(store: Store) -> None:
    assert of_model(store).state == "missing"


def test_lineage_that_leads_back_to_itself_ends(store: Store, chain: dict[str, Artifact]) -> None:
    model = chain["train"].manifest
    loop = InputRef(stage="train", key=KEYS["train"], content_digest=model.content_digest)
    forged = chain["download"].manifest.model_copy(update={"inputs": {"loop": loop}})
    store.backend.write(manifest_path("download"), encode_record(forged))
    tree = of_model(store).inputs["sequences"].inputs["corpus"].inputs["loop"]
    assert tree.state == "damaged"
    assert "itself" in tree.message


def test_lineage_is_drawn_once_for_each_artifact(store: Store, chain: dict[str, Artifact]) -> None:
    lines = as_lines(of_model(store))
    filtered = [line for line in lines if f"filter/{KEYS['filter']}" in line]
    assert [line.endswith("(see above)") for line in filtered] == [False, True]
    assert [line.lstrip() for line in lines if "source" in line] == [
        f"source https://mirror/pile-00.zst  {'f' * 8}"
    ]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 6, 2, 4]
    assert all(len(line) <= 80 for line in lines)
