"""What somebody may have meant who misspelt a name."""

import difflib
from collections.abc import Iterable

ALIKE = 0.6
"""Share of letters in common from which a known name is worth a question; difflib's own default."""


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return `; did you mean 'demo'?` for what is nearly one of the known names, else ''.

    Upper and lower case, `_`, `-` and spaces are the same here: a user mixes them up more often than letters.
    """
    if not isinstance(word, str):
        return ""
    plain = {_plain(name): name for name in known}
    near = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=ALIKE)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
