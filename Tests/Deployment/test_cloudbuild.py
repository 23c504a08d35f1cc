# test_cloudbuild.py
# cloudbuild.yaml, its steps run in order as Cloud Build runs them, against the stand-ins: a first deployment, a later one, and
# what happens to the traffic when a revision is not ready, another comes between, or the traffic does not move.

import json
import re
import shlex

import pytest
from conftest import TOKEN, load

MANUAL = {"PROJECT_ID": "my-project", "BUILD_ID": "1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d", "COMMIT_SHA": ""}
TRIGGERED = {**MANUAL, "COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567"}
REVISION = "panelin-api-b1a2b3c4d"
OLD = "panelin-api-bold"


def substitute(value, build, builtins):
    """As Cloud Build does it: once, everywhere but in scripts."""
    if isinstance(value, list):
        return [substitute(each, build, builtins) for each in value]
    known = {**build["substitutions"], **builtins}
    return re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], value)


def run_step(project, build, name, builtins=MANUAL, **changes):
    """Runs one step that uses the stand-ins, in the workspace that all of them share."""
    step = next(step for step in build["steps"] if step["id"] == name)
    build = {**build, "substitutions": {**build["substitutions"], **changes}}
    variables = dict(each.split("=", 1) for each in substitute(build["options"]["env"], build, builtins))
    if "script" in step:
        script = project.directory / name
        script.write_text(step["script"])
        script.chmod(0o755)
        return project.run(script, environment=variables, cwd=project.workspace)
    return project.run("docker", *substitute(step["args"], build, builtins), cwd=project.workspace)


def deploy(project, build, builtins=MANUAL, **changes):
    """All steps from the build of the image on; the result of the last that ran."""
    for name in ("build", "push", "digest", "deploy", "smoke", "promote"):
        done = run_step(project, build, name, builtins, **changes)
        if done.returncode:
            return name, done
    return name, done


def serving(project):
    return {entry["revisionName"]: entry["percent"] for entry in project.state["run"]["traffic"] if "percent" in entry}


@pytest.fixture
def living(project):
    """A project with a service that serves."""
    project.change(
        answers=[REVISION],
        run={
            "name": "panelin-api",
            "revisions": [{"name": OLD, "born": "2026-11-01T00:00:00Z", "ready": True}],
            "traffic": [{"revisionName": OLD, "percent": 100}],
        },
    )
    return project


@pytest.mark.parametrize("builtins", [MANUAL, TRIGGERED], ids=["submitted", "triggered"])
def test_a_deployment_moves_the_traffic_once_the_new_revision_says_that_it_is_ready(living, build, builtins):
    # For a while the URL of the tag does not answer, then the old revision does.
    living.change(answers=[None, OLD, REVISION])
    name, done = deploy(living, build, builtins)
    assert (name, done.returncode) == ("promote", 0), done.stderr
    assert serving(living) == {REVISION: 100}
    assert living.refused() == []
    order = [text.split()[:3] for text in living.gcloud() if "deploy" in text or "update-traffic" in text]
    assert order == [["run", "deploy", "panelin-api"], ["run", "services", "update-traffic"]]
    asked = [call["argv"][-1] for call in living.calls if call["tool"] == "curl"]
    tagged = "https://candidate-1a2b3c4d---panelin-api-x1-uc.a.run.app"
    assert asked == [f"{tagged}/ready"] * 3 + [f"{tagged}/products"]


def test_the_deployed_image_is_the_one_that_was_pushed_by_its_digest(living, build):
    deploy(living, build)
    image = "us-central1-docker.pkg.dev/my-project/panelin/panelin-api"
    built, pushed, inspected = ([*call["argv"]] for call in living.calls if call["tool"] == "docker")
    assert f"--tag={image}:{MANUAL['BUILD_ID']}" in built and pushed == ["push", f"{image}:{MANUAL['BUILD_ID']}"]
    assert inspected[-1] == pushed[1]
    assert substitute(build["images"], build, MANUAL) == [pushed[1]]
    assert f"--image={image}@sha256:{'0' * 64}" in living.gcloud("run deploy")[0]
    # An image reference has no empty part, also without what only a trigger sets.
    assert re.fullmatch(r"[a-z0-9.-]+(/[a-z0-9._-]+)+:[A-Za-z0-9_.-]{1,128}", pushed[1])


def test_the_service_gets_what_the_plan_says_each_once(living, build):
    deploy(living, build)
    words = next(call["argv"] for call in living.calls if call["argv"][:2] == ["run", "deploy"])
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert len(names) == len(set(names))
    for wanted in (
        "--memory=512Mi", "--cpu=1", "--min-instances=0", "--max-instances=10", "--concurrency=80", "--timeout=300",
        "--no-allow-unauthenticated", "--no-traffic", "--execution-environment=gen2", "--region=us-central1",
        "--service-account=panelin-api@my-project.iam.gserviceaccount.com",
        "--update-secrets=/secrets/panelin-api-key=panelin-api-key:1",
    ):
        assert wanted in words, wanted
    assert "--allow-unauthenticated" not in words


def test_a_first_deployment_works_and_is_tested_all_the_same(project, build):
    project.change(answers=[REVISION])
    name, done = deploy(project, build)
    assert (name, done.returncode) == ("promote", 0), done.stderr
    assert "--no-traffic" not in project.gcloud("run deploy")[0]
    assert "--no-allow-unauthenticated" in project.gcloud("run deploy")[0]
    assert serving(project) == {REVISION: 100}
    assert project.refused() == []


def test_a_second_deployment_takes_over_from_the_first(project, build):
    project.change(answers=[REVISION])
    deploy(project, build)
    again = {**MANUAL, "BUILD_ID": "99999999-5e6f-7a8b-9c0d-1e2f3a4b5c6d"}
    project.change(answers=["panelin-api-b99999999"])
    name, done = deploy(project, build, again)
    assert (name, done.returncode) == ("promote", 0), done.stderr
    assert serving(project) == {"panelin-api-b99999999": 100}
    first, second = project.gcloud("run deploy")
    assert "--no-traffic" not in first and "--no-traffic" in second


@pytest.mark.parametrize("answer", [None, OLD], ids=["silent", "another revision"])
def test_a_revision_that_does_not_become_ready_fails_the_build_and_gets_no_traffic(living, build, answer):
    living.change(answers=[answer])
    name, done = deploy(living, build, _SMOKE_SECONDS="1")
    assert name == "smoke" and done.returncode != 0
    assert f"{REVISION} is not ready after 1 s" in done.stderr
    assert serving(living) == {OLD: 100} and not living.gcloud("update-traffic")


def test_a_revision_that_is_ready_but_does_not_work_gets_no_traffic(living, build):
    living.change(broken=["/products"])
    name, done = deploy(living, build)
    assert name == "smoke" and done.returncode != 0
    assert serving(living) == {OLD: 100}


def test_a_deployment_that_came_between_is_not_given_traffic_untested(living, build):
    for name in ("build", "push", "digest", "deploy", "smoke"):
        assert run_step(living, build, name).returncode == 0
    state = living.state
    state["run"]["revisions"].append({"name": "panelin-api-other", "born": "2026-11-22T11:00:00Z", "ready": True})
    living.state = state
    done = run_step(living, build, "promote")
    assert done.returncode == 1 and "panelin-api-other was deployed after it" in done.stderr
    assert serving(living) == {OLD: 100}


def test_traffic_that_does_not_move_fails_the_build_and_is_put_back(living, build):
    living.change(stubborn=True)
    name, done = deploy(living, build)
    assert name == "promote" and done.returncode == 1
    assert f"--to-revisions={OLD}=100" in living.gcloud("update-traffic")[-1]


def test_a_service_pinned_by_a_rollback_follows_again(living, build):
    deploy(living, build)
    assert "--to-latest" in living.gcloud("update-traffic")[0]


@pytest.mark.parametrize("step", ["services list", "run deploy", "print-identity-token", "update-traffic"])
def test_any_failure_of_a_step_fails_the_build_with_the_old_revision_serving(living, build, step):
    living.change(fail=[step])
    _, done = deploy(living, build)
    assert done.returncode != 0 and "made to fail" in done.stderr
    assert serving(living) == {OLD: 100}


def test_the_token_of_the_smoke_test_is_no_argument_and_in_no_output(living, build):
    results = [run_step(living, build, name) for name in ("build", "push", "digest", "deploy", "smoke", "promote")]
    assert all(call["token"] for call in living.calls if call["tool"] == "curl")
    said = json.dumps([call["argv"] for call in living.calls]) + "".join(d.stdout + d.stderr for d in results)
    assert TOKEN not in said


def test_tests_come_before_the_push_and_the_push_before_the_deployment(build):
    ids = [step["id"] for step in build["steps"]]
    assert ids == ["test-panelind", "test-agent", "build", "push", "digest", "deploy", "smoke", "promote"]
    push = build["steps"][ids.index("push")]
    assert set(push["waitFor"]) == {"test-panelind", "test-agent", "build"}
    # A step without waitFor waits for all before it.
    assert all("waitFor" not in step for step in build["steps"][ids.index("digest") :])


def test_the_service_file_says_what_the_build_says(living, build, service):
    deploy(living, build)
    words = next(call["argv"] for call in living.calls if call["argv"][:2] == ["run", "deploy"])
    flags = {name: value for name, _, value in (word.partition("=") for word in words)}
    template = service["spec"]["template"]
    notes, spec = template["metadata"]["annotations"], template["spec"]
    container = spec["containers"][0]
    assert service["metadata"]["name"] == "panelin-api"
    assert notes["autoscaling.knative.dev/minScale"] == flags["--min-instances"]
    assert notes["autoscaling.knative.dev/maxScale"] == flags["--max-instances"]
    assert notes["run.googleapis.com/execution-environment"] == flags["--execution-environment"]
    assert spec["containerConcurrency"] == int(flags["--concurrency"])
    assert spec["timeoutSeconds"] == int(flags["--timeout"])
    assert spec["serviceAccountName"].replace("PROJECT_ID", "my-project") == flags["--service-account"]
    assert container["resources"]["limits"] == {"cpu": flags["--cpu"], "memory": flags["--memory"]}
    for flag, name in (("--startup-probe", "startupProbe"), ("--liveness-probe", "livenessProbe")):
        probe = dict(part.split("=") for part in flags[flag].split(","))
        here = container[name]
        assert probe.pop("httpGet.path") == here["httpGet"]["path"]
        assert {key: int(value) for key, value in probe.items()} == {k: v for k, v in here.items() if k != "httpGet"}
    given = dict(part.split("=", 1) for part in flags["--update-env-vars"].removeprefix("^|^").split("|"))
    assert given == {variable["name"]: variable["value"] for variable in container["env"]}
    mount, secret = container["volumeMounts"][0], spec["volumes"][0]["secret"]
    item = secret["items"][0]
    assert flags["--update-secrets"] == f"{mount['mountPath']}/{item['path']}={secret['secretName']}:{item['key']}"


def test_the_probes_ask_what_panelind_answers(service):
    container = service["spec"]["template"]["spec"]["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/ready", "livenessProbe": "/health", "readinessProbe": "/ready"}
    # A worker's restart, held for up to ten seconds, must not end the instance.
    live = container["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 60


def test_the_test_steps_run_what_exists(build):
    steps = {step["id"]: step["script"] for step in build["steps"] if step["id"].startswith("test-")}
    words = {word for script in steps.values() for word in shlex.split(script, comments=True)}
    assert {"scripts/setup", "scripts/unit-tests"} <= words
    assert load("etc/cloudrun/service.yaml")
