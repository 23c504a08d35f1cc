# test_harness.py
# One start, one answer, one stop in each placement: what every other test stands on.
# Read harness/daemon.py first.

import signal

from harness import Placement, accepts, free_port, http


def test_a_worker_starts_serves_and_stops_in_each_placement(panelind, placement):
    daemon = panelind(["listen env"], sidecar=True, environment={"PORT": (port := free_port())}, placement=placement)
    daemon.ready()
    assert http(port, "/").status == 200
    assert daemon.health()["state"] == "ready"
    warned = daemon.events("subreaper_refused")
    assert len(warned) == (1 if placement is Placement.REFUSED else 0)
    leader = daemon.worker()
    assert daemon.stop(signal.SIGTERM) == 0
    assert daemon.survivors() == []
    assert not accepts(port), leader
    assert [event["event"] for event in daemon.events()][-2:] == ["worker_exited", "panelind_stopped"]
