# test_page.py
# The status page of the sidecar: complete without JavaScript, live with it, to this machine only, harmless.
# Read harness/daemon.py first. Chromium, where it is installed, looks at it too.

import html.parser
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from harness import fd_count, free_port, raw_http, wait_until

NOTIFY = {"probe.readiness.notify": True}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Page(html.parser.HTMLParser):
    """Tags with attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def names(self):
        return {tag for tag, _ in self.tags}


def page(daemon):
    answer = daemon.get("/")
    assert answer.status == 200
    return answer, Page(answer.body.decode())


def live(daemon):
    client = socket.create_connection(("127.0.0.1", daemon.sidecar_port), timeout=30)
    client.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    stream = client.makefile("rb")
    assert b"200" in stream.readline()
    while stream.readline() != b"\r\n":
        pass
    return client, stream


def drawing(stream):
    """The next `main` that is sent."""
    for raw in stream:
        if raw.startswith(b"data: "):
            return json.loads(raw[6:])
    raise AssertionError("the stream has ended")


def test_the_page_is_complete_and_needs_nothing_from_elsewhere(panelind):
    daemon = panelind(["print 'quote 17 served'", "notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    daemon.wait_message("quote 17 served")
    answer, parsed = page(daemon)
    text = " ".join(parsed.text)
    for words in ("ready", "worker g1 has been serving", "quote 17 served", "worker_ready", "restarts"):
        assert words in text, words
    assert "svg" in parsed.names()
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "action"):
            value = attributes.get(name, "")
            assert value in ("", "data:,", "/metrics", "/health", "/ready"), (tag, value)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    nonces = set(re.findall(r"nonce-(\w+)", policy)) | {a["nonce"] for t, a in parsed.tags if t in ("script", "style")}
    assert len(nonces) == 1
    assert nonces.isdisjoint(re.findall(r"nonce-(\w+)", page(daemon)[0].headers["content-security-policy"]))
    assert daemon.get("/", method="HEAD").body == b""
    assert daemon.get("/", method="POST").status == 405


HOSTILE = (
    "<script>alert(1)</script></pre></main><img src=x onerror=alert(2)>&amp;'\"<!--",
    "\x1b]0;title\x07\x1b[31mred\x1b[0m\x1b[2J",
    "\u202etxt.exe",
    "]]><svg onload=alert(3)>",
)


def test_what_a_hostile_worker_prints_is_text(panelind, tmp_path):
    script = tmp_path / "hostile.py"
    script.write_text(
        "import os, socket, sys, time\n"
        f"for line in {HOSTILE!r}: print(line, flush=True); print(line, file=sys.stderr, flush=True)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"s.sendto(('STATUS=' + {HOSTILE[0]!r} + '\\nREADY=1').encode(), os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(600)\n")
    daemon = panelind(command=["/usr/bin/python3", script], settings=NOTIFY, sidecar=True,
                      environment={"PYTHONUTF8": "1"})
    daemon.ready()
    answer, parsed = wait_until(
        lambda: (p := page(daemon)) and p[0].body.count(b"onload") >= 2 and p, "all its lines are shown")
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert "img" not in parsed.names()
    assert [tag for tag, _ in parsed.tags].count("svg") == 1
    assert b"\x1b" not in answer.body and "\u202e".encode() not in answer.body
    assert HOSTILE[0] in "".join(parsed.text)
    client, stream = live(daemon)
    shown = Page(drawing(stream))
    assert "script" not in shown.names() and "img" not in shown.names()
    client.close()


def test_the_page_says_why_a_worker_does_not_serve(panelind):
    daemon = panelind(["print 'no database' to stderr", "exit 1"],
                      {**NOTIFY, "restart.delay": "1h", "restart.maxDelay": "1h"}, sidecar=True)
    daemon.wait_event("worker_exited")
    text = wait_until(lambda: (t := " ".join(page(daemon)[1].text)) and "no database" in t and t, "the last output")
    for words in ("backoff", "ended before it was ready: exit 1", "restart.delay", "one worker ended unasked"):
        assert words in text, words


def test_live_pages_follow_what_happens_and_cost_nothing_afterwards(panelind):
    daemon = panelind(["notify READY=1"], {**NOTIFY, "restart.delay": "50ms"}, sidecar=True)
    daemon.ready()
    before = fd_count(daemon.pid)
    client, stream = live(daemon)
    assert "worker g1 has been serving" in drawing(stream)
    os.kill(daemon.worker(), signal.SIGKILL)
    for _ in range(20):
        if "worker g2 has been serving" in drawing(stream):
            break
    else:
        raise AssertionError("the second worker is not shown")
    stream.close()
    client.close()
    wait_until(lambda: fd_count(daemon.pid) <= before, "the connection is closed")


def test_only_this_machine_may_look(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    for host, status in [
        ("localhost", 200), ("LOCALHOST:8081", 200), ("127.0.0.1:1", 200), ("127.8.9.1", 200), ("[::1]:8081", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("127.evil.a.b", 403), ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
    ]:
        raw = raw_http(
            daemon.sidecar_port, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert raw.startswith(b"HTTP/1.1 %d " % status), (host, raw[:80])


def test_another_machine_may_not_look(panelind):
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    other = next((a for a in addresses if "." in a and not a.startswith("127.")), None)
    if other is None:
        pytest.skip("this machine has loopback only")
    port = free_port()
    daemon = panelind(["notify READY=1"], {**NOTIFY, "sidecar.listen": f"0.0.0.0:{port}"})
    daemon.ready()
    for path, status in [("/", 403), ("/live", 403), ("/health", 200), ("/metrics", 200)]:
        connection = http.client.HTTPConnection(other, port, timeout=10)
        connection.request("GET", path, headers={"Host": "localhost"})
        assert connection.getresponse().status == status, path
        connection.close()


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
def test_a_browser_shows_it_and_has_nothing_to_complain_about(panelind, tmp_path):
    daemon = panelind(["print 'quote 17 served'", "notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    daemon.wait_message("quote 17 served")
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path}/profile", "--window-size=1100,900", "--timeout=3000",
         "--enable-logging=stderr", f"--screenshot={picture}", f"http://127.0.0.1:{daemon.sidecar_port}/"],
        capture_output=True, text=True, timeout=120)
    assert picture.exists(), done.stderr
    assert picture.stat().st_size > 5000
    assert "Content Security Policy" not in done.stderr and "CONSOLE" not in done.stderr, done.stderr
    keep = os.environ.get("PANELIND_SCREENSHOTS")
    if keep:
        shutil.copy(picture, keep)
