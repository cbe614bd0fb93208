"""A process that ends with the one that started it. Loads nothing: it is called between fork and exec, too."""

import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""Number of the Linux call that asks for a signal when the parent dies (prctl(2))."""


def end_with_parent() -> None:
    """Have the system send SIGTERM to the present process when its parent ends, however that does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
