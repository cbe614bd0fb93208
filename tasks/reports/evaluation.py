"""What people see of an evaluation: tables in the UI, report.md, samples.txt, plots of the loss and the context.

All of it follows from the evaluation's files and the loss log of the train artifact; nothing is measured here.
"""

import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.training.config import METRICS_LOG
from storage.artifacts.store import Artifact
from storage.errors import Fault
from tasks.core.context import StageContext
from tasks.core.markdown import fenced, inline, table
from tasks.reports.world import measured_kinds, score_rows, world_sections

log = logging.getLogger(__name__)

METRICS = "metrics"
"""Role of metrics.json in an evaluate artifact."""

METHODS = {"model": "model", "unigram": "frequencies", "zstd_19": "zstd -19", "xz_9": "xz -9"}
"""Names in metrics.json -> columns of the main table."""

BASELINES = {
    "model": "the model",
    "unigram": "token frequencies of training text, no context",
    "unigram_self": "token frequencies of this very text (known only afterwards)",
    "zstd_19": "zstd -19, which begins with nothing",
    "zstd_19_primed": "zstd -19 after training text, as its dictionary",
    "xz_9": "xz -9, which begins with nothing",
    "xz_9_primed": "xz -9 after training text",
    "uniform": "every token of the vocabulary equally likely",
}
"""Names in metrics.json -> what each is."""

METHOD = """\
Bits per byte = negative log-likelihood of the text in bits / bytes of the text in UTF-8; lower is better. Every
token is predicted exactly once. A document is read after an end-of-text token, in blocks of {max_seq_len} tokens:
a token is predicted from those before it in its block and from the one token before the block; the last, shorter
block has as much of the document before it as fits. This is the rule of lm-eval's `loglikelihood_rolling`. The
end-of-text token after a document is not scored. The tokens were checked to decode to exactly the text.

zstd (level 19) and xz (preset 9) compress the same documents, put together per subset. They begin with nothing and
see these bytes only, and their sizes include their file formats; primed, they have read {primer_bytes:,} bytes of
training text before, from which the token frequencies come, too (one is added to each count). The model's own
{parameters:,} parameters are not counted. The interval holds 95 % of a bootstrap over documents. The row `all`
sums the costs of the subsets."""


def write_reports(
    context: StageContext,
    metrics: dict[str, Any],
    pages: Mapping[str, str] | None = None,
    *,
    model: Artifact,
    tokenizer: Artifact,
    corpus: Artifact,
) -> None:
    """Fill the UI tables and write the report files; `pages` are more of them, by name.

    Raises: Fault if the loss log of the train artifact cannot be read.
    """
    losses = read_losses(model)
    if not losses:
        log.warning("%s has no loss log, so the report has no plot of the loss", model.ref)
    inputs = {"model": model, "tokenizer": tokenizer, "corpus": corpus}
    context.table("Bits per byte", bits_per_byte_rows(metrics))
    context.table("The model beside every baseline, all text", baseline_rows(metrics))
    if warned := warning_rows(metrics):
        context.table("Before you trust these numbers", warned)
    if metrics["samples"]:
        context.table("Samples", metrics["samples"])
    for kind in measured_kinds(metrics.get("heads")):
        context.table(f"Head for the {kind}, beside its baselines", score_rows(kind, metrics["heads"][kind]))
    context.report("report.md", report_text(metrics, losses, inputs).encode())
    context.report("samples.txt", samples_text(metrics).encode())
    if losses:
        context.report("loss.png", loss_plot(losses))
    for name, page in (pages or {}).items():
        context.report(name, page.encode())


def bits_per_byte_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the main table: a row per subset and one for all."""
    return [
        {
            "subset": row["subset"],
            "docs": row["documents"],
            "bytes": row["text_bytes"],
            **{column: row["bits_per_byte"][method] for method, column in METHODS.items()},
        }
        for row in [*metrics["subsets"], metrics["total"]]
    ]


def report_text(metrics: dict[str, Any], losses: list[dict[str, Any]], inputs: dict[str, Artifact]) -> str:
    """Return report.md."""
    model = metrics["model"]
    sections = [
        f"# Evaluation of {inputs['model'].ref}",
        f"{model['parameters']:,} parameters after {model['steps']:,} steps, on the split "
        f"`{metrics['config']['split']}`.",
        "## Bits per byte",
        table(bits_per_byte_rows(metrics)),
        table(baseline_rows(metrics)),
        judged_text(metrics),
        method_text(metrics),
        "## What was scored",
        f"Of each subset the first {metrics['config']['max_bytes_per_subset']:,} bytes of the split, in the order "
        "of its shards; the last document is cut there.",
        table(coverage_rows(metrics)),
        *world_sections(metrics),
        "## Loss in training",
        losses_text(losses),
        "## Samples",
        sample_settings(metrics),
        samples_text(metrics, fence=True),
        "## Where it comes from",
        table(
            [
                {"input": name, "artifact": artifact.ref, "content digest": artifact.content_digest}
                for name, artifact in inputs.items()
            ]
        ),
    ]
    return "\n\n".join(sections) + "\n"


def method_text(metrics: dict[str, Any]) -> str:
    """Return how bits per byte were measured, and what stands beside them."""
    return METHOD.format(**metrics["model"], primer_bytes=metrics["primer_bytes"])


def baseline_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the model beside every baseline, for all text; the fewest bits first."""
    total = metrics["total"]["bits_per_byte"]
    return [
        {"bits per byte": total[name], "of": BASELINES[name]}
        for name in sorted(BASELINES, key=lambda name: float(total[name]))
    ]


def warning_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return what must be said of the numbers before anybody trusts them: of all text, and of which subsets."""
    rows = [{"warning": text} for text in metrics["total"]["warnings"]]
    small = [row["subset"] for row in metrics["subsets"] if row["warnings"]]
    if small and len(metrics["subsets"]) > 1:
        rows.append({"warning": f"alone too small or no better than a baseline: {', '.join(small)}"})
    return rows


def judged_text(metrics: dict[str, Any]) -> str:
    """Return the warnings as a list, and the interval of the model's number."""
    low, high = metrics["total"]["interval"]
    lines = [f"- **{row['warning']}**" for row in warning_rows(metrics)]
    return "\n".join([*lines, f"- The model's bits per byte of all text lie in {low:.4f} to {high:.4f} (95 %)."])


def losses_text(losses: list[dict[str, Any]]) -> str:
    """Return what the loss log tells: the plot and the last validation."""
    if not losses:
        return "The train artifact has no loss log."
    validated = [line for line in losses if "val_loss" in line]
    last = "The run measured no validation loss."
    if validated:
        loss, step = validated[-1]["val_loss"], validated[-1]["step"]
        last = f"Last validation loss: {loss:.4f} nats per token at step {step:,}."
    return f"![Training and validation loss](loss.png)\n\n{last}"


def coverage_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how much of the split was scored, and the loss per token."""
    return [
        {
            "subset": row["subset"],
            "documents": row["documents"],
            "of": row["split_documents"],
            "bytes": row["text_bytes"],
            "of bytes": row["split_bytes"],
            "tokens": row["tokens"],
            "nats per token": row["loss"],
        }
        for row in [*metrics["subsets"], metrics["total"]]
    ]


def sample_settings(metrics: dict[str, Any]) -> str:
    """Return in one sentence how the samples were drawn."""
    config = metrics["config"]
    if config["temperature"] == 0:
        return "Always the likeliest token."
    top_k = f"top_k {config['top_k']}, " if config["top_k"] else ""
    return (
        f"Drawn with temperature {config['temperature']}, {top_k}top_p {config['top_p']}, seed {config['seed']}."
    )


def samples_text(metrics: dict[str, Any], *, fence: bool = False) -> str:
    """Return the samples, prompt and continuation in one piece as the model wrote them."""
    texts = [sample["prompt"] + sample["text"] for sample in metrics["samples"]]
    if not texts:
        return "No prompts were given."
    if fence:
        return "\n\n".join(
            f"Prompt: {inline(sample['prompt']) or '(none)'}\n\n{fenced(text)}"
            for sample, text in zip(metrics["samples"], texts, strict=True)
        )
    return "\n\n--------\n\n".join(texts) + "\n"


def read_losses(model: Artifact) -> list[dict[str, Any]]:
    """Return the lines of the loss log of a train artifact; none if the training lost it.

    Raises: Fault if it cannot be read.
    """
    data = model.report(METRICS_LOG) or b""
    try:
        lines = [json.loads(line) for line in data.splitlines()]
        for line in lines:
            int(line["step"]), float(line.get("loss", line.get("val_loss")))
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(
            f"{METRICS_LOG} of {model.ref} must have a step and a loss on each line, but {error!r}; "
            f"train the model again with `pile run --force train`"
        ) from error
    return lines


def loss_plot(losses: list[dict[str, Any]]) -> bytes:
    """Return a PNG of the training and validation loss over the steps, in the width of a README."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    trained = [(line["step"], line["loss"]) for line in losses if "loss" in line]
    validated = [(line["step"], line["val_loss"]) for line in losses if "val_loss" in line]
    if trained:
        steps, values = zip(*trained, strict=True)
        axes.plot(steps, values, color="tab:blue", alpha=0.3, linewidth=1, label="training, each logged step")
        axes.plot(steps, smoothed(values), color="tab:blue", linewidth=1.8, label="training, smoothed")
    if validated:
        steps, values = zip(*validated, strict=True)
        axes.plot(steps, values, color="tab:orange", marker="o", markersize=4, label="validation")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    if trained or validated:
        axes.legend()
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    return data.getvalue()


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the mean around each value over a twentieth of the curve: single batches are noisy."""
    reach = len(values) // 40
    around = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [math.fsum(part) / len(part) for part in around]
