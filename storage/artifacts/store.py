"""The artifact store: where finished work is found, read, pinned and recorded.

artifacts/<stage>/<key>/manifest.json         written last: it exists exactly when the artifact is finished
                        parts/<part>.json     written after the part's files
                        data/ reports/        files under names that hold the attempt and the content
leases/<stage>/<key>.json   pins/<name>.json
runs/<run-id>.json   logs/<run-id>/<number>.log   cancels/<run-id>.json
scratch/                                      work in progress, local stores only
"""

import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.artifacts.layout import (
    ARTIFACTS,
    CANCELS,
    LEASES,
    PINS,
    RUNS,
    artifact_folder,
    checked_name,
    is_manifest,
    manifest_path,
    record_path,
)
from storage.artifacts.lease import Lease
from storage.artifacts.local_copies import fetched_copy, fetched_folder
from storage.artifacts.records import (
    Cancel,
    InputRef,
    Manifest,
    Pin,
    RecordT,
    Run,
    StoredFile,
    decode_record,
    encode_record,
    now,
)
from storage.backends.base import StoreBackend
from storage.backends.patient import PatientBackend, is_away
from storage.backends.registry import open_backend
from storage.errors import CorruptFileError, CorruptRecordError, InputError

log = logging.getLogger(__name__)


class Store:
    """One artifact store. Opening touches nothing; it can be pickled and used in other processes.

    With `patience`, in seconds, it is known to have answered once: whatever is asked of it waits that long for a
    store that is away. Without, the first call that gets no answer fails.
    """

    def __init__(self, url: str, patience: float = 0.0) -> None:
        self.backend: StoreBackend = open_backend(url)
        self.url = self.backend.url
        self.patience = patience
        if patience:
            self.backend.must_exist = True
            self.backend = PatientBackend(self.backend, patience)

    def __reduce__(self) -> tuple[type["Store"], tuple[str, float]]:
        return Store, (self.url, self.patience)

    def patient(self, patience: float) -> "Store":
        """Return this store for a run under way, after a look that it answers now.

        Raises: InputError for what the user must set; StoreAwayError, Fault or OSError in less than a minute.
        """
        self.backend.probe()
        return Store(self.url, patience)

    def wait_if_away(self) -> bool:
        """Tell whether the store is away, after waiting until it is back. Raises: StoreAwayError if never."""
        if not isinstance(self.backend, PatientBackend):
            return False
        try:
            self.backend.inner.probe()
            return False
        except Exception as error:
            if not is_away(error):
                raise
            self.backend.probe()
            return True

    @property
    def away(self) -> bool:
        """Whether calls wait just now for a store that is away."""
        return isinstance(self.backend, PatientBackend) and self.backend.away

    def stop_waiting(self) -> None:
        """Let nothing wait for the store any more, in this process. May be called from a signal handler."""
        if isinstance(self.backend, PatientBackend):
            self.backend.stop_waiting()

    # ---- artifacts -----------------------------------------------------------------------------

    def find(self, stage: str, key: str) -> "Artifact | None":
        """Return the finished artifact, None if it does not exist.

        Raises: CorruptRecordError, CorruptFileError if it exists but its manifest or the size of a file is wrong.
        """
        while (manifest := self.manifest(stage, key)) is not None:
            artifact = Artifact(self, manifest)
            wrong = artifact.wrong_sizes((*manifest.files, *manifest.reports))
            if not wrong:
                return artifact
            if self.manifest(stage, key) == manifest:  # else it was removed or replaced while we looked
                raise next(iter(wrong.values()))
        return None

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """Return what is known about an artifact without looking at its files; None if it is not finished.

        Raises: CorruptRecordError.
        """
        path = manifest_path(artifact_folder(stage, key))
        manifest = self._read(Manifest, path)
        if manifest is not None and (manifest.stage, manifest.key) != (stage, key):
            raise CorruptRecordError(
                f"{self.url}/{path} must describe {stage}/{key}, found the manifest of {manifest.stage}/"
                f"{manifest.key}; delete it, an artifact cannot be moved to another key"
            )
        return manifest

    def manifests(self, stage: str | None = None) -> Iterator[Manifest]:
        """Yield every readable manifest, oldest first; a damaged one is logged and left out."""
        found = []
        for path in self.paths(f"{ARTIFACTS}/{stage}" if stage else ARTIFACTS):
            if is_manifest(path):
                try:
                    manifest = self._read(Manifest, path)
                except CorruptRecordError as error:
                    log.warning("%s", error)
                    continue
                if manifest is not None:
                    found.append(manifest)
        yield from sorted(found, key=lambda manifest: manifest.finished)

    def paths(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder of the store. Shows and cleans, decides nothing."""
        return [path for path, _, _ in self.backend.list(folder)]

    # ---- leases, runs, pins --------------------------------------------------------------------

    def lease(self, stage: str, key: str, run_id: str, on_lost: Callable[[], None]) -> Lease:
        """Return a lease on an artifact, not yet acquired; `on_lost` is called from another thread."""
        return Lease(self.backend, self.lease_path(stage, key), run_id, on_lost)

    def lease_path(self, stage: str, key: str) -> str:
        """Return where the lease on an artifact lies."""
        return record_path(f"{LEASES}/{checked_name(stage)}", key)

    def write_run(self, run: Run) -> None:
        """Record the present state of a run."""
        self.backend.write(record_path(RUNS, run.run_id), encode_record(run))

    def run(self, run_id: str) -> Run | None:
        """Return the record of a run, None if there is none. Raises: CorruptRecordError."""
        path = record_path(RUNS, run_id)
        run = self._read(Run, path)
        if run is not None and run.run_id != run_id:
            raise CorruptRecordError(
                f"{self.url}/{path} must be the record of {run_id}, found that of {run.run_id}; delete it or name "
                f"it as its run again"
            )
        return run

    def runs(self) -> Iterator[Run]:
        """Yield all readable run records, oldest first."""
        yield from sorted(self._records(Run, RUNS), key=lambda run: run.started)

    def ask_to_stop(self, run_id: str) -> None:
        """Leave the wish that a run stops where its process looks for it."""
        wish = Cancel(run_id=run_id, asked=now(), host=socket.gethostname())
        self.backend.write(record_path(CANCELS, run_id), encode_record(wish))

    def is_to_stop(self, run_id: str) -> bool:
        """Tell whether somebody wants a run to stop."""
        return self._read(Cancel, record_path(CANCELS, run_id)) is not None

    def forget_wish(self, run_id: str) -> None:
        """Remove what `ask_to_stop` has left."""
        self.backend.delete(record_path(CANCELS, run_id))

    def write_pin(self, name: str, stage: str, key: str) -> Pin:
        """Keep an artifact, and what it was made from, from garbage collection.

        Raises: InputError if there is no such artifact.
        """
        if self.find(stage, key) is None:
            raise InputError(f"a pin must name a finished artifact, found none at {stage}/{key}; see `pile ls`")
        pin = Pin(name=name, stage=stage, key=key, created=now())
        self.backend.write(record_path(PINS, name), encode_record(pin))
        return pin

    def remove_pin(self, name: str) -> None:
        """Remove a pin. Raises: InputError if there is none of that name."""
        path = record_path(PINS, name)
        if path not in self.paths(PINS):
            raise InputError(f"no pin is called {name!r}; see `pile pin`")
        self.backend.delete(path)

    def pins(self) -> list[Pin]:
        """Return all pins. Raises: CorruptRecordError, since a pin that cannot be read would not protect."""
        pins = [self._read(Pin, path) for path in self.paths(PINS)]
        return [pin for pin in pins if pin is not None]

    # ---- local work space ----------------------------------------------------------------------

    def scratch(self, stage: str, key: str) -> Path:
        """Return a folder of this machine for unfinished work on an artifact; it outlives a crash."""
        root = self.scratch_root()
        if self.patience and root == self.backend.scratch() and not root.exists():
            self.backend.probe()  # a mount has vanished: nothing is made in its place
        folder = root / f"{checked_name(stage)}-{checked_name(key)}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def remove_scratch(self, stage: str, key: str) -> None:
        """Delete the work space of an artifact."""
        shutil.rmtree(self.scratch_root() / f"{checked_name(stage)}-{checked_name(key)}", ignore_errors=True)

    def cached_copy(self, file: StoredFile, path: str) -> Path:
        """Return a local copy of a remote file, fetched once per machine and named by its content."""
        return fetched_copy(self.fetched_root(), file, lambda local: self.backend.fetch(path, local))

    def scratch_root(self) -> Path:
        """Return the folder of this machine that holds all unfinished work on this store."""
        chosen = os.environ.get("PILE_SCRATCH")
        if not chosen and (own := self.backend.scratch()) is not None:
            return own
        root = Path(chosen or Path.home() / ".cache" / "pile-pipeline").absolute()
        return root / hashlib.sha256(self.url.encode()).hexdigest()[:12]

    def fetched_root(self) -> Path:
        """Return the folder of this machine that holds copies of remote files."""
        return self.scratch_root() / "fetched"

    def _read(self, record_type: type[RecordT], path: str) -> RecordT | None:
        try:
            data = self.backend.read(path)
        except FileNotFoundError:
            return None
        return decode_record(record_type, data, f"{self.url}/{path}")

    def _records(self, record_type: type[RecordT], folder: str) -> Iterator[RecordT]:
        for path in self.paths(folder):
            try:
                record = self._read(record_type, path)
            except CorruptRecordError as error:
                log.warning("%s", error)
                continue
            if record is not None:
                yield record


@dataclass(frozen=True)
class Artifact:
    """The finished output of a stage, as its readers see it."""

    store: Store
    manifest: Manifest

    @property
    def ref(self) -> str:
        """The name people use: `stage/key`."""
        return f"{self.manifest.stage}/{self.manifest.key}"

    @property
    def url(self) -> str:
        """Where it lies."""
        return f"{self.store.url}/{artifact_folder(self.manifest.stage, self.manifest.key)}"

    @property
    def reference(self) -> InputRef:
        """What the manifest of an artifact made from this one says of it."""
        return InputRef(stage=self.manifest.stage, key=self.manifest.key, content_digest=self.content_digest)

    @property
    def content_digest(self) -> str:
        """Identity of the content; equal for equal results, whatever produced them."""
        return self.manifest.content_digest

    @property
    def counts(self) -> dict[str, int]:
        """The counts of all parts, summed."""
        return self.manifest.counts

    def files(self, role: str, prefix: str = "") -> list[StoredFile]:
        """Return the files of a role, in the order of their parts, from parts whose name starts with `prefix`."""
        return [file for file in self.manifest.files if file.role == role and file.part.startswith(prefix)]

    def file(self, role: str) -> StoredFile:
        """Return the only file of a role. Raises: CorruptFileError if there is not exactly one."""
        found = self.files(role)
        if len(found) != 1:
            raise CorruptFileError(f"{self.url} must hold one file of role {role!r}, found {len(found)}")
        return found[0]

    def open(self, file: StoredFile) -> Path:
        """Return a local path to the file's content, after its size and SHA-256 were checked.

        Raises: CorruptFileError if the bytes are not those that were committed.
        """
        path = self._path(file)
        try:
            local = self.store.backend.local(path)
            if local is not None:
                return self._checked_there(file, path, local)
            copy = self.store.cached_copy(file, path)
            try:
                return self._checked(file, copy)
            except CorruptFileError:  # perhaps only the copy is, by this machine's disk
                copy.unlink(missing_ok=True)
                return self._checked(file, self.store.cached_copy(file, path))
        except FileNotFoundError:
            raise self.corrupt(file, "found no file") from None

    def _checked_there(self, file: StoredFile, path: str, local: Path) -> Path:
        """Check a file of a store on this machine, which may be away for a while, and come back."""
        try:
            return self._checked(file, local)
        except OSError:
            self.store.backend.size(path)  # waits for a store that is away; raises if the file is not there
            return self._checked(file, local)

    def _path(self, file: StoredFile) -> str:
        return f"{artifact_folder(self.manifest.stage, self.manifest.key)}/{file.path}"

    def _checked(self, file: StoredFile, local: Path) -> Path:
        status = local.stat()
        if status.st_size != file.bytes:
            raise self.corrupt(file, f"found {status.st_size} bytes")
        memo = (str(local), status.st_mtime_ns, file.sha256)
        if memo not in _checked_files:
            found = file_sha256(local)
            if found != file.sha256:
                raise self.corrupt(file, f"found sha256 {found}")
            _checked_files.add(memo)
        return local

    def open_folder(self, part: str) -> Path:
        """Return a local folder that holds the files of a part committed with `commit_folder`, all checked.

        Raises: CorruptFileError if there is no such part.
        """
        files = [file for file in self.manifest.files if file.part == part]
        if not files:
            raise CorruptFileError(f"{self.url} must hold the part {part!r}, found none of that name")
        members = {file.role: self.open(file) for file in files}
        first = files[0]
        lie_together = self.store.backend.local(self._path(first)) is not None  # each under its name
        if lie_together:
            return members[first.role].parents[first.role.count("/")]
        return fetched_folder(self.store.fetched_root(), members)

    def wrong_sizes(self, files: Iterable[StoredFile]) -> dict[str, CorruptFileError]:
        """Return path -> error for those of the files that are not there in full, after one listing."""
        folder = artifact_folder(self.manifest.stage, self.manifest.key)
        sizes = {path: size for path, size, _ in self.store.backend.list(folder)}
        wrong = {}
        for file in files:
            path = f"{folder}/{file.path}"
            if sizes.get(path) != file.bytes:
                try:  # listings of some object stores lag behind: ask for the object itself
                    found = self.store.backend.size(path)
                except FileNotFoundError:
                    wrong[file.path] = self.corrupt(file, "found no file")
                    continue
                if found != file.bytes:
                    wrong[file.path] = self.corrupt(file, f"found {found} bytes")
        return wrong

    def report(self, role: str) -> bytes | None:
        """Return the content of a report, None if the stage wrote none of that role."""
        for file in self.manifest.reports:
            if file.role == role:
                return self.open(file).read_bytes()
        return None

    def corrupt(self, file: StoredFile, found: str) -> CorruptFileError:
        """Return the error for a file that is not what the manifest says."""
        return CorruptFileError(
            f"{self.url}/{file.path} must have {file.bytes} bytes with sha256 {file.sha256}, {found}; "
            f"rebuild it with `pile run RECIPE --force {self.manifest.stage}`, or restore the file"
        )


_checked_files: set[tuple[str, int, str]] = set()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
