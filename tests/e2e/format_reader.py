"""A reader of a finished store, written from docs/format.md alone: it imports nothing of the project.

`python format_reader.py STORE` verifies every record, file, key and digest, decodes what the files hold and
compares the counts with the records. Prints what it found as JSON; exit code 1 if anything is not as the page
says.
"""

import hashlib
import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import zstandard

Json = Any


def canonical(value: Json) -> str:
    """Section "Canonical JSON"."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        value += 0.0
    return json.dumps(value, ensure_ascii=False)


def digest(value: Json) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class StoreReader:
    """Reads a whole store and remembers what is wrong with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self.found: dict[str, Counter[str]] = {}
        self.records: Counter[str] = Counter()

    def read(self) -> None:
        """Read everything."""
        for folder, kind in (("runs", "run"), ("cancels", "cancel"), ("pins", "pin"), ("leases", "lease")):
            for path in sorted((self.root / folder).rglob("*.json")):
                self.record(path, kind)
        manifests = {}
        for path in sorted((self.root / "artifacts").glob("*/*/manifest.json")):
            manifest = self.record(path, "manifest")
            if manifest is not None:
                manifests[manifest["stage"], manifest["key"]] = manifest
        for (stage, key), manifest in manifests.items():
            self.artifact(self.root / "artifacts" / stage / key, manifest)
            for name, source in manifest["inputs"].items():
                upstream = manifests.get((source["stage"], source["key"]))
                if upstream is not None:
                    same = upstream["content_digest"] == source["content_digest"]
                    self.expect(same, f"{stage}/{key}: the input {name} has another content digest")

    def expect(self, holds: bool, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(problem)

    def record(self, path: Path, kind: str) -> Json:
        """Section "Records": return the body, or None with a problem noted."""
        data = path.read_bytes()
        try:
            body = json.loads(data)
            checksum = body.pop("record_sha256")
            written = json.dumps({**body, "record_sha256": checksum}, indent=1, sort_keys=True, ensure_ascii=False)
            whole = digest(body) == checksum and (written + "\n").encode() == data
            if not whole or (body["kind"], body["schema_version"]) != (kind, 2 if kind == "run" else 1):
                raise ValueError("checksum, bytes or kind")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            self.problems.append(f"{path}: not a record ({error})")
            return None
        self.records[kind] += 1
        return body

    def artifact(self, folder: Path, manifest: Json) -> None:
        """Sections "Keys", "Content digest", "File names"; then what the files hold."""
        name = f"{manifest['stage']}/{manifest['key']}"
        self.expect(folder.parts[-2:] == (manifest["stage"], manifest["key"]), f"{name}: in another's folder")
        inputs = {f"input:{role}": source["content_digest"] for role, source in manifest["inputs"].items()}
        if manifest["stage"] == "publish":
            inputs |= {f"input:{role}.key": source["key"] for role, source in manifest["inputs"].items()}
        identity = {
            "stage": manifest["stage"],
            "version": manifest["version"],
            "config": manifest["config"],
            "inputs": {**inputs, **manifest["sources"]},
        }
        self.expect(digest(identity)[:16] == manifest["key"], f"{name}: another key")
        entries = sorted([file["part"], file["role"], file["sha256"], file["bytes"]] for file in manifest["files"])
        self.expect(digest(entries) == manifest["content_digest"], f"{name}: another content digest")

        paths = sorted((folder / "parts").glob("*.json"))
        parts = {part["part"]: part for part in (self.record(path, "part") for path in paths) if part is not None}
        counts: Counter[str] = Counter()
        for part in dict.fromkeys(file["part"] for file in manifest["files"]):
            files = [file for file in manifest["files"] if file["part"] == part]
            self.expect(part in parts, f"{name}: the part {part} has no record")
            if part in parts:
                self.expect(parts[part]["files"] == files, f"{name}: the part {part} has other files")
                self.names(parts[part], name)
                counts.update(parts[part]["counts"])
        self.expect(
            dict(sorted(counts.items())) == manifest["counts"], f"{name}: counts are not those of its parts"
        )

        held: Counter[str] = Counter()
        for file in (*manifest["files"], *manifest["reports"]):
            path = folder / file["path"]
            data = path.read_bytes() if path.is_file() else b""
            if (len(data), hashlib.sha256(data).hexdigest()) != (file["bytes"], file["sha256"]):
                self.problems.append(f"{name}: {file['path']} has other bytes")
            elif file["role"] in CONTENT and file in manifest["files"]:
                held.update(CONTENT[file["role"]](path))
        self.found[manifest["stage"]] = held
        for count, value in held.items():
            if count in manifest["counts"]:
                self.expect(value == manifest["counts"][count], f"{name}: {value} {count}, not the manifest's")

    def names(self, part: Json, artifact: str) -> None:
        """Section "File names"."""
        for file in part["files"]:
            begin = f"data/{part['part']}-{part['attempt']}-"
            in_folder = file["path"].endswith(f"/{file['role']}")
            label = "" if len(part["files"]) == 1 or in_folder else f"{file['role']}-"
            rest = re.escape(begin + label) + (
                "[0-9a-f]{8}/.+" if in_folder else file["sha256"][:8] + r"(\.[A-Za-z0-9]+){0,2}"
            )
            self.expect(re.fullmatch(rest, file["path"]) is not None, f"{artifact}: the name {file['path']}")


def documents(path: Path) -> Counter[str]:
    """Section "Documents"."""
    counts: Counter[str] = Counter(documents=0, text_bytes=0)
    for line in zstd_lines(path):
        document = json.loads(line)
        assert list(document) == ["id", "subset", "text", "meta"], f"{path}: {sorted(document)}"
        size = len(document["text"].encode())
        for dot in ("", f".{document['subset']}"):
            counts[f"documents{dot}"] += 1
            counts[f"text_bytes{dot}"] += size
    return counts


def zstd_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a zstd file, which may have several frames."""
    with path.open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    assert text.endswith(b"\n") or not text, f"{path} ends inside a line"
    yield from text.split(b"\n")[:-1]


def described(path: Path) -> Json:
    """Return what a token file says about itself in its footer."""
    return json.loads(pq.read_metadata(path).metadata[b"pile-pipeline"])


def token_archive(path: Path) -> Counter[str]:
    """Section "Token archive"."""
    about, table = described(path), pq.read_table(path)
    assert about["layout"] == "token-archive/2", about
    counts: Counter[str] = Counter(documents=0, text_bytes=0, tokens=0)
    for row in table.to_pylist():
        ends = [place for place, token in enumerate(row["tokens"], 1) if token == about["eot_id"]]
        assert ends == [len(row["tokens"])], row["id"]
        assert max(row["tokens"]) < about["vocab_size"], row["id"]
        for dot in ("", f".{row['subset']}"):
            counts[f"documents{dot}"] += 1
            counts[f"text_bytes{dot}"] += row["n_bytes"]
            counts[f"tokens{dot}"] += len(row["tokens"])
    return counts


def packed_sequences(path: Path) -> Counter[str]:
    """Section "Packed sequences": the tokens by their bytes, without a Parquet library."""
    about, data = described(path), path.read_bytes()
    assert about["layout"] == "packed-sequences/1", about
    width, format_code = {"uint16": (2, "H"), "int32": (4, "i")}[about["dtype"]]
    row_tokens = about["sequence_length"] + 1
    file = pq.ParquetFile(path)
    lengths = file.read(["doc_lens"]).column("doc_lens").to_pylist()
    counts: Counter[str] = Counter(sequences=0, padding=0)
    eot, probes = about["eot_id"], {about.get("tone_id"), about.get("field_id")}
    ends = 0
    for number in range(file.metadata.num_row_groups):
        chunk = file.metadata.row_group(number).column(0)
        payload = chunk.num_values * row_tokens * width
        begin = chunk.data_page_offset + chunk.total_compressed_size - payload
        tokens = struct.unpack_from(f"<{chunk.num_values * row_tokens}{format_code}", data, begin)
        for row in range(chunk.num_values):
            begin_row = row * row_tokens
            end = begin_row + sum(lengths[counts["sequences"]])
            padding = tokens[end : begin_row + row_tokens]
            assert set(padding) <= {eot}, f"{path}: padding of row {row}"
            packed = [token for token in tokens[begin_row:end] if token not in probes]
            counts["tokens"] += len(packed)
            ends += packed.count(eot)
            counts["sequences"] += 1
            counts["padding"] += len(padding)
        assert max(tokens) < about["vocab_size"], path
    assert ends % 2 == 0, f"{path}: an odd number of ends of texts"
    counts["documents"] = ends // 2
    counts["tokens"] -= ends // 2
    split = path.name.partition("-")[0]
    return counts + Counter({f"{name}.{split}": count for name, count in counts.items()})


def shingles(path: Path) -> Counter[str]:
    """Section "Shingles"."""
    table = pq.read_table(path)
    size = json.loads(pq.read_metadata(path).metadata[b"shingles"])["words"]
    assert size >= 1, path
    assert {len(value) for value in table.column("exact_hash").to_pylist()} <= {16}, path
    for row in table.to_pylist():
        hashes = row["shingles"]
        assert all(first < second for first, second in pairwise(hashes)), row["id"]
    return Counter(shingles=table.num_rows)


def drops(path: Path) -> Counter[str]:
    """Section "Drops": counted as the manifest counts what was dropped."""
    counts: Counter[str] = Counter(dropped=0)
    places = []
    for row in pq.read_table(path).to_pylist():
        places.append(row["index"])
        counts["dropped"] += 1
        counts[f"dropped.{row['subset']}.{row['reason']}"] += 1
        assert row["rule"], row["id"]
    assert places == sorted(set(places)), path
    return counts


def tokenizer(path: Path) -> Counter[str]:
    """Section "Tokenizer"."""
    content = json.loads(path.read_bytes())
    ids = {*content["model"]["vocab"].values(), *(token["id"] for token in content["added_tokens"])}
    assert ids == set(range(len(ids))), path
    return Counter(vocab_size=len(ids))


def weights(path: Path) -> Counter[str]:
    """Section "Weights": safetensors."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    numbers = 0
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        elements = 1
        for dimension in tensor["shape"]:
            elements *= dimension
        assert (tensor["dtype"], end - begin) == ("F32", 4 * elements), name
        numbers += elements
    assert len(data) == 8 + size + 4 * numbers, path
    return Counter(numbers=numbers)


CONTENT: dict[str, Callable[[Path], Counter[str]]] = {
    "documents": documents,
    "tokens": token_archive,
    "sequences": packed_sequences,
    "shingles": shingles,
    "drops": drops,
    "tokenizer": tokenizer,
    "weights": weights,
}


def main(arguments: Iterable[str]) -> int:
    """Read the store that is named."""
    (root,) = arguments
    reader = StoreReader(Path(root))
    reader.read()
    print(json.dumps({"problems": reader.problems, "records": reader.records, "found": reader.found}, indent=1))
    return 1 if reader.problems or not reader.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
