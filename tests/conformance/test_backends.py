"""Every registered store backend keeps every promise.

One that needs a server is run where PILE_TEST_STORES names an empty place for it, as in
`PILE_TEST_STORES="gs=gs://bucket/tests az=az://container/tests"`; the others get a folder of this machine.
"""

import os
import pickle
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from storage.artifacts.store import Store
from storage.backends import s3_filesystem
from storage.backends.base import StoreBackend
from storage.backends.patient import PatientBackend
from storage.backends.registry import BACKENDS, open_backend
from tests.conformance.backend_checks import CHECKS, Place
from tests.conformance.backend_race_checks import RACE_CHECKS
from tests.s3_server import s3_client, s3_endpoint, s3_settings, s3_url  # noqa: F401 - fixtures

REPOSITORY = Path(__file__).parents[2]

SERVERS = dict(pair.split("=", 1) for pair in os.environ.get("PILE_TEST_STORES", "").split())


PATIENT = "patient-"
"""Before a scheme: the same, behind a PatientBackend, which keeps the promises of what is behind it."""


def open_patient(url: str) -> StoreBackend:
    """Open a root with little patience."""
    return PatientBackend(open_backend(url), 0.2)


@pytest.fixture(params=[*BACKENDS.names(), f"{PATIENT}file", f"{PATIENT}s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A registered member on an empty root."""
    scheme = request.param.removeprefix(PATIENT)
    found = place_of(scheme, request, tmp_path)
    if scheme == request.param:
        return found
    behind = found.open_unreachable
    return replace(
        found,
        open=open_patient,
        open_unreachable=behind and (lambda: PatientBackend(behind(), 0.2)),
    )


def place_of(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty root for a member."""
    folder = tmp_path / "machine"
    folder.mkdir()
    if scheme in SERVERS:
        return Place(open_backend, f"{SERVERS[scheme]}/{uuid.uuid4().hex}", folder)
    if scheme == "s3":
        found: Place = request.getfixturevalue("s3_place")
        return found
    (tmp_path / "file").write_bytes(b"in the way of a folder")
    unreachable = partial(open_backend, f"{scheme}://{tmp_path}/file/store")
    return Place(open_backend, f"{scheme}://{tmp_path}/store", folder, unreachable, tmp_path)


@pytest.fixture
def s3_place(
    s3_url: str,  # noqa: F811
    s3_settings: Callable[[str], None],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    def unreachable() -> StoreBackend:
        monkeypatch.setattr(s3_filesystem, "TRIES", 1)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            s3_settings(f"http://127.0.0.1:{unused.getsockname()[1]}")
        return open_backend(s3_url)

    return Place(open_backend, s3_url, tmp_path / "machine", unreachable)


@pytest.mark.parametrize("check", CHECKS)
def test_backend(check: str, place: Place) -> None:
    CHECKS[check](place)


@pytest.mark.parametrize("check", RACE_CHECKS)
def test_backend_that_many_use(check: str, place: Place) -> None:
    RACE_CHECKS[check](place)


READ = "import pickle, sys; print(pickle.load(sys.stdin.buffer).backend.read('a').decode())"


def test_store_crosses_processes(place: Place, tmp_path: Path) -> None:
    store = Store(place.url)
    store.backend.write("a", "здесь".encode())
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps(store),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.stdout.decode() == "здесь\n", done.stderr.decode()
