"""The two kinds of failure that a user meets, and the faults of storage.

Every message says what must hold, what was found and what to do. `InputError` ends a command with
exit code 2, a `Fault` with 1; neither shows a traceback.
"""


class InputError(ValueError):
    """What the user gave (recipe, option, source data) cannot be used; repeating does not help."""


class Fault(RuntimeError):
    """Something outside the recipe went wrong (disk, network, damaged file); a retry may help."""


class StoreAwayError(Fault):
    """The store does not answer (network, server, mount); the same call may well succeed in a while."""


class CorruptFileError(Fault):
    """A stored file is not the one that its record describes."""


class CorruptRecordError(Fault):
    """A record in the store cannot be read as what it must be."""


class LostWorkersError(Fault):
    """A piece of work cost as many workers as it may; trying again would cost more of them."""


class LeaseLostError(Fault):
    """Another process took over the work; this one must stop."""
