"""Take the store away from a run, once in each stage, and compare with a run that nobody disturbed.

    python tests/e2e/store_outage.py [--seconds 120] [--stages train,filter] [--silent] [--set FIELD=VALUE ...]

The store is an S3 server of this machine behind a proxy. As soon as a stage holds its lease (and the training has
saved a checkpoint) the proxy goes for so many seconds: connections are cut, new ones refused, or, with --silent,
accepted and never answered. The run must end by itself, with 0 and the content digests of the reference run.
Prints JSON; exit code 1 if that fails.
"""

import argparse
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import botocore.session
from kill_at_random import digests, environment, run_command, say
from moto.server import ThreadedMotoServer

STAGES = (
    *("download", "filter", "dedup", "train-tokenizer", "tokenize"),
    *("pack", "train", "evaluate", "publish"),
)
SMALL = [
    *("download.source.text_bytes=1500000", "download.source.val_fraction=0.05", "execution.workers=2"),
    *("download.source.test_fraction=0.1", "download.shard_bytes=400000", "train_tokenizer.vocab_size=1024"),
    *("pack.sequence_length=64", "train.max_steps=40", "train.warmup_steps=2", "train.checkpoint_every=4"),
    *("train.eval_every=20", "train.log_every=5", "evaluate.sample_tokens=16"),
]
BUCKET, PREFIX = "pile", "outage"


class Proxy:
    """Passes connections on to a server, until it is cut."""

    def __init__(self, target: tuple[str, int], *, silent: bool) -> None:
        self.target, self.silent = target, silent
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Let nobody through."""
        self._is_cut = True
        if not self.silent:
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept that waits
            self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let all through again; whoever is waiting for an answer gets none."""
        self._is_cut = False
        if not self.silent:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._is_cut:
            time.sleep(600)  # never an answer
        with client, socket.create_connection(self.target) as server:
            self._open |= {client, server}
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
            self._open -= {client, server}

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def cut_in_each_stage(
    run: "subprocess.Popen[bytes]", proxy: Proxy, client: Any, stages: list[str], seconds: float
) -> list[str]:
    """Cut the proxy when a stage is at work, until the run ends; return the stages that were hit."""
    hit: list[str] = []
    while run.poll() is None:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/leases/").get("Contents", [])
        working = {entry["Key"].split("/")[-2] for entry in found}
        if "train" in working and not hit.count("train"):  # in the middle: when it has saved a checkpoint
            parts = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/artifacts/train/").get("Contents", [])
            if not any("/parts/step-" in entry["Key"] for entry in parts):
                working.remove("train")
        for stage in working.intersection(stages).difference(hit):
            proxy.cut()
            say(f"the store is away from {stage}")
            time.sleep(seconds)
            proxy.mend()
            say("the store is back")
            if run.poll() is None:
                hit.append(stage)
        time.sleep(0.1)
    return hit


def main() -> int:
    """Run the trial and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the store is away in each stage")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--silent", action="store_true", help="accept connections and never answer")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="pile-outage-"))
    stages, overrides = options.stages.split(","), [*SMALL, *options.overrides]
    say(f"working in {folder}")

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "reference.log").open("wb") as log:
        reference = environment(folder / "reference")
        subprocess.run(
            run_command(folder / "reference", overrides), env=reference, stdout=log, stderr=log, check=True
        )
    expected = digests(folder / "reference")

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port(), silent=options.silent)
    session = botocore.session.Session()
    session.set_credentials("key", "secret")
    host, port = server.get_host_and_port()
    client = session.create_client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    url = f"s3://{BUCKET}/{PREFIX}"
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PILE_SCRATCH": str(folder / "machine"),
    }
    started = time.monotonic()
    with (folder / "outage.log").open("wb") as log:
        command = run_command(Path("store"), overrides)
        command[command.index("store")] = url
        run = subprocess.Popen(command, env={**environment(folder / "outage"), **settings}, stdout=log, stderr=log)
        hit = cut_in_each_stage(run, proxy, client, stages, options.seconds)
    os.environ.update(settings)
    shown = subprocess.run(
        [sys.executable, "-m", "flows.command", "show", "--digests", "--json", "--store", url],
        stdout=subprocess.PIPE,
        check=False,
    )
    found = json.loads(shown.stdout or "{}")
    result = {
        "seconds_away_in_each_stage": options.seconds,
        "stages_hit": hit,
        "exit_code": run.returncode,
        "seconds": round(time.monotonic() - started),
        "stages_equal": {stage: found.get(stage) == digest for stage, digest in expected.items()},
    }
    result["holds"] = (
        run.returncode == 0 and bool(expected) and found == expected and sorted(hit) == sorted(stages)
    )
    print(json.dumps(result, indent=1))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
