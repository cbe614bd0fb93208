"""Which documents repeat an earlier one, decided as stock datatrove does, so that decisions can be compared."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from storage.artifacts.store import Artifact
from storage.formats.shingles import SHINGLES, read_shingles
from tasks.dedup.config import Bands
from tasks.dedup.links import first_equals
from tasks.dedup.signatures import Signer


def repeats_of_ours(filtered: Artifact, bands: Bands) -> list[str]:
    """Return the repeats among documents by our signatures of a layout."""
    signer, names, buckets = Signer(bands, 1), [], []
    for file in filtered.files(SHINGLES):
        path = filtered.open(file)
        names += pq.read_table(path, columns=["id"]).column("id").to_pylist()
        buckets += [signer.buckets(rows, rows.near) for rows in read_shingles(path)]
    return repeats(names, np.concatenate(buckets, axis=1))


def repeats_of_stock(work: Path, filtered: list[list[str]]) -> list[str]:
    """Return the repeats by the signatures that stock has written: for each bucket and shard the hashes and the
    place of each document that has one."""
    names = [name for shard in filtered for name in shard]
    begins = np.cumsum([0, *map(len, filtered)])
    row = np.dtype([("hashes", "<u8", 8), ("place", "<u4")])
    buckets = np.zeros((14, len(names)), np.uint64)
    for bucket in range(14):
        for rank in range(len(filtered)):
            path = work / "signatures" / f"bucket_{bucket:03d}" / f"{rank:05d}.minhash.sig"
            rows = np.fromfile(path, row) if path.exists() else np.empty(0, row)
            digests = [xxhash.xxh3_64_intdigest(hashes.tobytes()) for hashes in rows["hashes"]]
            buckets[bucket, begins[rank] + rows["place"].astype(np.int64)] = digests
    return repeats(names, buckets)


def repeats(names: list[str], buckets: npt.NDArray[np.uint64]) -> list[str]:
    """Return the ids of all documents but the first one of each cluster, as stock makes them: of documents that
    agree in a bucket, whatever their similarity, and of all that these agree with. Zeros agree with nothing."""
    pairs, everybody = [np.empty((0, 2), np.int64)], np.arange(len(names))
    for bucket in buckets:
        first = first_equals(bucket, bucket, everybody).astype(np.int64)
        pairs.append(np.stack((first, np.arange(len(first))), axis=1)[bucket != 0])
    first, second = np.concatenate(pairs).T
    size = len(names)
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(size, size))
    _, cluster = connected_components(graph, directed=False)
    _, leaders = np.unique(cluster, return_index=True)
    return [names[number] for number in np.setdiff1d(np.arange(size), leaders).tolist()]


def agreement(one: Any, other: Any) -> float:
    """Return the share of documents that both sides decide alike about, of those that any filter keeps."""
    kept = [{*side["filtered"]} - {*side["repeats"]} for side in (one, other)]
    return round(1 - len(kept[0] ^ kept[1]) / len({*one["filtered"]} | {*other["filtered"]}), 5)
