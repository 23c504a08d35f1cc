#!/usr/bin/env python3
# manual.py
# Writes the man pages: panelind(1) and one page a command from what the argument parser says of itself, panelind.yaml(5)
# from docs/settings.md, which is made from the table of settings. Read Sources/PanelindSettings/Reference.swift before.
#
#   scripts/manual.py PANELIND DIRECTORY
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def escape(text):
    """Text as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in text.split("\n"))


def markdown(text):
    """One line of Markdown: code and strong words bold, links as their text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"(`[^`]*`|\*\*[^*]*\*\*)", text)
    return "".join(f"\\fB{escape(p.strip('`*'))}\\fR" if p[:1] in ("`", "*") else escape(p) for p in parts)


def section(path, heading):
    """The lines below one heading of a Markdown file."""
    lines = (ROOT / path).read_text().split("\n")
    try:
        start = next(i for i, line in enumerate(lines) if line.lstrip("#").strip() == heading and line.startswith("#"))
    except StopIteration:
        sys.exit(f"cannot write the manual: {path} has no section '{heading}'")
    body = []
    for line in lines[start + 1:]:
        if line.startswith("#"):
            break
        body.append(line)
    return body


def rows(lines):
    """The rows of the first table, its head left out; `\\|` is a bar."""
    table = [line for line in lines if line.startswith("|")][2:]
    return [[c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def paragraphs(lines):
    """Plain text of a section, a roff paragraph each."""
    blocks = "\n".join(lines).strip().split("\n\n")
    plain = [markdown(block.replace("\n", " ")) for block in blocks if not block.startswith(("|", "    ", "<"))]
    return "\n.PP\n".join(plain).split("\n")


def definition(term, text):
    return f".TP\n{term}\n{text}"


def spelled(argument):
    """An option as it is typed: --set KEY=VALUE, with its short name if it has one."""
    names = [("-" if n["kind"] == "short" else "--") + n["name"] for n in argument.get("names", [])]
    value = argument["valueName"].upper()
    if argument["kind"] == "positional":
        return value
    text = ", ".join(f"\\fB{escape(n)}\\fR" for n in names)
    return text if argument["kind"] == "flag" else f"{text} \\fI{escape(value)}\\fR"


def shown(command):
    return [a for a in command.get("arguments", []) if a["shouldDisplay"]]


def synopsis(path, command):
    words = [f".B {escape(path)}"]
    for argument in shown(command):
        if any(n["name"] in ("help", "version") for n in argument.get("names", [])):
            continue
        text = spelled(argument) if argument["kind"] != "positional" else f"\\fI{escape(spelled(argument))}\\fR"
        if argument["parsingStrategy"] == "postTerminator":
            words.append(f"[\\-\\- {text}...]")
            continue
        text = f"[{text}]" if argument["isOptional"] else text
        words.append(text + ("..." if argument["isRepeating"] else ""))
    return "\n".join(words)


def options(command):
    out = []
    for argument in shown(command):
        text = escape(argument.get("abstract", ""))
        if default := argument.get("defaultValue"):
            text += f" Default: \\fB{escape(default)}\\fR."
        out.append(definition(spelled(argument), text))
    return out


def page(name, volume, title, body, version, date):
    head = f'.TH {name.upper()} {volume} {date} "panelind {version}" "panelind manual"\n.nh\n.ad l'
    return "\n".join([f'.\\" Written by scripts/manual.py.\n{head}', ".SH NAME", f"{name} \\- {escape(title)}", *body]) + "\n"


def lower_first(text):
    text = text.rstrip(".")
    return text[:1].lower() + text[1:]


def command_body(path, command):
    body = [".SH SYNOPSIS", synopsis(path, command)]
    body += [".SH DESCRIPTION", escape(command.get("abstract", ""))]
    for block in command.get("discussion", "").split("\n\n"):
        if block:
            body.append(".PP\n" + escape(block.replace("\n", " ")))
    return body + [".SH OPTIONS", *options(command)]


def main_page(tool):
    commands = [c for c in tool["subcommands"] if c["commandName"] != "help"]
    body = [".SH SYNOPSIS", ".B panelind\n.I COMMAND\n[\\fIARGUMENT\\fR]..."]
    body += [".SH DESCRIPTION", escape(tool["abstract"])]
    for block in tool["discussion"].split("\n\n"):
        body.append(".PP\n" + escape(block.replace("\n", " ")))
    body.append(".SH COMMANDS")
    body += [definition(f"\\fBpanelind\\-{c['commandName']}\\fR(1)", escape(c["abstract"])) for c in commands]
    body += [".SH OPTIONS", *options(tool)]
    body += [".SH EXIT STATUS"]
    body += [definition(markdown(code), markdown(meaning)) for code, meaning in rows(section("README.md", "Exit codes"))]
    body += [".SH SIGNALS", *paragraphs(section("README.md", "Signals"))]
    body += [".SH FILES"]
    body += [
        definition("\\fI./panelind.yaml\\fR, \\fI/etc/panelind/panelind.yaml\\fR", "The settings, see panelind.yaml(5)."),
        definition("\\fI/etc/panelind/NAME.yaml\\fR", "Those of the unit panelind@NAME.service."),
    ]
    names = ["panelind.yaml(5)", *(f"panelind\\-{c['commandName']}(1)" for c in commands), "systemd.service(5)"]
    return body + [".SH SEE ALSO", ",\n".join(names)]


def settings_page():
    # The head of the default configuration, which ends at the first empty line.
    head = (ROOT / "etc/panelind.yaml").read_text().split("\n\n")[0].split("\n")
    sentences = [line.removeprefix("#").strip() for line in head[3:] if "below" not in line and "test compares" not in line]
    body = [".SH DESCRIPTION", markdown(" ".join(sentences))]
    example = [line[4:] for line in section("README.md", "Settings") if line.startswith("    ")]
    body += [".SH EXAMPLE", ".nf\n" + escape("\n".join(example)) + "\n.fi", ".SH SETTINGS"]
    body.append("\\fINAME\\fR is \\fBstartup\\fR, \\fBreadiness\\fR or \\fBliveness\\fR.")
    for key, kind, default, meaning in rows((ROOT / "docs/settings.md").read_text().split("\n")):
        text = f"{markdown(meaning)}\n.br\n{markdown(kind)}; default: {markdown(default)}"
        body.append(definition(markdown(key), text))
    body += [".SH SEE ALSO", "panelind(1),\npanelind\\-check(1)"]
    return body


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: scripts/manual.py PANELIND DIRECTORY")
    binary, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    tool = json.loads(subprocess.run([binary, "--experimental-dump-help"], capture_output=True, check=True).stdout)["command"]
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    # The date of the sources, so that the same sources give the same page.
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    date = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%d")
    (directory / "panelind.1").write_text(
        page("panelind", 1, lower_first(tool["abstract"]), main_page(tool), version, date))
    for command in tool["subcommands"]:
        name = command["commandName"]
        if name == "help":
            continue
        body = command_body(f"panelind {name}", command)
        body += [".SH SEE ALSO", "panelind(1),\npanelind.yaml(5)"]
        (directory / f"panelind-{name}.1").write_text(
            page(f"panelind-{name}", 1, lower_first(command["abstract"]), body, version, date))
    (directory / "panelind.yaml.5").write_text(
        page("panelind.yaml", 5, "the settings of panelind", settings_page(), version, date))


if __name__ == "__main__":
    main()
