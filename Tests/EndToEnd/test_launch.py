# test_launch.py
# What a worker starts with: environment, descriptors, user, limits, directory: CONTRACT sections 2 and 6.
# The worker says it itself, by `dump-state`. Read harness/daemon.py first.

import grp
import json
import os
import pwd
import resource
import socket
import stat

import pytest

from harness import environment_of, free_port, http, scripted_worker, wait_until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def state(daemon, name="state"):
    """What the worker dumped; the file appears whole."""
    path = daemon.directory / name
    wait_until(path.exists, f"{path} exists")
    return json.loads(path.read_text())


def socket_mode(**more):
    return {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{free_port()}", **more}


def test_direct_mode_leaves_port_and_the_rest_of_the_environment_alone(panelind):
    port = free_port()
    daemon = panelind(["dump-state state"], environment={"PORT": port, "TEST_OWN": "yes"})
    dumped = state(daemon)
    assert dumped["environment"]["PORT"] == str(port)
    assert dumped["environment"]["TEST_OWN"] == "yes"
    assert {"PATH", "HOME", "LANG"} <= set(dumped["environment_names"])
    assert not [name for name in dumped["environment_names"] if name.startswith(("LISTEN_", "WATCHDOG_"))]
    assert "PANELIND_SOCKET" not in dumped["environment"]
    assert "FORWARDED_ALLOW_IPS" not in dumped["environment"]
    daemon.stop()


def test_direct_mode_without_a_port_has_none(panelind):
    daemon = panelind(["dump-state state"])
    assert "PORT" not in state(daemon)["environment"]
    daemon.stop()


def test_direct_mode_with_an_empty_port_waits_for_none(panelind):
    daemon = panelind(["dump-state state"], environment={"PORT": ""})
    daemon.ready()
    assert daemon.stop() == 0


@pytest.mark.parametrize("how", ["serve.mode", "{fd}"])
def test_socket_mode_passes_the_listener_as_3_with_the_listen_variables(panelind, how):
    port = free_port()
    settings = {"serve.listen": f"127.0.0.1:{port}"}
    steps = ["dump-state state", "listen fd 3"]
    if how == "{fd}":
        steps = ["dump-state state", "listen fd '{fd}'"]
    else:
        settings["serve.mode"] = "socket"
    daemon = panelind(steps, settings, environment={"PORT": "1234"})
    dumped = state(daemon)
    assert dumped["environment"]["LISTEN_FDS"] == "1"
    assert dumped["environment"]["LISTEN_PID"] == str(dumped["pid"])
    assert "LISTEN_FDNAMES" in dumped["environment"]
    assert "PORT" not in dumped["environment"], "unset but in direct and front mode"
    assert sorted(dumped["fds"]) == ["0", "1", "2", "3"]
    daemon.ready()
    assert http(port, "/pid").status == 200
    daemon.stop()


def test_socket_mode_serves_workers_that_know_only_listen_fds(panelind):
    port = free_port()
    daemon = panelind(["listen activated"], {"serve.mode": "socket", "serve.listen": f"127.0.0.1:{port}"})
    daemon.ready()
    assert http(port).status == 200
    daemon.stop()


def test_a_unix_listener_in_socket_mode(panelind):
    daemon = panelind(["listen fd 3"], {"serve.mode": "socket", "serve.listen": "unix:the.sock"})
    daemon.ready()
    path = daemon.directory / "the.sock"
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert http(path).status == 200
    daemon.stop()


def test_only_the_standard_descriptors_reach_the_worker(panelind):
    """Nothing of panelind's leaks, nor anything that panelind inherited."""
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        daemon = panelind(["dump-state state"], pass_fds=[leak], sidecar=True)
        dumped = state(daemon)
    finally:
        os.close(leak)
    targets = dumped["fds"]
    assert sorted(targets) == ["0", "1", "2"]
    assert targets["0"] == "/dev/null"
    assert targets["1"].startswith("pipe:") and targets["2"].startswith("pipe:") and targets["1"] != targets["2"]
    daemon.stop()


def test_closed_standard_streams_of_panelind_harm_nobody(panelind):
    def close():
        for descriptor in (0, 2):
            os.close(descriptor)

    daemon = panelind(["dump-state state", "print hello"], preexec_fn=close, stderr=None)
    assert sorted(state(daemon)["fds"]) == ["0", "1", "2"]
    daemon.wait_message("hello")
    daemon.ready()
    assert daemon.stop() == 0


def test_the_variables_of_panelind(panelind):
    daemon = panelind(
        ["dump-state state-${PANELIND_GENERATION_IS_NOT_SET:-1}", "exit-after 100ms 1"],
        {"restart.delay": "10ms", "restart.limit": 1, "stop.grace": "3700ms"},
    )
    dumped = state(daemon, "state-1")["environment"]
    generation, _, token = dumped["PANELIND_GENERATION"].partition(":")
    assert generation == "1" and len(token) >= 8
    assert dumped["PANELIND_STOP_SECONDS"] == "3"
    assert dumped["NOTIFY_SOCKET"]
    assert daemon.wait() == 70
    again = state(daemon, "state-1")["environment"]
    assert again["PANELIND_GENERATION"] == f"2:{token}"


@pytest.mark.parametrize(("grace", "told"), [("900ms", "1"), ("5s", "5"), ("1999ms", "1")])
def test_stop_seconds_are_whole_and_at_least_one(panelind, grace, told):
    daemon = panelind(["dump-state state"], {"stop.grace": grace})
    assert state(daemon)["environment"]["PANELIND_STOP_SECONDS"] == told
    daemon.stop()


def test_systemds_variables_are_panelinds_own(panelind, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outer:
        outer.bind(str(tmp_path / "outer"))
        daemon = panelind(
            ["dump-state state"],
            environment={
                "NOTIFY_SOCKET": tmp_path / "outer",
                "WATCHDOG_USEC": "30000000",
                "LISTEN_FDS": "2",
                "LISTEN_PID": "1",
                "LISTEN_FDNAMES": "a:b",
                "INVOCATION_ID": "x",
            },
        )
        dumped = state(daemon)
    assert dumped["environment"]["NOTIFY_SOCKET"] != str(tmp_path / "outer")
    for name in ["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]:
        assert name not in dumped["environment_names"]
    daemon.stop()


def test_the_watchdogs_variables_name_the_worker(panelind):
    daemon = panelind(["dump-state state", "watchdog every 200ms"], {"worker.watchdog": "10s"})
    dumped = state(daemon)
    assert dumped["environment"]["WATCHDOG_USEC"] == "10000000"
    assert dumped["environment"]["WATCHDOG_PID"] == str(dumped["pid"])
    daemon.stop()


def test_added_variables_and_expansion_in_the_command(panelind):
    daemon = panelind(
        command=scripted_worker("tag x", ["print-text", "${TEST_A}-${TEST_B:-other}-$$-{{}}"]),
        settings={"worker.environment": {"TEST_A": "first"}},
    )
    daemon.wait_message("first-other-$-{}")
    assert daemon.stop() == 0


def test_a_secret_reaches_the_worker_and_nothing_else(panelind, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("s3cr3t-canary\n")
    daemon = panelind(["dump-state state"], {"worker.secrets": {"TEST_KEY": str(secret)}}, sidecar=True)
    assert state(daemon)["environment"]["TEST_KEY"] == "s3cr3t-canary"
    daemon.ready()
    assert b"s3cr3t-canary" not in daemon.get("/health").body
    assert b"TEST_KEY" not in environment_of(daemon.pid)
    daemon.stop()
    assert b"s3cr3t-canary" not in b"".join(daemon.lines)


def test_a_secret_is_read_afresh_at_every_start(panelind, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("one")
    daemon = panelind(
        ["dump-state state", "listen env", "wait-file go", "exit 1"],
        {"worker.secrets": {"TEST_KEY": str(secret)}, "restart.delay": "300ms"},
        environment={"PORT": free_port()},
    )
    daemon.ready()
    assert state(daemon)["environment"]["TEST_KEY"] == "one"
    secret.write_text("two\n\n")
    (daemon.directory / "go").touch()
    daemon.wait_event("worker_exited")
    (daemon.directory / "go").unlink()
    daemon.ready(2)
    assert state(daemon)["environment"]["TEST_KEY"] == "two\n", "one trailing newline is removed"
    secret.unlink()
    (daemon.directory / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=3)
    assert exited["pid"] is None and str(secret) in exited["message"]
    (daemon.directory / "go").unlink()
    secret.write_text("three")
    daemon.wait_event("worker_ready", count=3)
    assert state(daemon)["environment"]["TEST_KEY"] == "three"
    daemon.stop()


def test_a_missing_required_variable_starts_nothing(panelind):
    daemon = panelind(["record ran x"], {"worker.requiredEnvironment": ["TEST_KEY", "HOME"]})
    assert daemon.wait() == 78
    assert "TEST_KEY is not set" in daemon.stderr and "HOME is" not in daemon.stderr
    assert not (daemon.directory / "ran").exists()


def test_the_workers_directory(panelind, tmp_path):
    daemon = panelind([f"dump-state {tmp_path}/state"], {"worker.directory": "/"})
    wait_until((tmp_path / "state").exists, "the state")
    assert json.loads((tmp_path / "state").read_text())["cwd"] == "/"
    daemon.stop()


def test_a_missing_directory_is_refused(panelind):
    daemon = panelind([], {"worker.directory": "/no/such/place"})
    assert daemon.wait() == 78
    assert "/no/such/place" in daemon.stderr


def test_a_directory_lost_later_is_a_failed_start(panelind, tmp_path):
    (place := tmp_path / "place").mkdir()
    daemon = panelind(
        ["listen env", f"wait-file {tmp_path}/go", "exit 1"],
        {"worker.directory": str(place), "restart.delay": "50ms"},
        environment={"PORT": free_port()},
        sidecar=True,
    )
    daemon.ready()
    place.rmdir()
    (tmp_path / "go").touch()
    exited = daemon.wait_event("worker_exited", generation=2)
    assert exited["pid"] is None and str(place) in exited["message"]
    (tmp_path / "go").unlink()
    place.mkdir()
    daemon.wait_event("worker_ready", count=2)
    daemon.stop()


def test_the_limits(panelind):
    daemon = panelind(
        ["dump-state state"],
        {
            "worker.limits.openFiles": 77,
            "worker.limits.core": 0,
            "worker.limits.addressSpace": "3GiB",
            "worker.limits.processes": 5000,
        },
    )
    limits = state(daemon)["limits"]
    text = json.dumps(limits)
    for value in ["77", "5000", str(3 << 30)]:
        assert value in text, limits
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[0] != 77, "only the worker's"
    daemon.stop()


def test_without_limits_the_worker_has_panelinds_own(panelind):
    """Also where panelind raises its own soft limit of descriptors."""
    wanted = (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    daemon = panelind(["dump-state state"], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, wanted))
    leader = daemon.worker()
    assert resource.prlimit(leader, resource.RLIMIT_NOFILE) == wanted
    daemon.stop()


@ROOT
class TestUser:
    user = pwd.getpwnam("www-data")

    def test_a_user_with_its_groups(self, panelind):
        daemon = panelind(["dump-state state"], {"worker.user": "www-data"}, shared=True)
        dumped = state(daemon)
        assert dumped["uid"] == self.user.pw_uid and dumped["gid"] == self.user.pw_gid
        assert set(dumped["groups"]) == set(os.getgrouplist("www-data", self.user.pw_gid))
        leader = daemon.worker()
        with open(f"/proc/{leader}/status") as file:
            lines = {line.split(":")[0]: line.split()[1:] for line in file}
        assert lines["Uid"] == [str(self.user.pw_uid)] * 4, "real, effective, saved and of the file system"
        assert lines["Gid"] == [str(self.user.pw_gid)] * 4
        # Names, for programs that look.
        assert environment_of(leader)[b"USER"] == b"www-data"
        assert os.stat(f"/proc/{daemon.pid}").st_uid == 0, "panelind stays as it is"
        assert daemon.stop() == 0

    def test_a_group_instead_of_the_users(self, panelind):
        group = grp.getgrnam("games")
        daemon = panelind(["dump-state state"], {"worker.user": "www-data", "worker.group": "games"}, shared=True)
        dumped = state(daemon)
        assert (dumped["uid"], dumped["gid"]) == (self.user.pw_uid, group.gr_gid)
        daemon.stop()

    def test_a_group_alone(self, panelind):
        group = grp.getgrnam("games")
        daemon = panelind(["dump-state state"], {"worker.group": "games"}, shared=True)
        dumped = state(daemon)
        assert (dumped["uid"], dumped["gid"], dumped["groups"]) == (0, group.gr_gid, [])
        daemon.ready()
        assert daemon.stop() == 0

    def test_a_number_as_user(self, panelind):
        daemon = panelind(["dump-state state"], {"worker.user": str(self.user.pw_uid)}, shared=True)
        assert state(daemon)["uid"] == self.user.pw_uid
        daemon.stop()

    def test_notifications_of_the_other_user_are_heard(self, panelind):
        daemon = panelind(["notify READY=1"], {"worker.user": "www-data", "probe.readiness.notify": True}, shared=True)
        daemon.ready()
        assert daemon.stop() == 0

    def test_its_tree_is_ended_in_every_placement(self, panelind, placement):
        daemon = panelind(
            ["child ignore TERM", "daemonize-child ignore TERM"],
            {"worker.user": "www-data", "stop.grace": "300ms"},
            shared=True,
            placement=placement,
        )
        daemon.ready()
        assert len(daemon.survivors()) == 3
        assert daemon.stop() == 0
        assert daemon.survivors() == []

    def test_a_restart_drops_again(self, panelind):
        daemon = panelind(
            ["dump-state state", "exit-after 100ms 1"],
            {"worker.user": "www-data", "restart.delay": "10ms", "restart.limit": 2},
            shared=True,
        )
        assert daemon.wait() == 70
        assert state(daemon)["uid"] == self.user.pw_uid


@pytest.mark.parametrize(("key", "value"), [("worker.user", "no-such-user"), ("worker.group", "no-such-group")])
def test_an_unknown_user_or_group_is_refused(panelind, key, value):
    daemon = panelind([], {key: value})
    assert daemon.wait() == 78
    assert value in daemon.stderr and key in daemon.stderr


def test_a_panelind_that_is_not_root_cannot_change_the_user(panelind):
    if os.geteuid() != 0:
        become = None
    else:

        def become():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

    daemon = panelind([], {"worker.user": "www-data"}, shared=True, preexec_fn=become)
    assert daemon.wait() == 78
    [line] = daemon.stderr.splitlines()
    assert "worker.user=www-data" in line and "CAP_SETUID" in line
    assert daemon.events() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its capabilities up")
def test_root_without_the_capabilities_cannot_either(panelind):
    drop = ["setpriv", "--bounding-set", "-setuid", "--inh-caps", "-setuid"]
    daemon = panelind([], {"worker.user": "www-data"}, shared=True, wrapper=drop)
    assert daemon.wait() == 78
    assert "CAP_SETUID" in daemon.stderr


@ROOT
def test_who_is_that_user_already_needs_no_right(panelind):
    user = pwd.getpwnam("www-data")

    def become():
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    daemon = panelind(["dump-state state"], {"worker.user": "www-data"}, shared=True, preexec_fn=become)
    assert state(daemon)["uid"] == user.pw_uid
    assert daemon.stop() == 0


def test_a_limit_of_descriptors_under_which_no_program_starts_is_refused(panelind):
    daemon = panelind([], {"worker.limits.openFiles": 3})
    assert daemon.wait() == 78
    assert "write 4 or more" in daemon.stderr
