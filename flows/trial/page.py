"""A trial as a page for a browser: every document with its verdict, and the place that decided marked.

Documents are of others: all of their text is escaped, and the page may load and run nothing but its own script.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flows.trial.look import SCRIPT, STYLE
from flows.trial.marking import marked_html, plain_html
from flows.trial.sample import Sample
from flows.trial.verdicts import Trial, Verdict
from flows.trial.wording import beginning, by_cause, facts, measured, one_line, subset_rows
from storage.formats.documents import Document
from storage.wording import counted
from tasks.filter.explaining import common_places, decisive_places

KEPT = "kept"


def page(trial: Trial) -> str:
    """Return the page, the dropped documents first, by reason."""
    reasons = by_cause(trial.verdicts)
    dropped = [verdict for each in reasons.values() for verdict in each]
    kept = [verdict for verdict in trial.verdicts if verdict.drop is None]
    title = f"What filter and dedup of {plain_html(trial.recipe)} say"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>{counted(len(trial.verdicts), 'documents')} of {counted(trial.sample.files, 'files')}: "
            f"{len(kept):,} kept, {len(dropped):,} dropped.{_not_shown(trial.sample)}</p>",
            _table(subset_rows(trial.verdicts)),
            _form(reason for _, _, reason in reasons),
            *(_details(trial, verdict) for verdict in (*dropped, *kept)),
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _policy() -> str:
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'"


def _not_shown(sample: Sample) -> str:
    said = [
        (len(sample.bad), "records that cannot be read"),
        (len(sample.too_large), "documents that are too large for a trial"),
        (sample.other_files, "files that were not looked into"),
    ]
    return "".join(f" Not shown: {number:,} {what}." for number, what in said if number)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def cells(tag: str, values: Iterable[Any]) -> str:
        numeric = [isinstance(value, int) for value in rows[0].values()]
        return "".join(
            f"<{tag}{' class=number' if right else ''}><bdi>{plain_html(str(value))}</bdi></{tag}>"
            for value, right in zip(values, numeric, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', rows[0])}</tr></thead><tbody>{body}</tbody></table>"


def _form(reasons: Iterable[str]) -> str:
    options = "".join(f"<option>{plain_html(reason)}</option>" for reason in dict.fromkeys([*reasons, KEPT]))
    return (
        '<form hidden><input type="search" name="words" placeholder="words of id, subset, policy, reason">'
        f'<select name="reason"><option value="">every verdict</option>{options}</select>'
        '<button type="button" name="open">open or close</button><output></output></form>'
    )


def _details(trial: Trial, verdict: Verdict) -> str:
    drop, document = verdict.drop, verdict.document
    reason = drop.reason if drop else KEPT
    who = [one_line(document.id), facts(verdict)]
    why = [*dict.fromkeys((verdict.stage, drop.rule, drop.reason))] if drop else [KEPT]
    if drop and drop.twin_id is not None:
        who.append(f"like {one_line(drop.twin_id)}")
    said = " ".join([*who, *why]).lower()
    return (
        f'<details data-reason="{plain_html(reason)}" data-said="{plain_html(said)}"><summary>'
        f'<span class="{"reason" if drop else KEPT}">{plain_html(": ".join(why))}</span> '
        f"<span>{plain_html(measured(drop) if drop else '')}</span> "
        f'<span class="what"><bdi>{"</bdi>, <bdi>".join(map(plain_html, who))}</bdi></span><br>'
        f'<span class="begins"><bdi>{plain_html(beginning(document.text))}</bdi></span></summary>'
        f"{''.join(_body(trial, verdict))}</details>"
    )


def _body(trial: Trial, verdict: Verdict) -> Iterator[str]:
    document, drop = verdict.document, verdict.drop
    if drop is None:
        yield _text(verdict.filtered.text if verdict.filtered else document.text, ())
    elif verdict.twin is not None and verdict.filtered is not None:
        yield from _side_by_side(trial, verdict.filtered, verdict.twin)
    else:
        text, places = decisive_places(trial.config, document.subset, document.text, drop.rule)
        if places:
            yield f'<p class="what">{counted(len(places), "places")} marked</p>'
        yield _text(text, places)


def _side_by_side(trial: Trial, dropped: Document, twin: Document) -> Iterator[str]:
    """Yield two documents with the runs of words marked that both have; equal ones wholly, however short."""
    places = common_places(trial.config, (dropped.subset, dropped.text), (twin.subset, twin.text))
    if dropped.text.split() == twin.text.split():
        places = [(0, len(dropped.text))], [(0, len(twin.text))]
    yield '<div class="twins">'
    for role, document, marked in zip(("dropped", "kept"), (dropped, twin), places, strict=True):
        name = plain_html(one_line(document.id))
        yield f"<div><h2>{role}: <bdi>{name}</bdi></h2>{_text(document.text, marked)}</div>"
    yield "</div>"


def _text(text: str, places: Sequence[tuple[int, int]]) -> str:
    # A line break behind the tag belongs to it, and one of the text would be taken for that.
    return f'<pre dir="auto">\n{marked_html(text, places)}</pre>'
