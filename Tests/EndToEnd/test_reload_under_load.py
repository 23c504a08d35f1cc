# test_reload_under_load.py
# Twenty reloads by `panelind reload` under 200 requests a second, five of them to a broken worker: no request fails.
# Read test_front_reload.py for the single cases.

import http.client
import threading
import time

from harness import free_port, scripted_worker
from harness.control import Control

CLIENTS, RATE = 8, 200


class Load:
    """Clients that ask in time, each on a connection that it keeps; what went wrong is in `failures`."""

    def __init__(self, port):
        self.port = port
        self.asked, self.failures = 0, []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._clients = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self):
        self.begin = time.monotonic()
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for client in self._clients:
            client.join(60)
        self.seconds = time.monotonic() - self.begin

    def _run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        due = time.monotonic() + number / RATE
        while not self._end.wait(max(0, due - time.monotonic())):
            due += CLIENTS / RATE
            try:
                # A body makes it one that a proxy may not repeat.
                connection.request("POST", "/echo", body=b"x" * 100)
                answer = connection.getresponse()
                body = answer.read()
                wrong = None if (answer.status, len(body)) == (200, 100) else f"{answer.status} {body[:80]}"
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
                connection.close()
            with self._lock:
                self.asked += 1
                if wrong:
                    self.failures.append((time.monotonic() - self.begin, wrong))


def test_twenty_reloads_fail_no_request(panelind):
    port = free_port()
    good = ["listen unix {socket}"]
    daemon = panelind(good, {"serve.listen": f"127.0.0.1:{port}", "control.path": "c.sock",
                             "probe.startup.deadline": "20s"})
    daemon.ready()
    control = Control(daemon.directory / "c.sock")
    works = daemon.settings["worker.command"]
    broken = scripted_worker(f"tag {daemon.tag}", "exit 1", *good)
    serving = 1
    with Load(port) as load:
        for n in range(20):
            is_broken = n % 4 == 2
            daemon.write_settings({"worker.command": broken if is_broken else works,
                                   "worker.environment": {"TEST_ROUND": str(n)}})
            status, body = control.post("/v1/reload", timeout=60)
            if is_broken:
                assert status == 502 and "the old one keeps serving" in body["detail"], body
                assert "exit 1" in body["detail"]
            else:
                assert (status, body["overlapped"]) == (200, True), body
                serving = body["generation"]
            # The next one follows at once: it waits until the one before this one has left.
            assert control.status()["state"] == "ready"
    assert load.failures == []
    assert load.asked >= 0.5 * RATE * load.seconds, "the load was not there"
    assert control.status()["restarts"] == 0
    assert serving == 21
    assert daemon.stop() == 0
    assert daemon.survivors() == []
