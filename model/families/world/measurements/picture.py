"""A picture of what the context layers of a world model say about a text: data for it, and a page that draws it.

The page is one file that loads nothing: it can be kept beside a model, mailed, and opened without a network.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from model.families.world.context.layer import QUADRANTS, ContextScores

ACTING_GAIN = 0.01
"""Below this largest gain the layer changes no output that anybody would notice."""


def context_payload(
    tokens: Sequence[str],
    scores: Sequence[ContextScores],
    spearman: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Return the scores of one text as plain data, numbers rounded to 3 decimals.

    `scores` has one entry per superblock, for a batch of one; `spearman` the rank correlations of `importance` and
    `urgency` with their labels, per superblock, if they were measured. In the result, `importance` and `urgency`
    are [superblock][token], `quadrants` [superblock][token][4] in the order of QUADRANTS, `gains` means over the
    heads and sublayers of each superblock, and `influence` is the largest single gain.

    Raises: ValueError if a batch has several texts, or the number of tokens differs from that of the scores.
    """
    if not scores:
        raise ValueError("scores must have an entry per superblock, found none; run a model with a context layer")
    shapes = {tuple(score.importance_BT.shape) for score in scores}
    if shapes != {(1, len(tokens))}:
        raise ValueError(
            f"scores must have the shape (1, {len(tokens)}) for {len(tokens)} tokens of one text, found "
            f"{sorted(shapes)}; give the scores of one row, and the tokens that the model read"
        )
    return {
        "tokens": list(tokens),
        "superblocks": len(scores),
        "importance": [_rounded(score.importance_BT[0].tolist()) for score in scores],
        "urgency": [_rounded(score.urgency_BT[0].tolist()) for score in scores],
        "quadrants": [_rounded(score.quadrants_BT4[0].tolist()) for score in scores],
        "gains": {
            "drop": [_rounded(score.drop_gain_AH.mean().item()) for score in scores],
            "decay": [_rounded(score.decay_gain_AH.mean().item()) for score in scores],
            "write": [_rounded(score.write_gain_DH.mean().item()) for score in scores],
        },
        "influence": _rounded(max(gain.max().item() for score in scores for gain in score[2:])),
        "spearman": None if spearman is None else {name: _rounded(list(row)) for name, row in spearman.items()},
    }


def context_page(payload: Mapping[str, Any]) -> str:
    """Return an HTML page that draws a payload: a scatter of tokens, the coloured text, the quadrants' shares."""
    spans = "".join(f"<span>{_visible(token)}</span>" for token in payload["tokens"])
    # In a script element only "<" can end the data; JSON may write it as an escape.
    data = json.dumps(payload, allow_nan=False).replace("<", "\\u003c")
    return "".join(
        (
            _HEAD,
            "<p>This page shows one text only, as far as it was read: ",
            f"its first {len(payload['tokens'])} tokens.</p>\n",
            _banner(payload["influence"]),
            _FIGURES,
            f'<div id="text">{spans}</div>\n</main>\n',
            f'<script type="application/json" id="payload">{data}</script>\n',
            f"<script>\nconst names = {json.dumps(QUADRANTS)};\n{_SCRIPT}</script>\n</body>\n</html>\n",
        )
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 3) if math.isfinite(value) else None


def _visible(token: str) -> str:
    return html.escape(token).replace("\n", "<i>↵</i>\n")


def _banner(influence: float) -> str:
    if influence < ACTING_GAIN:
        return (
            f'<p class="banner idle">Influence (largest gain): {influence:.3f}. '
            f"Scores are predictions only; the layer does not act yet.</p>\n"
        )
    return (
        f'<p class="banner">Influence (largest gain): {influence:.3f}. '
        f"The layer weakens dropped and ageing delegated tokens.</p>\n"
    )


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Importance and urgency of tokens</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.5rem 3rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
.banner { padding: .5rem .8rem; background: #e8f4ec; border-left: 4px solid #2a8f68; }
.banner.idle { background: #fff4dc; border-color: #c98a00; }
.figures { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem 2.5rem; }
.figures svg { width: 25rem; max-width: 100%; }
.facts { flex: 1 1 20rem; }
svg text { font-size: 13px; fill: #555; paint-order: stroke; stroke: #fff; stroke-width: 3; pointer-events: none; }
circle { stroke: #fff; stroke-width: .5; fill-opacity: .75; }
circle.here { stroke: #000; stroke-width: 2.5; fill-opacity: 1; }
input { width: 100%; }
#bar { display: flex; height: 1.8rem; }
table { border-collapse: collapse; margin-top: .6rem; }
td, th { padding: .1rem .9rem .1rem 0; text-align: left; font-weight: normal; }
td { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
th:first-child { white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; }
#text { font: 15px/1.9 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
#text span { padding: .15em 0; border-radius: .15em; cursor: default; }
#text span:empty::before { content: "∅"; }
#text span.here { outline: 2px solid #000; }
#text i { color: #777; font-style: normal; }
#reading { position: sticky; top: 0; min-height: 3em; margin: 0; background: #fff; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<h1>Importance and urgency of tokens</h1>
<p>A world model predicts for every token how much later tokens will look at it: from afar (importance) and from
nearby (urgency). Each superblock has its own opinion.</p>
"""

_FIGURES = """<label for="level" id="title"></label>
<input type="range" id="level" min="0" step="1">
<div class="figures">
<svg id="scatter" viewBox="0 0 400 400" role="img" aria-label="Tokens by urgency and importance"></svg>
<div class="facts">
<h2>Share of the text</h2>
<p>The bar is the mean membership, in which every token belongs to all four a little. A token has the colour of its
largest membership; the share by colour counts tokens.</p>
<div id="bar"></div>
<table id="shares"></table>
<h2>Gains and agreement</h2>
<table id="numbers"></table>
</div>
</div>
<h2>Text</h2>
<p id="reading">Point at a token or a dot to read its numbers.</p>
"""

_SCRIPT = """const data = JSON.parse(document.getElementById("payload").textContent);
const means = {
  do: "keep at full weight", schedule: "keep at any age",
  delegate: "fade with age, leave to the state", drop: "weaken everywhere",
};
const colours = ["230,159,0", "86,180,233", "60,185,146", "150,150,150"];
const corners = [[1, 1], [0, 1], [1, 0], [0, 0]];  // urgency and importance of each quadrant
const find = id => document.getElementById(id);
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
const column = (rows, read) => rows[0].map((_, t) => mean(rows.map(row => read(row[t]))));
const x = urgency => 48 + 340 * urgency, y = importance => 360 - 340 * importance;
const text = [...find("text").children];
let dots = [], shown;

function scores(level) {
  const pick = rows => level < data.superblocks ? rows.slice(level, level + 1) : rows;
  const quadrants = names.map((_, q) => column(pick(data.quadrants), token => token[q]));
  return {
    importance: column(pick(data.importance), v => v), urgency: column(pick(data.urgency), v => v),
    quadrants: data.tokens.map((_, t) => quadrants.map(row => row[t])), shares: quadrants.map(mean), pick,
  };
}

function draw(parent, kind, attributes, content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content !== undefined) element.textContent = content;
  return parent.appendChild(element);
}

function fill(table, rows) {
  table.replaceChildren(...rows.map(([name, ...cells]) => {
    const colour = cells.length > 3 ? cells.pop() : undefined, note = cells.pop();
    const row = document.createElement("tr"), head = document.createElement("th");
    if (colour) {
      const swatch = head.appendChild(document.createElement("span"));
      swatch.className = "swatch";
      swatch.style.background = `rgb(${colour})`;
    }
    head.append(name);
    const last = document.createElement("th");
    last.textContent = note;
    row.append(head, ...cells.map(cell => {
      const value = document.createElement("td");
      value.textContent = cell;
      return value;
    }), last);
    return row;
  }));
}

function show() {
  const level = Number(find("level").value), best = [];
  shown = scores(level);
  find("title").textContent = level < data.superblocks
    ? `Superblock ${level + 1} of ${data.superblocks}; rightmost is the mean`
    : data.superblocks > 1 ? `Mean of ${data.superblocks} superblocks; move left to see each` : "One superblock";
  shown.quadrants.forEach((chances, t) => {
    best[t] = chances.indexOf(Math.max(...chances));
    text[t].style.background = `rgba(${colours[best[t]]},${chances[best[t]].toFixed(3)})`;
    dots[t].setAttribute("cx", x(shown.urgency[t]));
    dots[t].setAttribute("cy", y(shown.importance[t]));
    dots[t].setAttribute("fill", `rgb(${colours[best[t]]})`);
  });
  [...find("bar").children].forEach((part, q) => { part.style.width = `${100 * shown.shares[q]}%`; });
  const percent = share => `${(100 * share).toFixed(1)} %`;
  const byColour = names.map((_, q) => best.filter(quadrant => quadrant === q).length / best.length);
  fill(find("shares"), [["", "mean membership", "by colour", ""], ...names.map((name, q) =>
    [name, percent(shown.shares[q]), percent(byColour[q]), means[name], colours[q]])]);
  const number = rows => {
    const known = shown.pick(rows).filter(value => value !== null);
    return known.length ? mean(known).toFixed(3) : "not measured";
  };
  const agreement = name => data.spearman ? number(data.spearman[name]) : "not measured";
  fill(find("numbers"), [
    ["mean drop gain", number(data.gains.drop), "on attention to dropped tokens"],
    ["mean decay gain", number(data.gains.decay), "on attention to delegated tokens as they age"],
    ["mean write gain", number(data.gains.write), "on writing dropped tokens to the state"],
    ["importance", agreement("importance"), "rank correlation with attention from afar"],
    ["urgency", agreement("urgency"), "rank correlation with attention from nearby"],
  ]);
}

function point(t) {
  document.querySelectorAll(".here").forEach(element => element.classList.remove("here"));
  if (t < 0) return;
  text[t].classList.add("here");
  dots[t].classList.add("here");
  const chances = names.map((name, q) => `${name} ${shown.quadrants[t][q].toFixed(3)}`).join(", ");
  find("reading").textContent = `Token ${t + 1}, ${JSON.stringify(data.tokens[t])}: importance `
    + `${shown.importance[t].toFixed(3)}, urgency ${shown.urgency[t].toFixed(3)}; ${chances}`;
}

names.forEach((name, q) => {
  const [right, top] = corners[q];
  draw(find("scatter"), "rect", {
    x: x(right / 2), y: y((top + 1) / 2), width: 170, height: 170, fill: `rgba(${colours[q]},.15)`,
  });
  find("bar").append(document.createElement("div"));
  find("bar").lastChild.style.background = `rgb(${colours[q]})`;
});
for (const [value, anchor] of [[0, "start"], [.5, "middle"], [1, "end"]]) {
  draw(find("scatter"), "text", {x: x(value), y: 377, "text-anchor": anchor}, value);
  draw(find("scatter"), "text", {x: 43, y: y(value) + 4, "text-anchor": "end"}, value);
}
draw(find("scatter"), "text", {x: x(.5), y: 396, "text-anchor": "middle"}, "urgency (from nearby) \\u2192");
draw(find("scatter"), "text", {
  x: 12, y: y(.5), "text-anchor": "middle", transform: `rotate(-90 12 ${y(.5)})`,
}, "importance (from afar) \\u2192");
dots = data.tokens.map(() => draw(find("scatter"), "circle", {r: 5}));
names.forEach((name, q) => {
  const [right, top] = corners[q], place = {x: x(right) + (right ? -6 : 6), y: y(top) + (top ? 17 : -8)};
  draw(find("scatter"), "text", {...place, "text-anchor": right ? "end" : "start"}, name);
});
find("level").max = find("level").value = data.superblocks;
find("level").hidden = data.superblocks === 1;
find("level").addEventListener("input", show);
text.forEach((span, t) => span.addEventListener("pointerover", () => point(t)));
dots.forEach((dot, t) => dot.addEventListener("pointerover", () => point(t)));
show();
"""
