"""What of a text the context picture shows, and the correlations beside it."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model.families.world.config import WorldConfig
from model.families.world.measurements.context import measure_context, sample_documents
from model.families.world.network import WorldModel
from model.families.world.trace import Trace
from tasks.evaluate.token_texts import readable_tokens

CONFIG = WorldConfig(
    n_superblocks=2, d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, n_key_heads=1, key_dim=8, n_value_heads=2,
    value_dim=8, num_experts=4, top_k=2, d_expert=8, d_shared=8, context_rank=4, context_window=8, vocab_size=260,
    max_seq_len=40, rotary_fraction=0.5,
)  # fmt: skip


def byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{letter: place + 1 for place, letter in enumerate(alphabet)}}
    vocabulary["ĠÃ"] = len(vocabulary)  # a space and the first half of a letter
    encoder = Tokenizer(models.BPE(vocabulary, [("Ġ", "Ã")]))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens(["<|endoftext|>"])
    return encoder


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a b\n", ["a", " ", "b", "\n"]),
        ("é", ["<C3>", "<A9>"]),
        ("x é", ["x", " <C3>", "<A9>"]),
        ("\ufffd", ["<EF>", "<BF>", "<BD>"]),
        ("", []),
    ],
)
def test_readable_tokens_show_text_and_name_half_letters(text: str, tokens: list[str]) -> None:
    encoder = byte_tokenizer()
    assert readable_tokens(encoder, encoder.encode(text).ids) == tokens


def test_readable_tokens_name_special_tokens() -> None:
    assert readable_tokens(byte_tokenizer(), [0]) == ["<|endoftext|>"]


def test_sample_takes_turns_among_subsets() -> None:
    ids = {"a": [[1] * 5, [1] * 2, [1] * 6, [1] * 7], "b": [[2] * 5], "c": [[3]]}
    assert [len(document) for document in sample_documents(ids, 4, 3)] == [5, 5, 6]
    assert [document[0] for document in sample_documents(ids, 4, 9)] == [1, 2, 1, 1]


def world() -> SimpleNamespace:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = WorldModel(CONFIG).eval()
    with torch.no_grad():
        network.embed_tokens.weight.mul_(20)
        for layer in network.context:
            layer.score.weight.mul_(30)
            layer.gain_drop[1, 0] = 0.25
            layer.gain_write[0, 0] = -3.0
    return SimpleNamespace(network=network, encoder=byte_tokenizer())


def slow_spearman(trained: SimpleNamespace, document: list[int], block: int) -> tuple[float, float]:
    """Rank correlations from the whole attention matrix, all queries, token by token."""
    trace = Trace()
    document = document[: CONFIG.max_seq_len]
    with torch.no_grad():
        trained.network.hidden(torch.tensor([document]), trace=trace)
    queries, keys = (tensor[0] for tensor in trace.queries_keys[block])
    length = len(document)
    attention = torch.zeros(length, length)
    for row in range(length):
        for head in range(CONFIG.n_heads):
            logits = torch.stack([queries[head, row] @ keys[0, column] for column in range(row + 1)])
            attention[row, : row + 1] += torch.softmax(logits / math.sqrt(CONFIG.head_dim), dim=0)
        attention[row] *= (row + 1) / CONFIG.n_heads
    found = []
    for name, near in (("importance_BT", False), ("urgency_BT", True)):
        scores, usefulness = [], []
        for column in range(length):
            last = column + CONFIG.context_window
            rows = range(column + 1, min(length, last + 1)) if near else range(last + 1, length)
            if len(rows):
                scores.append(getattr(trace.contexts[block], name)[0, column].item())
                usefulness.append(sum(attention[row, column].item() for row in rows) / len(rows))
        found.append(spearmanr(scores, usefulness).statistic)
    return found[0], found[1]


def test_correlations_are_means_over_documents_of_the_slow_ones() -> None:
    trained = world()
    random = torch.Generator().manual_seed(1)
    lengths = {"a": (20, 12, 60), "b": (33,)}
    ids = {
        name: [torch.randint(1, 257, (length,), generator=random).tolist() for length in row]
        for name, row in lengths.items()
    }
    measured, picture = measure_context(trained.network, ids, partial(readable_tokens, trained.encoder))
    long = [document for group in ids.values() for document in group if len(document) >= 16]
    assert measured["documents"] == len(long) == 3
    for block in range(2):
        slow = [slow_spearman(trained, document, block) for document in long]
        for place, name in enumerate(("importance", "urgency")):
            wanted = sum(pair[place] for pair in slow) / len(slow)
            assert measured["spearman"][name][block] == pytest.approx(wanted, abs=1e-3)
            assert picture["spearman"][name][block] == pytest.approx(wanted, abs=2e-3)
    assert measured["largest_gain"] == {"drop": [0.25, 0.25], "decay": [0.0, 0.0], "write": [0.0, 0.0]}
    assert (measured["influence"], measured["acts"]) == (0.25, True)
    assert picture["tokens"] == readable_tokens(trained.encoder, ids["a"][0])


def test_documents_too_short_for_a_correlation_are_still_drawn() -> None:
    trained = world()
    measured, picture = measure_context(
        trained.network, {"a": [[5, 6, 7]]}, partial(readable_tokens, trained.encoder)
    )
    assert measured["documents"] == 0
    assert measured["spearman"] == {"importance": [None, None], "urgency": [None, None]}
    assert picture["spearman"] == {"importance": [None, None], "urgency": [None, None]}
    assert len(picture["importance"][0]) == 3
