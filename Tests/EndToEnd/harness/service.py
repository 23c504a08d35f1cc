# service.py
# systemd's side of a service, as far as a test needs it: the receiver at NOTIFY_SOCKET, and journald's socket.
# Descriptors that come along are closed, or read; who has sent a message is kept with it.

import array
import os
import socket
import struct
import threading
import time

from .waiting import PATIENCE, TimedOut


class Receiver:
    """A datagram socket with a thread that keeps what comes: (time, pid, text). `paused`: nothing is taken."""

    def __init__(self, address, paused=False):
        self.address = str(address)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        if not self.address.startswith("@"):
            os.chmod(self.address, 0o666)
        self.arrived = []
        self._news = threading.Condition()
        self._thread = None
        if not paused:
            self.go_on()

    def go_on(self):
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if self._thread:
            self._thread.join(PATIENCE)
        self.socket.close()

    def _receive(self):
        while True:
            try:
                data, parts, flags, _ = self.socket.recvmsg(1 << 22, 4096)
            except OSError:
                return
            if not data and not parts:
                return
            pid = None
            for level, kind, content in parts:
                if kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("3i", content)[0]
                    if pid == 0:
                        # shutdown wakes recvmsg with nothing.
                        return
                elif kind == socket.SCM_RIGHTS:
                    numbers = array.array("i")
                    numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                    for number in numbers:
                        data = data or self.read(number)
                        os.close(number)
            with self._news:
                self.arrived.append((time.monotonic(), pid, data))
                self._news.notify_all()

    def read(self, descriptor):
        """What a message without text brings in its descriptor."""
        return b""

    @property
    def texts(self):
        with self._news:
            return [data.decode(errors="replace") for _, _, data in self.arrived]

    def wait(self, wanted, count=1, timeout=PATIENCE):
        """The time, pid and text of the `count`-th message for which `wanted` holds; a string is a beginning."""
        holds = wanted if callable(wanted) else lambda text: text.startswith(wanted)
        end = time.monotonic() + timeout
        with self._news:
            while True:
                found = [(at, pid, data.decode(errors="replace")) for at, pid, data in self.arrived]
                found = [one for one in found if holds(one[2])]
                if len(found) >= count:
                    return found[count - 1]
                left = end - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"{wanted} number {count} has not come; there is {[d for _, _, d in self.arrived]}")
                self._news.wait(left)


class Journal(Receiver):
    """journald's socket: entries as dictionaries of lists."""

    def read(self, descriptor):
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0)

    @property
    def entries(self):
        with self._news:
            return [self.parse(data) for _, _, data in self.arrived]

    @staticmethod
    def parse(data):
        """systemd.io/JOURNAL_NATIVE_PROTOCOL"""
        fields = {}
        while data:
            line, _, rest = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = struct.unpack("<Q", rest[:8])[0]
                value, rest = rest[8 : 8 + size], rest[9 + size :]
            fields.setdefault(name.decode(), []).append(value.decode())
            data = rest
        return fields

    def wait_entry(self, **wanted):
        """The first entry with these values."""

        def holds(text):
            entry = self.parse(text.encode())
            return all(entry.get(name) == [value] for name, value in wanted.items())

        return self.parse(self.wait(holds)[2].encode())


def in_namespace(script):
    """A wrapper: a mount namespace of panelind's own, in which a shell has done this before. The pid stays."""
    user = [] if os.geteuid() == 0 else ["-Ur"]
    return ["unshare", *user, "-m", "sh", "-e", "-c", script + '\nexec "$@"', "sh"]
