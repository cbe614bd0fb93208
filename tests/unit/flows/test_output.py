"""Sentences for people: broken between words on a terminal, left alone elsewhere."""

import io

import pytest

from flows.command.output import say

SENTENCE = "stopped in train, stage 7 of 9; continue with:"
COMMAND = "  pile run demo --set train.max_steps=5000 --store /a/path/that/is/long"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")


def test_on_a_terminal_sentences_are_broken_between_words_and_commands_stay_whole() -> None:
    terminal = Terminal()
    say(f"{SENTENCE}\n{COMMAND}", terminal)
    assert terminal.getvalue() == f"stopped in train, stage 7 of\n9; continue with:\n{COMMAND}\n"


def test_elsewhere_a_line_stays_a_line() -> None:
    file = io.StringIO()
    say(f"{SENTENCE}\n{COMMAND}", file)
    assert file.getvalue() == f"{SENTENCE}\n{COMMAND}\n"


def test_without_a_standard_error_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    say(SENTENCE)


def test_an_empty_line_stays() -> None:
    terminal = Terminal()
    say("\nthe end", terminal)
    assert terminal.getvalue() == "\nthe end\n"
