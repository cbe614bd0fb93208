"""How a stage builds an artifact: parts one by one, the manifest last."""

import logging
import re
import shutil
import socket
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.artifacts.layout import (
    artifact_folder,
    attempt_path,
    checked_name,
    manifest_path,
    parts_folder,
    record_path,
)
from storage.artifacts.lease import Claim
from storage.artifacts.records import (
    Attempt,
    JsonDict,
    Manifest,
    Part,
    RecordT,
    StoredFile,
    content_digest,
    decode_record,
    encode_record,
    now,
)
from storage.artifacts.store import Artifact, Store, file_sha256
from storage.canonical import fingerprint
from storage.errors import CorruptFileError, CorruptRecordError

log = logging.getLogger(__name__)

THREADS = 8
"""Parts that are read and checked at once: reading waits for the store, and hashing leaves the interpreter."""

PENDING = "pending"
"""Folder of the shared scratch for parts that wait for the store: `storage.artifacts.pending`."""

SUFFIX = re.compile(r"(\.[A-Za-z0-9]+){0,2}\Z")
"""What a stored file keeps of its local name: at most two steps, such as `.jsonl.zst`."""


class ArtifactWriter:
    """One attempt at building an artifact. Can be pickled: workers commit parts of the same attempt.

    A part that any earlier attempt committed stays valid; a part of this attempt never overwrites files of
    another one, because every file name holds the attempt. It also holds the beginning of the content's SHA-256:
    a part may be committed again (a checkpoint), and a crash in between leaves the one before it as it was.

    With a claim to a lease every commit and the publication first look in the store whether it is still held, and
    raise LeaseLostError if another process holds it.
    """

    def __init__(self, store: Store, stage: str, key: str, claim: Claim | None = None) -> None:
        self.store = store
        self.stage = stage
        self.key = key
        self.claim = claim
        self.attempt = uuid.uuid4().hex[:12]
        self.folder = artifact_folder(stage, key)

    def begin(
        self,
        *,
        version: int,
        config: JsonDict,
        inputs: Mapping[str, Artifact],
        sources: Mapping[str, str],
        recipe_name: str,
        run_id: str,
    ) -> None:
        """Record what this attempt builds from, so that plans can name it if it does not come to its end."""
        attempt = Attempt(
            stage=self.stage,
            version=version,
            key=self.key,
            config=config,
            inputs={name: artifact.reference for name, artifact in inputs.items()},
            sources=dict(sources),
            recipe_name=recipe_name,
            run_id=run_id,
            host=socket.gethostname(),
            started=now(),
        )
        self._written(attempt_path(self.folder), attempt)

    def parts(self) -> dict[str, Part]:
        """Return the committed parts by name.

        A part whose record is damaged or whose files are not there in full is dropped from the store, to be
        done again; so is one of an earlier attempt whose content no longer has its checksum.
        """
        paths = self.store.paths(f"{self.folder}/parts")
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                found = [part for part in pool.map(self._read_part, paths) if part is not None]
                wrong = self._as_artifact().wrong_sizes(file for part in found for file in part.files)
                whole = pool.map(lambda part: self._is_whole(part, wrong), found)
                return {part.part: part for part, is_whole in zip(found, whole, strict=True) if is_whole}
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C: nor do the threads wait for the store any more
                    self.store.stop_waiting()
                raise

    def part(self, name: str) -> Part | None:
        """Return one committed part without checking its files; None if there is none."""
        path = self._part_path(name)
        try:
            return decode_record(Part, self.store.backend.read(path), f"{self.store.url}/{path}")
        except (FileNotFoundError, CorruptRecordError):
            return None

    def open(self, file: StoredFile) -> Path:
        """Return a local, checked path to a file of a committed part."""
        return self._as_artifact().open(file)

    def scratch(self) -> Path:
        """Return the folder for files of this attempt that are not committed yet."""
        folder = self.store.scratch(self.stage, self.key) / self.attempt
        folder.mkdir(exist_ok=True)
        return folder

    def shared_scratch(self) -> Path:
        """Return a folder that later attempts on this machine find again: half-fetched files."""
        folder = self.store.scratch(self.stage, self.key) / "shared"
        folder.mkdir(exist_ok=True)
        return folder

    def commit(
        self,
        part: str,
        files: Mapping[str, Path],
        *,
        counts: Mapping[str, int] | None = None,
        info: JsonDict | None = None,
    ) -> Part:
        """Store finished local files (role -> path, moved away) and then the record that names them.

        A part of this name that this attempt committed before is replaced and its files are removed: that is for
        checkpoints, which no manifest names.
        """
        stored = []
        for role, local in files.items():
            sha256 = file_sha256(local)
            labels = [checked_name(role)] if len(files) > 1 else []
            name = "-".join([checked_name(part), self.attempt, *labels, sha256[:8]])
            stored.append(self._put(part, role, local, sha256, f"data/{name}{_suffix(local)}"))
        return self._record(part, stored, counts, info)

    def commit_folder(self, part: str, folder: Path, *, counts: Mapping[str, int] | None = None) -> Part:
        """Store a folder as one part whose files keep their names; a file's role is its name.

        Raises: ValueError for an empty folder, and for links to folders: what is behind them would be left out.
        """
        members = {}
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and not path.is_file():
                raise ValueError(f"a folder to be stored must hold its files itself, found the link {path}")
            if path.is_file():
                members[path.relative_to(folder).as_posix()] = path, file_sha256(path)
        if not members:
            raise ValueError(f"a folder to be stored must hold a file, found none in {folder}")
        digest = fingerprint([[role, sha256] for role, (_, sha256) in members.items()])
        name = f"data/{checked_name(part)}-{self.attempt}-{digest[:8]}"
        stored = [
            self._put(part, role, path, sha256, f"{name}/{role}") for role, (path, sha256) in members.items()
        ]
        return self._record(part, stored, counts, None)

    def report(self, role: str, data: bytes) -> StoredFile:
        """Store a file for people, such as `drops.json` or `loss.png`. Goes into the manifest if published."""
        local = self.scratch() / f"{uuid.uuid4().hex}-{checked_name(role)}"
        local.write_bytes(data)
        return self.report_file(role, local)

    def report_file(self, role: str, local: Path) -> StoredFile:
        """Store a finished local file for people, moved away: one that may be larger than memory."""
        sha256 = file_sha256(local)
        return self._put(
            "report", role, local, sha256, f"reports/{self.attempt}-{sha256[:8]}-{checked_name(role)}"
        )

    def discard(self, part: str) -> None:
        """Remove a part: its record first, so that nobody reads files that are going away."""
        record = self.part(part)
        self.store.backend.delete(self._part_path(part))
        if record is not None:
            self._delete_unpublished(record.files)

    def forget_parts(self) -> None:
        """Remove all part records, to do everything again; files stay, since a manifest may name them.

        Parts that are finished on this machine and wait for the store (`pending`) go too.
        """
        shutil.rmtree(self.shared_scratch() / PENDING, ignore_errors=True)
        for path in self.store.paths(f"{self.folder}/parts"):
            self.store.backend.delete(path)

    def publish(
        self,
        parts: Iterable[Part],
        *,
        reports: Iterable[StoredFile] = (),
        version: int,
        config: JsonDict,
        inputs: Mapping[str, Artifact],
        sources: Mapping[str, str],
        recipe: JsonDict,
        run_id: str,
        code_commit: str,
        libraries: dict[str, str],
        started: str,
        seconds: float,
    ) -> Artifact:
        """Write the manifest, which makes the artifact exist with exactly these parts.

        Of several reports of one role the last counts. Returns: the artifact as `Store.find` gives it to later
        runs, so that the stages after it do the same whether it was made in their process or found.
        Raises: CorruptFileError if a file is not there in full.
        """
        parts = list(parts)
        names = Counter(part.part for part in parts)
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValueError(
                f"the parts of {self.stage}/{self.key} must have different names, found twice: {twice}"
            )
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(part.counts)
        files = tuple(file for part in parts for file in part.files)
        manifest = Manifest(
            stage=self.stage,
            version=version,
            key=self.key,
            content_digest=content_digest(files),
            config=config,
            inputs={name: artifact.reference for name, artifact in inputs.items()},
            sources=dict(sources),
            files=files,
            reports=tuple({report.role: report for report in reports}.values()),
            counts=dict(sorted(counts.items())),
            recipe=recipe,
            run_id=run_id,
            code_commit=code_commit,
            libraries=libraries,
            attempts=tuple(dict.fromkeys([*(part.attempt for part in parts), self.attempt])),
            started=started,
            finished=now(),
            seconds=round(seconds, 3),
        )
        for error in Artifact(self.store, manifest).wrong_sizes((*manifest.files, *manifest.reports)).values():
            raise error
        self._check_claim()
        artifact = Artifact(self.store, self._written(manifest_path(self.folder), manifest))
        self.store.backend.delete(attempt_path(self.folder))
        return artifact

    def _read_part(self, path: str) -> Part | None:
        try:
            part = decode_record(Part, self.store.backend.read(path), f"{self.store.url}/{path}")
            if path != self._part_path(part.part):
                raise CorruptRecordError(
                    f"{self.store.url}/{path} must describe its own part, found {part.part!r}"
                )
            return part
        except FileNotFoundError:  # discarded since it was listed
            return None
        except CorruptRecordError as error:
            self._drop(path, error)
            return None

    def _is_whole(self, part: Part, wrong: Mapping[str, CorruptFileError]) -> bool:
        try:
            for file in part.files:
                if file.path in wrong:
                    raise wrong[file.path]
                # After a crash or a power cut nothing on a disk is taken on trust. An object store acknowledges an
                # upload only when it has all of it, and reading terabytes back would cost more than the work.
                if part.attempt != self.attempt and self.store.backend.local(self.folder) is not None:
                    self.open(file)
        except CorruptFileError as error:
            self._drop(self._part_path(part.part), error)
            return False
        return True

    def _drop(self, path: str, error: Exception) -> None:
        log.warning("doing a part again: %s", error)
        self.store.backend.delete(path)

    def _put(self, part: str, role: str, local: Path, sha256: str, name: str) -> StoredFile:
        stored = StoredFile(part=part, role=role, path=name, bytes=local.stat().st_size, sha256=sha256)
        self.store.backend.put(local, f"{self.folder}/{name}")
        return stored

    def _delete_unpublished(self, files: Iterable[StoredFile]) -> None:
        # Another attempt may have published a part of this one.
        try:
            manifest = self.store.manifest(self.stage, self.key)
        except CorruptRecordError as error:
            log.warning("leaving replaced files to garbage collection: %s", error)
            return
        published = {file.path for file in manifest.files} if manifest is not None else set()
        for file in files:
            if file.path not in published:
                self.store.backend.delete(f"{self.folder}/{file.path}")

    def _record(
        self, part: str, files: list[StoredFile], counts: Mapping[str, int] | None, info: JsonDict | None
    ) -> Part:
        self._check_claim()
        replaced = self.part(part)
        record = Part(
            part=part,
            attempt=self.attempt,
            files=tuple(files),
            counts=dict(sorted((counts or {}).items())),
            info=info or {},
        )
        record = self._written(self._part_path(part), record)
        if replaced is not None and replaced.attempt == self.attempt:
            kept = {file.path for file in files}
            self._delete_unpublished(file for file in replaced.files if file.path not in kept)
        return record

    def _check_claim(self) -> None:
        if self.claim is not None:
            self.claim.check(self.store.backend)

    def _written(self, path: str, record: RecordT) -> RecordT:
        """Write a record and return it as every reader gets it: with the keys of its dicts in the file's order."""
        data = encode_record(record)
        as_read = decode_record(type(record), data, f"{self.store.url}/{path}")
        self.store.backend.write(path, data)
        return as_read

    def _part_path(self, part: str) -> str:
        return record_path(parts_folder(self.folder), part)

    def _as_artifact(self) -> Artifact:
        return Artifact(self.store, Manifest.model_construct(stage=self.stage, key=self.key))


def _suffix(local: Path) -> str:
    match = SUFFIX.search(local.name, 1)
    return match.group() if match is not None else ""
