"""Evaluate: weights + held-out documents -> bits per byte per subset, samples, loss plot, report.

Input   model      weights, model-config and the loss log of the train stage
        tokenizer  tokenizer.json, the one the model was trained with
        corpus     documents; those of one held-out split are scored
Output  part `evaluation`, role `metrics`: metrics.json. Reports: report.md, samples.txt, loss.png
        and what the model's family draws, as of context layers the role `context-picture` and context.html
Rerun   a finished measurement is kept; its reports are written again from it.

Bits per byte is the main number because it does not depend on the vocabulary: the model's negative log-likelihood
of a text in bits, divided by the bytes of the text in UTF-8. Beside it stands what token frequencies and
compressors reach on the same bytes, and a warning where they are too few to judge. Classification heads are
measured too, and what the model's family adds.
"""

import json
import logging
import math
from collections import Counter
from typing import Any

from tokenizers import Tokenizer

from model.evaluation.scoring import score_documents
from model.families.base import Measurement
from model.families.registry import FAMILIES, family_of
from model.generation.generate import generate
from model.pretrained.folder import suppressed_ids
from model.pretrained.trained_model import TrainedModel, fixed_threads, open_trained
from storage.artifacts.records import Part
from storage.artifacts.store import Artifact
from storage.errors import Fault
from tasks.core.context import StageContext
from tasks.evaluate.config import EvaluateConfig
from tasks.evaluate.heads import measure_heads
from tasks.evaluate.held_out import HeldOut, compressed_bytes, primed_bytes, read_held_out, read_train_text
from tasks.evaluate.judging import best_baseline, interval, warnings
from tasks.evaluate.token_texts import readable_tokens
from tasks.reports.evaluation import METRICS, write_reports

log = logging.getLogger(__name__)

PART = "evaluation"

DIGITS = 4
"""Decimals of the measured numbers: sums differ from the seventh on between machines and thread counts."""

TEXTS_AT_ONCE = 256
"""Documents given to the tokenizer in one call, which encodes them in parallel."""


def evaluate_model(
    config: EvaluateConfig, model: Artifact, tokenizer: Artifact, corpus: Artifact, *, context: StageContext
) -> list[Part]:
    """Measure the model on a held-out split and report.

    Raises: InputError if the split holds no text or the tokenizer is not the model's; Fault if the tokenizer
    loses text or an input is damaged.
    """
    part = context.finished_parts([PART]).get(PART)
    if part is None:
        measured = measure(config, model, tokenizer, corpus, context)
        files = {role: context.writer.scratch() / f"{role}.json" for role in measured}
        for role, path in files.items():
            text = json.dumps(measured[role], indent=1, sort_keys=True, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
        total = measured[METRICS]["total"]
        counts = {name: total[name] for name in ("documents", "text_bytes", "tokens")}
        part = context.writer.commit(PART, files, counts=counts)
    found = {file.role: json.loads(context.writer.open(file).read_bytes()) for file in part.files}
    write_reports(context, found[METRICS], draw_pictures(found), model=model, tokenizer=tokenizer, corpus=corpus)
    return [part]


def draw_pictures(found: dict[str, Any]) -> dict[str, str]:
    """Return the pages of the report that the family draws, by name."""
    pictures = FAMILIES.get(found[METRICS]["model"]["family"]).pictures
    return {pictures[role].file: pictures[role].draw(found[role]) for role in found if role in pictures}


def measure(
    config: EvaluateConfig, model: Artifact, tokenizer: Artifact, corpus: Artifact, context: StageContext
) -> dict[str, Any]:
    """Return all that the reports and the model card show of the measurement, by the role of its file."""
    held_out = read_held_out(corpus, config.split, config.max_bytes_per_subset)
    with fixed_threads(context.execution.threads):
        trained = open_trained(model, tokenizer, context.execution.device)
        ids = {subset: encode(trained.encoder, subset, group.texts) for subset, group in held_out.items()}
        heads = measure_heads_of(trained, ids, config, model, corpus, context)
        measured = measure_family(trained, ids)
        nats = score(trained, ids, config.batch_tokens, context)
        samples = [draw_sample(trained, index, prompt, config) for index, prompt in enumerate(config.prompts)]
    primer = read_train_text(corpus)
    learned = Counter(token for document in encode(trained.encoder, "training text", primer) for token in document)
    rows = [
        measure_subset(subset, group, ids[subset], math.fsum(nats[subset]), trained.used_vocab, learned, primer)
        for subset, group in held_out.items()
    ]
    judged = [judge(rates(row), nats[row["subset"]], held_out[row["subset"]].texts) for row in rows]
    all_texts = [text for group in held_out.values() for text in group.texts]
    all_nats = [one for subset in held_out for one in nats[subset]]
    metrics = {
        "config": config.identity(),
        "inputs": {
            "corpus": corpus.content_digest,
            "model": model.content_digest,
            "tokenizer": tokenizer.content_digest,
        },
        "model": {
            **trained.description.model.identity(),
            "parameters": sum(parameter.numel() for parameter in trained.network.parameters()),
            "steps": trained.description.steps,
        },
        "samples": samples,
        "primer_bytes": sum(len(text.encode()) for text in primer),
        "subsets": judged,
        "total": judge(rates({"subset": "all", **_sum(rows)}), all_nats, all_texts),
        **heads,
        **{name: one.numbers for name, one in measured.items()},
    }
    pictures = {role: data for one in measured.values() for role, data in one.pictures.items()}
    return {METRICS: metrics, **pictures}


def measure_heads_of(
    trained: TrainedModel,
    ids: dict[str, list[list[int]]],
    config: EvaluateConfig,
    model: Artifact,
    corpus: Artifact,
    context: StageContext,
) -> dict[str, Any]:
    """Return what is measured of the classification heads; nothing of a model without."""
    if not trained.description.model.classes():
        return {}
    return {"heads": measure_heads(trained, ids, model, corpus, config.batch_tokens, context.progress)}


def measure_family(trained: TrainedModel, ids: dict[str, list[list[int]]]) -> dict[str, Measurement]:
    """Return what the model's family measures of its own."""
    family = family_of(trained.description.model)
    return family.measure(trained.network, ids, lambda tokens: readable_tokens(trained.encoder, tokens))


def encode(encoder: Tokenizer, subset: str, texts: list[str]) -> list[list[int]]:
    """Return the token ids of each text.

    Raises: Fault if the ids do not stand for exactly this text: bits per byte would be about another one.
    """
    ids: list[list[int]] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        batch = texts[start : start + TEXTS_AT_ONCE]
        encoded = [encoding.ids for encoding in encoder.encode_batch(batch, add_special_tokens=False)]
        for text, decoded in zip(batch, encoder.decode_batch(encoded, skip_special_tokens=False), strict=True):
            if text != decoded:
                raise Fault(
                    f"the tokenizer must give back every text unchanged, but one of {subset!r} that begins "
                    f"{text[:60]!r} came back as {decoded[:60]!r}; "
                    f"train a byte-level tokenizer that does not normalize"
                )
        ids.extend(encoded)
    return ids


def score(
    trained: TrainedModel, ids: dict[str, list[list[int]]], batch_tokens: int, context: StageContext
) -> dict[str, list[float]]:
    """Return the negative log-likelihood of each document in nats, by subset."""
    documents = [document for group in ids.values() for document in group]
    nats = iter(
        score_documents(
            trained.network,
            documents,
            trained.eot_id,
            batch_tokens=batch_tokens,
            progress=lambda done, total: context.progress(done, total, "tokens"),
        )
    )
    return {subset: [next(nats) for _ in group] for subset, group in ids.items()}


def draw_sample(trained: TrainedModel, index: int, prompt: str, config: EvaluateConfig) -> dict[str, str]:
    """Return a prompt and its continuation. Each prompt has its own seed, so adding one changes no other."""
    network, new_tokens = trained.network, config.sample_tokens
    begin = [trained.eot_id, *trained.encoder.encode(prompt, add_special_tokens=False).ids]
    if network.config.learned_positions:  # a longer prompt is continued from its end, a longer sample cut
        positions = network.config.max_seq_len
        new_tokens = min(new_tokens, max(1, positions - len(begin)))
        begin = begin[new_tokens - positions :]
    drawn = generate(
        network,
        [begin],
        new_tokens,
        do_sample=config.temperature > 0,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=(config.seed + index) % 2**63,
        stop_tokens=trained.eot_id,
        suppress_tokens=suppressed_ids(trained.encoder, trained.used_vocab, network.config.vocab_size),
    )
    new = drawn[0, len(begin) :].tolist()
    return {"prompt": prompt, "text": trained.encoder.decode([token for token in new if token != trained.eot_id])}


def measure_subset(
    subset: str,
    group: HeldOut,
    ids: list[list[int]],
    nats: float,
    used_vocab: int,
    learned: Counter[int],
    primer: list[str],
) -> dict[str, Any]:
    """Return what can be added up over subsets: sizes, and the cost of the text under each method, in bits."""
    frequency = Counter(token for document in ids for token in document)
    tokens = frequency.total()
    compressed = {**compressed_bytes(group.texts), **primed_bytes(group.texts, "".join(primer))}
    return {
        "subset": subset,
        "documents": len(group.texts),
        "text_bytes": group.text_bytes,
        "split_documents": group.split_documents,
        "split_bytes": group.split_bytes,
        "tokens": tokens,
        "model_bits": nats / math.log(2),
        "uniform_bits": tokens * math.log2(used_vocab),
        "unigram_bits": unigram_bits(frequency, learned, used_vocab),
        "unigram_self_bits": -math.fsum(count * math.log2(count / tokens) for count in frequency.values()),
        **{f"{name}_bits": 8 * size for name, size in compressed.items()},
    }


def unigram_bits(frequency: Counter[int], learned: Counter[int], used_vocab: int) -> float:
    """Return the cost of tokens by their frequency in training text; one is added to the count of each."""
    whole = learned.total() + used_vocab
    return -math.fsum(count * math.log2((learned[token] + 1) / whole) for token, count in frequency.items())


def judge(row: dict[str, Any], nats: list[float], texts: list[str]) -> dict[str, Any]:
    """Add how sure the model's number is, the best baseline, and what must be said of the row."""
    low, high = interval([one / math.log(2) for one in nats], [len(text.encode()) for text in texts])
    judged = {"interval": [low, high], "best_baseline": best_baseline(row["bits_per_byte"])}
    return {**row, **judged, "warnings": warnings(row, low, high)}


def rates(row: dict[str, Any]) -> dict[str, Any]:
    """Turn costs in bits into bits per byte, and add the model's loss per token in nats."""
    costs = {name.removesuffix("_bits"): row[name] for name in row if name.endswith("_bits")}
    return {
        **{name: value for name, value in row.items() if not name.endswith("_bits")},
        "bits_per_byte": {name: round(bits / row["text_bytes"], DIGITS) for name, bits in costs.items()},
        "loss": round(row["model_bits"] * math.log(2) / row["tokens"], DIGITS),
    }


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(row[name] for row in rows) for name in rows[0] if name != "subset"}
