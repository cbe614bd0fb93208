"""Tokenize: documents + tokenizer -> token archive.

Input   corpus     documents (*.jsonl.zst), all splits
        tokenizer  tokenizer.json
Output  parts named after the corpus shards, role `tokens`: a row per document (storage.formats.token_archive)
Rerun   a finished shard is kept; a half-written one is replaced.

Every document is encoded on its own and ends with <|endoftext|>. The name of a special token inside a text is
encoded as the characters that it consists of: a text cannot end a document or forge a reserved token.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.tokenize.config import TokenizeConfig

STAGE = Stage(
    name="tokenize",
    version=2,  # the archive carries the metadata of its documents
    config=TokenizeConfig,
    build=LazyFunction("tasks.tokenize.build:tokenize_corpus"),
    inputs={"corpus": "dedup", "tokenizer": "train-tokenizer"},
)
