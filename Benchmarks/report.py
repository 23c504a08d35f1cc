"""report.py: tables, docs/benchmarks.md and the README's short table, from what one run measured.

Decides nothing; a benchmark's docstring is its text.  Read bench.py before.
"""
import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import growth
from harness import quantile, spread
from promises import promises

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ["tini", "dumb-init", "catatonit", "runit", "s6", "daemontools", "monit", "nginx-light", "haproxy", "caddy", "wrk"]
PYPI = ["supervisor", "circus", "honcho", "uvicorn", "gunicorn"]


def table(rows: list[dict]) -> str:
    keys = list(dict.fromkeys(k for row in rows for k in row if not k.startswith("_")))

    def show(v):
        return (f"{v:.4g}" if abs(v) < 1e4 else f"{v:.0f}") if isinstance(v, float) else str(v)
    lines = [keys, ["---"] * len(keys)] + [[show(row.get(k, "")) for k in keys] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shaped(name: str, rows: list[dict]) -> list[dict]:
    return growth.pivot(name, rows) if name in growth.PICTURES else rows


def others_running() -> list[str]:
    """Another panelind shares the pages of ours, which makes its PSS too small."""
    count = sum(link.endswith("/panelind") for link in map(link_of, Path("/proc").glob("[0-9]*/exe")))
    return [f"{count} other panelind ran beside: PSS is too small"] if count else []


def link_of(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def about_machine() -> dict:
    """The machine in general words, before the run."""
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return {"cores": len(os.sched_getaffinity(0)), "kernel": ".".join(os.uname().release.split(".")[:2]),
            "memory": f"{memory / 2**20:.0f} GiB", "load": os.getloadavg()[0], "steal": ticks()}


def ticks() -> list[int]:
    """All and stolen ticks of the CPUs so far."""
    fields = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return [sum(fields[:8]), fields[7]]


def noise(machine: dict, baseline: list[float]) -> str:
    total, stolen = (now - then for now, then in zip(machine["ticks_after"], machine["steal"]))
    return (f"a fixed piece of work of one core, {len(baseline)} times between the benchmarks, took "
            f"{quantile(baseline, .5):.1f} ms, with a spread ((p90 - p10) / median) of {spread(baseline):.0%}; "
            f"stolen by the host: {stolen / max(1, total):.1%}")


def versions() -> str:
    found = []
    for name in DEBIAN:
        done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name], capture_output=True, text=True)
        if done.stdout.startswith("installed "):
            found.append(f"{name} {done.stdout.split()[1].split(':')[-1].split('-')[0].split('+')[0]}")
    for name in PYPI:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def paragraphs(benchmark) -> tuple[str, str]:
    """What is measured, and what not."""
    text = re.sub(r"\n {4}", "\n", benchmark.__doc__.strip())
    shown, _, hidden = text.partition("\n\nDoes not show: ")
    return shown, hidden


def written(run: dict, benchmarks: dict, pictures: list[str]) -> str:
    """docs/benchmarks.md."""
    results, machine = run["results"], run["machine"]
    made = promises(results)
    count = {verdict: sum(p.reached() == verdict for p in made) for verdict in ("aim", "gate", "MISSED", "not measured")}
    scale = "" if run["scale"] == 1 else f" with `--scale {run['scale']:g}`"
    parts = [f"""# Benchmarks

`make bench` measures panelind beside its peers in one run and prints what was promised; `make bench ARGS=--report` writes
this page, the pictures and the README's short table. Compare within one table, never across: ratios are medians of the
ratios of each round, contenders are interleaved, and each round begins with another one. No test asserts a time.

{run['date']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['memory']} of memory, load {machine['load']:.1f} before the run,
`make bench`{scale}, one run of {run['minutes']:.0f} minutes. Noise: {noise(machine, run['baseline'])}.
Peers: {run['versions']}. systemd needs a machine of its own and is not among them.

## What was promised

{count['aim']} reached their aim, {count['gate']} their gate, {count['MISSED']} missed it, {count['not measured']} were not measured.

{table([p.row() for p in made])}
"""]
    if run["trouble"]:
        parts.append("Trouble:\n\n" + "\n".join(f"* {line}" for line in run["trouble"]) + "\n")
    if pictures:
        images = "\n\n".join(f"![{name.removesuffix('.svg')}]({name})" for name in pictures)
        parts.append(f"## How cost grows with load\n\n{images}\n")
    for name, rows in results.items():
        shown, hidden = paragraphs(benchmarks[name])
        lines = [f"## {name.replace('_', ' ')}", shown, table(shaped(name, rows))]
        if hidden:
            lines.append("It does not show: " + hidden)
        parts.append("\n\n".join(lines) + "\n")
    return "\n".join(parts)


def readme_block(run: dict) -> str:
    rows = [{k: v for k, v in p.row().items() if k != "aim"} for p in promises(run["results"]) if p.short]
    machine = run["machine"]
    return (f"{run['date']}, {machine['cores']} cores, Linux {machine['kernel']}, one run; the noise, the peers and what each number "
            f"does not show: [docs/benchmarks.md](docs/benchmarks.md).\n\n{table(rows)}")


def write(run: dict, benchmarks: dict) -> list[Path]:
    machine = run["machine"]
    caption = f"{run['date']}, {machine['cores']} cores, Linux {machine['kernel']}, medians of one run"
    pictures = growth.draw(run["results"], ROOT / "docs", caption)
    page, readme = ROOT / "docs/benchmarks.md", ROOT / "README.md"
    page.write_text(written(run, benchmarks, pictures))
    text, times = re.subn(r"(<!-- benchmarks -->\n).*?(<!-- /benchmarks -->)", lambda m: m[1] + readme_block(run) + "\n" + m[2],
                          readme.read_text(), flags=re.S)
    if times != 1:
        raise SystemExit("cannot write README.md: its marks <!-- benchmarks --> and <!-- /benchmarks --> are not there once")
    readme.write_text(text)
    return [page, readme] + [ROOT / "docs" / name for name in pictures]
