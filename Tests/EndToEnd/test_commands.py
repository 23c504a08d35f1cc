# test_commands.py
# The command line around the daemon: help, version, completions, usage errors, and `panelind probe`.
# Read harness/oracle.py first.

import os
import re
import socket
import subprocess
import threading
import time

import pytest

from harness import binaries, free_port
from harness.oracle import Oracle


def run(*words, **options):
    return subprocess.run(
        [binaries() / "panelind", *map(str, words)], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], **options.pop("environment", {})}, **options)


def test_the_version_is_one_line_by_semver():
    done = run("--version")
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?\n", done.stdout)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help(words):
    done = run(*words)
    assert done.returncode == 0
    for command in ("run", "check", "probe"):
        assert re.search(rf"^  {command}\b", done.stdout, re.M)


@pytest.mark.parametrize("command, option", [("run", "--config"), ("check", "--json"), ("probe", "--timeout"), ("help", "--version")])
def test_help_of_a_command(command, option):
    for words in (["help", command], [command, "--help"]):
        done = run(*words)
        assert done.returncode == 0 and option in done.stdout


@pytest.mark.parametrize("words", [
    ["nonsense"], ["help", "nonsense"], ["run", "--nonsense"], ["check", "--jsn"], ["probe"], ["probe", "http://127.0.0.1:1/", "extra"],
    ["run", "stray"], ["run", "--config"], ["probe", "http://127.0.0.1:1/", "--timeout", "2"],
    ["probe", "ftp://127.0.0.1/"], ["probe", "127.0.0.1:80"], ["--generate-completion-script", "tcsh"],
])
def test_a_usage_error_is_64_and_on_stderr(words):
    done = run(*words)
    assert done.returncode == 64, done
    assert done.stdout == "" and done.stderr != ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script(shell):
    done = run("--generate-completion-script", shell)
    assert done.returncode == 0 and "panelind" in done.stdout
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        script = done.stdout + "\nCOMP_WORDS=(panelind ch); COMP_CWORD=1; COMP_LINE='panelind ch'; COMP_POINT=11\n"
        script += "_panelind panelind ch panelind 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
        answered = subprocess.run(["bash"], input=script, text=True, capture_output=True)
        assert "check" in answered.stdout


# -- probe


@pytest.mark.parametrize("status, code", [(200, 0), (204, 0), (302, 0), (399, 0), (400, 1), (404, 1), (500, 1), (503, 1)])
def test_probe_passes_from_200_to_399(status, code):
    with Oracle([(status, ["Location: /x"])]) as oracle:
        done = run("probe", oracle.url + "/health?deep=1")
        assert done.returncode == code
        assert [one.path for one in oracle.asked] == ["/health?deep=1"], "one GET, redirects not followed"
        assert oracle.asked[0].head.startswith("GET ")
        if code:
            assert str(status) in done.stderr


def test_probe_gives_up_at_its_timeout():
    with Oracle(["hang"]) as oracle:
        begin = time.monotonic()
        done = run("probe", oracle.url, "--timeout", "300ms")
        assert done.returncode == 1
        assert 0.3 <= time.monotonic() - begin < 5


def test_probe_without_a_server():
    done = run("probe", f"http://127.0.0.1:{free_port()}/")
    assert done.returncode == 1 and "refused" in done.stderr


@pytest.mark.parametrize("answer", ["close", b"garbage\r\n\r\n", b"HTTP/1.1 2x0\r\n\r\n"])
def test_probe_of_what_is_no_http(answer):
    with Oracle([answer]) as oracle:
        assert run("probe", oracle.url).returncode == 1


def test_probe_resolves_names():
    with Oracle([200]) as oracle:
        assert run("probe", f"http://localhost:{oracle.port}/").returncode == 0
    assert run("probe", "http://no-such-host.invalid/", "--timeout", "5s").returncode == 1


def test_probe_of_a_unix_socket(tmp_path):
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    heads = []

    def serve():
        connection, _ = server.accept()
        with connection:
            heads.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    assert run("probe", f"unix:{path}:/ready?x").returncode == 0
    thread.join(10)
    server.close()
    assert heads[0].startswith(b"GET /ready?x HTTP/1.1\r\n")
    assert run("probe", f"unix:{tmp_path}/none:/ready").returncode == 1


def test_probe_of_panelind_itself(panelind, tmp_path):
    file = tmp_path / "go"
    daemon = panelind(
        [f"wait-file {file}", "notify READY=1"], {"probe.readiness.notify": True}, sidecar=True)
    daemon.worker()
    url = f"http://127.0.0.1:{daemon.sidecar_port}"
    assert run("probe", url + "/health").returncode == 0
    assert run("probe", url + "/ready").returncode == 1
    file.touch()
    daemon.ready()
    assert run("probe", url + "/ready").returncode == 0


def test_probe_does_not_read_the_settings(tmp_path):
    (tmp_path / "panelind.yaml").write_text("broken: [\n")
    with Oracle([200]) as oracle:
        assert run("probe", oracle.url, cwd=tmp_path, environment={"PANELIND_STOP_BUDGET": "x"}).returncode == 0
