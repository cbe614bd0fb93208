"""Download: a source of text -> verified shards of even size.

Input   what `download.source` names: a mirror, local files, this Python installation, or a plug-in's source
Output  train-00000, val-00000, test-00000, ...  role `documents` (*.jsonl.zst)
Resume  a half-fetched file continues at its last byte, a committed shard is never written again.
"""

from storage.registry import LazyFunction
from tasks.core.stage import Stage
from tasks.download.config import VERSION, DownloadConfig, corpus_sources

STAGE = Stage(
    name="download",
    version=VERSION,
    config=DownloadConfig,
    build=LazyFunction("tasks.download.build:download_corpus"),
    sources=corpus_sources,
)
