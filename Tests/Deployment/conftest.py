# conftest.py
# Fixtures of the tests of the deployment: a project of the stand-in for gcloud, and the project's own files.
# Read standin/gcloud next.

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SDK = os.environ.get("PANELIND_GCLOUD_SDK", "/usr/lib/google-cloud-sdk")
CANARY = "canary-3f1e9a77c2"
TOKEN = "token-8d2b41f6aa"


class Project:
    """A Google Cloud project as the stand-in shows it."""

    def __init__(self, directory):
        self.directory = directory
        self.workspace = directory / "workspace"
        self.workspace.mkdir()
        self.state = {"things": [], "token": TOKEN, "answers": [None], "fail": []}

    @property
    def state(self):
        return json.loads((self.directory / "state.json").read_text())

    @state.setter
    def state(self, value):
        (self.directory / "state.json").write_text(json.dumps(value))

    def change(self, **changes):
        self.state = {**self.state, **changes}

    def run(self, *command, stdin="", environment=None, cwd=ROOT):
        """Runs with the stand-ins first on PATH, and nothing of the caller's environment."""
        return subprocess.run(
            [str(word) for word in command],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=60,
            env={
                "PATH": f"{HERE / 'standin'}:/usr/bin:/bin",
                "HOME": str(self.directory),
                "STANDIN": str(self.directory),
                "RETRY_SECONDS": "0",
                **(environment or {}),
            },
        )

    @property
    def calls(self):
        """Everything asked of the stand-ins, in order."""
        try:
            return [json.loads(line) for line in (self.directory / "calls.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def gcloud(self, *words):
        """The gcloud calls that have these words, as one text each."""
        texts = [" ".join(call["argv"]) for call in self.calls if call["tool"] == "gcloud"]
        return [text for text in texts if all(word in text for word in words)]

    def forget(self):
        (self.directory / "calls.jsonl").unlink(missing_ok=True)

    def refused(self):
        """What gcloud's own parser says against the calls made; nothing is run, nothing is reached."""
        calls = [[str(ROOT), call["argv"]] for call in self.calls if call["tool"] == "gcloud"]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            "CLOUDSDK_CONFIG": str(self.directory / "configuration"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
            "CLOUDSDK_CORE_PROJECT": "p",
            "CLOUDSDK_ROOT_DIR": SDK,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        bundled = next(iter(pathlib.Path(SDK).glob("platform/bundledpythonunix/bin/python3")), "python3")
        done = subprocess.run(
            ["unshare", "-rn", bundled, "-S", HERE / "validators/gcloud_parse.py", SDK],
            input=json.dumps(calls),
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            check=True,
        )
        return [(call[1], said) for call, (code, said) in zip(calls, json.loads(done.stdout), strict=True) if code]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="session")
def build():
    """cloudbuild.yaml."""
    return load("cloudbuild.yaml")


@pytest.fixture(scope="session")
def service():
    """etc/cloudrun/service.yaml."""
    return load("etc/cloudrun/service.yaml")


def pytest_configure(config):
    sys.dont_write_bytecode = True
