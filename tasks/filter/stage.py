"""Filter: documents -> the documents that the policy of their subset keeps, and their shingles.

Input   corpus      document shards of `download`
Output  documents   the kept documents, a shard with the same name for each shard; held-out splits too
        shingles    exact hash and hashes of the word n-grams of every kept document (storage.formats.shingles)
        drops       which documents went, by which rule, with what was measured (storage.formats.drops)
Reports dropped_samples.jsonl   some dropped documents per subset and reason
        filter_values.png       how what the rules measure is distributed, beside their bounds
Rerun   a finished shard is kept.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.filter.config import FilterConfig

STAGE = Stage(
    name="filter",
    # 2: a policy became an ordered list of named rules with versions; the same documents are kept.
    # 3: words are hashed another way for signatures; the same documents are kept.
    # 4: writes shingles in place of signatures, and drops; equal policies keep the same documents.
    version=4,
    config=FilterConfig,
    build=LazyFunction("tasks.filter.build:filter_corpus"),
    inputs={"corpus": "download"},
    passes="corpus",
)
