# test_rollback.py
# etc/cloudrun/rollback.sh and invoke.sh against the stand-ins: which revision is taken, and what is said when there is none.

import json

import pytest
from conftest import ROOT, TOKEN

ROLLBACK = ROOT / "etc/cloudrun/rollback.sh"
INVOKE = ROOT / "etc/cloudrun/invoke.sh"


def revisions(*given):
    """Names, oldest first; `!` before one that never became ready."""
    return [
        {"name": name.lstrip("!"), "born": f"2026-11-{day:02}T00:00:00Z", "ready": not name.startswith("!")}
        for day, name in enumerate(given, 1)
    ]


def history(project, names, *traffic):
    entries = [{"revisionName": name, **more} for name, more in traffic]
    project.change(run={"name": "panelin-api", "revisions": revisions(*names), "traffic": entries})


def serving(project):
    return [entry["revisionName"] for entry in project.state["run"]["traffic"] if entry.get("percent")]


@pytest.mark.parametrize(
    ("names", "traffic", "chosen"),
    [
        (["a", "b"], [("b", {"percent": 100})], "a"),
        # What never became ready is passed over, whether older or newer than what serves.
        (["a", "!b", "c"], [("c", {"percent": 100})], "a"),
        (["a", "b", "!c"], [("b", {"percent": 100})], "a"),
        # So is a candidate whose build failed.
        (["a", "b", "c"], [("c", {"percent": 100}), ("b", {"tag": "candidate-1234abcd"})], "a"),
        # Another tag is no such mark.
        (["a", "b", "c"], [("c", {"percent": 100}), ("b", {"tag": "blue"})], "b"),
        # Of a split, the one with most of the traffic is what is left.
        (["a", "b", "c"], [("b", {"percent": 90}), ("c", {"percent": 10})], "a"),
    ],
)
def test_the_newest_good_revision_before_the_serving_one_is_taken(project, names, traffic, chosen):
    history(project, names, *traffic)
    done = project.run(ROLLBACK, "my-project")
    assert done.returncode == 0, done.stderr
    assert serving(project) == [chosen]
    assert "--region=us-central1" in project.gcloud("update-traffic")[0]
    assert "pinned" in done.stdout and "--to-latest" in done.stdout
    assert project.refused() == []


def test_a_second_rollback_goes_one_further(project):
    history(project, ["a", "b", "c"], ("c", {"percent": 100}))
    assert project.run(ROLLBACK, "my-project").returncode == 0
    assert project.run(ROLLBACK, "my-project").returncode == 0
    assert serving(project) == ["a"]


def test_a_named_revision_is_taken_if_it_is_good(project):
    history(project, ["a", "b", "!c"], ("b", {"percent": 100}))
    assert project.run(ROLLBACK, "my-project", "a").returncode == 0
    assert serving(project) == ["a"]
    for name, why in (("c", "it never became ready"), ("z", "no such revision; there are c, b, a")):
        done = project.run(ROLLBACK, "my-project", name)
        assert done.returncode == 1 and f"cannot go back to {name}: {why}" in done.stderr
    assert serving(project) == ["a"]


def test_with_nothing_to_go_back_to_nothing_changes(project):
    history(project, ["!a", "b"], ("b", {"percent": 100}))
    done = project.run(ROLLBACK, "my-project")
    assert done.returncode == 1 and "no good revision is older than b" in done.stderr
    assert not project.gcloud("update-traffic")


def test_a_revision_that_serves_already_is_left_alone(project):
    history(project, ["a", "b"], ("a", {"percent": 100}))
    done = project.run(ROLLBACK, "my-project", "a")
    assert done.returncode == 0 and "serves already" in done.stdout
    assert not project.gcloud("update-traffic")


@pytest.mark.parametrize("step", ["services describe", "revisions list", "update-traffic"])
def test_a_refusal_of_the_platform_fails_the_rollback(project, step):
    history(project, ["a", "b"], ("b", {"percent": 100}))
    project.change(fail=[step])
    assert project.run(ROLLBACK, "my-project").returncode != 0
    assert serving(project) == ["b"]


def test_invoke_shows_who_you_are_without_putting_it_on_a_command_line(project):
    history(project, ["a"], ("a", {"percent": 100}))
    project.change(answers=["a"])
    done = project.run(INVOKE, "my-project", "/ready")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revision"] == "a"
    call = next(call for call in project.calls if call["tool"] == "curl")
    assert call["token"] and call["argv"][-1] == "https://panelin-api-x1-uc.a.run.app/ready"
    assert TOKEN not in json.dumps([call["argv"] for call in project.calls]) + done.stdout + done.stderr
    assert project.refused() == []


def test_invoke_as_a_service_account_asks_for_the_audience_of_the_service(project):
    history(project, ["a"], ("a", {"percent": 100}))
    project.change(answers=["a"])
    project.run(INVOKE, "my-project", "/ready", environment={"INVOKE_AS": "x@my-project.iam.gserviceaccount.com"})
    asked = project.gcloud("print-identity-token")[0]
    assert "--audiences=https://panelin-api-x1-uc.a.run.app" in asked


@pytest.mark.parametrize("step", ["services describe", "print-identity-token"])
def test_invoke_without_address_or_token_calls_nobody(project, step):
    history(project, ["a"], ("a", {"percent": 100}))
    project.change(answers=["a"], fail=[step])
    done = project.run(INVOKE, "my-project", "/ready")
    assert done.returncode != 0 and "made to fail" in done.stderr
    assert all(call["tool"] == "gcloud" for call in project.calls)
    assert TOKEN not in done.stdout + done.stderr


def test_invoke_fails_where_the_service_does(project):
    history(project, ["a"], ("a", {"percent": 100}))
    project.change(answers=["a"], broken=["/quotes"])
    done = project.run(INVOKE, "my-project", "/quotes")
    assert done.returncode != 0 and "500" in done.stdout


@pytest.mark.parametrize("script", ["setup.sh", "rollback.sh", "invoke.sh"])
def test_a_script_says_how_it_is_used(project, script):
    shown = project.run(ROOT / "etc/cloudrun" / script, "--help")
    assert shown.returncode == 0 and f"etc/cloudrun/{script} PROJECT" in shown.stdout
    refused = project.run(ROOT / "etc/cloudrun" / script)
    assert refused.returncode != 0 and "usage:" in refused.stderr
    assert project.calls == []
