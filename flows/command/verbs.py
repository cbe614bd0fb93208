"""The verbs of `pile`: what each is for, its options, and its function, imported when the verb is chosen."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from flows.command.models.gpus import GPUS

Parser = argparse.ArgumentParser


@dataclass(frozen=True)
class Verb:
    """One verb."""

    about: str
    reference: str
    """Its function, as `module:attribute`; takes the parsed options and returns the exit code."""
    options: Callable[[Parser], None] = lambda parser: None
    example: str = "pile"
    """A command that people copy, shown at the end of its help."""
    has_json: bool = True
    runs: bool = False
    """Whether it runs stages: it shows how far they are, and another one goes on where it was stopped."""
    serves: bool = False
    """Whether Ctrl-C is how it ends, also in a shell's background job, which starts with it ignored."""


def _recipe(parser: Parser) -> None:
    parser.add_argument("recipe", nargs="?", default="demo", help="name or .yaml/.json file")
    parser.add_argument("files", nargs="*", help="files and folders to read, for the recipe own-files")
    _overrides(parser)


def _overrides(parser: Parser) -> None:
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="replace a field of the recipe, as train_tokenizer.vocab_size=3000; null switches a stage off",
    )  # fmt: skip


def _target(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--target", default="all", metavar="STAGE", help="the last stage wanted (all)")
    parser.add_argument("--force", action="append", default=[], metavar="STAGE", help="run this stage again")


def _run(parser: Parser) -> None:
    _target(parser)
    parser.add_argument("--detach", action="store_true", help="go on in the background; see status, logs, cancel")


def _smoke(parser: Parser) -> None:
    _recipe(parser)
    parser.add_argument("--target", default="all", metavar="STAGE", help="the last stage wanted (all)")


def _filter(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="PATH", help="files and folders of documents")
    parser.add_argument(
        "--try", dest="recipe", required=True, metavar="RECIPE",
        help="name or .yaml/.json file; its sections filter and dedup judge",
    )  # fmt: skip
    _overrides(parser)
    parser.add_argument("--subset", metavar="NAME", help="judge all of them as documents of this subset")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="documents in all (200)")
    parser.add_argument("--html", metavar="PAGE", help="also write a page with the decisive places marked")


def _one_run(parser: Parser) -> None:
    parser.add_argument("run", nargs="?", help="run id or recipe name (default: the newest, or the one at work)")


def _logs(parser: Parser) -> None:
    _one_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")


def _why(parser: Parser) -> None:
    parser.add_argument("stage")
    _recipe(parser)


def _ls(parser: Parser) -> None:
    parser.add_argument("--stage", help="only artifacts of this stage")
    parser.add_argument("--runs", action="store_true", help="list runs instead of artifacts")


def _show(parser: Parser) -> None:
    parser.add_argument(
        "what", nargs="?", help="stage, stage/key, run id or recipe name (default: the newest run)"
    )
    parser.add_argument("--digests", action="store_true", help="only the content digest of each stage")


def _lineage(parser: Parser) -> None:
    parser.add_argument("what", help="stage/key, or a stage, for its result finished last")


def _verify(parser: Parser) -> None:
    parser.add_argument("--stage", help="only artifacts of this stage")


def _gc(parser: Parser) -> None:
    parser.add_argument("--delete", action="store_true", help="delete it; without this nothing is deleted")
    parser.add_argument(
        "--kept", dest="list_kept", action="store_true", help="list what stays, and why, instead of what goes"
    )
    parser.add_argument(
        "--keep-runs", type=int, default=3,
        help="newest results of each recipe to keep; failed and empty runs do not count (3)",
    )  # fmt: skip
    parser.add_argument(
        "--min-age-hours", type=float, default=24.0, help="leave alone what is younger, finished or not (24)"
    )


def _pin(parser: Parser) -> None:
    parser.add_argument("name", nargs="?")
    parser.add_argument("what", nargs="?", help="stage/key, or a stage, for its result finished last")
    parser.add_argument("--remove", action="store_true", help="remove the pin of this name")


def _recipes(parser: Parser) -> None:
    parser.add_argument("recipe", nargs="?", help="name or .yaml/.json file; shows what differs from the defaults")
    parser.add_argument("--full", action="store_true", help="show the fields that are as by default, too")


def _plugins(parser: Parser) -> None:
    parser.add_argument("seam", nargs="?", help="only this seam, as source")
    parser.add_argument("member", nargs="?", help="show the fields of this member of it, as mirror")


def _estimate(parser: Parser) -> None:
    parser.add_argument("model", help="preset, recipe or a recipe's .yaml/.json file")
    parser.add_argument("--tokens", type=float, help="tokens to train on (default: the recipe's; 300e9)")
    parser.add_argument("--sequence-length", type=int, metavar="N", help="tokens of a sequence")
    parser.add_argument("--gpu", help=f"reckon for GPUs of a kind: {', '.join(GPUS)} (default: this machine)")
    parser.add_argument("--gpus", type=int, metavar="N", help="reckon for this many GPUs (64 with --gpu)")
    parser.add_argument("--mfu", type=float, default=0.4, help="part of the peak FLOPS that is used (0.4)")
    parser.add_argument(
        "--layers", action="store_true", help="list the layers one by one, if the family has a table"
    )
    parser.add_argument("--price", type=float, help="price of a GPU hour, to see the cost")


def _generate(parser: Parser) -> None:
    parser.add_argument(
        "what", nargs="?", help="recipe, run id, stage, stage/key or folder (default: the model finished last)"
    )
    parser.add_argument(
        "--prompt", nargs="+", action="extend", metavar="TEXT", help="- reads standard input; put what before it"
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="most tokens to add (128)")
    parser.add_argument("--greedy", action="store_true", help="take the likeliest token instead of drawing one")
    parser.add_argument("--temperature", type=float, default=0.8, help="above 1 is wilder, below tamer (0.8)")
    parser.add_argument("--top-k", type=int, default=0, help="draw from this many likeliest tokens (0: all)")
    parser.add_argument("--top-p", type=float, default=0.95, help="draw from this much probability (0.95)")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 avoids repetition (1)")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another text (0)")
    parser.add_argument("--kv-budget", type=int, metavar="KEYS", help="most keys that a layer remembers")
    parser.add_argument("--no-cache", action="store_true", help="read everything again for each token")
    parser.add_argument("--classify", action="store_true", help="say tone and field of each text, too")


def _completion(parser: Parser) -> None:
    parser.add_argument(
        "shell", choices=("bash", "zsh", "runs"), help="runs: the run ids of a store, which the script asks for"
    )
    parser.set_defaults(script=f"{SCRIPT}:script")  # brings recipes: run ids must come at once


def _up(parser: Parser) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=4200)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, found {text!r}")
    return int(text)


RUN, SMOKE, PLAN, CONTROL = (f"flows.command.running.{name}" for name in ("run", "smoke", "plan", "control"))
SCRIPT = "flows.command.completion_script"
SHOW, UPKEEP = "flows.command.store.show", "flows.command.store.upkeep"

VERBS = {
    "run": Verb(
        "run a recipe; finished stages are taken, not made again", f"{RUN}:run", _run,
        runs=True, example="pile run demo --set train.max_steps=100",
    ),
    "smoke": Verb("try a recipe out: all of its stages on a hundredth of the text, in minutes", f"{SMOKE}:smoke",
        _smoke, runs=True, example="pile smoke gpt2-124m --set download.source.url=https://example.org/pile",
    ),
    "filter": Verb("say what filter and dedup would do with the first documents of files, and why",
        "flows.command.filtering:try_filter", _filter,
        example="pile filter --try pile my.jsonl.zst --html verdicts.html",
    ),
    "status": Verb("say what runs, how far it is and when it will be done", f"{CONTROL}:status", _one_run,
        example="pile status",
    ),
    "logs": Verb("print the log of a run", f"{CONTROL}:logs", _logs, has_json=False,
        example="pile logs --follow demo",
    ),
    "cancel": Verb("stop a run, from any machine that sees the store", f"{CONTROL}:cancel", _one_run,
        example="pile cancel demo",
    ),
    "plan": Verb("say what a run would do; writes nothing", f"{PLAN}:plan", _target,
        example="pile plan demo --set pack.sequence_length=512",
    ),
    "why": Verb("explain why one stage is cached, would run or waits", f"{PLAN}:why", _why,
        example="pile why train demo",
    ),
    "ls": Verb("list artifacts, or runs", f"{SHOW}:ls", _ls, example="pile ls --stage train"),
    "show": Verb("show a run or an artifact", f"{SHOW}:show", _show, example="pile show train"),
    "lineage": Verb("show what an artifact was made from", f"{SHOW}:lineage", _lineage,
        example="pile lineage publish",
    ),
    "verify": Verb("read every record and file; name those that are damaged", f"{UPKEEP}:verify", _verify,
        example="pile verify --stage download",
    ),
    "gc": Verb("find what newer results have replaced and nothing needs", f"{UPKEEP}:gc", _gc,
        example="pile gc --keep-runs 5",
    ),
    "pin": Verb("list pins, or keep an artifact from garbage collection", f"{UPKEEP}:pin", _pin,
        example="pile pin best train",
    ),
    "recipes": Verb("list the recipes, or the fields of one", "flows.command.running.recipes:recipes", _recipes,
        example="pile recipes demo --json > mine.json",
    ),
    "plugins": Verb(
        "list the members of every seam, of other packages too, or the fields of one",
        "flows.command.plugins:plugins", _plugins, example="pile plugins source mirror",
    ),
    "estimate": Verb(
        "say what a model is and what its training takes", "flows.command.models.estimate:estimate", _estimate,
        example="pile estimate world-800m --gpu h100 --gpus 8",
    ),
    "generate": Verb(
        "continue texts with a trained or published model", "flows.command.models.generate:generate", _generate,
        example="pile generate --prompt 'def main(' --greedy",
    ),
    "completion": Verb("print what makes a shell complete verbs, options, recipes, stages and runs",
        "flows.command.completion:completion", _completion, has_json=False,
        example="source <(pile completion bash)",
    ),
    "up": Verb(
        "start a Prefect server with its UI, workers and the deployments", "flows.command.up:up", _up,
        has_json=False, serves=True, example="pile up --port 4200",
    ),
}  # fmt: skip
