"""One process of an engine at work, started by `tests.conformance.engine_work.in_processes`."""

import os
import pickle
import sys
from pathlib import Path

from tests.conformance.engine_work import do

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcome = do(pickle.loads((folder / "work").read_bytes()), folder)
    if os.environ["RANK"] == "0":
        (folder / "outcome").write_bytes(pickle.dumps(outcome))
    if len(sys.argv) > 2:
        sys.stdout.flush()
        os._exit(0)
