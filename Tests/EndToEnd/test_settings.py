# test_settings.py
# Settings through the binary: where they come from, who wins, and what a wrong one is told (CONTRACT section 2).
# Read harness/daemon.py first.

import json
import os
import socket
import subprocess

import pytest

from harness import binaries, free_port

PANELIND = "panelind"


@pytest.fixture
def run(tmp_path):
    """`run("check", "--json")`: one command in a directory of its own, to its end."""

    def go(*words, environment=None, directory=tmp_path, stdin=None):
        base = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(tmp_path)}
        return subprocess.run(
            [binaries() / PANELIND, *map(str, words)], cwd=directory, env={**base, **(environment or {})},
            capture_output=True, text=True, timeout=60, stdin=stdin or subprocess.DEVNULL)

    return go


@pytest.fixture
def check(run):
    """`check(["--set", ...], environment=…)`: the report as JSON, with `code`."""

    def go(words=(), command=("true",), environment=None, **options):
        done = run("check", "--json", *words, *(["--", *command] if command else []), environment=environment, **options)
        report = json.loads(done.stdout)
        report["code"] = done.returncode
        report["by_key"] = {one["key"]: one for one in report["settings"]}
        report["messages"] = [one["message"] for one in report["errors"]]
        return report

    return go


def write(directory, text, name="panelind.yaml"):
    file = directory / name
    file.write_text(text)
    return file


QUIET = ["--set", "control.path=none", "--set", "sidecar.listen=none"]


# -- where they come from


def test_flags_over_environment_over_file_over_platform_over_default(check, tmp_path):
    write(tmp_path, "restart:\n  delay: 1s\n  factor: 3\n  jitter: 0.1\n")
    report = check(
        ["--set", "restart.delay=3s", *QUIET],
        environment={"PANELIND_RESTART_DELAY": "2s", "PANELIND_RESTART_FACTOR": "4", "K_SERVICE": "agent"})
    assert report["code"] == 0

    def of(key):
        one = report["by_key"][key]
        return one["value"], one["origin"]

    assert of("restart.delay") == ("3s", "flag")
    assert of("restart.factor") == ("4", "environment")
    assert of("restart.jitter") == ("0.1", "file")
    assert of("restart.limit") == ("8", "platform")
    assert of("restart.maxDelay") == ("30s", "default")
    assert report["by_key"]["restart.jitter"]["place"] == "panelind.yaml:4"
    assert report["by_key"]["restart.factor"]["place"] == "PANELIND_RESTART_FACTOR"


@pytest.mark.parametrize("environment, platform", [
    ({}, "local"), ({"K_SERVICE": "x"}, "cloudrun"), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "K_SERVICE": "x"}, "kubernetes"), ({"NOTIFY_SOCKET": "/run/x"}, "systemd"),
    ({"PANELIND_PLATFORM": "cloudrun"}, "cloudrun"),
])
def test_the_platform_is_detected(check, environment, platform):
    report = check(QUIET, environment=environment)
    assert report["by_key"]["platform"]["value"] == platform


@pytest.mark.parametrize("platform, wanted", [
    ("cloudrun", {"stop.budget": "9s", "stop.delay": "1s", "restart.limit": "8", "probe.startup.deadline": "4m",
                  "restart.permanentExitCodes": "[3, 4, 126, 127]", "serve.trustedProxies": "all",
                  "sidecar.listen": "0.0.0.0:8081"}),
    ("kubernetes", {"stop.budget": "25s", "stop.delay": "5s", "restart.limit": "none", "serve.trustedProxies": "all",
                    "restart.permanentExitCodes": "[126, 127]", "sidecar.listen": "0.0.0.0:8081"}),
    ("systemd", {"stop.budget": "25s", "stop.delay": "0s", "restart.permanentExitCodes": "[126, 127]",
                 "sidecar.listen": "127.0.0.1:8081"}),
    ("local", {"stop.budget": "9s", "stop.delay": "0s", "restart.permanentExitCodes": "[3, 4, 126, 127]",
               "sidecar.listen": "127.0.0.1:8081", "probe.startup.deadline": "60s"}),
])
def test_the_defaults_of_a_platform(check, platform, wanted):
    report = check(["--set", f"platform={platform}", "--set", "control.path=none"])
    assert {key: report["by_key"][key]["value"] for key in wanted} == wanted


@pytest.mark.parametrize("port, wanted", [(None, "0.0.0.0:8080"), ("", "0.0.0.0:8080"), ("9000", "0.0.0.0:9000")])
def test_the_front_listens_on_port_else_8080(check, port, wanted):
    report = check(QUIET, command=["sleep", "{port}"], environment={} if port is None else {"PORT": port})
    assert report["by_key"]["serve.listen"]["value"] == wanted


def test_the_file_in_the_working_directory_is_found(check, tmp_path):
    write(tmp_path, "restart: {delay: 7s}\n")
    report = check(QUIET)
    assert report["file"].endswith("panelind.yaml")
    assert report["by_key"]["restart.delay"]["value"] == "7s"


def test_config_names_another(check, tmp_path):
    write(tmp_path, "restart: {delay: 7s}\n")
    other = write(tmp_path, "worker: {command: [sleep, 9]}\nrestart: {delay: 8s}\n", "other.yaml")
    report = check(["--config", other, *QUIET], command=None)
    assert report["by_key"]["restart.delay"]["value"] == "8s"
    assert report["by_key"]["worker.command"]["value"] == "[sleep, 9]"
    assert report["code"] == 0


def test_a_config_that_is_not_there_is_an_error(run):
    for word in ("check", "run"):
        done = run(word, "--config", "/no/such.yaml", "--", "true")
        assert done.returncode == 78
        assert "/no/such.yaml" in done.stderr


def test_the_command_after_the_dashes_wins(check, tmp_path):
    write(tmp_path, "worker: {command: [sleep, 9]}\n")
    assert check(QUIET, command=("true", "--flag", "a b"))["by_key"]["worker.command"]["origin"] == "flag"


def test_lists_and_maps_are_yaml_flow_in_flags_and_environment(check):
    report = check(
        ["--set", "worker.environment={A: '1', B: two words}", "--set", "restart.successCodes=[0, 143]", *QUIET],
        command=None, environment={"PANELIND_WORKER_COMMAND": "[sleep, '5']", "PANELIND_RESTART_PERMANENT_EXIT_CODES": "[9]"})
    assert report["code"] == 0, report["messages"]
    assert report["by_key"]["worker.command"]["value"] == "[sleep, 5]"
    assert report["by_key"]["restart.successCodes"]["value"] == "[0, 143]"
    assert report["by_key"]["restart.permanentExitCodes"]["value"] == "[9]"


def test_an_unknown_variable_is_one_warning_with_the_nearest_key(check, run):
    report = check(QUIET, environment={"PANELIND_STOP_BUDGETT": "3s"})
    assert report["code"] == 0
    (warning,) = [text for text in report["warnings"] if "PANELIND_STOP_BUDGETT" in text]
    assert "PANELIND_STOP_BUDGET" in warning.replace("PANELIND_STOP_BUDGETT", "")


def test_what_panelind_tells_its_worker_is_no_unknown_variable(check):
    names = {"PANELIND_SOCKET": "/x", "PANELIND_GENERATION": "3-abc", "PANELIND_STOP_SECONDS": "8"}
    assert check(QUIET, environment=names)["warnings"] == []


# -- errors


@pytest.mark.parametrize("text, key, place, hint", [
    ("serve:\n  listne: 0.0.0.0:1\n", "serve.listne", "panelind.yaml:2", "serve.listen"),
    ("stop:\n  budget: 9\n", "stop.budget=9", "panelind.yaml:2", "9s"),
    ("stop: {budget: 1 hour}\n", "stop.budget", "panelind.yaml:1", ""),
    ("restart: {policy: sometimes}\n", "restart.policy=sometimes", "panelind.yaml:1", "on-failure"),
    ("\n\nrestart:\n  delay: 1s\n  delay: 2s\n", "delay", "panelind.yaml:5", "duplicate"),
    ("restart: {factor: lots}\n", "restart.factor", "panelind.yaml:1", ""),
    ("restart: {successCodes: [0, 300]}\n", "restart.successCodes", "panelind.yaml:1", "255"),
    ("stop: {signal: TERMM}\n", "stop.signal", "panelind.yaml:1", "TERM"),
    ("stop: {signal: [{TERM: 5s}, {DERP: 2s}]}\n", "stop.signal", "panelind.yaml:1", ""),
    ("log: {format: xml}\n", "log.format", "panelind.yaml:1", "json"),
    ("serve: {mode: socket, listen: '::1:80'}\n", "serve.listen", "panelind.yaml:1", "[::1]"),
    ("serve: {mode: socket, listen: 'localhost'}\n", "serve.listen", "panelind.yaml:1", ""),
    ("probe: {readiness: {http: /a, tcp: true}}\n", "probe.readiness", "panelind.yaml:1", "keep one"),
    ("probe: {readiness: {period: 2s}}\n", "probe.readiness", "panelind.yaml:1", ""),
    ("probe: {startup: {log: '('}}\n", "probe.startup.log", "panelind.yaml:1", ""),
    ("probe: {readiness: {log: 'x'}}\n", "probe.readiness.log", "panelind.yaml:1", "startup"),
    ("worker: {user: nobody-at-all}\n", "worker.user", "panelind.yaml:1", ""),
    ("worker: {secrets: {A: /no/such/secret}}\n", "worker.secrets", "panelind.yaml:1", "/no/such/secret"),
    ("worker: {requiredEnvironment: [SURELY_NOT_SET]}\n", "SURELY_NOT_SET", "panelind.yaml:1", ""),
    ("worker: {directory: /no/such/directory}\n", "worker.directory", "panelind.yaml:1", ""),
    ("worker: {directory: '${NOT_SET}'}\n", "NOT_SET", "panelind.yaml:1", ""),
    ("stop: {budget: 5s, delay: 3s, grace: 3s}\n", "stop", "panelind.yaml:1", "budget"),
    ("a: &x 1\nb: *x\n", "", "panelind.yaml:1", "anchor"),
    ("worker: !!map {}\n", "", "panelind.yaml:1", "tag"),
    ("worker: {}\n---\nworker: {}\n", "", "panelind.yaml:2", "document"),
    ("worker: [\n", "", "panelind.yaml", ""),
    ("just text\n", "", "panelind.yaml:1", ""),
    ("nothing: 1\n", "nothing", "panelind.yaml:1", ""),
], ids=lambda value: repr(value)[:40])
def test_an_error_names_key_value_place_and_what_is_right(run, tmp_path, text, key, place, hint):
    write(tmp_path, text)
    for word in ("check", "run"):
        done = run(word, "--", "true", environment={"PANELIND_CONTROL_PATH": "none", "PANELIND_SIDECAR_LISTEN": "none"})
        assert done.returncode == 78, done
        assert key in done.stderr and place in done.stderr and hint in done.stderr, done.stderr
        for line in done.stderr.splitlines():
            assert line.startswith("cannot ") and not line.endswith("."), line
        if word == "run":
            assert done.stdout == "", "something was started"


def test_all_errors_are_told_at_once(check, tmp_path):
    write(tmp_path, "stop: {budget: 9}\nrestart: {policy: x}\nserve: {listne: y}\n")
    report = check(QUIET)
    assert report["code"] == 78 and report["ok"] is False
    assert len(report["errors"]) == 3
    assert {one["key"] for one in report["errors"]} == {"stop.budget", "restart.policy", "serve.listne"}


def test_a_flag_and_a_variable_are_places_too(run):
    done = run("check", "--set", "stop.budget=9", "--", "true")
    assert done.returncode == 78 and "--set stop.budget" in done.stderr
    done = run("check", "--", "true", environment={"PANELIND_STOP_BUDGET": "9"})
    assert done.returncode == 78 and "PANELIND_STOP_BUDGET" in done.stderr


@pytest.mark.parametrize("command, why", [
    (["echo", "{socket}", "{fd}"], "{"), (["echo", "{fd}"], None), (["echo", "${NOT_SET}"], "NOT_SET"),
    (["echo", "${NOT_SET:-x}"], None), (["echo", "$$", "{{x}}", "$5", "{x"], None),
])
def test_placeholders_and_expansion_in_the_command(check, command, why):
    report = check(["--set", f"serve.listen=127.0.0.1:{free_port()}", *QUIET], command=command)
    if why is None:
        assert report["code"] == 0, report["messages"]
    else:
        assert report["code"] == 78 and why in " ".join(report["messages"])


def test_a_secret_in_the_command_is_refused_and_never_shown(run, tmp_path):
    secret = write(tmp_path, "canary-77\n", "secret")
    done = run(
        "check", "--set", f"worker.secrets={{KEY: {secret}}}", *QUIET, "--", "echo", "${KEY}",
        environment={"KEY": "canary-77"})
    assert done.returncode == 78
    assert "KEY" in done.stderr
    assert "canary-77" not in done.stdout + done.stderr


def test_an_empty_secret_is_an_error(run, tmp_path):
    secret = write(tmp_path, "\n", "secret")
    done = run("run", "--set", f"worker.secrets={{KEY: {secret}}}", *QUIET, "--", "true")
    assert done.returncode == 78 and "empty" in done.stderr


def test_secrets_are_not_shown_by_check(run, tmp_path):
    secret = write(tmp_path, "canary-78", "secret")
    for words in ([], ["--json"]):
        done = run(
            "check", *words, "--set", f"worker.secrets={{KEY: {secret}}}", "--set",
            "worker.environment={DB_PASSWORD: canary-79}", *QUIET, "--", "true")
        assert done.returncode == 0, done.stderr
        assert "canary-7" not in done.stdout + done.stderr


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "80 ", "8080x", "０８"])
def test_a_bad_port(run, port):
    """PORT unset or empty is 8080 in socket mode; garbage is an error that names it."""
    done = run(
        "run", *QUIET, "--set", "serve.mode=socket", "--", "true", environment={"PORT": port})
    assert done.returncode == 78, done
    assert "PORT" in done.stderr


def test_port_is_where_socket_mode_listens(check):
    port = free_port()
    report = check([*QUIET, "--set", "serve.mode=socket"], environment={"PORT": str(port)})
    assert report["by_key"]["serve.listen"]["value"] == f"0.0.0.0:{port}"


# -- what cannot work


def test_a_missing_program_is_78_for_check_and_127_for_run(run):
    assert run("check", *QUIET, "--", "/no/such/program").returncode == 78
    done = run("run", *QUIET, "--", "/no/such/program")
    assert done.returncode == 127 and "/no/such/program" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_program_that_cannot_be_executed_is_126(run, tmp_path):
    file = write(tmp_path, "#!/bin/sh\n", "plain")
    assert run("check", *QUIET, "--", file).returncode == 78
    assert run("run", *QUIET, "--", file).returncode == 126


def test_a_taken_port_is_78_for_check_and_71_for_run(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = [*QUIET, "--set", f"serve.listen=127.0.0.1:{port}", "--set", "serve.mode=socket", "--", "true"]
        checked, ran = run("check", *words), run("run", *words)
    assert (checked.returncode, ran.returncode) == (78, 71)
    assert str(port) in checked.stderr and str(port) in ran.stderr
    assert "in use" in ran.stderr.lower()


# -- advice


def advice(report):
    assert report["code"] == 0, report["messages"]
    return " | ".join(report["advice"])


def test_advice(check):
    assert "exec" in advice(check(QUIET, command=("sh", "-c", "uvicorn api:app --port ${PORT:-1}")))
    assert "exec" not in advice(check(QUIET, command=("sh", "-c", "exec uvicorn api:app")))
    assert "--reload" in advice(check(QUIET, command=("true", "api:app", "--reload")))
    for platform in ("cloudrun", "kubernetes"):
        text = advice(check(["--set", f"platform={platform}", *QUIET]))
        assert "{socket}" in text and "direct" in text
    assert "budget" in advice(check(["--set", "platform=cloudrun", "--set", "stop.budget=20s", *QUIET]))
    assert advice(check(QUIET)) == ""


def test_advice_is_logged_by_run(panelind):
    daemon = panelind(command=["sh", "-c", "echo hi; sleep 0.1"], settings={"restart.policy": "never"})
    daemon.wait()
    assert [r for r in daemon.records if r.get("severity") == "WARNING" and "exec" in r["message"]]


def test_cloud_run_in_direct_mode_works(panelind):
    """Advised against, yet it serves: PORT is the worker's, the budget is the platform's."""
    port = free_port()
    side = free_port()
    daemon = panelind(
        ["listen env", "health 200"], {"platform": None, "sidecar.listen": f"127.0.0.1:{side}"},
        environment={"PORT": port, "K_SERVICE": "agent", "K_REVISION": "agent-1"})
    daemon.ready()
    started = daemon.wait_event("panelind_started")
    assert (started["platform"], started["mode"]) == ("cloudrun", "direct")
    from harness import http

    assert http(port, "/").status == 200
    assert json.loads(http(side, "/ready").body)["revision"] == "agent-1"
    assert daemon.stop() == 0
    assert daemon.took < 9


# -- check itself


def test_check_shows_every_setting_with_its_origin(run, check):
    done = run("check", *QUIET, "--", "true")
    assert done.returncode == 0 and done.stderr == ""
    report = check(QUIET)
    shown = {line.split("=")[0].strip(): line for line in done.stdout.splitlines()}
    for setting in report["settings"]:
        assert setting["origin"] in ("default", "platform", "file", "environment", "flag")
        assert f"({setting['origin']}" in shown[setting["key"]]
    assert {"worker.command", "serve.mode", "probe.readiness", "stop.grace", "log.format", "control.path"} <= set(shown)


def test_check_starts_nothing_and_leaves_nothing(run, tmp_path):
    marker = tmp_path / "marker"
    port = free_port()
    done = run("check", "--set", f"serve.listen=127.0.0.1:{port}", "--set", "serve.mode=socket", "--", "touch", marker)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == []
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def test_the_example_file_of_the_project_is_valid(run):
    from harness.daemon import ROOT

    done = run("check", "--config", ROOT / "etc" / "panelind.yaml", *QUIET, "--", "true")
    assert done.returncode == 0, done.stderr
