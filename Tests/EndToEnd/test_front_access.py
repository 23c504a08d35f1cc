# test_front_access.py
# The access lines: httpRequest objects under log.access, with the trace of the request and no secret: CONTRACT sections 2 and 8.
# Read harness/front.py first.

import json
import re
import time

import pytest

from harness import wait_until
from harness.director import answer, chunk, chunked_head, send
from harness.rawclient import Truncated, request
from test_front_upgrade import TUNNEL, open_tunnel

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def lines(front, path=None):
    """The access lines so far, for one path if given."""
    found = [record for record in front.daemon.records if "httpRequest" in record]
    return [one for one in found if path is None or path_of(one) == path]


def path_of(record):
    url = record["httpRequest"]["requestUrl"]
    return re.sub(r"^https?://[^/]*", "", url)


def line(front, path):
    """The access line of this request, once it is there."""
    return wait_until(lambda: lines(front, path), f"an access line for {path}")[0]


@pytest.fixture(scope="module")
def logging_front(module_front):
    return module_front({"/fail": [["body"], answer(500, b"broken")], "/busy": [["body"], answer(503, b"busy")]},
                        {"log.access": "all", "log.project": "my-project"})


def test_an_access_line_has_what_cloud_logging_shows(logging_front):
    one = logging_front
    with one.client() as client:
        client.send(request("/all?a=b", b"hello world", "User-Agent: test/1 (x)", "Referer: http://r.example/"))
        got = client.answer()
    record = line(one, "/all?a=b")
    http = record["httpRequest"]
    assert http["requestMethod"] == "POST"
    assert http["status"] == 200
    assert http["userAgent"] == "test/1 (x)"
    assert http["remoteIp"] == "127.0.0.1"
    assert http["protocol"] == "HTTP/1.1"
    assert re.fullmatch(r"\d+(\.\d+)?s", http["latency"])
    assert 0 <= float(http["latency"][:-1]) < 30
    # LogEntry wants 64-bit numbers as strings; sizes of the whole message, or of the body.
    assert int(http["responseSize"]) >= len(got.body)
    assert int(http["requestSize"]) >= 11
    assert record["severity"] == "INFO"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record["time"])
    assert record["message"]


@pytest.mark.parametrize("path, status, severity", [("/fail", 500, "ERROR"), ("/busy", 503, "ERROR")])
def test_a_failure_is_an_error(logging_front, path, status, severity):
    assert logging_front.get(path).status == status
    record = line(logging_front, path)
    assert record["httpRequest"]["status"] == status
    assert record["severity"] in (severity, "WARNING")


def test_every_request_has_one_line(logging_front):
    with logging_front.client() as client:
        for number in range(30):
            client.get(f"/each/{number}")
            assert client.answer().status == 200
    line(logging_front, "/each/29")
    assert [len(lines(logging_front, f"/each/{number}")) for number in range(30)] == [1] * 30


@pytest.mark.parametrize("fields, span, sampled", [
    ([f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"], "00f067aa0ba902b7", True),
    ([f"traceparent: 00-{TRACE}-00f067aa0ba902b7-00"], "00f067aa0ba902b7", False),
    ([f"X-Cloud-Trace-Context: {TRACE}/255;o=1"], "00000000000000ff", True),
    ([f"X-Cloud-Trace-Context: {TRACE}/18446744073709551615;o=0"], "ffffffffffffffff", False),
    ([f"X-Cloud-Trace-Context: {TRACE}"], None, False),
])
def test_the_trace_is_told(logging_front, fields, span, sampled):
    path = f"/trace/{abs(hash(fields[0]))}"
    assert logging_front.get(path, *fields).status == 200
    record = line(logging_front, path)
    assert record["logging.googleapis.com/trace"] == f"projects/my-project/traces/{TRACE}"
    assert record.get("logging.googleapis.com/spanId") == span
    assert record.get("logging.googleapis.com/trace_sampled", False) is sampled


@pytest.mark.parametrize("field", [
    "traceparent: nonsense", "traceparent: 00-" + "0" * 32 + "-00f067aa0ba902b7-01", "traceparent: 00-" + "g" * 32 + "-00f067aa0ba902b7-01",
    "X-Cloud-Trace-Context: /1;o=1", "X-Cloud-Trace-Context: " + "x" * 5000, "X-Nothing: 1",
], ids=lambda field: field[:40])
def test_what_is_no_trace_adds_no_trace(logging_front, field):
    path = f"/no-trace/{abs(hash(field))}"
    assert logging_front.get(path, field).status == 200
    record = line(logging_front, path)
    assert not [key for key in record if key.startswith("logging.googleapis.com/")]


def test_without_a_project_there_is_no_trace(front):
    one = front(settings={"log.access": "all"}, environment={"GOOGLE_CLOUD_PROJECT": None})
    one.get("/x", f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01")
    assert "logging.googleapis.com/trace" not in line(one, "/x")


def test_the_project_comes_from_the_environment(front):
    one = front(settings={"log.access": "all"}, environment={"GOOGLE_CLOUD_PROJECT": "from-environment"})
    one.get("/x", f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01")
    assert line(one, "/x")["logging.googleapis.com/trace"] == f"projects/from-environment/traces/{TRACE}"


def test_errors_are_the_default(front):
    one = front({"/fail": [answer(500, b"x")], "/slow": [["gate", "slow"], answer()], "/missing": [answer(404, b"x")],
                 "/late": [answer(502, b"x")]}, {"log.slow": "500ms"})
    with one.client() as slow:
        slow.get("/slow")
        one.director.at_gate("slow")
        assert one.get("/quick").status == 200
        assert one.get("/missing").status == 404
        assert one.get("/fail").status == 500
        with one.client() as client:
            client.send(b"GET /bad HTTP/1.1\r\n\r\n")
            assert client.answer().status == 400
        assert slow.is_silent(0.7)
        one.director.release("slow")
        assert slow.answer().status == 200
    assert one.get("/late").status == 502
    line(one, "/late")
    assert [path_of(record) for record in lines(one)] == ["/fail", "/slow", "/late"]
    assert float(line(one, "/slow")["httpRequest"]["latency"][:-1]) >= 0.5


def test_what_panelind_answers_itself_is_logged_too(front):
    one = front({"/502": [["body"], ["close"]], "/504": [["body"], ["gate", "never"]]},
                {"serve.responseTimeout": "300ms", "serve.concurrency": 1, "serve.heldRequests": 0, "log.access": "errors"})
    with one.client() as client:
        client.get("/504")
        one.director.at_gate("never")
        assert one.get("/503").status == 503
        assert client.answer().status == 504
    assert one.post("/502").status == 502
    for status in (502, 503, 504):
        record = line(one, f"/{status}")
        assert record["httpRequest"]["status"] == status
        assert record["severity"] in ("ERROR", "WARNING")


def test_refused_requests_are_logged_with_their_reason(front):
    """Issue: a line in the log that names the reason."""
    one = front(settings={"log.access": "all"})
    with one.client() as client:
        client.send(b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.answer().status == 400
    record = one.daemon.wait_event("request_refused")
    assert record["status"] == 400 and record["severity"] == "WARNING"
    assert re.search(r"transfer-encoding|content-length", record["message"].lower()), record
    assert record["remote_ip"] == "127.0.0.1"


def test_a_flood_of_refused_requests_is_no_flood_of_lines(front):
    one = front()
    for _ in range(200):
        with one.client() as client:
            client.send(b"nonsense\r\n\r\n")
            client.answer()
    time.sleep(1)
    with one.client() as client:
        client.send(b"nonsense\r\n\r\n")
        client.answer()
    assert one.daemon.stop() == 0
    told = one.daemon.events("request_refused")
    assert len(told) + sum(record.get("untold", 0) for record in told) == 201
    assert len(told) < 150


def test_a_broken_answer_is_logged_with_its_reason(front):
    one = front({"/broken": [["body"], send("nonsense\r\n\r\n")]})
    assert one.get("/broken").status == 502
    assert re.search(r"answer|response|upstream|worker", line(one, "/broken")["message"].lower())


def test_none_is_none(front):
    one = front({"/fail": [answer(500, b"x")]}, {"log.access": "none", "log.slow": "1ms"})
    assert one.get("/fail").status == 500
    assert one.post("/x").status == 200
    assert one.daemon.stop() == 0
    assert not lines(one)


def test_health_is_not_in_the_access_log(front):
    """Ten lines a minute that say nothing; what Cloud Run logs of its probes it logs itself."""
    one = front(settings={"log.access": "errors"}, boot={"*": {"gate": "boot"}}, ready=False)
    one.director.wait("environment")
    for _ in range(3):
        assert one.health("/ready")[0] == 503
    one.director.release("boot")
    one.daemon.ready()
    assert one.daemon.stop() == 0
    assert not lines(one)


def test_a_truncated_answer_is_logged_although_its_status_was_200(front):
    one = front({"/cut": [["body"], chunked_head(), send(chunk("x")), ["close"]]}, {"log.access": "all"})
    with pytest.raises(Truncated):
        one.get("/cut")
    record = line(one, "/cut")
    assert record["httpRequest"]["status"] == 200
    assert record["severity"] in ("ERROR", "WARNING")
    assert "truncat" in json.dumps(record).lower()


SECRETS = {
    "Authorization": "Bearer s3cr3t-bearer", "Cookie": "session=s3cr3t-cookie", "X-Serverless-Authorization": "Bearer s3cr3t-serverless",
    "Proxy-Authorization": "Basic s3cr3t-proxy", "X-Api-Key": "s3cr3t-key",
}


@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_credential_reaches_a_log(front, level, tmp_path):
    """Whatever happens to the request that carries it."""
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t-file\n")
    fields = [f"{name}: {value}" for name, value in SECRETS.items()]
    one = front({"/fail": [["body"], answer(500, b"x", "Set-Cookie: id=s3cr3t-set-cookie")], "/cut": [["body"], ["close"]],
                 "/broken": [["body"], send("HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t-broken\nX: \0\r\n\r\n")],
                 "/slow": [["gate", "never"]]},
                {"log.access": "all", "log.level": level, "serve.responseTimeout": "300ms",
                 "worker.secrets": {"TOKEN": str(secret)}})
    assert one.get("/x", *fields).status == 200
    assert one.post("/fail", b"s3cr3t-body", *fields).status == 500
    assert one.post("/cut", b"x", *fields).status == 502
    assert one.get("/broken", *fields).status == 502
    assert one.get("/slow", *fields).status == 504
    for bad in (b"Content-Length: x\r\n", b"Broken\r\n", b"Host: b\r\n", b"X-Long: " + b"y" * 70_000 + b"\r\n"):
        with one.client() as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n" + "".join(f + "\r\n" for f in fields).encode() + bad + b"\r\n")
            assert client.answer().status >= 400
    one.kill_worker()
    one.daemon.wait_event("worker_ready", count=2)
    assert one.get("/x", *fields).status == 200
    assert one.daemon.stop() == 0
    text = b"".join(one.daemon.lines).decode(errors="replace") + one.daemon.stderr
    assert "s3cr3t" not in text, [found for found in text.splitlines() if "s3cr3t" in found][:3]


def test_hostile_bytes_in_a_request_stay_inside_of_their_line(logging_front):
    path = "/hostile?a=\"}{\"severity\":\"EMERGENCY\"<>'\\u0000"
    assert logging_front.get(path, 'User-Agent: "}\\n{"a\tb').status == 200
    record = line(logging_front, path)
    assert record["severity"] == "INFO"
    assert record["httpRequest"]["userAgent"] == '"}\\n{"a\tb'


def test_a_user_agent_beyond_ascii_is_one_line_of_json(logging_front):
    with logging_front.client() as client:
        client.send(b"GET /agent-bytes HTTP/1.1\r\nHost: h\r\nUser-Agent: caf\xe9 \xe2\x82\xac \xff\r\n\r\n")
        assert client.answer().status == 200
    assert "caf" in line(logging_front, "/agent-bytes")["httpRequest"]["userAgent"]


def test_the_text_format_has_one_line_a_request(front):
    one = front(settings={"log.access": "all", "log.format": "text"}, ready=False)
    wait_until(lambda: any(b"ready" in text for text in one.daemon.lines), "the worker is ready")
    with one.client() as client:
        client.post("/in-text", b"x", "User-Agent: agent/1")
        assert client.answer().status == 200

    def found():
        return [text for text in one.daemon.lines if b"/in-text" in text]

    text = wait_until(found, "a line")[0]
    assert b"POST" in text and b"200" in text


def test_a_tunnel_s_line_comes_at_its_end(front):
    one = front(TUNNEL, {"log.access": "all"})
    with one.client() as client:
        open_tunnel(client)
        client.send(b"hello")
        assert client.read(5) == b"hello"
        assert not lines(one, "/ws")
    assert line(one, "/ws")["httpRequest"]["status"] == 101
