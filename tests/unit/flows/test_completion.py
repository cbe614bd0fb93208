"""What a shell completes, asked of bash itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flows.command.main import main

ASK = """
source {script}
function=$(complete -p pile | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
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
    ],
)
def test_bash_completes(script: Path, words: str, found: list[str]) -> None:
    ask = ASK.format(script=script, words=words)
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(found)


def test_zsh_gets_a_script_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "zsh"])
    assert "#compdef pile" in capsys.readouterr().out
