# test_monitoring.py
# Alerts, metrics and their documentation: the queries of the alert policies are shown to fire and not to fire, the filters of
# the metrics match what panelind really logs, and the table in docs/monitoring.md says what the files say.

import json
import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT, load

MONITORING = ROOT / "etc/monitoring"
PROMTOOL = ROOT / ".venv/deployment/bin/promtool"
BINARIES = os.environ.get("PANELIND_BIN_DIR", ROOT / ".build/release")
SERVICE = 'monitored_resource="cloud_run_revision",service_name="panelin-api"'


def alerts():
    return {policy["displayName"].partition("/")[2]: policy for policy in map(load, paths("alerts"))}


def paths(folder):
    return [path.relative_to(ROOT) for path in sorted((MONITORING / folder).iterdir())]


def condition(policy):
    return policy["conditions"][0]["conditionPrometheusQueryLanguage"]


# Series by minute, and the minutes at which the alert must be silent and firing.
STORIES = {
    "5xx": (
        {
            f'run_googleapis_com:request_count{{{SERVICE},response_code_class="2xx"}}': "0+1000x50",
            f'run_googleapis_com:request_count{{{SERVICE},response_code_class="5xx"}}': "0+9x20 192+12x30",
        },
        [15, 23], [40],
    ),
    "5xx at night": (
        {f'run_googleapis_com:request_count{{{SERVICE},response_code_class="5xx"}}': "0+2x50"}, [20, 40], [],
    ),
    "5xx of another service": (
        {'run_googleapis_com:request_count{monitored_resource="cloud_run_revision",service_name="other",'
         'response_code_class="5xx"}': "0+1000x50"}, [20, 40], [],
    ),
    "latency": (
        {
            f'run_googleapis_com:request_latencies_bucket{{{SERVICE},le="1000"}}': "0+96x20 1920+80x30",
            f'run_googleapis_com:request_latencies_bucket{{{SERVICE},le="4000"}}': "0+100x50",
            f'run_googleapis_com:request_latencies_bucket{{{SERVICE},le="+Inf"}}': "0+100x50",
        },
        [15], [35],
    ),
    "instance-starts": (
        # A deployment of ten instances, later two starts a minute.
        {f"run_googleapis_com:container_startup_latencies_count{{{SERVICE}}}": "0x5 10x30 12+2x20"}, [10, 34], [50],
    ),
    "worker-restarts": (
        {
            f'logging_googleapis_com:user_panelind_worker_exits{{{SERVICE},cause="requested"}}': "0+5x40",
            f'logging_googleapis_com:user_panelind_worker_exits{{{SERVICE},cause="oom"}}': "0x20 0+1x20",
        },
        [15], [35],
    ),
    "crash-loop": (
        {f"logging_googleapis_com:user_panelind_gave_up{{{SERVICE}}}": "0x10 1x30"}, [9, 39], [15],
    ),
}


def test_every_alert_has_a_story():
    assert {story.split()[0] for story in STORIES} == set(alerts())


@pytest.mark.parametrize("story", STORIES)
def test_an_alert_fires_when_it_must_and_only_then(story, tmp_path):
    series, silent, firing = STORIES[story]
    query = condition(alerts()[story.split()[0]])
    rule = {"alert": "it", "expr": query["query"], "for": query["duration"]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]}))
    cases = [{"eval_time": f"{at}m", "alertname": "it", "exp_alerts": []} for at in silent]
    cases += [{"eval_time": f"{at}m", "alertname": "it", "exp_alerts": [{}]} for at in firing]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": cases,
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run([PROMTOOL, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def table():
    text = (ROOT / "docs/monitoring.md").read_text()
    rows = text.split("<!-- alerts -->\n")[1].split("<!-- /alerts -->")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {name.strip("`"): (where, when, duration, severity) for name, where, when, duration, severity in cells}


def test_the_table_names_every_alert_with_its_threshold_duration_and_severity():
    said = table()
    expected = {}
    for policy in alerts().values():
        query = condition(policy)
        expected[policy["displayName"]] = ("Cloud Run", query["query"], query["duration"], policy["severity"])
    for group in load("etc/monitoring/prometheus/rules.yaml")["groups"]:
        for rule in group["rules"]:
            expected[rule["alert"]] = ("Prometheus", rule["expr"], rule.get("for", "0s"), rule["labels"]["severity"])
    assert set(said) == set(expected)
    for name, (where, query, duration, severity) in expected.items():
        assert (said[name][0], *said[name][2:]) == (where, duration, severity), name
        # Every bound of the query is in the table, and the other way round.
        assert set(re.findall(r"> ([0-9.]+)", said[name][1])) == set(re.findall(r"> ([0-9.]+)", query)), name


def test_every_alert_points_to_a_section_that_the_runbook_has():
    sections = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.M)
    pointers = [policy["documentation"]["content"] for policy in alerts().values()]
    for name in (re.search(r'docs/runbook.md, "([^"]+)"', pointer)[1] for pointer in pointers):
        assert name in sections
    for group in load("etc/monitoring/prometheus/rules.yaml")["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["runbook"].removeprefix("docs/runbook.md, ") in sections


def test_the_metrics_of_the_table_are_those_of_the_files():
    text = (ROOT / "docs/monitoring.md").read_text()
    assert set(re.findall(r"^\| `(panelind_\w+)` \|", text, re.M)) == {load(path)["name"] for path in paths("metrics")}


def test_alerts_and_dashboard_use_only_metrics_that_are_made():
    made = {load(path)["name"] for path in paths("metrics")}
    texts = [path.read_text() for path in (*(MONITORING / "alerts").iterdir(), *(MONITORING / "dashboards").iterdir())]
    used = set(re.findall(r"logging_googleapis_com:user_(\w+)", "".join(texts)))
    assert used and used <= made


def entries(directory):
    """What Cloud Logging makes of a run of panelind that ends in giving up: severity and message leave the payload."""
    # A worker that starts fails to import: the plan's own fate.
    command = [
        f"{BINARIES}/panelind", "run", "--set", "platform=cloudrun", "--set", "sidecar.listen=none", "--set",
        "control.path=none", "--set", "restart.delay=10ms", "--set", "restart.limit=1", "--",
        "sh", "-c", "echo 'ModuleNotFoundError: no module named tools' >&2; exit 1",
    ]
    environment = {"PATH": "/usr/bin:/bin", "PORT": "8080"}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        {"resource.type": "cloud_run_revision", **{f"jsonPayload.{key}": value for key, value in record.items()}}
        for record in records
    ]


def matches(text, entry):
    """The little of the logging query language that our filters are written in."""
    for clause in text.split(" AND "):
        field, operator, value = re.fullmatch(r'([\w.]+)(=|:)"?([^"]*)"?', clause).groups()
        found = entry.get(field)
        if found is None or (value != "*" and str(found) != value):
            return False
        assert operator == "=" or value == "*"
    return True


def test_the_filters_of_the_metrics_match_what_panelind_logs(tmp_path):
    logged = entries(tmp_path)
    counts = {}
    for path in paths("metrics"):
        metric = load(path)
        if "varlog" in metric["filter"]:
            continue
        hits = [entry for entry in logged if matches(metric["filter"], entry)]
        counts[metric["name"]] = len(hits)
        for extractor in metric.get("labelExtractors", {}).values():
            field = re.fullmatch(r"EXTRACT\((.*)\)", extractor)[1]
            assert all(entry[field] == "exit" for entry in hits)
    assert counts == {"panelind_worker_exits": 2, "panelind_worker_starts": 2, "panelind_gave_up": 1}


def test_the_log_queries_of_the_runbook_match_what_panelind_logs(tmp_path):
    logged = entries(tmp_path)
    queries = re.findall(r"'(resource\.type=[^']+)'", (ROOT / "docs/runbook.md").read_text())
    for query in (query for query in queries if "jsonPayload.event" in query):
        rest = query.replace('resource.labels.service_name="panelin-api" AND ', "")
        assert any(matches(rest, entry) for entry in logged), query
    fields = {field for text in re.findall(r"jsonPayload\.(\w+)", (ROOT / "docs/runbook.md").read_text()) for field in [text]}
    known = {key.removeprefix("jsonPayload.") for entry in logged for key in entry}
    assert fields - known <= {"exit_signal"}


def test_the_uptime_check_of_the_script_is_the_one_of_the_file():
    check = load("etc/monitoring/uptime/panelin-api.yaml")
    script = (MONITORING / "setup.sh").read_text()
    assert f"--path={check['httpCheck']['path']}" in script
    assert f"--period={int(check['period'][:-1]) // 60} " in script and f"--timeout={check['timeout'][:-1]} " in script
    assert check["httpCheck"]["serviceAgentAuthentication"]["type"] == "OIDC_TOKEN"
    assert "--service-agent-auth=oidc-token" in script


