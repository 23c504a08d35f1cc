# test_endurance.py
# Thousands of restarts leave memory and descriptors where they were. The short form of C63.
# And nothing happens while nothing is to be done.

import os
import time

import pytest

from harness import PATIENCE, fd_count, rss_bytes, zombies

COUNT = int(os.environ.get("PANELIND_TEST_RESTARTS", "2000"))


@pytest.mark.case("C63")
@pytest.mark.timeout(900)
def test_two_thousand_restarts_grow_nothing(panelind):
    daemon = panelind(
        command=["sh", "-c", "echo one line; exit 1"], settings={"restart.delay": "0s", "restart.maxDelay": "0s"}
    )

    def reached(generation):
        # Seconds a start on a slow machine, times a lot.
        daemon.wait_event("worker_started", generation=generation, timeout=PATIENCE + COUNT * 0.3)

    reached(COUNT // 4)
    memory, descriptors = rss_bytes(daemon.pid), []
    reached(COUNT)
    for _ in range(50):
        descriptors.append(fd_count(daemon.pid))
    grown = rss_bytes(daemon.pid) - memory
    assert grown < 1 << 20, f"{grown} bytes more after {COUNT * 3 // 4} restarts"
    assert max(descriptors) < 40, descriptors
    assert len(zombies(daemon.pid)) <= 1
    assert daemon.stop() == 0
    assert daemon.survivors() == []


@pytest.mark.case("C63")
def test_an_idle_daemon_uses_no_cpu(panelind):
    """No wake-ups but those that the settings ask for: in 3 s not one switch of its main thread."""
    daemon = panelind([], sidecar=True)
    daemon.ready()
    time.sleep(0.5)

    def switches():
        total = 0
        for task in os.listdir(f"/proc/{daemon.pid}/task"):
            with open(f"/proc/{daemon.pid}/task/{task}/status") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt"))
        return total

    before = switches()
    time.sleep(3)
    assert switches() - before <= 1
    assert daemon.stop() == 0
