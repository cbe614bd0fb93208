"""How a stage is run: find the artifact, else hold the lease, build, publish.

Knows nothing of Prefect: `tasks/core/prefect_task.py` makes a task of it. `pile plan`, worker processes and the
tests of a stage run without Prefect.
"""

import contextlib
import importlib.metadata
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from storage.artifacts.lease import Lease
from storage.artifacts.records import now
from storage.artifacts.store import Artifact
from storage.artifacts.writer import ArtifactWriter
from storage.config import Config
from storage.errors import InputError, LeaseLostError, StoreAwayError
from tasks.core.context import StageContext
from tasks.core.stage import RunContext, Stage, StageResult, input_identity, stage_key

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""How often a run that waits for another one looks whether the artifact is there."""

LEASE_SIGNAL = signal.SIGUSR2
"""Not SIGINT: a shell starts background jobs with that one ignored."""

LIBRARIES = (
    "datatrove",
    "deepspeed",
    "numpy",
    "prefect",
    "pyarrow",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "xxhash",
    "zstandard",
)
"""What shapes results: their versions stand in every manifest."""


def run_stage(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    context: RunContext,
    *,
    force: bool = False,
    resume: bool = True,
) -> StageResult:
    """Return the stage's artifact: the finished one, another run's once it is done, or a new one.

    With `force` a new one in any case; without `resume` none of its parts is taken from an earlier attempt.
    Raises: InputError for what the user must change, a Fault for what a retry may heal, LeaseLostError.
    """
    started = time.monotonic()
    sources = stage.sources(config) if stage.sources else {}
    identity = input_identity(stage, {name: artifact.reference for name, artifact in inputs.items()})
    key = stage_key(stage, config, identity, sources)
    if not force and (found := context.store.find(stage.name, key)):
        return StageResult(found, cached=True, seconds=time.monotonic() - started)
    with _interruptible() as interrupt:
        lease, found = _acquire(stage, key, context, interrupt, force=force)
        if found is not None:
            return StageResult(found, cached=True, seconds=time.monotonic() - started)
        build = partial(_build, stage, config, inputs, sources, key, context, lease)
        try:
            artifact = _patiently(build, stage, context, resume=resume)
        finally:
            lease.release()
    return StageResult(artifact, cached=False, seconds=time.monotonic() - started)


def _acquire(
    stage: Stage, key: str, context: RunContext, interrupt: Callable[[], None], *, force: bool
) -> tuple[Lease, Artifact | None]:
    lease = context.store.lease(stage.name, key, context.run_id, interrupt)
    announced = ""
    while (holder := lease.try_acquire()) is not None:
        if holder.run_id != announced:
            announced = holder.run_id
            log.info("%s/%s is being built by run %s; waiting for it", stage.name, key, holder.run_id)
        time.sleep(WAIT_SECONDS)
        if not force and (found := context.store.find(stage.name, key)):
            return lease, found
    # Between the first look and the lease another run may have finished.
    if not force and (found := context.store.find(stage.name, key)):
        lease.release()
        return lease, found
    return lease, None


def _patiently(build: Callable[..., Artifact], stage: Stage, context: RunContext, *, resume: bool) -> Artifact:
    """Build, and go on with what is finished if that failed while the store was away.

    The store itself waits in each of its calls; but of a folder of this machine that was taken away, the work
    misses its scratch files too.
    """
    while True:
        try:
            return build(resume=resume)
        except (InputError, LeaseLostError, StoreAwayError):
            raise
        except Exception as error:
            if not context.store.wait_if_away():
                raise
            log.warning("%s failed while the store was away, and goes on: %s", stage.name, error)
            resume = True


def _build(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Artifact],
    sources: Mapping[str, str],
    key: str,
    context: RunContext,
    lease: Lease,
    *,
    resume: bool,
) -> Artifact:
    started, clock = now(), time.monotonic()
    writer = ArtifactWriter(context.store, stage.name, key, lease.claim)
    if not resume:
        writer.forget_parts()
    _remove_abandoned_scratch(context.store.scratch(stage.name, key))
    writer.begin(
        version=stage.version,
        config=config.identity(),
        inputs=inputs,
        sources=sources,
        recipe_name=str(context.recipe.get("name", "")),
        run_id=context.run_id,
    )
    stage_context = StageContext(writer, context.execution, context.progress)
    parts = stage.build(config, **inputs, context=stage_context)
    artifact = writer.publish(
        parts,
        reports=stage_context.finish_reports(),
        version=stage.version,
        config=config.identity(),
        inputs=inputs,
        sources=sources,
        recipe=context.recipe,
        run_id=context.run_id,
        code_commit=code_commit(),
        libraries=library_versions(),
        started=started,
        seconds=time.monotonic() - clock,
    )
    context.store.remove_scratch(stage.name, key)
    return artifact


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Give the lease's heartbeat a way to stop the work at once, wherever it is: LeaseLostError is raised there.

    A real signal, since a blocked system call must end too. In a thread other than the main one there is no way;
    such work goes on until its next step, and what it writes is named by no manifest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    main_thread = threading.get_ident()
    previous = signal.signal(LEASE_SIGNAL, _raise_lease_lost)
    try:
        yield lambda: signal.pthread_kill(main_thread, LEASE_SIGNAL)
    finally:
        signal.signal(LEASE_SIGNAL, previous)


def _raise_lease_lost(*_: object) -> None:
    raise LeaseLostError(
        "the lease of a stage must be held to go on, but it was lost to another run; this run stops, "
        "and takes the other one's result when it is started again"
    )


def _remove_abandoned_scratch(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir() and entry.name != "shared":
            shutil.rmtree(entry.path, ignore_errors=True)


@cache
def code_commit() -> str:
    """Return the commit of this code, with `-dirty` if the tree differs; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape results, for the manifest."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
