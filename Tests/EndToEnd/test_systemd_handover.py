# test_systemd_handover.py
# Clients that keep their connections, while panelind restarts behind a socket that systemd keeps: every request is
# answered, by the old one or the next. Read test_systemd_sockets.py first.

import http.client
import threading

from harness import wait_until
from test_systemd_sockets import activated, listener

WORKER = ["listen unix {socket}", "on TERM begin drain exit 0 end"]


class KeptClient:
    """Asks without a pause on one connection, until it is told that the connection ends."""

    def __init__(self, port):
        self.answered = 0
        self.failures = []
        self._done = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self):
        connection, fresh = None, True
        while not self._done.is_set():
            try:
                if connection is None:
                    connection, fresh = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30), True
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"status {answer.status}")
                fresh = False
                if answer.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                # A connection that was kept may be closed while the next request is on its way (RFC 9112 9.3.1).
                if fresh:
                    self.failures.append(repr(error))
                connection.close()
                connection = None

    def end(self):
        self._done.set()
        self._thread.join(40)


def test_clients_that_keep_their_connections_are_handed_over(panelind):
    with listener() as one:
        port = one.getsockname()[1]
        daemon = panelind(WORKER, {"serve.mode": "front"}, **activated([one]))
        daemon.ready()
        clients = [KeptClient(port) for _ in range(3)]
        for _ in range(4):
            for client in clients:
                count = client.answered
                wait_until(lambda: client.answered > count + 5, "requests are answered")
            assert daemon.stop() == 0
            daemon = panelind(WORKER, {"serve.mode": "front"}, **activated([one]))
            daemon.ready()
        for client in clients:
            client.end()
        assert [client.failures for client in clients] == [[], [], []]
        assert daemon.stop() == 0
