# test_front_reload.py
# SIGHUP in front mode: the next generation beside the old, or the old one first where they cannot be side by side.
# CONTRACT section 5 (Reload). Read harness/front.py first; test_reload.py has the other modes.

import json
import os
import signal
import tempfile
import threading
import time

import pytest

from harness import free_port, is_alive, wait_until
from harness.control import Control
from harness.director import answer, chunk, chunked_head, send, sse_head, upgraded
from harness.load import Load
from harness.rawclient import Truncated
from test_front_drain import WEBSOCKET

GREET = {"g1 /x": [["body"], answer(200, b"1")], "g2 /x": [["body"], answer(200, b"2")], "g3 /x": [["body"], answer(200, b"3")]}


def hang_up(front, changes=None):
    """Asks for a reload, of changed settings where given."""
    front.daemon.write_settings(changes or {"worker.environment": {"ROUND": str(time.monotonic())}})
    front.daemon.send(signal.SIGHUP)


def make(number):
    return "GET", f"GET /r?{number} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def test_three_reloads_under_load_fail_no_request(front):
    one = front(settings={"stop.budget": "20s"})
    with Load(one.target, make, rate=150) as load:
        wait_until(lambda: len(load.outcomes) > 30, "traffic")
        for generation in (2, 3, 4):
            hang_up(one)
            one.daemon.ready(generation)
            one.daemon.wait_event("worker_exited", generation=generation - 1)
            before = len(load.outcomes)
            wait_until(lambda: len(load.outcomes) > before + 30, "traffic")
    assert not load.failures(), load.failures()[:5]
    # Nobody waited for a worker either.
    print(f"longest {max(outcome.took for outcome in load.outcomes) * 1000:.0f} ms")
    assert {seen.generation for seen in one.director.requests()} == {1, 2, 3, 4}
    assert [event["error"] for event in one.daemon.events("reload_end")] == [None] * 3
    assert one.health()[1]["restarts"] == 0
    assert one.daemon.stop() == 0


def test_the_old_one_serves_until_the_new_one_is_ready_and_then_finishes_what_it_has(front):
    one = front({**GREET, "/slow": [["body"], ["gate", "slow"], ["echo"]]}, boot={"2": {"gate": "boot"}})
    old = one.daemon.worker()
    with one.client() as slow, one.client() as kept:
        slow.post("/slow", b"hello")
        one.director.at_gate("slow")
        hang_up(one)
        one.daemon.wait_event("worker_started", generation=2)
        assert is_alive(old) and is_alive(one.daemon.worker(2)), "side by side"
        for _ in range(5):
            kept.get("/x")
            assert kept.answer().body == b"1"
        assert one.health("/ready")[0] == 200
        one.director.release("boot")
        one.daemon.ready(2)
        wait_until(lambda: one.get("/x").body == b"2", "the new one has taken over")
        # Once is for ever, on kept connections too.
        for _ in range(5):
            kept.get("/x")
            got = kept.answer()
            assert got.body == b"2" and not got.closes, "a reload is no drain of the clients"
        assert slow.is_silent(0.2)
        assert is_alive(old)
        one.director.release("slow")
        assert json.loads(slow.answer().body)["generation"] == 1
        one.daemon.wait_event("worker_exited", generation=1)
    assert len(one.director.requests("/slow")) == 1
    assert one.daemon.wait_event("reload_end")["error"] is None
    assert one.health()[1]["generation"] == 2
    assert len({event["arguments"][1] for event in one.director.find("environment")}) == 2, "each has its own socket"
    path = one.director.find("environment")[0]["arguments"][1]
    wait_until(lambda: not os.path.exists(path), "the old socket is gone")


@pytest.mark.parametrize("kind", ["exits", "never ready", "answers 500"])
def test_a_broken_new_one_is_discarded_while_the_old_one_serves(front, kind):
    boot = {"2": {"exit": 1}} if kind == "exits" else {"2": {"gate": "never"}} if kind == "never ready" else {}
    one = front({**GREET, "g2 /ready": [answer(500, b"no")]}, boot=boot, settings={"probe.startup.deadline": "1500ms"})
    with Load(one.target, make, rate=50) as load:
        hang_up(one)
        ended = one.daemon.wait_event("reload_end")
        assert ended["error"], "the answer says why"
        one.daemon.wait_event("worker_exited", generation=2)
        for _ in range(10):
            assert one.get("/x").body == b"1"
            assert one.health("/ready")[0] == 200
    assert not load.failures()
    status, body = one.health()
    # It counts workers, and there have been two.
    assert (status, body["generation"], body["restarts"]) == (200, 2, 0)
    assert not one.daemon.events("worker_ready", generation=2)
    # And a good one afterwards is taken.
    one.director.write(GREET, boot={})
    hang_up(one)
    one.daemon.ready(3)
    wait_until(lambda: one.get("/x").body == b"3", "the third")
    assert one.daemon.stop() == 0


def test_tunnels_and_streams_of_the_old_one_end_with_its_goodbye(front):
    """They would last for ever; they do not keep the old one from its signal."""
    sse = [["body"], sse_head(), send(chunk("data: 1\n\n")), ["gate", "TERM"], send(chunk("data: bye\n\n") + b"0\r\n\r\n"),
           ["close"]]
    one = front({**GREET, "/ws": [upgraded(), ["tunnel"]], "/sse": sse}, settings={"stop.drain": "5s", "stop.budget": "9s"})
    with one.client() as ws, one.client() as stream:
        ws.get("/ws", *WEBSOCKET)
        assert ws.head().status == 101
        stream.get("/sse")
        events = stream.head()
        stream.piece(events)
        hang_up(one)
        begin = time.monotonic()
        one.daemon.ready(2)
        assert ws.until_end()[0] == b"goodbye"
        assert stream.rest(events).body.endswith(b"data: bye\n\n")
        one.daemon.wait_event("worker_exited", generation=1)
        assert time.monotonic() - begin < 4
    assert one.get("/x").body == b"2"


def test_an_old_one_that_will_not_leave_is_killed_and_the_new_one_serves_meanwhile(front):
    one = front({**GREET, "/never": [["gate", "never"]], "/begun": [chunked_head(), send(chunk("x")), ["gate", "never"]]},
                settings={"stop.drain": "700ms", "stop.grace": "700ms"}, term="ignore")
    with one.client() as never, one.client() as begun:
        never.get("/never")
        begun.get("/begun")
        got = begun.head()
        begun.piece(got)
        one.director.at_gate("never", count=2)
        hang_up(one)
        one.daemon.ready(2)
        wait_until(lambda: one.get("/x").body == b"2", "the new one has taken over")
        assert never.answer().status in (502, 504)
        with pytest.raises(Truncated):
            begun.rest(got)
        exited = one.daemon.wait_event("worker_exited", generation=1)
        assert exited["cause"] == "requested"
    assert one.serves()
    assert len(one.director.requests("/never")) == 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_where_two_cannot_be_side_by_side_the_old_one_stops_first_while_requests_wait(front, kind):

    with tempfile.TemporaryDirectory(prefix="pu-", dir="/tmp") as directory:
        upstream = f"127.0.0.1:{free_port()}" if kind == "tcp" else f"unix:{directory}/w"
        one = front({**GREET, "/slow": [["body"], ["gate", "slow"], ["echo"]]}, placeholder=upstream,
                    boot={"2": {"gate": "boot"}})
        old = one.daemon.worker()
        with one.client() as slow, Load(one.target, make, rate=20) as load:
            slow.post("/slow", b"hello")
            one.director.at_gate("slow")
            hang_up(one)
            one.daemon.wait_event("reload_begin")
            assert slow.is_silent(0.3)
            one.director.release("slow")
            assert json.loads(slow.answer().body)["generation"] == 1, "what it had is finished"
            one.daemon.wait_event("worker_started", generation=2)
            assert not is_alive(old)
            with one.client() as waiting:
                waiting.post("/x", b"hello")
                assert waiting.is_silent(0.3)
                one.director.release("boot")
                assert waiting.answer().body == b"2"
        assert not load.failures(), load.failures()[:3]
        assert one.daemon.stop() == 0


def test_a_reload_during_a_reload_is_refused(front):
    one = front(GREET, boot={"2": {"gate": "boot"}})
    hang_up(one)
    one.daemon.wait_event("worker_started", generation=2)
    hang_up(one)
    assert "another reload" in one.daemon.wait_event("reload_end")["error"]
    one.director.release("boot")
    one.daemon.ready(2)
    wait_until(lambda: one.get("/x").body == b"2", "the first of them")
    assert len(one.daemon.events("worker_started")) == 2


@pytest.mark.parametrize("key, value", [("serve.listen", "127.0.0.1:1"), ("sidecar.listen", "127.0.0.1:1"),
                                        ("control.path", "c.sock"), ("platform", "kubernetes")])
def test_what_needs_a_restart_is_refused_and_changes_nothing(front, key, value):
    one = front(GREET)
    hang_up(one, {key: value})
    rejected = one.daemon.wait_event("config_rejected")
    assert key in rejected["message"] and "needs a restart of panelind" in rejected["message"]
    assert one.get("/x").body == b"1"
    assert len(one.daemon.events("worker_started")) == 1


def test_changed_settings_of_the_front_hold_for_the_next_request(front):
    one = front(GREET)
    assert one.post("/x", b"y" * 2000).status == 200
    hang_up(one, {"serve.bodyLimit": "1000B", "serve.healthPath": "/alive", "serve.trustedProxies": []})
    one.daemon.ready(2)
    wait_until(lambda: one.get("/x").body == b"2", "the new one has taken over")
    assert one.post("/x", b"y" * 2000).status == 413
    assert one.health("/alive")[1]["status"] == "ok"
    assert one.seen("/health")["target"] == "/health"
    got = one.seen("/y", "X-Forwarded-Proto: https")
    assert [value for name, value in got["headers"] if name.lower() == "x-forwarded-proto"] == ["http"]


def test_a_reload_in_backoff_starts_the_new_one(front):
    one = front(GREET, settings={"restart.delay": "30s", "restart.maxDelay": "30s", "serve.hold": "40s"})
    one.kill_worker()
    one.daemon.wait_event("worker_backoff")
    with one.client() as waiting:
        waiting.post("/x", b"hello")
        hang_up(one)
        assert waiting.answer().body == b"2"


def test_a_reload_when_given_up_starts_the_new_one(front):
    one = front(GREET, boot={"1": {"exit": 5}}, ready=False, settings={"restart.limit": 0, "restart.onGiveUp": "hold"})
    one.daemon.wait_event("worker_failed")
    assert one.get("/x").status == 503
    hang_up(one)
    one.daemon.ready(2)
    wait_until(lambda: one.get("/x").body == b"2", "the new one")
    assert one.health()[0] == 200


def test_a_death_of_the_old_one_during_the_trial_is_bridged_by_the_new_one(front):
    one = front(GREET, boot={"2": {"gate": "boot"}})
    hang_up(one)
    one.daemon.wait_event("worker_started", generation=2)
    one.kill_worker(1)
    one.daemon.wait_event("worker_exited", generation=1)
    with one.client() as client:
        client.post("/x", b"hello")
        one.director.release("boot")
        got = client.answer()
        assert got.status == 200 and got.body in (b"2", b"3")


def test_a_stop_during_a_reload_ends_both_within_the_budget(front):
    one = front({**GREET, "/slow": [["gate", "slow"], answer(200, b"slow")]}, boot={"2": {"gate": "boot"}},
                settings={"stop.budget": "5s"})
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("slow")
        hang_up(one)
        one.daemon.wait_event("worker_started", generation=2)
        one.daemon.send(signal.SIGTERM)
        begin = time.monotonic()
        assert slow.is_silent(0.3)
        one.director.release("slow")
        assert slow.answer().body == b"slow"
        assert one.daemon.wait() == 0
        assert time.monotonic() - begin < 5.5
    assert not one.daemon.survivors()


def test_a_bad_configuration_changes_nothing(front):
    one = front(GREET)
    leader = one.daemon.worker()
    for changes in ({"serve.hold": "nonsense"}, {"serve.mode": "socket"}, {"worker.command": ["/no/such/worker", "{socket}"]}):
        before = dict(one.daemon.settings)
        count = len(one.daemon.events("config_rejected"))
        hang_up(one, changes)
        one.daemon.wait_event("config_rejected", count=count + 1)
        one.daemon.settings = before
    assert is_alive(leader)
    assert one.get("/x").body == b"1"


def test_a_reload_behind_one_that_is_done_waits_for_the_old_worker_to_leave(front):
    one = front({"g1 /slow": [["body"], ["gate", "slow"], answer(200, b"slow")]}, {"control.path": "control.sock"})
    control = Control(one.daemon.directory / "control.sock")
    with one.client() as client:
        client.get("/slow")
        one.director.at_gate("slow")
        assert control.post("/v1/reload")[0] == 200, "done: the new one serves"
        codes = []
        asking = [threading.Thread(target=lambda: codes.append(control.post("/v1/reload")[0])) for _ in range(2)]
        for thread in asking:
            thread.start()
        wait_until(lambda: codes, "one is refused: only one can wait")
        assert codes == [409]
        one.director.release("slow")
        assert client.answer().body == b"slow"
        for thread in asking:
            thread.join()
    assert codes == [409, 200]
    one.daemon.ready(3)
    assert one.serves()
    assert one.daemon.stop() == 0
