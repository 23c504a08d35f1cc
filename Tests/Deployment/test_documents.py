# test_documents.py
# What README, runbook and the pages about Cloud Run claim, held against the files and the built program.
# gcloud's lines, the shell in them and links are judged by validators/check_shell.py.

import json
import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT, load

BINARIES = os.environ.get("PANELIND_BIN_DIR", ROOT / ".build/release")
PAGES = ["README.md", "docs/cloud-run.md", "docs/monitoring.md", "docs/runbook.md"]


def check(*words, cwd=ROOT, **environment):
    """The effective settings that `panelind check` shows, as on Cloud Run."""
    done = subprocess.run(
        [f"{BINARIES}/panelind", "check", "--json", *words], cwd=cwd, capture_output=True, text=True, timeout=60,
        check=False, env={"PATH": "/usr/bin:/bin", "PORT": "8080", **environment})
    assert done.returncode == 0, done.stderr
    return {setting["key"]: setting["value"] for setting in json.loads(done.stdout)["settings"]}


WORKER = ["--", "true", "--uds", "{socket}"]


@pytest.mark.parametrize("page", PAGES)
def test_every_script_that_a_page_names_is_there_and_can_be_run(page):
    for path in set(re.findall(r"\b(etc/[\w/-]+\.sh)\b", (ROOT / page).read_text())):
        assert os.access(ROOT / path, os.X_OK), path


@pytest.mark.parametrize("page", ["README.md", "docs/cloud-run.md", "docs/runbook.md"])
def test_every_setting_in_a_block_of_a_page_is_accepted(page, tmp_path):
    secret = tmp_path / "panelin-api-key"
    secret.write_text("value")
    blocks = re.findall(r"```yaml\n(worker:.*?)```", (ROOT / page).read_text(), re.S)
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block.replace("/secrets/panelin-api-key", str(secret)))
        values = check("--config", file, *WORKER, CREDENTIALS_DIRECTORY=str(tmp_path))
        assert values["worker.secrets"] == f"{{PANELIN_API_KEY: {secret}}}"
    assert blocks or page != "docs/cloud-run.md"


def test_the_division_of_the_stop_is_the_one_of_the_runbook():
    text = (ROOT / "docs/runbook.md").read_text()
    values = check("--set", "platform=cloudrun", *WORKER)
    assert (values["stop.budget"], values["stop.delay"], values["stop.drain"][:4]) == ("9s", "1s", "5.33")
    assert "of panelind's 9 s, 1 s is delay, 5.33 s are" in text
    (line,) = re.findall(r"^panelind check (--set.*) -- uvicorn", text, re.M)
    assert check(*line.split(), *WORKER)["stop.drain"] == "7s"
    given = dict(word.split("=") for word in re.findall(r"`(PANELIND_STOP_\w+=\w+)`", text))
    values = check("--set", "platform=cloudrun", *WORKER, **given)
    assert (values["stop.delay"], values["stop.drain"]) == ("0s", "7s")


def test_the_limits_that_the_pages_name_are_those_in_force():
    values = check("--set", "platform=cloudrun", *WORKER)
    pages = (ROOT / "docs/cloud-run.md").read_text() + (ROOT / "docs/runbook.md").read_text()
    assert f"after {values['restart.limit']} failures in a row" in pages
    assert values["serve.hold"] == "10s" and "held for up to 10 s" in pages
    assert values["log.slow"] == "2s" and "slower than `log.slow`\n(2 s)" in pages
    assert values["restart.permanentExitCodes"] == "[3, 4, 126, 127]" and "`permanent` (3, 4, 126, 127)" in pages


def test_the_environment_of_the_service_is_accepted(service, tmp_path):
    container = service["spec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    (tmp_path / "panelin-api-key").write_text("value")
    here = {name: value.replace("/secrets", str(tmp_path)) for name, value in variables.items()}
    values = check(*WORKER, K_SERVICE="panelin-api", **here)
    assert values["worker.secrets"] == f"{{PANELIN_API_KEY: {tmp_path}/panelin-api-key}}"
    assert values["worker.requiredEnvironment"] == "[PANELIN_API_KEY]"
    # The front is where the platform sends requests to, whatever port it chooses.
    assert values["serve.listen"] == "0.0.0.0:8080" and container["ports"][0]["containerPort"] == 8080


def test_the_secret_has_one_name_everywhere(build, service):
    names = {build["substitutions"]["_SECRET"], service["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"]}
    names |= set(re.findall(r"secret=\$\{SECRET:-([\w-]+)\}", (ROOT / "etc/cloudrun/setup.sh").read_text()))
    assert names == {"panelin-api-key"}
    variables = service["spec"]["template"]["spec"]["containers"][0]["env"]
    given = yaml.safe_load(variables[0]["value"])
    assert set(given) == {"PANELIN_API_KEY"} and 'environ.get("PANELIN_API_KEY")' in (ROOT / "Examples/agent/api.py").read_text()


def test_the_accounts_are_the_same_in_build_script_and_page(build):
    script = (ROOT / "etc/cloudrun/setup.sh").read_text()
    page = (ROOT / "docs/cloud-run.md").read_text()
    assert "panelin-deployer@" in build["serviceAccount"] and build["substitutions"]["_SMOKE"] == "panelin-smoke"
    for account in ("panelin-deployer", "panelin-smoke"):
        assert f"account {account} " in script and f"| `{account}` |" in page


def test_the_context_of_the_image_is_an_allow_list():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    for path in copied - {"Package.*", "Tests"}:
        assert any(path == each or path.startswith(each + "/") for each in allowed), path


def test_nothing_here_makes_the_service_public():
    files = [ROOT / "cloudbuild.yaml", *(ROOT / "etc/cloudrun").iterdir(), *(ROOT / "etc/monitoring").glob("*.sh")]
    text = "\n".join(path.read_text() for path in files)
    assert "allUsers" not in text and "allAuthenticatedUsers" not in text
    assert not re.search(r"(?<!no-)allow-unauthenticated", text)
    assert load("etc/cloudrun/service.yaml")["metadata"]["annotations"].get("run.googleapis.com/invoker-iam-disabled") is None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_panelind_that_a_page_names_exists(page):
    shown = subprocess.run([f"{BINARIES}/panelind", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    known = set(re.findall(r"^  (\w+)", shown.partition("SUBCOMMANDS:")[2], re.M))
    text = (ROOT / page).read_text()
    used = set(re.findall(r"^(?:    )?panelind (\w+)", text, re.M)) | set(re.findall(r"`panelind (\w+)", text))
    assert used <= known, used - known
