# test_sbom.py
# The SPDX document of scripts/sbom: valid by another's validator, true of the built program, told by docs/dependencies.md.
# Read scripts/sbom first.

import json
import os
import pathlib
import re
import subprocess

import pytest
from spdx_tools.spdx.model import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PANELIND_BIN_DIR", ROOT / ".build/release")) / "panelind"


def sbom(*words, **environment):
    return subprocess.run(
        [ROOT / "scripts/sbom", *words], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **environment})


def written(path, *words, **environment):
    done = sbom(*words, path, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(path)
    return path


@pytest.fixture(scope="module", params=[[], ["--agent"]], ids=["program", "image"])
def document(request, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("sbom") / "x.spdx.json", *request.param)
    return parse_file(str(path))


def test_a_validator_finds_nothing_to_complain_about(document):
    assert [message.validation_message for message in validate_full_spdx_document(document)] == []


def test_every_package_hangs_together(document):
    ids = {package.spdx_id for package in document.packages}
    linked = {"SPDXRef-DOCUMENT"}
    edges = [(edge.spdx_element_id, edge.related_spdx_element_id) for edge in document.relationships]
    for _ in edges:
        linked |= {b for a, b in edges if a in linked} | {a for a, b in edges if b in linked}
    assert linked == ids | {"SPDXRef-DOCUMENT"}


def test_every_licence_is_known_but_of_what_is_not_installed_here(document):
    unknown = [package.name for package in document.packages if str(package.license_declared) == "NOASSERTION"]
    installed = (ROOT / ".venv/agent").exists()
    assert not [name for name in unknown if installed or not name.startswith("python-")]


def test_the_same_sources_give_the_same_bytes(tmp_path):
    one = written(tmp_path / "one", SOURCE_DATE_EPOCH="1700000000")
    two = written(tmp_path / "two", SOURCE_DATE_EPOCH="1700000000", TZ="Asia/Tokyo")
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.read_text())["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_the_image_has_every_package_of_its_lock(tmp_path):
    names = {package["name"]: package["versionInfo"] for package in
             json.loads(written(tmp_path / "x", "--agent").read_text())["packages"] if package["name"].startswith("python-")}
    lock = re.findall(r"^([a-z0-9_.-]+)==(\S+)", (ROOT / "Examples/agent/requirements.txt").read_text(), re.M)
    assert names == {"python-" + re.sub(r"[-_.]+", "-", name): version for name, version in lock}


# A symbol of each that is linked in, as the linker wrote it; none of what is only fetched.
SYMBOLS = {
    "swift-argument-parser": "14ArgumentParser", "swift-atomics": "7Atomics",
    "swift-collections": "InternalCollectionsUtilities",
    "swift-nio": "7NIOCore", "llhttp": "nio_llhttp_", "uSHET cpp_magic.h": "catmc_", "swift-extras-base64": "NIOBase64",
    "swift-certificates _TinyArray": "TinyArray", "swift-stdlib": "swift_retain", "llvm-support": "4llvm",
    "swift-foundation": "20FoundationEssentials", "swift-corelibs-libdispatch": "dispatch_async", "libyaml": "yaml_parser_parse",
    "libstdc++": "_ZNSt", "libgcc": "_Unwind_Find_FDE",
}


def test_what_is_said_to_be_inside_is_inside():
    symbols = subprocess.run(["nm", BINARY], capture_output=True, text=True, check=False).stdout
    if len(symbols) < 1_000_000:
        pytest.skip("the binary is stripped")
    for name, pattern in SYMBOLS.items():
        assert re.search(pattern, symbols), name
    # Of swift-system nothing; of Foundation only the part that is named.
    for absent in ("SystemPackage", "13NIOWebSocket", "nio_sha1", "13NIOFileSystem", "10Foundation3URL", "_foundation_unicode"):
        assert absent not in symbols, absent
    named = {line.split("\t")[0] for line in sbom("--table").stdout.splitlines()}
    assert set(SYMBOLS) == named - {"swift-system", "glibc", "libsystemd"}


def test_the_libraries_that_it_needs_are_those_that_are_named():
    dynamic = subprocess.run(["objdump", "-p", BINARY], capture_output=True, text=True, check=True).stdout
    owners = {"libc.so": "glibc", "libm.so": "glibc", "ld-linux": "glibc", "libdl.so": "glibc", "libpthread.so": "glibc"}
    needed = re.findall(r"NEEDED\s+(\S+)", dynamic)
    found = {next((owner for start, owner in owners.items() if name.startswith(start)), name) for name in needed}
    assert found == {"glibc"}


def test_docs_dependencies_names_the_same():
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/dependencies.md").read_text(), re.M)
    told = {name: (version.strip(), licence.strip()) for name, version, licence, _ in rows}
    done = sbom("--table")
    assert done.returncode == 0, done.stderr
    table = {name: (version, licence) for name, version, licence in (line.split("\t") for line in done.stdout.splitlines())}
    assert set(told) == set(table)
    for name, (version, licence) in table.items():
        assert told[name][1] == licence, name
        # The toolchain's patch level is the builder's.
        assert version == told[name][0] or version.startswith(told[name][0] + "."), name
    assert all(why.strip() for *_, why in rows)


def test_a_third_party_that_it_does_not_know_is_an_error(tmp_path):
    """NIO's NOTICE.txt may name another one day."""
    copy = tmp_path / "project"
    for path in ("scripts/sbom", "Package.resolved", "Sources/PanelindRuntime/Version.swift"):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((ROOT / path).read_bytes())
    checkouts = copy / ".build/checkouts"
    checkouts.mkdir(parents=True)
    for one in (ROOT / ".build/checkouts").iterdir():
        if one.name != "swift-nio":
            (checkouts / one.name).symlink_to(one)
    nio = ROOT / ".build/checkouts/swift-nio"
    (checkouts / "swift-nio").mkdir()
    for name in ("Sources", "LICENSE.txt"):
        (checkouts / "swift-nio" / name).symlink_to(nio / name)
    (checkouts / "swift-nio/NOTICE.txt").write_text((nio / "NOTICE.txt").read_text() + "\nThis product contains a stranger.\n")
    done = subprocess.run(["/usr/bin/python3", copy / "scripts/sbom"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write the SBOM: swift-nio's NOTICE.txt says that it contains a stranger" in done.stderr
