# test_front_modes.py
# How the worker is reached and told, and where panelind listens: CONTRACT sections 1 (placeholders), 2 (serve.*) and 6.
# Read harness/front.py first.

import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import tempfile

import pytest

from harness import binaries, free_port, http
from harness.rawclient import fetch
from test_front_drain import ADOPT


def told(front):
    """What the worker's environment says, and its arguments."""
    event = front.director.wait("environment")
    return event["value"], event["arguments"]


@pytest.fixture
def short():
    """A directory with a short name."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pu-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_by_a_private_socket(front):
    one = front(environment={"PORT": "1234", "FORWARDED_ALLOW_IPS": None})
    assert one.serves()
    environment, arguments = told(one)
    path = arguments[1]
    assert environment["PANELIND_SOCKET"] == path
    assert environment["FORWARDED_ALLOW_IPS"] == "*"
    assert "PORT" not in environment, "unset, for there is no port to bind"
    assert environment["PANELIND_GENERATION"].startswith("1")
    assert int(environment["PANELIND_STOP_SECONDS"]) >= 1
    assert environment["NOTIFY_SOCKET"]
    assert "LISTEN_FDS" not in environment
    directory = os.stat(os.path.dirname(path))
    assert stat.S_IMODE(directory.st_mode) == 0o700
    assert one.daemon.wait_event("panelind_started")["mode"] == "front"


def test_a_forwarded_allow_ips_of_one_s_own_is_kept(front):
    assert told(front(environment={"FORWARDED_ALLOW_IPS": "10.0.0.1"}))[0]["FORWARDED_ALLOW_IPS"] == "10.0.0.1"
    one = front(settings={"worker.environment": {"FORWARDED_ALLOW_IPS": "10.0.0.2"}})
    assert told(one)[0]["FORWARDED_ALLOW_IPS"] == "10.0.0.2"


def test_by_a_private_port(front):
    public = free_port()
    one = front(placeholder="{port}", listen=f"127.0.0.1:{public}", environment={"PORT": str(public)})
    assert one.serves()
    environment, arguments = told(one)
    assert environment["PORT"] == arguments[1]
    assert int(arguments[1]) != public
    assert "FORWARDED_ALLOW_IPS" not in environment
    # On loopback only.
    fetch(int(arguments[1]), "/direct")


def test_a_second_generation_has_an_address_again(front):
    for placeholder in ("{socket}", "{port}"):
        one = front(placeholder=placeholder)
        one.kill_worker()
        one.daemon.ready(2)
        assert one.serves()
        environment = one.director.find("environment")[-1]
        assert environment["generation"] == 2
        if placeholder == "{socket}":
            assert environment["value"]["PANELIND_SOCKET"] == environment["arguments"][1]


def test_the_placeholder_inside_of_a_word(front):
    """As in `--bind=unix:{socket}`; and the same one twice."""
    one = front(placeholder="prefix-{socket}", ready=False)
    environment, arguments = told(one)
    assert arguments[1] == "prefix-" + environment["PANELIND_SOCKET"]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_worker_that_cannot_be_told(front, short, kind):
    """`serve.upstream` names where it serves by itself."""
    port = free_port()
    upstream = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{short}/w"
    one = front(placeholder=upstream, environment={"PORT": "1234"})
    assert one.serves()
    environment, _ = told(one)
    assert environment.get("PORT") == (str(port) if kind == "tcp" else None)
    one.kill_worker()
    one.daemon.ready(2)
    assert one.serves()
    assert one.daemon.wait_event("panelind_started")["mode"] == "front"


def test_a_stale_file_in_the_place_of_the_upstream_s_socket_is_not_ours_to_judge(front, short):
    """It is the worker's: what was there before it is no readiness."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{short}/w")
    stale.close()
    one = front(placeholder=f"unix:{short}/w", boot={"*": {"gate": "boot"}}, ready=False)
    one.director.wait("environment")
    assert one.health("/ready")[0] == 503
    one.director.release("boot")
    one.daemon.ready()
    assert one.serves()


@pytest.mark.parametrize("settings, key", [
    ({"serve.mode": "front"}, "serve.mode"),
    ({"serve.mode": "socket", "worker.command": ["x", "{socket}"]}, "serve.mode"),
    ({"serve.mode": "direct", "worker.command": ["x", "{port}"]}, "serve.mode"),
    ({"worker.command": ["x", "{socket}", "{port}"]}, "worker.command"),
    ({"worker.command": ["x", "{socket}", "{fd}"]}, "worker.command"),
    ({"worker.command": ["x", "{socket}"], "serve.upstream": "127.0.0.1:1"}, "serve.upstream"),
])
def test_a_contradiction_is_refused(tmp_path, settings, key):
    import json

    own = {"worker.command": ["sleep", "1"], "platform": "local", **settings}
    command = [str(binaries() / "panelind"), "check"]
    for name, value in own.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 78, done
    assert key in done.stderr + done.stdout


def test_check_accepts_a_front(tmp_path):
    command = [str(binaries() / "panelind"), "check", "--set", f"serve.listen=127.0.0.1:{free_port()}", "--", "sleep", "{port}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done
    assert "front" in done.stdout


# -- where it listens


def test_on_port_by_default(front):
    port = free_port()
    one = front(listen="", environment={"PORT": str(port)})
    one.target = port
    assert one.serves()
    assert "PORT" not in told(one)[0]


def test_on_both_families(front):
    port = free_port()
    one = front(listen=f"[::]:{port}")
    for target in (("::1", port), ("127.0.0.1", port)):
        one.target = target
        assert one.serves()


def test_on_a_unix_socket(front, short):
    path = short / "public"
    one = front(listen=f"unix:{path}")
    assert one.serves()
    one.kill_worker()
    assert one.serves(), "held over the restart"
    assert one.daemon.stop() == 0
    assert not path.exists()


def test_on_an_inherited_socket(front):
    listener = socket.create_server(("127.0.0.1", 0))
    one = front(listen="", wrapper=[sys.executable, "-c", ADOPT, listener.fileno()], pass_fds=[listener.fileno()])
    one.target = listener.getsockname()[1]
    listener.close()
    assert one.serves()
    environment, _ = told(one)
    assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & set(environment), "they are panelind's"
    assert one.daemon.stop() == 0


def test_on_an_inherited_socket_by_its_name(front):
    first, second = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    adopt = (
        "import os, sys, fcntl\na, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 50) for n in sys.argv[1:3])\n"
        "os.dup2(a, 3, True)\nos.dup2(b, 4, True)\n"
        "os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='admin:web')\n"
        "os.execv(sys.argv[3], sys.argv[3:])\n")
    one = front(listen="", settings={"serve.listen": "systemd:web"},
                wrapper=[sys.executable, "-c", adopt, first.fileno(), second.fileno()],
                pass_fds=[first.fileno(), second.fileno()])
    one.target = second.getsockname()[1]
    second.close()
    assert one.serves()
    first.close()


def test_on_a_host_s_name(front):
    port = free_port()
    one = front(listen=f"localhost:{port}")
    assert one.serves()


def test_a_taken_port_is_71_before_anything_starts(front):
    taken = socket.create_server(("127.0.0.1", 0))
    one = front(listen=f"127.0.0.1:{taken.getsockname()[1]}", ready=False)
    assert one.daemon.wait() == 71
    assert not one.director.find("hello")
    taken.close()


# -- what its connections look like


def test_the_worker_s_connections_are_its_own_user_s_business(front):
    """No other local user reaches the worker past the front."""
    one = front()
    path = told(one)[1][1]
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r})"
    done = subprocess.run([sys.executable, "-S", "-c", script], user=65534, group=65534, extra_groups=[], capture_output=True)
    assert done.returncode != 0 and b"Permission" in done.stderr


def test_a_worker_of_another_user_reaches_its_socket(front):
    if os.geteuid() != 0:
        pytest.skip("only root can start somebody else")
    one = front(ready=False, settings={"worker.user": "nobody"}, shared=True)
    # The test's own files must be readable by that user: the script and its socket.
    one.director.directory.chmod(0o755)
    one.director.path.chmod(0o777)
    one.daemon.ready()
    assert one.serves()
    leader = one.daemon.worker(one.daemon.events("worker_ready")[0]["generation"])
    assert os.stat(f"/proc/{leader}").st_uid != 0


def test_nagle_is_off_towards_the_client(front):
    """Two small writes of the worker with a client that acknowledges late: the second does not wait for the first."""
    import time

    one = front({"/x": [["body"], ["send", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"],
                        *[["send", "ab"] for _ in range(10)]]})
    begin = time.monotonic()
    for _ in range(20):
        with one.client() as client:
            client.get("/x")
            assert client.answer().body == b"ab" * 10
    # With Nagle each would wait 40 ms for a delayed acknowledgement, at least once.
    assert time.monotonic() - begin < 20 * 0.04


def test_the_front_s_descriptors_are_not_the_worker_s(front):
    one = front()
    kept = one.client()
    kept.get("/x")
    kept.answer()
    one.kill_worker()
    one.daemon.ready(2)
    leader = one.daemon.worker(2)
    ours = {os.readlink(f"/proc/{one.daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{one.daemon.pid}/fd")}
    theirs = set()
    for fd in os.listdir(f"/proc/{leader}/fd"):
        try:
            theirs.add(os.readlink(f"/proc/{leader}/fd/{fd}"))
        except OSError:
            pass
    shared = {one for one in ours & theirs if one.startswith("socket:")}
    assert not shared
    kept.close()


@pytest.mark.parametrize("address", ["unix {socket}", "127.0.0.1:{port}", "upstream"])
def test_a_front_needs_no_privilege(panelind, address):
    """Neither root nor a capability, however the worker is reached."""
    public, private = free_port(), free_port()
    settings = {"serve.listen": f"127.0.0.1:{public}"}
    if address == "upstream":
        address, settings["serve.upstream"] = f"127.0.0.1:{private}", f"127.0.0.1:{private}"
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    daemon = panelind([f"listen {address}"], settings, shared=True, wrapper=nobody)
    daemon.ready()
    assert os.stat(f"/proc/{daemon.pid}").st_uid != 0
    assert http(public, "/pid").status == 200
    assert daemon.stop() == 0
