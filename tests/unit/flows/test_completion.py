"""What a shell completes, asked of bash itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flows
from flows.command.main import main

ASK = """
pile() {{ {python} -m flows.command "$@"; }}
source {script}
function=$(complete -p pile | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_LINE='{words}'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$function pile "${{COMP_WORDS[$COMP_CWORD]}}" "${{COMP_WORDS[$((COMP_CWORD - 1))]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "pile.sh"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as file:
        patch.setattr("sys.stdout", file)
        with pytest.raises(SystemExit) as end:
            main(["completion", "bash"])
    assert end.value.code == 0
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("pile ca", ["cancel"]),
        ("pile run gpt", ["gpt2-124m"]),
        ("pile run --target to", ["tokenize"]),
        ("pile run --force ded", ["dedup"]),
        ("pile why tra", ["train-tokenizer", "train"]),
        ("pile run --det", ["--detach"]),
        ("pile completion z", ["zsh"]),
        ("pile filter --try gpt", ["gpt2-124m"]),
        ("pile filter --ht", ["--html"]),
    ],
)
def test_bash_completes(script: Path, words: str, found: list[str]) -> None:
    assert completed(script, words) == sorted(found)


def completed(script: Path, words: str, **environment: str) -> list[str]:
    """Return what bash completes the last of these words to."""
    ask = ASK.format(script=script, words=words, python=sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(Path(flows.__file__).parents[1]), **environment}
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, env=environment)
    return sorted(done.stdout.split())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two runs, whose records nobody has to read, and a name that a shell would carry out."""
    for run in ("20261128T000000-aaaaaa", "20261129T000000-bbbbbb", "20$(echo${IFS}oh)"):
        path = tmp_path / "store" / "runs" / f"{run}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not JSON")
    return tmp_path / "store"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize("verb", ["status", "logs --follow", "cancel"])
def test_bash_completes_runs_of_the_store_given(script: Path, store: Path, verb: str) -> None:
    words = f"pile {verb} --store {store} 20"
    assert completed(script, words) == ["20261128T000000-aaaaaa", "20261129T000000-bbbbbb"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_runs_of_the_default_store_and_recipes(script: Path, store: Path) -> None:
    assert completed(script, "pile logs 20261129", PILE_STORE=str(store)) == ["20261129T000000-bbbbbb"]
    assert completed(script, "pile cancel gpt", PILE_STORE=str(store)) == ["gpt2-124m"]
    assert completed(script, "pile cancel 2", PILE_STORE=str(store / "none")) == []
    assert completed(script, "pile cancel 2", PILE_STORE="no-such-scheme://x") == []


def test_run_ids_are_listed_without_what_takes_long_to_import(store: Path) -> None:
    code = (
        "import sys; from flows.command.main import main\n"
        f"try: main(['completion', 'runs', '--store', {str(store)!r}])\n"
        "finally: print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *runs, modules = done.stdout.splitlines()
    assert len(runs) == 2
    assert not {"torch", "prefect", "pydantic", "numpy", "pyarrow", "shtab"} & set(modules.split())


def test_zsh_gets_a_script_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "zsh"])
    assert "#compdef pile" in capsys.readouterr().out
