"""The JSON records of the store: part, manifest, run, pin, lease, attempt.

Every record carries its kind, its schema version and a checksum of itself, so that a flipped byte, a
half-written file or a record of a newer release is an error that names the file instead of a wrong answer.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from storage.canonical import canonical_json
from storage.errors import CorruptRecordError

JsonDict = dict[str, Any]


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str]
    schema_version: ClassVar[int]
    if_deleted: ClassVar[str] = ""
    """What follows from deleting a damaged record of this kind."""
    upgrades: ClassVar[dict[int, Callable[[JsonDict], JsonDict]]] = {}
    """Schema version -> function that turns the body of that version into the body of the next one."""


RecordT = TypeVar("RecordT", bound=Record)


def _below(path: str) -> str:
    if any(step in ("", ".", "..") for step in path.split("/")):
        raise ValueError(f"must be a relative path without '.' and '..', found {path!r}")
    return path


PathBelow = Annotated[str, AfterValidator(_below)]
"""A path that cannot leave its folder: a record from a shared store may have been written by anybody."""


class StoredFile(BaseModel):
    """One finished file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    part: str
    role: PathBelow
    """What the file is to its reader: `documents`, `tokens`, `config.json`."""
    path: PathBelow
    """Where it lies, relative to the artifact; holds the attempt, so it is never part of an identity."""
    bytes: int
    sha256: str


class Part(Record):
    """A finished unit of work inside a stage, written after the part's files."""

    kind = "part"
    schema_version = 1
    if_deleted = "; the part is then done again"

    part: str
    attempt: str
    files: tuple[StoredFile, ...]
    counts: dict[str, int]
    """What the part holds, in flat names that can be summed: `documents`, `dropped.Wikipedia.too-short`."""
    info: JsonDict = {}
    """Anything else a later step of the stage wants to know about this part."""


class InputRef(BaseModel):
    """The upstream artifact that a stage read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stage: str
    key: str
    content_digest: str


class Manifest(Record):
    """The finished output of a stage. It exists exactly when the artifact is complete."""

    kind = "manifest"
    schema_version = 1
    if_deleted = "; the next run then rebuilds the artifact"

    stage: str
    version: int
    key: str
    content_digest: str
    config: JsonDict
    inputs: dict[str, InputRef]
    sources: dict[str, str]
    """What came from outside the store (name -> content digest)."""
    files: tuple[StoredFile, ...]
    reports: tuple[StoredFile, ...]
    """Files for people: not part of the content digest, since they may hold times and pictures."""
    counts: dict[str, int]
    recipe: JsonDict
    run_id: str
    code_commit: str
    libraries: dict[str, str]
    attempts: tuple[str, ...]
    started: str
    finished: str
    seconds: float


Stopped = Literal["failed", "cancelled", "interrupted", "crashed"]
"""How a run stopped before its end: an error; SIGTERM, SIGHUP or `pile cancel`; Ctrl-C; kill -9 or a power cut."""

RunState = Literal["running", "done"] | Stopped
StageState = Literal["running", "cached", "done"] | Stopped


class RunStage(BaseModel):
    """What one run did about one stage."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    stage: str
    key: str
    state: StageState
    seconds: float = 0.0
    content_digest: str = ""
    started: str = ""
    done: int = 0
    total: int = 0
    """How far the stage came, in `unit`; 0 of 0 if it never said."""
    unit: str = ""
    note: str = ""
    """What else it said last, such as the loss."""
    eta_seconds: float | None = None
    """Time that was left when it said so."""


def _told_apart(run: JsonDict) -> JsonDict:
    """Return a run of schema version 1 in the words of version 2: each way to stop has its own."""
    error = run["error"].partition(":")[0]
    names = {"KeyboardInterrupt": "interrupted", "_Terminated": "cancelled", "TerminationSignal": "cancelled"}
    state = names.get(error, "failed")
    stages = [{**stage, "state": state} if stage["state"] == "failed" else stage for stage in run["stages"]]
    return {**run, "state": state, "stages": stages} if run["state"] == "failed" else run


class Run(Record):
    """One execution of the pipeline: which recipe, which artifacts, how far."""

    kind = "run"
    schema_version = 2
    if_deleted = "; then only the history of that run is lost"
    upgrades: ClassVar = {1: _told_apart}

    run_id: str
    recipe_name: str
    recipe: JsonDict
    target: str
    state: RunState
    stages: tuple[RunStage, ...]
    host: str
    started: str
    finished: str = ""
    error: str = ""
    """Why it stopped, if not at its end."""
    of: int = 0
    """Stages that it needs in all."""
    command: str = ""
    """The command that asks for the same again, and so continues it."""
    machine: str = ""
    """Identity of the machine, so that whoever looks from the same one can ask whether the process lives."""
    process_id: int = 0
    process_start: str = ""
    updated: str = ""
    """When it was last heard of: a run that goes on says so at least once a minute."""


class Cancel(Record):
    """The wish that a run stops, from any machine that sees the store."""

    kind = "cancel"
    schema_version = 1
    if_deleted = "; then the run goes on"

    run_id: str
    asked: str
    host: str


class Pin(Record):
    """A named artifact that garbage collection keeps, with everything it was made from."""

    kind = "pin"
    schema_version = 1
    if_deleted = ", and pin the artifact again with `pile pin`"

    name: str
    stage: str
    key: str
    created: str


class LeaseRecord(Record):
    """Who is working on an artifact right now."""

    kind = "lease"
    schema_version = 1
    if_deleted = "; then whoever waits for it goes on"

    holder: str
    run_id: str
    host: str
    """Identity of the machine, so that a waiter on the same machine can ask whether the process lives."""
    process_id: int
    process_start: str
    renewals: int
    expires: float
    """Unix time; a waiter with another clock also watches whether `renewals` still moves."""


class Attempt(Record):
    """What an artifact is being built from, written before its first part: who looks knows what is unfinished.

    Replaced by the next attempt at the same key, removed when the manifest is there.
    """

    kind = "attempt"
    schema_version = 1
    if_deleted = "; plans then no longer name that attempt, it is continued all the same"

    stage: str
    version: int
    key: str
    config: JsonDict
    inputs: dict[str, InputRef]
    sources: dict[str, str]
    recipe_name: str
    run_id: str
    host: str
    started: str


def encode_record(record: Record) -> bytes:
    """Return the record's file content: indented JSON, the same bytes for the same record.

    Raises: TypeError or ValueError for free-form values that JSON does not have; NaN is not quietly `null`.
    """
    return _render({"kind": record.kind, "schema_version": record.schema_version, **record.model_dump()})


def decode_record(record_type: type[RecordT], data: bytes, place: str) -> RecordT:
    """Read a record of this or an older schema version.

    Raises: CorruptRecordError when `data`, found at `place`, is not what `encode_record` wrote, or is newer.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(record_type, place, f"it is not JSON ({error})") from error
    if not isinstance(body, dict) or body.get("kind") != record_type.kind:
        found = body.get("kind") if isinstance(body, dict) else type(body).__name__
        raise _damaged(record_type, place, f"its kind is {found!r}")
    checksum = body.pop("record_sha256", None)
    if not isinstance(checksum, str) or _render(body) != data:
        raise _damaged(record_type, place, "its content does not match its own checksum")
    version = body.pop("schema_version", None)
    del body["kind"]
    return _validate(record_type, _upgraded(record_type, body, version, place), place)


def now() -> str:
    """Return the present time as ISO 8601 in UTC, the form of every time in a record."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def content_digest(files: tuple[StoredFile, ...]) -> str:
    """Identify what an artifact contains: part, role, sha256 and size of each file, no attempt names."""
    entries = sorted([file.part, file.role, file.sha256, file.bytes] for file in files)
    return hashlib.sha256(canonical_json(entries)).hexdigest()


def _render(body: JsonDict) -> bytes:
    checksum = hashlib.sha256(canonical_json(body)).hexdigest()
    text = json.dumps({**body, "record_sha256": checksum}, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def _upgraded(record_type: type[Record], body: JsonDict, version: object, place: str) -> JsonDict:
    newest = record_type.schema_version
    while type(version) is int and version < newest and version in record_type.upgrades:
        body = record_type.upgrades[version](body)
        version += 1
    if type(version) is not int or version != newest:
        raise CorruptRecordError(
            f"{place} must be a {record_type.kind} record of a schema version that this release can read (up to "
            f"{newest}), found version {version!r}; read it with another release of pile-pipeline"
        )
    return body


def _validate(record_type: type[RecordT], body: JsonDict, place: str) -> RecordT:
    try:
        return record_type.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"])
        raise _damaged(record_type, place, f"field {field!r}: {first['msg']}") from error


def _damaged(record_type: type[Record], place: str, reason: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"{place} must be a {record_type.kind} record, but {reason}; "
        f"restore the file or delete it{record_type.if_deleted}"
    )
