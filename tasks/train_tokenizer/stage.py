"""Train a tokenizer: a bounded sample of the train split -> byte-level BPE.

Input   corpus     documents (*.jsonl.zst)
Output  tokenizer  role `tokenizer`: tokenizer.json for Hugging Face tokenizers and transformers
Rerun   starts again; the same sample gives the same bytes, whatever the number of threads.

Id 0 is <|endoftext|>, then come <|tone|>, <|field|>, the reserved tokens, the 256 bytes and the merges in the
order they were learned.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.train_tokenizer.config import TrainTokenizerConfig
from tasks.train_tokenizer.foresee import check_vocabulary

STAGE = Stage(
    name="train-tokenizer",
    version=2,
    config=TrainTokenizerConfig,
    build=LazyFunction("tasks.train_tokenizer.build:train_tokenizer"),
    inputs={"corpus": "dedup"},
    foresee=check_vocabulary,
)
