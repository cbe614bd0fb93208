"""How a stage builds an artifact: parts one by one, the manifest last."""

import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from storage.errors import DamagedFile, DamagedRecord
from storage.records import (
    InputRef,
    JsonDict,
    Manifest,
    Part,
    StoredFile,
    content_digest,
    decode_record,
    encode_record,
    now,
)
from storage.store import Artifact, Store, artifact_folder, checked_name, file_sha256

log = logging.getLogger(__name__)


class ArtifactWriter:
    """One attempt at building an artifact. Can be pickled: workers commit parts of the same attempt.

    A part that any earlier attempt committed stays valid; a part of this attempt never overwrites files of
    another one, because every file name holds the attempt.
    """

    def __init__(self, store: Store, stage: str, key: str) -> None:
        self.store = store
        self.stage = stage
        self.key = key
        self.attempt = uuid.uuid4().hex[:12]
        self.folder = artifact_folder(stage, key)

    def parts(self) -> dict[str, Part]:
        """Return the committed parts by name.

        A part whose record is damaged or whose files are not there in full is dropped from the store, to be
        done again; so is one of an earlier attempt whose content no longer has its checksum.
        """
        sizes = {path: size for path, size, _ in self.store.files.list(self.folder)}
        found = {}
        for path in sizes:
            if not path.startswith(f"{self.folder}/parts/"):
                continue
            try:
                part = decode_record(Part, self.store.files.read(path), f"{self.store.url}/{path}")
                self._check(part, sizes)
            except (DamagedRecord, DamagedFile) as error:
                log.warning("doing a part again: %s", error)
                self.store.files.delete(path)
                continue
            found[part.part] = part
        return found

    def part(self, name: str) -> Part | None:
        """Return one committed part without checking its files; None if there is none."""
        path = self._part_path(name)
        try:
            return decode_record(Part, self.store.files.read(path), f"{self.store.url}/{path}")
        except (FileNotFoundError, DamagedRecord):
            return None

    def open(self, file: StoredFile) -> Path:
        """Return a local, checked path to a file of a committed part."""
        return self._as_artifact((file,)).open(file)

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
        """Store finished local files (role -> path, moved away) and then the record that names them."""
        suffixes = {role: path.name.partition(".")[2] for role, path in files.items()}
        names = {
            role: f"data/{checked_name(part)}{'-' + role if len(files) > 1 else ''}-{self.attempt}.{suffix}"
            for role, suffix in suffixes.items()
        }
        stored = [self._put(part, role, path, names[role]) for role, path in files.items()]
        return self._record(part, stored, counts, info)

    def commit_folder(self, part: str, folder: Path, *, counts: Mapping[str, int] | None = None) -> Part:
        """Store a folder as one part whose files keep their names; a file's role is its name."""
        members = sorted(path for path in folder.rglob("*") if path.is_file())
        stored = []
        for path in members:
            role = path.relative_to(folder).as_posix()
            stored.append(self._put(part, role, path, f"data/{checked_name(part)}-{self.attempt}/{role}"))
        return self._record(part, stored, counts, None)

    def report(self, role: str, data: bytes) -> StoredFile:
        """Store a file for people, such as `drops.json` or `loss.png`. Goes into the manifest if published."""
        local = self.scratch() / f"report-{role}"
        local.write_bytes(data)
        return self._put("report", role, local, f"reports/{self.attempt}-{checked_name(role)}")

    def discard(self, part: str) -> None:
        """Remove a part: its record first, so that nobody reads files that are going away."""
        record = self.part(part)
        self.store.files.delete(self._part_path(part))
        for file in record.files if record is not None else ():
            self.store.files.delete(f"{self.folder}/{file.path}")

    def forget_parts(self) -> None:
        """Remove all part records, to do everything again; files stay, since a manifest may name them."""
        for path in self.store.paths(f"{self.folder}/parts"):
            self.store.files.delete(path)

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
        """Write the manifest, which makes the artifact exist with exactly these parts."""
        parts = list(parts)
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
            inputs={
                name: InputRef(
                    stage=artifact.manifest.stage,
                    key=artifact.manifest.key,
                    content_digest=artifact.content_digest,
                )
                for name, artifact in inputs.items()
            },
            sources=dict(sources),
            files=files,
            reports=tuple(reports),
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
        self.store.files.write(f"{self.folder}/manifest.json", encode_record(manifest))
        return Artifact(self.store, manifest)

    def _check(self, part: Part, sizes: dict[str, int]) -> None:
        artifact = self._as_artifact(part.files)
        for file in part.files:
            if sizes.get(f"{self.folder}/{file.path}") != file.bytes:
                raise artifact.damaged(file, "found another size")
            if part.attempt != self.attempt:  # after a crash or a power cut nothing is taken on trust
                artifact.open(file)

    def _put(self, part: str, role: str, local: Path, name: str) -> StoredFile:
        stored = StoredFile(part=part, role=role, path=name, bytes=local.stat().st_size, sha256=file_sha256(local))
        self.store.files.put(local, f"{self.folder}/{name}")
        return stored

    def _record(
        self, part: str, files: list[StoredFile], counts: Mapping[str, int] | None, info: JsonDict | None
    ) -> Part:
        record = Part(
            part=part,
            attempt=self.attempt,
            files=tuple(files),
            counts=dict(sorted((counts or {}).items())),
            info=info or {},
        )
        self.store.files.write(self._part_path(part), encode_record(record))
        return record

    def _part_path(self, part: str) -> str:
        return f"{self.folder}/parts/{checked_name(part)}.json"

    def _as_artifact(self, files: tuple[StoredFile, ...]) -> Artifact:
        manifest = Manifest.model_construct(stage=self.stage, key=self.key, files=files)
        return Artifact(self.store, manifest)
