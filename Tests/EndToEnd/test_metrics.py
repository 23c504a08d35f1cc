# test_metrics.py
# /metrics of the sidecar: right types and numbers, clean by promtool, scraped by a real Prometheus.
# Read harness/daemon.py first.

import json
import shutil
import signal
import subprocess
import urllib.request

import pytest

from harness import free_port, http, wait_until

NOTIFY = {"probe.readiness.notify": True}
TOOLS = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def scrape(daemon):
    """Sample with labels -> value; and the page."""
    answer = daemon.get("/metrics")
    assert answer.status == 200
    page = answer.body.decode()
    samples = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in samples, "a sample is there twice"
            samples[name] = float(value)
    return samples, page


def test_the_workers_life_is_counted(panelind):
    daemon = panelind(["notify READY=1", "exit-after 200ms 3"], {**NOTIFY, "restart.delay": "50ms"}, sidecar=True)
    daemon.wait_event("worker_exited", count=2)
    daemon.ready(3)
    samples, _ = scrape(daemon)
    exits = sum(value for name, value in samples.items() if name.startswith("panelind_worker_exits_total"))
    assert samples["panelind_worker_starts_total"] >= 3
    assert exits >= 2 and samples['panelind_worker_exits_total{cause="exit"}'] == exits
    assert samples["panelind_worker_restarts_total"] >= 2
    assert samples["panelind_worker_start_seconds_count"] >= 3
    assert samples["panelind_reaped_total"] >= 2
    assert sum(value for name, value in samples.items() if name.startswith("panelind_state{")) == 1
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("steps", "settings", "cause"),
    [
        (["print 'OSError: [Errno 98] Address already in use' to stderr", "exit 1"], {}, "port_in_use"),
        (["signal-self SEGV"], {}, "signal"),
        (["hang"], {"probe.startup.deadline": "200ms"}, "startup_deadline"),
        (["exit 126"], {"restart.onGiveUp": "hold"}, "permanent"),
    ],
)
def test_every_end_has_its_cause(panelind, steps, settings, cause):
    daemon = panelind(steps, {**NOTIFY, "restart.delay": "1h", "restart.maxDelay": "1h", **settings}, sidecar=True)
    daemon.wait_event("worker_exited")
    name = f'panelind_worker_exits_total{{cause="{cause}"}}'
    wait_until(lambda: scrape(daemon)[0][name] == 1, "the end is counted")
    samples, _ = scrape(daemon)
    assert sum(value for name, value in samples.items() if name.startswith("panelind_worker_exits_total")) == 1
    if cause != "permanent":
        assert samples["panelind_restart_delay_seconds"] > 2000
        assert samples['panelind_state{state="backoff"}'] == 1
    assert samples["panelind_ready"] == 0


def test_lines_probes_and_survivors_are_counted(panelind):
    daemon = panelind(
        ["print 7 lines", "print err to stderr", "setsid-child ignore TERM", "notify READY=1"],
        {**NOTIFY, "restart.delay": "50ms", "stop.grace": "300ms",
         "probe.liveness.exec": ["false"], "probe.liveness.period": "100ms", "probe.liveness.failures": 3},
        sidecar=True)
    daemon.ready(2)
    samples, _ = scrape(daemon)
    assert samples['panelind_log_lines_total{stream="stdout"}'] >= 7
    assert samples['panelind_log_lines_total{stream="stderr"}'] >= 1
    assert samples['panelind_probe_failures_total{probe="liveness"}'] >= 3
    assert samples["panelind_survivors_killed_total"] >= 1
    assert samples['panelind_worker_exits_total{cause="liveness"}'] >= 1


def test_requests_of_the_front_are_counted(panelind):
    port = free_port()
    daemon = panelind(["listen unix {socket}"], {"serve.listen": f"127.0.0.1:{port}"}, sidecar=True)
    daemon.ready()
    for _ in range(5):
        assert http(port, "/").status == 200
    assert http(port, "/answer?status=404").status == 404
    assert http(port, "/x", method="BREW").status in (200, 404, 405, 501)
    samples = wait_until(
        lambda: (s := scrape(daemon)[0])["panelind_http_request_duration_seconds_count"] >= 7 and s, "all are counted")
    assert samples['panelind_http_requests_total{method="GET",code="200"}'] == 5
    assert samples['panelind_http_requests_total{method="GET",code="404"}'] == 1
    assert sum(v for n, v in samples.items() if 'method="other"' in n) == 1
    assert samples["panelind_http_in_flight"] == 0
    assert samples["panelind_http_held"] == 0


@TOOLS
def test_promtool_has_nothing_to_say(panelind):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    _, page = scrape(daemon)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
def test_a_real_prometheus_scrapes_it(panelind, tmp_path):
    daemon = panelind(["notify READY=1"], NOTIFY, sidecar=True)
    daemon.ready()
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: panelind\n  scrape_interval: 1s\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{daemon.sidecar_port}']\n")
    server = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=open(tmp_path / "prometheus.log", "w"))
    try:

        def query(text):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={text}", timeout=5) as answer:
                    return json.load(answer)["data"]["result"]
            except OSError:
                return []

        found = wait_until(lambda: query("panelind_ready"), "Prometheus has scraped", timeout=60, every=0.2)
        assert float(found[0]["value"][1]) == 1
        assert query("up")[0]["value"][1] == "1"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
