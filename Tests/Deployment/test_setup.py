# test_setup.py
# etc/cloudrun/setup.sh and etc/monitoring/setup.sh against the stand-in: order, arguments, a second run, a failure half-way.
# The cloud is not asked; gcloud's own parser is.

import json

import pytest
from conftest import CANARY, ROOT

SETUP = ROOT / "etc/cloudrun/setup.sh"
MONITORING = ROOT / "etc/monitoring/setup.sh"


def set_up(project, value=CANARY):
    return project.run(SETUP, "my-project", stdin=value)


def test_a_new_project_gets_everything_in_an_order_that_works(project):
    done = set_up(project)
    assert done.returncode == 0, done.stderr
    texts = project.gcloud()

    def place(*words):
        return next(number for number, text in enumerate(texts) if all(word in text for word in words))

    assert place("services enable", "artifactregistry.googleapis.com") == 0
    assert place("repositories create") < place("repositories set-cleanup-policies")
    for account in ("panelin-api", "panelin-deployer", "panelin-smoke"):
        made = place("service-accounts create", account)
        bound = [n for n, text in enumerate(texts) if "binding" in text and f"serviceAccount:{account}@" in text]
        assert bound and made < min(bound), account
    assert place("secrets create") < place("secrets add-iam-policy-binding") < place("secrets versions add")
    assert project.refused() == []


def test_the_accounts_get_the_least_they_need(project):
    assert set_up(project).returncode == 0
    grants = {
        (next(w for w in text.split() if w.startswith("--member")).split(":")[1].split("@")[0],
         next(w for w in text.split() if w.startswith("--role")).partition("=")[2],
         text.split("add-iam-policy-binding")[0].strip())
        for text in project.gcloud("add-iam-policy-binding")
    }
    assert grants == {
        ("panelin-api", "roles/secretmanager.secretAccessor", "secrets"),
        ("panelin-deployer", "roles/artifactregistry.writer", "artifacts repositories"),
        ("panelin-deployer", "roles/iam.serviceAccountUser", "iam service-accounts"),
        ("panelin-deployer", "roles/iam.serviceAccountOpenIdTokenCreator", "iam service-accounts"),
        ("panelin-deployer", "roles/run.developer", "projects"),
        ("panelin-deployer", "roles/logging.logWriter", "projects"),
        ("panelin-deployer", "roles/storage.objectViewer", "storage buckets"),
        ("panelin-smoke", "roles/run.invoker", "projects"),
    }
    assert not project.gcloud("allUsers") and not project.gcloud("compute@developer")


def test_the_value_goes_through_standard_input_and_nowhere_else(project):
    done = set_up(project, CANARY + "\n")
    assert (project.directory / "secret").read_text() == CANARY
    assert CANARY not in done.stdout + done.stderr + json.dumps(project.calls)


def test_a_second_run_makes_nothing_and_asks_for_no_value(project):
    set_up(project)
    project.forget()
    done = set_up(project, value="")
    assert done.returncode == 0, done.stderr
    assert project.gcloud(" create ") == [] and project.gcloud("versions add") == []


def test_without_a_value_all_but_the_secret_is_made_and_the_next_step_is_said(project):
    done = set_up(project, value="")
    assert done.returncode == 1
    assert "printf %s VALUE | etc/cloudrun/setup.sh my-project" in done.stderr
    assert project.gcloud("secrets create") and not project.gcloud("versions add")
    assert set_up(project).returncode == 0


@pytest.mark.parametrize(
    "step",
    [
        "services enable", "repositories create", "set-cleanup-policies", "service-accounts create panelin-deployer",
        "storage buckets create", "secrets create", "secrets versions list", "secrets versions add",
    ],
)
def test_a_failure_half_way_is_said_and_a_later_run_goes_on(project, step):
    project.change(fail=[step])
    done = set_up(project)
    assert done.returncode != 0 and "made to fail" in done.stderr
    assert "done." not in done.stdout
    assert set_up(project).returncode == 0
    assert (project.directory / "secret").read_text() == CANARY


def test_a_binding_is_tried_again_because_a_new_account_is_not_known_everywhere_at_once(project):
    project.change(fail=["serviceAccountUser", "serviceAccountUser"])
    assert set_up(project).returncode == 0
    assert len(project.gcloud("serviceAccountUser")) == 3


def test_other_names_are_used_throughout(project):
    done = project.run(
        SETUP, "p2", stdin=CANARY,
        environment={"REGION": "europe-west1", "SERVICE": "quotes", "REPOSITORY": "images", "SECRET": "quotes-key"})
    assert done.returncode == 0, done.stderr
    assert project.gcloud("us-central1") == [] and project.gcloud("panelin-api") == []
    assert project.gcloud("repositories create images", "--location=europe-west1")
    assert project.gcloud("secrets create quotes-key")


def deployed(project):
    project.change(
        run={
            "name": "panelin-api",
            "revisions": [{"name": "panelin-api-1", "born": "2026-11-22T10:00:00Z", "ready": True}],
            "traffic": [{"revisionName": "panelin-api-1", "percent": 100}],
        })


def test_monitoring_is_made_once_and_brought_up_to_date_later(project):
    deployed(project)
    done = project.run(MONITORING, "my-project", "projects/my-project/notificationChannels/1")
    assert done.returncode == 0, done.stderr
    alerts = sorted((ROOT / "etc/monitoring/alerts").iterdir())
    assert len(project.gcloud("policies create", "notificationChannels/1")) == len(alerts)
    assert len(project.gcloud("logging metrics create")) == len(list((ROOT / "etc/monitoring/metrics").iterdir()))
    assert project.gcloud("dashboards create")
    check = project.gcloud("uptime create")[0]
    assert "host=panelin-api-x1-uc.a.run.app" in check and "--service-agent-auth=oidc-token" in check
    assert project.refused() == []
    project.forget()
    again = project.run(MONITORING, "my-project")
    assert again.returncode == 0, again.stderr
    assert project.gcloud(" create ") == ["beta services identity create"] * 0
    assert len(project.gcloud("policies update", "--set-notification-channels")) == len(alerts)
    assert project.refused() == []


@pytest.mark.parametrize(
    "step",
    [
        "logging metrics create", "policies create", "dashboards create", "services identity create",
        "services add-iam-policy-binding", "uptime create",
    ],
)
def test_monitoring_that_fails_half_way_says_so_and_a_later_run_goes_on(project, step):
    deployed(project)
    project.change(fail=[step])
    done = project.run(MONITORING, "my-project")
    assert done.returncode != 0 and "made to fail" in done.stderr
    assert "== done" not in done.stdout
    # The stand-in refuses to make what is there already.
    again = project.run(MONITORING, "my-project")
    assert again.returncode == 0, again.stderr
    made = project.state["things"]
    for kind, folder in (("alpha monitoring policies", "alerts"), ("logging metrics", "metrics")):
        for file in (ROOT / "etc/monitoring" / folder).iterdir():
            assert any(thing.startswith(kind) and thing.endswith(file.stem) for thing in made), file
    for kind in ("monitoring dashboards", "monitoring uptime"):
        assert any(thing.startswith(kind) for thing in made), kind


def test_monitoring_before_the_first_deployment_says_that_there_is_no_service(project):
    done = project.run(MONITORING, "my-project")
    assert done.returncode != 0 and "Cannot find service" in done.stderr
    deployed(project)
    assert project.run(MONITORING, "my-project").returncode == 0
