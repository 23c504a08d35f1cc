#!/usr/bin/env python3
"""Shell scripts, ```sh blocks of Markdown, shell and gcloud steps of cloudbuild.yaml: shfmt parse, shellcheck, and every gcloud
command line through gcloud's own argument parser (PANELIND_GCLOUD_SDK tells where the SDK is). Also the local links of Markdown.
Shell variables become the value the file gives them, else "1"; "$dir/x" is looked for next to the script."""
from common import VENV, json, load_all, main, os, pathlib, re, subprocess, tempfile
SDK = os.environ.get("PANELIND_GCLOUD_SDK", "/usr/lib/google-cloud-sdk")
FENCE = re.compile(r"^```[ ]*(\S*)[^\n]*\n(.*?)^```", re.M | re.S)
QUIET = "SC2154,SC2034,SC2164"  # in fragments: unassigned, unused, cd

def run(args, text, **more):
    return subprocess.run(args, input=text, capture_output=True, text=True, check=False, **more)

def expand(part, env):
    """One part of a shfmt word as text."""
    if part["Type"] in ("Lit", "SglQuoted"):
        text = part.get("Value", "")
        return text if part["Type"] == "SglQuoted" else re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    if part["Type"] == "DblQuoted":
        return "".join(expand(p, env) for p in part.get("Parts", []))
    exp = part.get("Exp") or {}
    default = "".join(expand(p, env) for p in exp["Word"]["Parts"]) if exp.get("Op") in (":-", "-", ":=", "=") and "Word" in exp else "1"
    value = env.get(part.get("Param", {}).get("Value"), default) if part["Type"] == "ParamExp" else "1"
    return value if isinstance(value, str) else " ".join(value)

def words(word, env):
    """A shfmt word as a list of texts: "${array[@]}" gives the array's elements."""
    part = word["Parts"][0].get("Parts", word["Parts"])[0]
    name = part.get("Param", {}).get("Value") if part["Type"] == "ParamExp" and part.get("Index") else None
    return env.get(name, []) if name else ["".join(expand(p, env) for p in word["Parts"])]

def commands(node, env):
    """Yield (line, argument list) of every gcloud call in a shfmt tree, in order."""
    if isinstance(node, dict):
        for a in node.get("Assigns") or []:
            if "Array" in a:
                env[a["Name"]["Value"]] = [w for e in a["Array"].get("Elems") or [] for w in words(e["Value"], env)]
            elif "Value" in a:
                env[a["Name"]["Value"]] = words(a["Value"], env)[0]
        args = [w for a in node.get("Args") or [] for w in words(a, env)] if node.get("Type") == "CallExpr" else []
        if "gcloud" in args[:3]:
            yield node["Pos"]["Line"], args[args.index("gcloud") + 1:]
    for n in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from commands(n, env)

def gcloud(calls, base, need):
    if not os.path.isdir(SDK + "/lib/googlecloudsdk"):
        if calls:  # neither Debian nor PyPI has it: a clone passes without, and says what that leaves out
            print(f"NOT JUDGED: {len(calls)} gcloud commands below {base}: no Cloud SDK at {SDK} (set PANELIND_GCLOUD_SDK)")
        return None
    with tempfile.TemporaryDirectory() as home:  # no network, no credentials, no configuration
        env = {"PATH": "/usr/bin:/bin", "HOME": home, "CLOUDSDK_CONFIG": home, "CLOUDSDK_CORE_PROJECT": "p", "PYTHONDONTWRITEBYTECODE": "1",
               "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false", "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true", "CLOUDSDK_ROOT_DIR": SDK}
        python = next(iter(pathlib.Path(SDK).glob("platform/bundledpythonunix/bin/python3")), "python3")
        r = run(["unshare", "-rn", python, "-S", pathlib.Path(__file__).with_name("gcloud_parse.py"), SDK],
                json.dumps([[base, a] for _, a in calls]), env=env)
    if r.returncode:
        return need(0, "gcloud", "parser failed: " + r.stderr[-400:])
    for (where, args), (code, said) in zip(calls, json.loads(r.stdout)):
        said = " ".join(re.sub(r"To search the help.*|Usage: gcloud.*|ERROR: ", "", said, flags=re.S).split())
        need(code == 0, where, f"gcloud {' '.join(args)[:60]}…: {said or 'not accepted'}")
    return None

def shell(text, at, first, need, flags=()):
    """Check one script that starts after line first; returns its gcloud calls."""
    tree = run([VENV / "bin/shfmt", "--to-json", "-ln", "bash"], text)
    need(tree.returncode == 0, f"{at}line {first + 1}", "shell syntax: " + tree.stderr.strip())
    for m in json.loads(run([VENV / "bin/shellcheck", "-f", "json", *flags, "-"], text).stdout or "[]"):
        need(0, f"{at}line {first + m['line']}", f"SC{m['code']} {m['level']}: {m['message']}")
    return [(f"{at}line {first + n}", a) for n, a in commands(json.loads(tree.stdout), {})] if tree.returncode == 0 else []

def check(path, need):
    p, calls, part = pathlib.Path(path), [], ("--shell=bash", f"--exclude={QUIET}")
    text = p.read_text(encoding="utf-8")
    if p.suffix == ".md":
        for m in FENCE.finditer(text):
            if m[1] in ("sh", "bash", "shell", "console"):
                calls += shell(re.sub(r"^\$ ", "", m[2], flags=re.M), "", text[:m.start(2)].count("\n"), need, part)
        for target in re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", text)):
            need(re.match(r"[a-z]+:", target) or (p.parent / target).exists(), "link", f"{target} does not exist")
    elif p.suffix in (".yaml", ".yml"):
        for i, s in enumerate(load_all(path)[0].get("steps") or []):
            args = [re.sub(r"\$\{?_?[A-Z]\w*\}?", "1", str(a)) for a in s.get("args") or []]
            if s.get("entrypoint") == "gcloud" or args[:1] == ["gcloud"]:
                calls.append((f"steps[{i}]", args[args[0] == "gcloud":]))
            script = s.get("script") or (s["args"][1] if s.get("entrypoint") in ("bash", "sh") and args[:1] == ["-c"] else "")
            calls += shell(script.replace("$$", "$"), f"steps[{i}] ", 0, need, part) if script else []
    else:
        calls += shell(text, "", 0, need)
    gcloud(calls, str(p.resolve().parent), need)
main(check)
