# test_conformance.py
# The README's table is the one that `make conformance` wrote, has every case, and says no of panelind nowhere.
# Read Tests/Conformance/conformance.py first; .ci/run runs its panelind columns anew.

import re
import sys

from harness.daemon import ROOT

sys.path.insert(0, str(ROOT / "Tests" / "Conformance"))

import cases  # noqa: E402
import conformance  # noqa: E402

EVIDENCE = (ROOT / "docs/evidence/conformance.md").read_text()
ROWS = [line for line in EVIDENCE.splitlines() if line.startswith("|")]


def test_the_readme_shows_what_the_run_wrote():
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"<!-- conformance -->\n(.*?)<!-- /conformance -->", readme, re.S)[1]
    assert shown.splitlines() == ROWS


def test_every_case_is_a_row_of_the_same_width():
    width = ROWS[0].count("|")
    assert all(row.count("|") == width for row in ROWS)
    promises = [row.split("|")[1].strip() for row in ROWS[2:]]
    assert [one for one in promises if not one.startswith("**")] == [case.promise for case in cases.ALL]


def test_panelind_keeps_each_promise_in_each_place():
    own = conformance.own_columns(EVIDENCE)
    assert len({title for _, title in own}) == 5
    unseen = {key for key, verdict in own.items() if verdict != "yes"}
    assert unseen == {(promise, "panelind gVisor") for promise in UNSEEN}


# gVisor's /proc/PID/status has no signal masks.
UNSEEN = ["signals that were ignored or blocked around it are not for the worker"]


def test_each_no_has_its_note():
    numbers = sorted(int(one) for row in ROWS for one in re.findall(r"no \((\d+)\)", row))
    notes = [int(one) for one in re.findall(r"^(\d+)\. ", EVIDENCE, re.M)]
    assert numbers == notes == list(range(1, len(notes) + 1))
