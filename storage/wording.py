"""Amounts, spans of time and progress as text for people: each quantity reads the same wherever it stands."""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, given in the plural: `1 file`, `2 files`."""
    return f"{count:,} {noun if count != 1 else noun.removesuffix('s')}"


def size(count: float) -> str:
    """Return a number of bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def amount(count: float, unit: str) -> str:
    """Return a number of something without its unit: bytes in powers of ten, others in full."""
    return size(count) if unit.startswith("bytes") else f"{count:,.0f}"


def progress_text(done: int, total: int, unit: str) -> str:
    """Return how far something is: `120 of 400 steps`, `2.5 MB of 40.0 MB`; empty without a total."""
    of_what = unit.removeprefix("bytes").strip()
    return f"{amount(done, unit)} of {amount(total, unit)} {of_what}".rstrip() if total else ""


def duration(seconds: float) -> str:
    """Return a span of time in one unit, to two digits or the full number: `0.4 s`, `96 s`, `3.1 min`, `27 h`.

    Not as `3:05`, which in a sentence is a time of day, and says not whether it means minutes or hours.
    """
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return _two_digits(seconds / length, unit)
    return _two_digits(seconds, "s")


def _two_digits(count: float, unit: str) -> str:
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"


def minute(time_text: str) -> str:
    """Return a time that stands in ISO 8601 to the minute, in UTC as it stands there: `2026-11-28 09:30`."""
    return time_text[:16].replace("T", " ")


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit: `3 days`."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return counted(max(0, int(seconds)), "seconds")
