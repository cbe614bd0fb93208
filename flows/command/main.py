"""The `pile` command: reads arguments, turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 bad input.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from flows.command import estimate as commands_estimate
from flows.command import run as commands
from flows.command import store as commands_store
from flows.stages import LAST
from storage.errors import Fault, InputError
from storage.registry import LazyFunction
from tasks.core.context import LOGGERS

GENERATE = LazyFunction("flows.command.generate:generate")  # loads torch

DEBUG = "PILE_DEBUG"
"""Environment variable that shows the whole trace of an error."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is, so that everything is cleaned up on the way out."""


def _terminate(*_: object) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    options = build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    if options.command is commands.up:  # a shell starts background jobs with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _show_log_lines(logging.WARNING if options.quiet else logging.INFO)
    try:
        code = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough, as in `pile ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except _Terminated:
        code = _fail(f"terminated{_goes_on(options.command)}", 143)
    except KeyboardInterrupt:
        code = _fail(f"interrupted{_goes_on(options.command)}", 130)
    except InputError as error:
        code = _fail(str(error), 2)
    except Fault as error:
        code = _fail(str(error), 1)
    except NotADirectoryError as error:
        code = _fail(f"{error.filename} must be inside a folder, but a file is in the way; use another --store", 2)
    except OSError as error:
        code = _fail(_explain(error), 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence before the user
        code = _fail(f"unexpected {type(error).__name__}: {error}; set {DEBUG}=1 to see where", 1)
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(prog="pile", description="From raw text to a published language model.")
    parser.add_argument("--quiet", action="store_true", help="no log lines, only results and errors")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, command: commands.Command, about: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        added.add_argument("--store", help="folder or s3:// URL (default: PILE_STORE, else ./pile-store)")
        return added

    def recipe_options(verb_parser: argparse.ArgumentParser, *, target: bool = True) -> None:
        verb_parser.add_argument("recipe", nargs="?", default="demo", help="name or .yaml/.json file")
        verb_parser.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
            help="replace a field of the recipe, as train_tokenizer.vocab_size=3000",
        )  # fmt: skip
        if target:
            verb_parser.add_argument("--target", default=LAST, metavar="STAGE", help="the last stage wanted")
            verb_parser.add_argument(
                "--force", action="append", default=[], metavar="STAGE", help="run this stage again"
            )

    run = verb("run", commands.run, "run a recipe; finished stages are taken, not made again")
    recipe_options(run)
    plan = verb("plan", commands.plan, "say what a run would do; writes nothing")
    recipe_options(plan)
    why = verb("why", commands.why, "explain why one stage is cached, would run or waits")
    why.add_argument("stage")
    recipe_options(why, target=False)
    listing = verb("ls", commands_store.ls, "list artifacts, or runs")
    listing.add_argument("--stage", help="only artifacts of this stage")
    listing.add_argument("--runs", action="store_true", help="list runs instead of artifacts")
    show = verb("show", commands_store.show, "show a run or an artifact")
    show.add_argument("what", nargs="?", help="stage, stage/key, run id or recipe name (default: the newest run)")
    show.add_argument("--digests", action="store_true", help="only the content digest of each stage")
    lineage = verb("lineage", commands_store.lineage, "show what an artifact was made from")
    lineage.add_argument("what", help="stage/key, or a stage of the newest run")
    verify = verb("verify", commands_store.verify, "read every record and file; name those that are damaged")
    verify.add_argument("--stage", help="only artifacts of this stage")
    gc = verb("gc", commands_store.gc, "find what no pin and no recent run needs")
    gc.add_argument("--delete", action="store_true", help="delete it; without this nothing is deleted")
    gc.add_argument("--keep-runs", type=int, default=3, help="newest runs of each recipe to keep (3)")
    gc.add_argument("--min-age-hours", type=float, default=24.0, help="leave younger files alone (24)")
    pin = verb("pin", commands_store.pin, "list pins, or keep an artifact from garbage collection")
    pin.add_argument("name", nargs="?")
    pin.add_argument("what", nargs="?", help="stage/key, or a stage of the newest run")
    pin.add_argument("--remove", action="store_true", help="remove the pin of this name")
    recipes = verb("recipes", commands.recipes, "list the recipes, or the fields of one")
    recipes.add_argument("recipe", nargs="?")
    estimate = verb("estimate", commands_estimate.estimate, "say what a model is and what its training takes")
    estimate.add_argument("model", help="preset, recipe or a recipe's .yaml/.json file")
    estimate.add_argument("--tokens", type=float, help="tokens to train on (default: the recipe's; 300e9)")
    estimate.add_argument("--sequence-length", type=int, metavar="N", help="tokens of a sequence")
    estimate.add_argument("--gpu", choices=commands_estimate.GPUS, default="h100", help="kind of GPU (h100)")
    estimate.add_argument("--gpus", type=int, default=64, metavar="N", help="number of GPUs (64)")
    estimate.add_argument("--mfu", type=float, default=0.4, help="part of the peak FLOPS that is used (0.4)")
    estimate.add_argument(
        "--layers", action="store_true", help="list the layers, if the family has a table of them"
    )
    estimate.add_argument("--price", type=float, help="price of a GPU hour, to see the cost")
    generate = verb("generate", GENERATE, "continue texts with a trained or published model")
    generate.add_argument("what", nargs="?", help="train/key, publish/key, a stage of the newest run, or a folder")
    generate.add_argument(
        "--prompt", nargs="+", action="extend", metavar="TEXT", help="- reads standard input; put what before it"
    )
    generate.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens to add (128)")
    generate.add_argument("--greedy", action="store_true", help="take the likeliest token instead of drawing one")
    generate.add_argument("--temperature", type=float, default=0.8, help="above 1 is wilder, below tamer (0.8)")
    generate.add_argument("--top-k", type=int, default=0, help="draw from this many likeliest tokens (0: all)")
    generate.add_argument("--top-p", type=float, default=0.95, help="draw from this much probability (0.95)")
    generate.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 avoids repetition (1)")
    generate.add_argument("--seed", type=int, default=0, help="another one gives another text (0)")
    generate.add_argument("--kv-budget", type=int, metavar="KEYS", help="most keys that a layer remembers")
    generate.add_argument("--no-cache", action="store_true", help="read everything again for each token")
    generate.add_argument("--classify", action="store_true", help="say tone and field of each text, too")
    up = verb("up", commands.up, "start a Prefect server with its UI, workers and the deployments")
    up.add_argument("--host", default="127.0.0.1")
    up.add_argument("--port", type=_port, default=4200)
    for listing_verb in (plan, why, listing, show, lineage, verify, gc, pin, recipes, estimate, generate):
        listing_verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, found {text!r}")
    return int(text)


def _show_log_lines(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False  # Prefect's lines, traces included, go to its own log and not to our console


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"there must be room on the disk of {error.filename or 'the store'}, but it is full; free some, or "
            f"use another --store or PILE_SCRATCH, and run again: finished parts are kept"
        )
    if error.errno == errno.EROFS:
        return f"the store must be writable, but its disk is read-only ({error.filename}); use another --store"
    if isinstance(error, PermissionError):
        return f"{error.filename} must be readable and writable, but access was denied; mend its permissions"
    return f"the operating system refused: {error}"


def _goes_on(command: commands.Command) -> str:
    alone = command is GENERATE  # it leaves no parts
    return "" if alone else "; the next run continues from the parts that are finished"


def _fail(message: str, code: int) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(f"pile: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
