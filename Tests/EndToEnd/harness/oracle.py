# oracle.py
# An HTTP server inside the test that plays a list of answers to panelind's probes and remembers how it was asked.
# Read daemon.py first.

import socket
import threading
import time
from dataclasses import dataclass, field

from .waiting import PATIENCE, wait_until


@dataclass
class Asked:
    """One connection that brought a request."""

    path: str
    head: str
    began: float
    # When panelind closed it, for an answer that never came.
    left: float | None = None


@dataclass
class Oracle:
    """Answers each request with the next of `answers`, the last one for ever.

    An answer is a status, (status, header lines), bytes sent as they are, "hang" (silence) or "close".
    """

    answers: list
    asked: list = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self):
        self._lock = threading.Lock()
        self._now = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()

    def then(self, *answers):
        """What is answered from now on."""
        with self._lock:
            self.answers = list(answers)

    def wait_asked(self, count, timeout=PATIENCE):
        wait_until(lambda: len(self.asked) >= count, f"{count} requests", timeout=timeout)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            connection.settimeout(PATIENCE)
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    head += piece
                text = head.decode("latin-1")
                asked = Asked(text.split(" ")[1], text, time.monotonic())
                with self._lock:
                    self._now += 1
                    self.most_at_once = max(self.most_at_once, self._now)
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    self.asked.append(asked)
                try:
                    self._answer(connection, answer, asked)
                finally:
                    with self._lock:
                        self._now -= 1
            except OSError:
                pass

    @staticmethod
    def _answer(connection, answer, asked):
        if answer == "close":
            return
        if answer == "hang":
            try:
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass
            asked.left = time.monotonic()
            return
        if isinstance(answer, bytes):
            connection.sendall(answer)
            return
        status, lines = answer if isinstance(answer, tuple) else (answer, [])
        head = [f"HTTP/1.1 {status} Whatever", *lines, "Content-Length: 0", "Connection: close", "", ""]
        connection.sendall("\r\n".join(head).encode())
