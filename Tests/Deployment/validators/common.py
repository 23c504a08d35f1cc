"""Shared base: venv bootstrap, strict YAML/JSON loading, strict check against a Google discovery schema."""
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile  # noqa: F401  (this and others are re-exported)
ROOT = pathlib.Path(__file__).resolve().parents[3]
VENV = ROOT / ".venv/deployment"
if pathlib.Path(sys.prefix) != VENV:  # re-run inside the venv
    subprocess.run([str(ROOT / "scripts/setup"), "deployment"], check=True)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execv(VENV / "bin/python", [str(VENV / "bin/python"), *sys.argv])
import yaml  # noqa: E402
DOCS = next(VENV.glob("lib/python3*/site-packages/googleapiclient/discovery_cache/documents"))
discovery = lambda api: json.loads((DOCS / f"{api}.json").read_text())  # noqa: E731
DURATION = re.compile(r"^\d+(\.\d{1,9})?s$")
KINDS = {"array": (list, "a list"), "object": (dict, "a mapping"), "boolean": (bool, "true or false"),
         "integer": (int, "an integer"), "number": ((int, float), "a number"), "string": (str, "a string (quote it)")}

class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""

def _map(loader, node):
    keys = [k.value for k, _ in node.value]
    for k, _ in node.value:
        if keys.count(k.value) > 1:
            raise yaml.YAMLError(f"duplicate key {k.value!r} at line {k.start_mark.line + 1}")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)
StrictLoader.add_constructor("tag:yaml.org,2002:map", _map)

def load_all(path):
    """All documents (mappings) of a YAML or JSON file; raises ValueError with a precise message."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
        if str(path).endswith(".json"):
            json.loads(text)  # YAML accepts trailing commas and comments, JSON does not
        docs = [d for d in yaml.load_all(text, StrictLoader) if d is not None]
    except (OSError, UnicodeError, yaml.YAMLError, json.JSONDecodeError) as e:
        raise ValueError(" ".join(str(e).split())) from e
    if not docs or not all(isinstance(d, dict) for d in docs):
        raise ValueError("expected a mapping")
    return docs

def check_schema(api, schema, value, path, err):
    """Call err(path, message) for each departure of value from the schema (its name, or a dict) of a discovery document."""
    if isinstance(schema, str):
        schema = {"$ref": schema}
    if "$ref" in schema:
        schema = {"type": "object", "of": schema["$ref"], **api["schemas"][schema["$ref"]]}
    kind, fmt = schema.get("type", "any"), schema.get("format")
    if fmt in ("int64", "uint64") and not isinstance(value, bool) and re.fullmatch(r"-?\d+", str(value)) or kind == "any":
        return None
    if not isinstance(value, KINDS[kind][0]) or isinstance(value, bool) and kind != "boolean":
        return err(path, f"must be {KINDS[kind][1]}, not {value!r}"[:200])
    if kind == "array":
        for i, item in enumerate(value):
            check_schema(api, schema["items"], item, f"{path}[{i}]", err)
    elif kind == "object" and "properties" not in schema:
        for k, v in value.items():
            check_schema(api, schema.get("additionalProperties", {}), v, f"{path}[{k!r}]", err)
    elif kind == "object":
        for key, item in value.items():
            where, prop = f"{path}.{key}", schema["properties"].get(key)
            if prop is None:
                near = difflib.get_close_matches(str(key).replace("_", ""), schema["properties"], 1, 0.6)
                err(where, f"unknown field of {schema.get('of', 'object')}" + (f"; did you mean {near[0]!r}?" if near else ""))
                continue
            text = prop.get("description", "")
            if prop.get("readOnly") or text.startswith("Output only"):
                err(where, "is set by the server only")
            elif prop.get("deprecated") or re.match(r"Deprecated|(\(Optional\) )?Not supported by Cloud Run", text):
                err(where, text.split(".")[0])
            check_schema(api, prop, item, where, err)
    elif fmt in ("int64", "uint64") or fmt == "int32" and not -2**31 <= value < 2**31:
        return err(path, f"{value!r} is not an {fmt}")
    elif fmt == "google-duration" and not DURATION.match(value):
        return err(path, f"{value!r} is not a duration such as '600s' or '1.5s'")
    elif "enum" in schema:
        gone = schema.get("enumDeprecated", [False] * len(schema["enum"]))
        good = [e for e, d in zip(schema["enum"], gone) if not d and not e.endswith("UNSPECIFIED")]
        if value not in good:
            return err(path, f"{value!r} is not one of {', '.join(good)}")
    return None

def seconds(text):
    return float(text[:-1]) if isinstance(text, str) and DURATION.match(text) else None

def main(check):
    """Run check(path, need) for each argument, where need(ok, where, message) reports when not ok."""
    bad = 0 if sys.argv[1:] else sys.exit("usage: FILE...")
    for path in sys.argv[1:]:
        said = []
        try:
            check(path, lambda ok, where, what: ok or said.append(f"{path}: {where.lstrip('.') or 'file'}: {what}"))
        except (ValueError, OSError) as e:
            said.append(f"{path}: {e}")
        print("\n".join(dict.fromkeys(said)) if said else f"{path}: ok")
        bad += bool(said)
    sys.exit(1 if bad else 0)
