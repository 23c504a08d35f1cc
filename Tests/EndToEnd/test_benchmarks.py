# test_benchmarks.py
# Every benchmark still runs and has a figure of panelind's, with the peers that are here anyway. No figure is judged.
# Read Benchmarks/bench.py.

import json
import os
import subprocess
import sys

import pytest

from harness.daemon import ROOT

BINARIES = os.environ.get("PANELIND_BIN_DIR", str(ROOT / ".build" / "release"))
GROUPS = ["crash answers bodies start restart flip", "reload front health churn", "footprint stop log flood",
          "grow_requests grow_connections grow_logs grow_restarts"]


@pytest.mark.parametrize("names", GROUPS)
def test_every_benchmark_runs(names, tmp_path):
    file = tmp_path / "measured.json"
    bench = [sys.executable, ROOT / "Benchmarks/bench.py"]
    peers = "panelind,panelind-all,panelind-reload,direct,nginx,cat"
    run = subprocess.run([*bench, *names.split(), "--scale", "0.01", "--only", peers, "--json", file], capture_output=True,
                         text=True, timeout=150, env=os.environ | {"PATH": f"{BINARIES}:{os.environ['PATH']}:/usr/sbin"})
    assert run.returncode == 0, run.stderr
    trouble = [line for line in run.stderr.splitlines() if "other panelind ran beside" not in line]
    assert not trouble, "something could not be measured"
    measured = json.loads(file.read_text())["results"]
    assert list(measured) == names.split()
    for name, rows in measured.items():
        assert any(row["contender"].startswith("panelind") for row in rows), f"{name} has no panelind: {rows}"
    again = subprocess.run([*bench, "--from", file], capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "what was promised" in again.stdout


def test_the_groups_are_all_benchmarks():
    listed = subprocess.run([sys.executable, ROOT / "Benchmarks/bench.py", "--help"], capture_output=True, text=True, timeout=60)
    known = " ".join(listed.stdout.split()).split("some of: ")[1].split(";")[0].split(", ")
    assert sorted(known) == sorted(" ".join(GROUPS).split())
