# processes.py
# What /proc says of processes. A process that goes away while it is looked at is a normal case.
# Zombies are no survivors: they only wait to be reaped.

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    pid: int
    ppid: int
    pgid: int
    sid: int
    state: str
    command: str


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _stat(pid):
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name in brackets may hold anything.
    return text[text.rindex(b")") + 2 :].decode().split()


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process(pid):
    """One process, or None."""
    fields = _stat(pid)
    line = _read(f"/proc/{pid}/cmdline")
    if fields is None or line is None:
        return None
    command = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[0], command)


def state(pid):
    """The letter of its state, or None."""
    fields = _stat(pid)
    return fields[0] if fields else None


def is_alive(pid):
    """Exists and is no zombie."""
    return state(pid) not in (None, "Z", "X")


def parent(pid):
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def process_group(pid):
    fields = _stat(pid)
    return int(fields[2]) if fields else None


def command_line(pid):
    found = process(pid)
    return found.command if found else None


def environment_of(pid):
    """Its environment when it was started, as a dictionary of bytes.

    A process that the kernel has just given its new program shows none for a moment: then it is asked again.
    """
    for _ in range(100):
        text = _read(f"/proc/{pid}/environ") or b""
        if text or not is_alive(pid):
            break
        time.sleep(0.01)
    return dict(entry.split(b"=", 1) for entry in text.split(b"\0") if b"=" in entry)


def children(pid):
    """Its children, zombies included."""
    return [found for found in map(process, all_pids()) if found and found.ppid == pid]


def descendants(pid):
    """All below it, zombies included."""
    everything = [found for found in map(process, all_pids()) if found]
    below, front = [], {pid}
    while front:
        found = [one for one in everything if one.ppid in front]
        below += found
        front = {one.pid for one in found}
    return below


def zombies(pid):
    return [one for one in children(pid) if one.state == "Z"]


def carriers(tag, besides=()):
    """The living processes that carry a tag on their command line or in their environment."""
    wanted = tag.encode()
    found = []
    for pid in all_pids():
        if pid in besides:
            continue
        if wanted in (_read(f"/proc/{pid}/cmdline") or b"") or wanted in (_read(f"/proc/{pid}/environ") or b""):
            one = process(pid)
            if one and one.state not in "ZX":
                found.append(one)
    return found


def signal_masks(pid):
    """SigBlk, SigIgn, SigCgt … of /proc/PID/status, as numbers."""
    masks = {}
    for line in (_read(f"/proc/{pid}/status") or b"").decode().splitlines():
        name, _, value = line.partition(":")
        if name.startswith(("Sig", "Shd")) and name != "SigQ":
            masks[name] = int(value, 16)
    return masks


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_bytes(pid):
    return int((_read(f"/proc/{pid}/statm") or b"0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")
