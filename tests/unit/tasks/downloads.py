"""Functions that tests of the download stage share."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.artifacts.store import Artifact, Store
from storage.formats.documents import Document, read_documents
from tasks.core.execution import Execution
from tasks.core.runner import run_stage
from tasks.core.stage import RunContext
from tasks.download.config import DownloadConfig
from tasks.download.stage import STAGE

Progress = list[tuple[int, int, str]]


def download(store: Path, workers: int = 1, progress: Progress | None = None, **config: Any) -> Artifact:
    steps = progress if progress is not None else []
    context = RunContext(
        Store(str(store)),
        run_id="run-1",
        recipe={},
        execution=Execution(workers=workers),
        progress=lambda done, total, unit, *_: steps.append((done, total, unit)),
    )
    return run_stage(STAGE, download_config(**config), {}, context).artifact


def download_config(**fields: Any) -> DownloadConfig:
    """Build a config from the fields of the source and of the stage together."""
    own = {name: fields.pop(name) for name in ("shard_bytes", "max_bad_lines", "max_bad_share") if name in fields}
    kinds = {"url": "mirror", "patterns": "files", "text_bytes": "python-environment"}
    [kind] = [kinds[name] for name in fields if name in kinds]
    return DownloadConfig(source={"kind": kind, **fields}, **own)


def documents(artifact: Artifact, split: str = "") -> list[Document]:
    return [
        document for file in artifact.files("documents", split) for document in read_documents(artifact.open(file))
    ]


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {file.part: artifact.open(file).read_bytes() for file in artifact.files("documents")}


def json_lines(texts: Iterable[str], subset: str) -> bytes:
    records = ({"text": text, "meta": {"pile_set_name": subset, "n": n}} for n, text in enumerate(texts))
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def list_checksums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*.zst"))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)
    (folder / "SHA256SUMS.txt").write_text("".join(lines))
