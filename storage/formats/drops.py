"""Drop files: Parquet, a row for each document of a shard that a stage left out, in the order of the documents.

id, subset     of the document
index          int64    its place in the shard that the stage read
rule           string   which rule: the name of a filter rule, `exact`, `near`, `contained` or `held-out`
reason         string   under which it is counted
value          float64  what was measured: of a bound, or the similarity to the twin; null if nothing was
bound          float64  what the value had to keep; null if there is none
twin_id        string   of the kept document for which this one went; null in a filter
twin_part      string   shard of the twin
twin_index     int64    its place there, in what `filter` wrote
twin_artifact  string   key of the dedup artifact that holds the twin; empty for the same one
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

DROPS = "drops"
"""Role of the drop files of filter and dedup artifacts."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("bound", pa.float64()),
        pa.field("twin_id", pa.string()),
        pa.field("twin_part", pa.string()),
        pa.field("twin_index", pa.int64()),
        pa.field("twin_artifact", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class DropRow:
    """A row of a drop file."""

    id: str
    subset: str
    index: int
    rule: str
    reason: str
    value: float | None = None
    bound: float | None = None
    twin_id: str | None = None
    twin_part: str | None = None
    twin_index: int | None = None
    twin_artifact: str | None = None


def write_drops(path: Path, rows: Sequence[DropRow]) -> None:
    """Write the file of a shard."""
    columns = zip(*map(attrgetter(*SCHEMA.names), rows), strict=True) if rows else [()] * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    write_table(path, pa.table(arrays, schema=SCHEMA))


def write_table(path: Path, table: pa.Table) -> None:
    """Write the file of a shard, given as a table of SCHEMA."""
    pq.write_table(table, path, compression="zstd")


def read_drops(path: Path) -> list[DropRow]:
    """Return the rows of a file."""
    return as_rows(pq.read_table(path))


def as_rows(table: pa.Table) -> list[DropRow]:
    """Return the rows of a table of SCHEMA."""
    columns = table.to_pydict()
    return [DropRow(*row) for row in zip(*(columns[name] for name in SCHEMA.names), strict=True)]


def read_group(path: Path, group: int) -> pa.Table:
    """Return the rows of one row group, none of group -1."""
    return SCHEMA.empty_table() if group < 0 else pq.ParquetFile(path).read_row_group(group)


def read_dropped(path: Path) -> npt.NDArray[np.int64]:
    """Return the places of the documents of a file, ascending."""
    return np.asarray(pq.read_table(path, columns=["index"]).column("index").to_numpy())
