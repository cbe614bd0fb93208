"""The work items of the data stages run on another host, with which only the store is shared."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import tasks.executors.local
from storage.artifacts.store import Artifact, Store
from storage.artifacts.writer import ArtifactWriter
from storage.formats.documents import DOCUMENTS, Document, DocumentWriter
from storage.formats.tokens import EOT, TOKENIZER
from tasks.core.context import StageContext
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.dedup.config import DedupConfig
from tasks.dedup.stage import STAGE as DEDUP
from tasks.filter.config import FilterConfig
from tasks.filter.stage import STAGE as FILTER
from tasks.tokenize.stage import STAGE as TOKENIZE
from tasks.tokenize.stage import TokenizeConfig

ROOT = Path(__file__).parents[2]
WORKER = """
import collections, pickle, sys
rank, world_size, pipeline = pickle.load(sys.stdin.buffer)
data = None
for step in pipeline:
    data = step(data, rank, world_size)
collections.deque(data, maxlen=0)
"""
LONG = " ".join(f"{first}{second}ord and the {second}{first}ing" for first in "bcdfghkl" for second in "aeiouy")
SHARDS = {
    "test-00000": [LONG, "A text of a few words that stays where it is."],
    "train-00000": [LONG, "too short", LONG + " with an end", "Another text of some words for the tokenizer."],
}


class OtherHost:
    """Runs each work item in a process of its own folders, while the driver's are away."""

    def __init__(self, folder: Path, driver_scratch: Path) -> None:
        self.folder = folder
        self.driver_scratch = driver_scratch
        self.items = 0

    def run(self, context: StageContext, pipeline: list[Any], shards: Sequence[str]) -> None:
        """Do what `run_datatrove` does."""
        away = self.driver_scratch.with_name("away")
        self.driver_scratch.rename(away)
        try:
            for rank in range(len(shards)):
                self._run_item(pickle.dumps((rank, len(shards), pipeline)))
            assert not self.driver_scratch.exists()  # nothing was written where the driver's scratch was
        finally:
            away.rename(self.driver_scratch)

    def _run_item(self, item: bytes) -> None:
        self.items += 1
        names = {"HOME": "home", "TMPDIR": "tmp", "PILE_SCRATCH": "scratch"}
        own = {name: str(self.folder / str(self.items) / folder) for name, folder in names.items()}
        for path in own.values():
            Path(path).mkdir(parents=True)
        environment = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-c", WORKER], input=item, cwd=own["HOME"], env=environment, check=True, timeout=300
        )


@pytest.fixture
def s3_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """A store on an S3 server, and a scratch folder for this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("PILE_SCRATCH", str(tmp_path / "driver"))
    botocore.session.Session().create_client("s3").create_bucket(Bucket="bucket")
    yield Store("s3://bucket/store")
    server.stop()


def inputs(store: Store, folder: Path) -> tuple[Artifact, Artifact]:
    """Publish a corpus and a tokenizer."""
    folder.mkdir()
    writer = ArtifactWriter(store, "download", "0" * 16)
    for part, texts in SHARDS.items():
        with DocumentWriter(folder / f"{part}.jsonl.zst") as out:
            for line, text in enumerate(texts):
                out.write(Document(f"{part}:{line}", "Somewhere", text, {}))
        writer.commit(part, {DOCUMENTS: folder / f"{part}.jsonl.zst"}, counts=out.counts())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([LONG], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_writer = ArtifactWriter(store, "train-tokenizer", "0" * 16)
    tokenizer_writer.commit("tokenizer", {TOKENIZER: folder / "tokenizer.json"})
    return published(writer), published(tokenizer_writer)


def published(writer: ArtifactWriter) -> Artifact:
    nothing: dict[str, Any] = {"config": {}, "inputs": {}, "sources": {}, "recipe": {}, "libraries": {}}
    parts = writer.parts().values()
    return writer.publish(parts, version=1, run_id="run", code_commit="", started="", seconds=0.0, **nothing)


def chain(store: Store, folder: Path) -> list[Artifact]:
    """Filter, dedup and tokenize."""
    corpus, tokenizer = inputs(store, folder)
    context = RunContext(store, "run", {}, Execution(workers=1))
    kept = run_stage(FILTER, FilterConfig(), {"corpus": corpus}, context).artifact
    unique = run_stage(DEDUP, DedupConfig(), {"corpus": kept}, context).artifact
    both = {"corpus": unique, "tokenizer": tokenizer}
    return [kept, unique, run_stage(TOKENIZE, TokenizeConfig(), both, context).artifact]


def test_work_items_run_on_another_host(s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = chain(Store(str(tmp_path / "store")), tmp_path / "here")
    other = OtherHost(tmp_path / "other", tmp_path / "driver")
    monkeypatch.setattr(tasks.executors.local, "run_datatrove", other.run)

    there = chain(s3_store, tmp_path / "there")

    assert other.items == 4 * len(SHARDS)  # filter, what dedup works out of each shard, dedup, tokenize
    assert here[1].counts["dropped"] >= 1
    assert [artifact.content_digest for artifact in there] == [artifact.content_digest for artifact in here]
    assert not [path for path in s3_store.paths("artifacts/dedup") if "sketch" in path or "index" in path]
