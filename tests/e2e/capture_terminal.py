"""Capture what a person sees of `pile` on a terminal of 80 columns and 24 lines, and write docs/terminal.md.

    python tests/e2e/capture_terminal.py [FOLDER]

Types the commands into bash inside tmux, in a new folder, which is removed at the end; its path stands in the
captures, so choose a short one. Names on standard error the lines that were too long. About ten minutes.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "terminal.md"
COLUMNS, LINES = 80, 24
PROMPT = "$ "
SOCKET = "pile-captures"
"""Of a tmux server of our own: settings and sessions of the user's stay out of it."""
COMMAND_SECONDS = 900.0

RECIPE = """\
based_on: demo
download:
  source: {text_bytes: 1000000, val_fraction: 0.2, test_fraction: 0.2}
train_tokenizer: {vocab_size: 1024}
train: {max_steps: 50, global_batch_size: 8, eval_every: 20}
evaluate: {sample_tokens: 16}
"""
STORY = (
    "The river rises in the hills to the north of the town, where it is no wider than a step.\n"
    "Three mills once stood along it, of which one still grinds flour for the bakers of the valley.\n"
    "Below the last of them it turns to the east, and with the spring rains it floods the meadows.\n"
    "That is why the old road runs along the slope, and why no house stands below the church.\n"
)
SITE = "".join(f"{json.dumps({'text': text})}\n" for text in ("Home\nNews\nThe river\n" * 30, STORY, STORY[89:]))
LONGER = "pile run small.yaml --set train.max_steps=5000"
IN_TRAINING = r"train .* steps.* left, loss"

INTRODUCTION = """\
# The terminal

What `pile` shows on a terminal of 80 columns and 24 lines, without colour. `make captures` writes this page anew.
"""

LISTINGS = {
    "What there is": [
        "pile ls", "pile ls --runs", "pile show", "pile show train", "pile status", "pile logs | tail -n 5",
    ],
    "What a result was made from": ["pile lineage publish", "pile why train small.yaml"],
    "What a recipe is, and what it takes": [
        "pile recipes", "pile recipes demo", "pile estimate demo", "pile plugins source",
        "pile plugins source python-environment",
    ],
    "What would be dropped, and why": ["pile filter --try gpt2-124m --subset Pile-CC site.jsonl"],
    "Looking after the store": [
        "pile verify", "pile gc", "pile gc --kept | head", "pile pin best train", "pile pin",
        "pile pin --remove best",
    ],
    "Using a model": ["pile generate --prompt 'def ' --max-new-tokens 40 --greedy"],
    "A misspelt word": [
        "pile rnu demo", "pile run dmeo", "pile plan demo --set train.max_step=60", "pile show evalaute",
        "pile plan demo --set train.max_steps=many", "pile ls --store nowhere",
    ],
}  # fmt: skip
"""Commands that end by themselves in seconds, by what people want of them."""


class Terminal:
    """A shell inside tmux."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        size = ("-x", str(COLUMNS), "-y", str(LINES))
        # Whoever waits for the shell is told each time that it asks for a command.
        told = f"PROMPT_COMMAND=tmux wait-for -S {name}"
        tmux(
            "new-session", "-d", "-s", name, *size, "-c", str(folder), "-e", f"PS1={PROMPT}", "-e", told,
            "bash", "--norc", "--noprofile",  # as words: a shell between would drop PS1
        )  # fmt: skip
        self._await_prompt()

    def begin(self, command: str) -> None:
        """Type a command on an empty screen."""
        tmux("send-keys", "-t", self.name, "-R", "C-l")
        tmux("clear-history", "-t", self.name)
        time.sleep(0.3)  # for the shell to draw its prompt
        self.press(command, "Enter")

    def press(self, *keys: str) -> None:
        """Press keys."""
        tmux("send-keys", "-t", self.name, *keys)

    def ended(self) -> str:
        """Return what the terminal shows once the command has ended, what was scrolled away included."""
        self._await_prompt()
        time.sleep(0.3)
        return self.screen("-S", "-")

    def run(self, command: str) -> str:
        """Type a command and return what the terminal shows in the end."""
        self.begin(command)
        return self.ended()

    def shows(self, pattern: str) -> str:
        """Return the screen as soon as something is on it."""
        end = time.monotonic() + COMMAND_SECONDS
        while not re.search(pattern, screen := self.screen()):
            if time.monotonic() > end:
                sys.exit(f"{pattern!r} must come, but the terminal shows:\n{screen}")
            time.sleep(0.2)
        return screen

    def screen(self, *options: str) -> str:
        """Return the screen without an empty prompt at its end; tell of lines that did not fit."""
        whole = tmux("capture-pane", "-p", "-J", "-t", self.name, *options)
        for line in whole.splitlines():
            if len(line.rstrip()) > COLUMNS and not line.startswith(PROMPT):
                print(f"wrapped: {line.rstrip()}", file=sys.stderr)
        text = tmux("capture-pane", "-p", "-t", self.name, *options).rstrip()
        return text.removesuffix(PROMPT.rstrip()).rstrip()

    def _await_prompt(self) -> None:
        tmux("wait-for", self.name)


def main() -> None:
    """Capture all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path.home() / "corpus", help="a new folder")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True)
    set_environment(folder)
    (folder / "small.yaml").write_text(RECIPE)
    (folder / "site.jsonl").write_text(SITE)
    try:
        pieces = list(sections(folder))
    finally:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # there may be none
            tmux("kill-server")
        shutil.rmtree(folder)
    PAGE.write_text("\n".join([INTRODUCTION, *(f"{piece}\n" for piece in pieces)]))


def set_environment(folder: Path) -> None:
    """Let the commands use nothing but this folder and the `pile` beside this Python."""
    for name in ("PREFECT_API_URL", "PILE_STORE", "TMUX"):
        os.environ.pop(name, None)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ.update(PATH=path, PREFECT_HOME=str(folder / ".prefect"), LC_ALL="C.UTF-8", NO_COLOR="1")


def sections(folder: Path) -> Iterator[str]:
    """Yield the page piece by piece."""
    first, second = Terminal("first", folder), Terminal("second", folder)
    yield section("The command", "", first.run("pile"))
    yield from runs(first)
    yield from stopped(first, second)
    for title, commands in LISTINGS.items():
        yield section(title, "", *(first.run(command) for command in commands))
    yield from without_terminal(first)
    yield section("A trial", "All stages on a hundredth of the text.", first.run("pile smoke small.yaml"))


def runs(terminal: Terminal) -> Iterator[str]:
    """Yield a run at work, done, cached, and failed."""
    yield section("A run", "A small demo:", terminal.run("cat small.yaml"))
    yield section("What it would do", "", terminal.run("pile plan small.yaml"))
    terminal.begin("pile run small.yaml")
    yield section("At work", "The last line grows.", terminal.shows(IN_TRAINING))
    yield section("Done", "", terminal.ended())
    yield section("Once more", "Every stage is cached.", terminal.run("pile run small.yaml"))
    failing = "pile run small.yaml --set train_tokenizer.vocab_size=60000"
    yield section("Failed", "The text is too small for this vocabulary.", terminal.run(failing))


def stopped(first: Terminal, second: Terminal) -> Iterator[str]:
    """Yield a run that another terminal cancels, what is said of it then, and one that Ctrl-C ends."""
    first.begin(LONGER)
    first.shows(IN_TRAINING)
    seen = [second.run("pile status"), second.run("pile cancel")]
    yield section("Cancelled", "From another terminal:", *seen)
    yield section("What the first terminal shows", "", first.ended(), first.run("echo $?"))
    changed = LONGER.replace("run", "plan") + " --set train.learning_rate=0.001"
    yield section("What is left of it", "With another learning rate:", first.run(changed))
    first.begin(LONGER)
    first.shows(IN_TRAINING)
    first.press("C-c")
    yield section(
        "Interrupted", "The same command continues it; then Ctrl-C.", first.ended(), first.run("echo $?")
    )


def without_terminal(terminal: Terminal) -> Iterator[str]:
    """Yield runs in the background, into a file and as JSON, each in a store of its own."""
    begun = terminal.run("pile run small.yaml --target dedup --store third --detach")
    yield section("In the background", "", begun, terminal.run("pile cancel --store third"))
    terminal.run("pile run small.yaml --store second > run.txt 2>&1")
    yield section("Into a file", "", terminal.run("cat run.txt"))
    terminal.run("pile run small.yaml --target dedup --store fourth --json > events.txt")
    ends = terminal.run("(head -n 3; tail -n 1) < events.txt")
    yield section("As JSON", "The first events and the last; [events.md](events.md) lists them.", ends)


def section(title: str, text: str, *screens: str) -> str:
    """Return a heading, a sentence and a block of screens."""
    screen = without_host("\n".join(screens))
    return "\n".join([f"## {title}\n", *([f"{text}\n"] if text else []), "~~~~text", screen, "~~~~"])


def without_host(screen: str) -> str:
    """Return a screen with another name for this machine, and as wide as before."""
    host = socket.gethostname()
    return re.sub(rf"\b{re.escape(host)}\b", "pc".ljust(len(host))[: len(host)], screen)


def tmux(*arguments: str) -> str:
    """Run a tmux command and return what it prints."""
    command = ["tmux", "-L", SOCKET, "-f", os.devnull, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS).stdout


if __name__ == "__main__":
    main()
