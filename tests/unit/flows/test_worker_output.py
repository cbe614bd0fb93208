"""A flow run whose worker was killed: nobody reads what it prints, and it goes on."""

import subprocess
import sys

PRINTS = """
import sys
from prefect.logging import get_logger
from prefect.logging.configuration import setup_logging
from flows.worker_output import outlive_worker
setup_logging()
if sys.argv[1] == "outlive":
    outlive_worker()
sys.stdin.read()  # until the reader is gone
for line in range(3):
    get_logger("pile").warning("line %s", line)
print("more", flush=True)
"""


def exit_code_without_reader(word: str) -> int:
    command = [sys.executable, "-c", PRINTS, word]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.close()
    return process.wait()


def test_run_outlives_the_reader_of_its_output() -> None:
    assert exit_code_without_reader("outlive") == 0


def test_prefect_alone_ends_with_the_reader() -> None:
    assert exit_code_without_reader("as Prefect does") == 1
