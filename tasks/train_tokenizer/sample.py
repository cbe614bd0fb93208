"""What a tokenizer is trained on: a bounded sample that depends on nothing but corpus and seed."""

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence

from storage.artifacts.records import StoredFile
from storage.artifacts.store import Artifact
from storage.formats.documents import Document, read_documents

LONG_WORD = 256
LONG_SPACE = re.compile(rf"\s{{{LONG_WORD}}}")
LONG_RUN = re.compile(rf"[^\W_]{{{LONG_WORD}}}|\s{{{LONG_WORD}}}|(?:[^\w\s]|_){{{LONG_WORD}}}")
"""Letters and digits, white space, or other characters without a break: only these form long words."""


def sample_documents(
    corpus: Artifact, shards: Sequence[StoredFile], max_bytes: int, seed: int
) -> Iterator[Document]:
    """Yield documents from all shards, at most `max_bytes` of UTF-8 in all; a smaller corpus is yielded whole.

    The share of a shard is in proportion to its stored size, and what it leaves over goes to the next ones.
    """
    everything = corpus.counts["text_bytes"] <= max_bytes
    left, stored_left = max_bytes, sum(shard.bytes for shard in shards)
    for shard in shards:
        documents = read_documents(corpus.open(shard))
        share = left * shard.bytes // stored_left
        for document in documents if everything else lowest_hashes(documents, share, seed):
            left -= len(document.text.encode())
            yield document
        stored_left -= shard.bytes


def lowest_hashes(documents: Iterable[Document], share: int, seed: int) -> Iterator[Document]:
    """Yield documents by the hash of their id until their UTF-8 fills `share` bytes; the last one is cut to fit.

    One pass over the documents; memory for `share` bytes and one document.
    """
    heap: list[tuple[int, int, int, Document]] = []  # the highest hash on top; the number breaks ties
    total = 0
    for number, document in enumerate(documents):
        size = len(document.text.encode())
        heapq.heappush(heap, (-document_hash(document.id, seed), number, size, document))
        total += size
        while heap and total - heap[0][2] >= share:
            total -= heapq.heappop(heap)[2]
    for *_, size, document in sorted(heap, reverse=True):
        if size > share:  # decoding drops a character that was cut through
            text = document.text.encode()[:share].decode(errors="ignore")
            yield Document(document.id, document.subset, text, document.meta)
        else:
            yield document
        share -= size


def document_hash(document_id: str, seed: int) -> int:
    """Return 64 bits that choose a document."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{document_id}".encode(), digest_size=8).digest(), "big")


def without_long_words(text: str) -> Iterator[str]:
    """Yield a text in pieces in which no word, as the trainer splits them, has more than 2 * LONG_WORD characters.

    The trainer merges inside a word in quadratic time: one run of 2 MB, such as a genome or a line of zeros, kept
    it busy for more than 8 minutes (tokenizers 0.23.3); cut, it takes a second.
    """
    if max(map(len, text.split()), default=0) < LONG_WORD and not LONG_SPACE.search(text):
        yield text  # nearly every text, at eight times the speed of the search below
        return
    start = 0
    for run in LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]
