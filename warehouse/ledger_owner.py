"""Names the buyers that hold claims in a ledger, and tells which of them are surely gone.

It reads no ledger.
"""

import os
import platform
import secrets
from pathlib import Path

_BATCH = "batch/"


def new_owner() -> str:
    """A name no other ledger object has, in this process or elsewhere.

    Returns:
        ``place/pid/start/random``; the first three tell others on the same machine whether this
        process still runs.
    """
    pid = os.getpid()
    return f"{_place()}/{pid}/{_started(pid) or 0}/{secrets.token_hex(4)}"


def batch_owner(submission_id: str) -> str:
    """The owner of the calls of a batch, which outlives every process that looks after it."""
    return f"{_BATCH}{submission_id}"


def batch_of(owner: str) -> str | None:
    """The batch whose calls an owner holds; None for a process."""
    return owner.removeprefix(_BATCH) if owner.startswith(_BATCH) else None


def is_surely_gone(owner: str) -> bool:
    """Whether the process of an owner has ended, where that can be known.

    Only a process of the same boot and the same process namespace can be looked up; of any other
    nothing is known, and its claims end when they expire.

    Args:
        owner: As `new_owner` made it, perhaps with more behind it.
    """
    parts = owner.split("/")
    if len(parts) < 3 or not parts[1].isdigit() or parts[2] == "0" or parts[0] != _place():
        return False
    return _started(int(parts[1])) != parts[2]


def _place() -> str:
    # Process ids mean something within one boot and one namespace only: two containers that
    # share a volume both have a process 1.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{platform.node().replace('/', '_')}-unknown"
    return f"{boot}-{namespace.strip('pid:[]')}"


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks; None where there is none, or only its corpse."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses; what follows the last one does not.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return fields[19]
