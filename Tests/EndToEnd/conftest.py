# conftest.py
# Fixtures of the tests of the built binary: `panelind` starts daemons and ends what is left of them.
# Read harness/daemon.py next.

import os
import pathlib
import shutil
import tempfile

import pytest

from harness import Daemon, Placement, build_tool
from harness.faults import Story, build_library
from harness.front import Fronts


@pytest.fixture
def panelind(tmp_path):
    """Starts daemons: `panelind(["listen 8080", ...], {"restart.delay": "1s"}, placement=...)`; see Daemon.

    Each has its own directory; `shared=True` makes it one that every user can write to.
    At the end of the test it and all that carries its tag is killed.
    """
    yield from _daemons(tmp_path)


def _daemons(tmp_path):
    started, shares = [], []

    def start(steps=None, settings=None, shared=False, **options):
        directory = tmp_path / f"d{len(started) + 1}"
        if shared:
            # What pytest makes is closed to other users.
            directory = pathlib.Path(tempfile.mkdtemp(prefix="panelind-tests-", dir="/tmp"))
            directory.chmod(0o777)
            shares.append(directory)
        else:
            directory.mkdir()
        daemon = Daemon(directory, steps, settings, **options)
        started.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        daemon.clean_up()
    for directory in shares:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def front(panelind):
    """Starts a panelind in front mode with a scripted upstream: `front({"/x": [answer()]}, {"serve.hold": "1s"})`."""
    starter = Fronts(panelind)
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def module_front(tmp_path_factory):
    """As `front`, for all tests of a module that leave no trace in it."""
    daemons = _daemons(tmp_path_factory.mktemp("module"))
    starter = Fronts(next(daemons))
    yield starter
    starter.close()
    next(daemons, None)


@pytest.fixture(scope="session")
def tools_directory():
    """Where tests compile what other users than root run too, which pytest's own directories do not let pass."""
    with tempfile.TemporaryDirectory(prefix="panelind-tools-") as directory:
        os.chmod(directory, 0o755)
        yield pathlib.Path(directory)


@pytest.fixture(scope="session")
def tool(tools_directory):
    """Compiles one of harness/*.c, once: `tool("refuse")` is the path of the executable."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = build_tool(name, tools_directory)
        return made[name]

    return get


@pytest.fixture(scope="session")
def faults_library(tools_directory):
    """harness/faults.c, compiled once; every user can load it."""
    return build_library(tools_directory)


@pytest.fixture
def short_path():
    """A directory whose path leaves room for a socket's, so that panelind takes it as $TMPDIR."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def story(panelind, faults_library, short_path):
    """Tells the life of one panelind with faults in it: `story("accept4=EMFILE@1-3", at="ready")`; see faults.Story."""
    return lambda rules, **options: Story(panelind, faults_library, short_path, rules, **options)


@pytest.fixture(params=list(Placement), ids=lambda p: p.value)
def placement(request):
    """Where panelind stands: PID 1, subreaper, or neither. A test that takes it runs three times."""
    return request.param


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the daemons' logs."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    starts = [item.funcargs.get("panelind"), getattr(item.funcargs.get("module_front"), "panelind", None)]
    cells = [cell.cell_contents for start in starts if start for cell in start.__closure__ or ()]
    for daemon in (d for group in cells if isinstance(group, list) for d in group if isinstance(d, Daemon)):
        report.sections.append((f"panelind in {daemon.directory.name}", daemon.transcript()))
