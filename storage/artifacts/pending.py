"""Parts that are finished on this machine but not yet committed, because the store is away or busy.

scratch/<stage>-<key>/shared/pending/<part>/part.json     written last: it exists exactly when the part is whole
                                             <role>/<file>

They outlive the process that made them: the next attempt on this machine commits them. Another machine knows
nothing of them and does them again. A part leaves the folder when the store has it.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from storage.artifacts.layout import checked_name
from storage.artifacts.records import Part, StoredFile, decode_record, encode_record
from storage.artifacts.store import file_sha256
from storage.artifacts.writer import PENDING, ArtifactWriter
from storage.errors import CorruptRecordError

log = logging.getLogger(__name__)

RECORD = "part.json"


def keep_pending(writer: ArtifactWriter, part: str, files: Mapping[str, Path]) -> None:
    """Take over the finished local files of a part (role -> path), to be committed later."""
    folder = _folder(writer, part)
    shutil.rmtree(folder, ignore_errors=True)  # cut off halfway
    kept = []
    for role, local in files.items():
        target = folder / checked_name(role) / local.name
        target.parent.mkdir(parents=True)
        size, sha256 = local.stat().st_size, file_sha256(local)
        shutil.move(local, target)
        kept.append(StoredFile(part=part, role=role, path=f"{role}/{local.name}", bytes=size, sha256=sha256))
    record = folder / f"{RECORD}.new"
    record.write_bytes(
        encode_record(Part(part=part, attempt=writer.attempt, files=tuple(kept), counts={}, info={}))
    )
    record.rename(folder / RECORD)


def pending_parts(writer: ArtifactWriter) -> list[str]:
    """Return the parts that are whole, checksums included, in the order of their names; others are removed."""
    found = []
    for folder in sorted((writer.shared_scratch() / PENDING).glob("*")):
        if _whole(folder) is not None:
            found.append(folder.name)
        else:
            log.warning("removing %s: it was cut off or is damaged", folder)
            shutil.rmtree(folder)
    return found


def commit_pending(writer: ArtifactWriter, part: str) -> None:
    """Commit a part; it leaves this machine once the store has it. Raises: what `ArtifactWriter.commit` raises."""
    folder = _folder(writer, part)
    record = decode_record(Part, (folder / RECORD).read_bytes(), str(folder / RECORD))
    # The writer takes files away one by one; the part must stay whole until it has the last.
    staging = writer.scratch() / f"pending-{part}"
    shutil.rmtree(staging, ignore_errors=True)  # an earlier try
    copies = {}
    for file in record.files:
        copies[file.role] = staging / file.path
        copies[file.role].parent.mkdir(parents=True)
        _link_or_copy(folder / file.path, copies[file.role])
    writer.commit(part, copies)
    shutil.rmtree(staging, ignore_errors=True)
    drop_pending(writer, part)


def drop_pending(writer: ArtifactWriter, part: str) -> None:
    """Forget a part."""
    shutil.rmtree(_folder(writer, part), ignore_errors=True)


def _folder(writer: ArtifactWriter, part: str) -> Path:
    return writer.shared_scratch() / PENDING / checked_name(part)


def _whole(folder: Path) -> Part | None:
    try:
        record = decode_record(Part, (folder / RECORD).read_bytes(), str(folder / RECORD))
        is_whole = all(file_sha256(folder / file.path) == file.sha256 for file in record.files)
    except (FileNotFoundError, NotADirectoryError, CorruptRecordError):
        return None
    return record if is_whole and record.part == folder.name else None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a disk without hard links, or no room: copying says which
        shutil.copyfile(source, target)
