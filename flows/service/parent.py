"""A process that ends with the one that started it."""

import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""Number of the Linux call that asks for a signal when the parent dies (prctl(2))."""

C = ctypes.CDLL(None)
"""Opened before it is needed: between fork and exec nothing may be loaded."""


def end_with_parent() -> None:
    """Have the system send SIGTERM to the present process when its parent ends, however that does."""
    C.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
