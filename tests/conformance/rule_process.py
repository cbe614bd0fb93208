"""A process in another place, started by `tests.conformance.rule_checks`, that judges what it is sent.

The hashes of text, the folder, the environment and the hour are others there; so is the number of processors.
"""

import os
import pickle
import sys

from tests.conformance.rule_checks import judged

if __name__ == "__main__":
    found = os.cpu_count()
    os.cpu_count = lambda: 64 if found == 1 else 1
    output, sys.stdout = sys.stdout, sys.stderr  # what a member prints is no answer
    while sys.stdin.buffer.peek(1):
        member, config, texts = pickle.load(sys.stdin.buffer)
        pickle.dump(judged(member(config), texts), output.buffer)
        output.flush()
