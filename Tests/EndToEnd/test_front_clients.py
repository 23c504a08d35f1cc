# test_front_clients.py
# Clients that people use, through the front: curl, Python's requests and websockets, http.client. CONTRACT section 5.
# Read test_front_workers.py first.

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest
import requests
import websockets.exceptions
import websockets.sync.client

from harness.director import answer, chunk, send, sse_head
from test_front_workers import FORMS, behind

assert behind  # A fixture.


@pytest.fixture
def uvicorn(behind):  # noqa: F811
    daemon = behind(FORMS["uvicorn --uds"], {"serve.bodyLimit": "64MiB"})
    daemon.ready()
    daemon.url = f"http://127.0.0.1:{daemon.port}"
    return daemon


def curl(*arguments, code=0, stdin=None):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *map(str, arguments)], input=stdin, capture_output=True, timeout=90)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done.stdout


# -- curl


def test_curl_gets_posts_and_heads(uvicorn):
    assert json.loads(curl(f"{uvicorn.url}/"))["pid"]
    assert curl("-d", "hello", f"{uvicorn.url}/echo") == b"hello"
    head = curl("-I", f"{uvicorn.url}/").decode()
    assert head.startswith("HTTP/1.1 200") and "content-length" in head.lower()
    assert curl("-X", "OPTIONS", "-o", "/dev/null", "-w", "%{http_code}", f"{uvicorn.url}/") == b"200"
    assert curl("--http1.0", "-d", "hello", f"{uvicorn.url}/echo") == b"hello"


def test_curl_keeps_its_connection(uvicorn):
    told = curl("-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", f"{uvicorn.url}/",
                f"{uvicorn.url}/health", f"{uvicorn.url}/pid")
    assert told == b"1 0 0 "


@pytest.mark.parametrize("how", [["-T", "-"], ["--data-binary", "@-"], ["--data-binary", "@-", "-H", "Expect: 100-continue"],
                                 ["--data-binary", "@-", "-H", "Expect:"], ["-T", "-", "--http1.0"]], ids=" ".join)
def test_curl_uploads_and_gets_it_back(uvicorn, how, tmp_path):
    data = random.Random(1).randbytes(8_000_003)
    if how[-1] == "--http1.0":
        # It cannot send chunks: from a file, then.
        (tmp_path / "data").write_bytes(data)
        how = ["-T", tmp_path / "data", "--http1.0"]
    begin = time.monotonic()
    got = curl(*how, "-X", "POST", f"{uvicorn.url}/echo", stdin=data)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("how", [["-T", "FILE"], ["-T", "FILE", "-H", "Expect:"], ["-T", "-", "-H", "Expect:"]], ids=" ".join)
def test_curl_learns_of_413_before_it_has_sent_all(front, how, tmp_path):
    one = front(settings={"serve.bodyLimit": "1MiB"})
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(64 << 20)
    stdin = b"\0" * (32 << 20) if how[1] == "-" else None
    words = [file if word == "FILE" else word for word in how]
    url = f"http://127.0.0.1:{one.target}/up"
    assert curl(*words, "-o", "/dev/null", "-w", "%{http_code}", url, stdin=stdin) == b"413"


def test_curl_s_http_2_by_upgrade_stays_http_1(uvicorn):
    """`--http2` sends `Upgrade: h2c`, which nobody has to accept."""
    assert curl("--http2", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", f"{uvicorn.url}/") == b"200 1.1"


def test_curl_s_http_2_by_prior_knowledge_fails_at_once(uvicorn):
    begin = time.monotonic()
    done = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "--max-time", "20", f"{uvicorn.url}/"], capture_output=True)
    assert done.returncode not in (0, 28)
    assert time.monotonic() - begin < 5


def test_curl_follows_events_as_they_come(front):
    one = front({"/sse": [["body"], sse_head(), send(chunk("data: 1\n\n")), ["gate", "more"], send(chunk("data: 2\n\n") + b"0\r\n\r\n")]})
    process = subprocess.Popen(["curl", "-sN", "--max-time", "60", f"http://127.0.0.1:{one.target}/sse"], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"data: 1\n"
        one.director.release("more")
        assert process.stdout.read() == b"\ndata: 2\n\n"
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_curl_sees_a_truncated_answer(front):
    one = front({"/cut": [["body"], send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "5\r\nhello\r\n"), ["close"]]})
    curl(f"http://127.0.0.1:{one.target}/cut", code=18)


def test_curl_compressed_bodies_pass_as_they_are(front):
    import gzip

    body = gzip.compress(b"plain " * 1000)
    one = front({"/z": [["body"], answer(200, body, "Content-Encoding: gzip", "ETag: \"x\"")]})
    url = f"http://127.0.0.1:{one.target}/z"
    assert curl("--compressed", url) == b"plain " * 1000
    assert curl(url) == body


# -- requests


def test_requests_keeps_a_session_over_a_kill(uvicorn):
    with requests.Session() as session:
        first = session.get(f"{uvicorn.url}/pid", timeout=30).json()["pid"]
        os.kill(uvicorn.worker(), signal.SIGKILL)
        for _ in range(5):
            # It does not retry by itself: a closed connection would be an exception.
            got = session.get(f"{uvicorn.url}/pid", timeout=30)
            assert got.status_code == 200 and got.json()["pid"] != first
        assert session.post(f"{uvicorn.url}/echo", data=b"hello", timeout=30).content == b"hello"


def test_requests_streams_both_ways(uvicorn):
    pieces = [random.Random(number).randbytes(100_000) for number in range(30)]
    with requests.Session() as session:
        got = session.post(f"{uvicorn.url}/echo", data=iter(pieces), stream=True, timeout=30)
        assert got.headers["Transfer-Encoding"] == "chunked"
        assert b"".join(got.iter_content(65536)) == b"".join(pieces)
        assert session.get(f"{uvicorn.url}/", timeout=30).status_code == 200


def test_requests_learns_of_413(uvicorn):
    assert requests.post(f"{uvicorn.url}/echo", data=b"\0" * (65 << 20), timeout=60).status_code == 413


def test_requests_sees_a_truncated_answer(front):
    one = front({"/cut": [["body"], send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"), ["close"]]})
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(f"http://127.0.0.1:{one.target}/cut", timeout=30).content


def test_requests_by_many_threads(uvicorn):
    failures = []

    def ask(number):
        try:
            with requests.Session() as session:
                for _ in range(10):
                    body = os.urandom(1000)
                    if session.post(f"{uvicorn.url}/echo", data=body, timeout=60).content != body:
                        failures.append("another's body")
        except requests.exceptions.RequestException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]


# -- websockets


def ws(daemon, **options):
    return websockets.sync.client.connect(f"ws://127.0.0.1:{daemon.port}/ws", max_size=None, **options)


def test_websockets_echo_texts_and_large_binaries(uvicorn):
    with ws(uvicorn) as socket:
        for text in ("hello", "", "caf\u00e9 \u20ac \U0001f600"):
            socket.send(text)
            assert socket.recv(timeout=30) == text
        for size in (1, 125, 126, 65535, 65536, 1 << 20):
            data = random.Random(size).randbytes(size)
            socket.send(data)
            assert socket.recv(timeout=30) == data


def test_websockets_many_at_once(uvicorn):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(ws(uvicorn)) for _ in range(20)]
        for number, socket in enumerate(sockets):
            socket.send(f"mine {number}")
        for number, socket in enumerate(sockets):
            assert socket.recv(timeout=30) == f"mine {number}"


def test_websockets_end_with_their_worker_and_come_back(uvicorn):
    with ws(uvicorn) as socket:
        socket.send("hello")
        assert socket.recv(timeout=30) == "hello"
        os.kill(uvicorn.worker(), signal.SIGKILL)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            socket.recv(timeout=30)
    # The next one waits for the next worker.
    with ws(uvicorn, open_timeout=30) as socket:
        socket.send("again")
        assert socket.recv(timeout=30) == "again"


def test_websockets_close_in_order(uvicorn):
    with ws(uvicorn) as socket:
        socket.send("hello")
        assert socket.recv(timeout=30) == "hello"
        begin = time.monotonic()
        socket.close(1000, "done")
        assert time.monotonic() - begin < 5
        assert socket.close_code == 1000


def test_websockets_say_goodbye_at_a_reload(uvicorn):
    with ws(uvicorn) as socket:
        socket.send("hello")
        assert socket.recv(timeout=30) == "hello"
        uvicorn.write_settings({"worker.environment": {"ROUND": "2"}})
        uvicorn.send(signal.SIGHUP)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            socket.recv(timeout=30)
        assert closed.value.rcvd.code == 1012
    with ws(uvicorn) as socket:
        socket.send("again")
        assert socket.recv(timeout=30) == "again"
