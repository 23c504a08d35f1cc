# test_metadata.py
# On Cloud Run the project of a trace comes from the metadata server, asked once and off the start path: CONTRACT section 2.
# Read test_front_access.py first.

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import free_port, http, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Metadata:
    """A metadata server with this answer; None hangs."""

    def __init__(self, project, flavour="Google"):
        self.asked, self.release = [], threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, self.headers.get("Metadata-Flavor")))
                if project is None:
                    outer.release.wait(60)
                    return
                self.send_response(200)
                self.send_header("Metadata-Flavor", flavour)
                self.end_headers()
                self.wfile.write(project.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.place = f"127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def metadata():
    made = []

    def make(*arguments, **options):
        made.append(Metadata(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def start(panelind, place, **settings):
    port = free_port()
    daemon = panelind(
        ["listen unix {socket}"],
        {"platform": "cloudrun", "serve.listen": f"127.0.0.1:{port}", "log.access": "all", **settings},
        environment={"GCE_METADATA_HOST": place, "K_SERVICE": "s"})
    daemon.port = port
    daemon.ready()
    return daemon


def trace(daemon, number):
    """The trace field of one request's record."""
    path = f"/r{number}"
    http(daemon.port, path, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    record = wait_until(
        lambda: next((r for r in daemon.records if r.get("httpRequest", {}).get("requestUrl") == path), None), "a record")
    return record.get("logging.googleapis.com/trace")


def test_the_project_is_asked_once_and_used(panelind, metadata):
    server = metadata("my-project-7")
    daemon = start(panelind, server.place)
    numbers = iter(range(10_000))
    found = wait_until(lambda: trace(daemon, next(numbers)), "the project is known")
    assert found == f"projects/my-project-7/traces/{TRACE}"
    assert server.asked == [("/computeMetadata/v1/project/project-id", "Google")]


def test_a_setting_needs_no_server(panelind, metadata):
    server = metadata("another")
    daemon = start(panelind, server.place, **{"log.project": "mine"})
    assert trace(daemon, 1) == f"projects/mine/traces/{TRACE}"
    assert server.asked == []


@pytest.mark.parametrize("answer", [("x y",), ("p" * 200,), ("<html>",), ("",)])
def test_what_is_no_project_is_no_trace(panelind, metadata, answer):
    server = metadata(*answer)
    daemon = start(panelind, server.place)
    wait_until(lambda: server.asked, "it is asked")
    assert trace(daemon, 1) is None


def test_a_server_that_is_none_of_googles_is_not_believed(panelind, metadata):
    server = metadata("my-project", flavour="Other")
    daemon = start(panelind, server.place)
    wait_until(lambda: server.asked, "it is asked")
    assert trace(daemon, 1) is None


def test_a_server_that_hangs_delays_nothing(panelind, metadata):
    server = metadata(None)
    daemon = start(panelind, server.place)
    wait_until(lambda: server.asked, "it is asked")
    assert trace(daemon, 1) is None
    assert daemon.stop() == 0
    assert daemon.took < 5
