"""Kill a demo run at random moments, let it finish, and compare with a run that nobody disturbed.

    python tests/e2e/kill_at_random.py --kills 20 [--seed 1] [--set FIELD=VALUE ...]

Each round starts `pile run demo` in a process group of its own and kills the whole tree with SIGKILL after a
random time. Then one run goes through undisturbed. It must end with the content digests of the reference run,
stage by stage, weights included, and every part that was committed before a kill must still be the one of the
attempt that committed it: nothing that was finished was done again. Prints JSON; exit code 1 if that fails.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PASSING = ("step-", "sketch-", "contained-", "held-out-index", "containment-index", "drops")
"""How the names of parts begin that no manifest names: checkpoints, and what dedup works out on its way."""


def read_options(description: str | None, prefix: str) -> argparse.Namespace:
    """Read the options of a trial, and say where it works and with which seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    options.folder = options.folder or Path(tempfile.mkdtemp(prefix=prefix))
    say(f"working in {options.folder}, seed {options.seed}")
    return options


def main() -> int:
    """Run the trial and say what was found."""
    options = read_options(__doc__, "pile-kill-")
    folder, seed = options.folder, options.seed

    started = time.monotonic()
    finish(folder / "reference", options.overrides)
    length = time.monotonic() - started
    expected = digests(folder / "reference")
    say(f"the reference run took {length:.0f} s")

    moments = random.Random(seed)
    committed: dict[str, bytes] = {}
    landed = 0
    for number in range(options.kills):
        # Most rounds start Prefect first; moments cover that start-up and the work of several parts after it.
        moment = moments.uniform(2.0, 12.0 + length / 6)
        landed += kill_after(moment, folder / "killed", options.overrides)
        remember(folder / "killed", committed)
        say(f"kill {number + 1}/{options.kills} after {moment:.1f} s: {len(committed)} parts committed so far")
    finish(folder / "killed", options.overrides)

    found = digests(folder / "killed")
    redone = sorted(path for path, record in committed.items() if changed(path, record))
    result = {
        "kills": options.kills,
        "kills_that_hit_a_running_process": landed,
        "seed": seed,
        "stages": {stage: found.get(stage) == digest for stage, digest in expected.items()},
        "parts_committed_before_a_kill": len(committed),
        "parts_redone": redone,
    }
    result["holds"] = bool(expected) and all(result["stages"].values()) and not redone and landed > 0
    print(json.dumps(result, indent=1))
    return 0 if result["holds"] else 1


def pile(*arguments: str) -> list[str]:
    """Return a `pile` command line of this interpreter."""
    return [sys.executable, "-m", "flows.command", *arguments]


def run_command(store: Path, overrides: list[str]) -> list[str]:
    """Return the command that runs the demo."""
    settings = [argument for override in overrides for argument in ("--set", override)]
    return pile("run", "demo", "--store", str(store), *settings)


def environment(store: Path) -> dict[str, str]:
    """Keep Prefect's database beside the store: a killed server must not harm the user's own one."""
    store.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "PREFECT_HOME": str(store.parent / f"{store.name}-prefect")}


def finish(store: Path, overrides: list[str]) -> None:
    """Let one run go through."""
    log = store.parent / f"{store.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            run_command(store, overrides), env=environment(store), stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise SystemExit(f"an undisturbed run must end with 0, found {done.returncode}; see {log}")


def kill_after(seconds: float, store: Path, overrides: list[str]) -> bool:
    """Start a run and kill its whole tree; False if it had ended by itself before."""
    with (store.parent / f"{store.name}.log").open("ab") as output:
        process = subprocess.Popen(
            run_command(store, overrides),
            env=environment(store),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        time.sleep(seconds)
        running = process.poll() is None
        if running:
            root = psutil.Process(process.pid)
            kill_tree([root, *root.children(recursive=True)])
        process.wait()
    return running


def kill_tree(processes: list[psutil.Process]) -> None:
    """Kill all at once: stopped first, so that nobody reacts to the death of another."""
    for deadly in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(deadly)


def remember(store: Path, committed: dict[str, bytes]) -> None:
    """Note every part record that exists now."""
    for path in store.glob("artifacts/*/*/parts/*.json"):
        committed.setdefault(str(path), path.read_bytes())


def changed(path: str, record: bytes) -> bool:
    """Say whether a part was committed again. Those may be gone that newer ones replace, or that the stage removes
    when it is done."""
    now = Path(path)
    if not now.exists():
        return not now.name.startswith(PASSING)
    return now.read_bytes() != record


def digests(store: Path) -> dict[str, str]:
    """Return content digest per stage, as `pile show --digests` prints them."""
    shown = subprocess.check_output(pile("show", "--digests", "--json", "--store", str(store)))
    found: dict[str, str] = json.loads(shown)
    return found


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
