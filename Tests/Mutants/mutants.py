"""Faults planted in the core, one at a time: the simulation must catch each.

Each is a sentence, a file of Sources/PanelindCore, the text that is replaced (exactly one place has it) and what
replaces it. A fault that nobody catches is a law that is missing; a text that is no longer there is a fault to plant
anew. Run by `make mutants`; the catch (seed and law) of each is printed.
"""

import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "Sources"

MUTANTS = [
    # Restart policy
    ("the backoff grows one step too early", "RestartPolicy.swift",
     "for _ in 1..<failures {", "for _ in 0..<failures {"),
    ("giving up comes one failure too early", "RestartPolicy.swift",
     "failures > limit {", "failures >= limit {"),
    ("the count of failures is never reset", "RestartPolicy.swift",
     "if ending.readyFor >= settings.resetAfter { failures = 0 }", ""),
    ("jitter is twice as wide", "RestartPolicy.swift",
     "* settings.jitter", "* 2 * settings.jitter"),
    ("the backoff has no ceiling", "RestartPolicy.swift",
     "seconds = min(seconds, ceiling)", "seconds = max(seconds, 0)"),
    ("hold and exit are mixed up", "RestartPolicy.swift",
     "settings.onGiveUp == .hold", "settings.onGiveUp == .exit"),
    # Supervisor
    ("a stop does not keep the next worker from starting", "Supervisor+Workers.swift",
     "guard current?.generation == nil, intent == .run else { return }",
     "guard current?.generation == nil else { return }"),
    ("news of any generation are heard by the current worker", "Supervisor.swift",
     "if current?.generation == generation {\n            current?.change(body)",
     "if current?.generation != nil {\n            current?.change(body)"),
    ("a start does not wait for the tree of a discarded successor", "Supervisor.swift",
     "hasOther && !(role == .predecessor && settings.overlaps)",
     "hasOther && role == .predecessor && !settings.overlaps"),
    ("an end is judged again at every event", "Supervisor+Workers.swift",
     "guard judged != generation else { return }", "guard judged.number >= 0 else { return }"),
    ("unplanned replacements are not counted", "Supervisor+Workers.swift",
     "nextIsUnplanned = true", "nextIsUnplanned = false"),
    ("a stop takes twice its budget", "Supervisor+Operator.swift",
     "case .wait, .run:\n            budgetEnd = now + settings.stop.budget",
     "case .wait, .run:\n            budgetEnd = now + settings.stop.budget * 2"),
    ("the flush has no deadline", "Supervisor.swift", "pauseEnds, flushEnds, pingAt", "pauseEnds, pingAt"),
    ("the backoff has no deadline", "Supervisor.swift",
     "other?.deadline, pauseEnds, flushEnds", "other?.deadline, flushEnds"),
    ("a clock gap is not noticed", "Supervisor.swift",
     "gapThreshold: Duration = .seconds(1)", "gapThreshold: Duration = .seconds(100_000)"),
    ("actions go before what clients are told", "Supervisor+Workers.swift",
     "out.actions.insert(contentsOf: first, at: 0)", "out.actions.append(contentsOf: first)"),
    ("a reload begins while the predecessor still leaves", "Supervisor+Operator.swift",
     "guard !hasOther else {", "guard !hasOther || role == .predecessor else {"),
    ("requests wait for a backoff longer than the hold", "Supervisor+Workers.swift",
     "until - now > settings.hold {", "until - now > settings.hold * 2 {"),
    ("requests are refused while a worker starts", "Supervisor+Workers.swift",
     "case .starting, .unready: return .hold", "case .unready: return .hold\n        case .starting: return .refuse("
     ".workerStarting, retryAfter: .seconds(1))"),
    ("the exit code of a stop is the policy's", "Supervisor+Workers.swift",
     "case .stop(let by):\n            code = 0", "case .stop(let by):\n            code = 70"),
    # Worker
    ("a wanted end is a failure", "Worker+Stop.swift",
     "setEnding(status, use, cause(of: plan), requested: plan.reason.isRequested, at: now)",
     "setEnding(status, use, cause(of: plan), requested: false, at: now)"),
    ("the answer to an old question counts", "Probe.swift",
     "= phase, attempt == self.attempt else { return false }", "= phase, attempt <= self.attempt else { return false }"),
    ("what a dead leader left behind is not killed", "Worker+Stop.swift",
     "graceUntil: nil, nextPass: now + passInterval(killing: true), unkillableAt",
     "graceUntil: now + .seconds(1_000_000), nextPass: now + passInterval(killing: true), unkillableAt"),
    ("a tree of one is called empty", "Worker+Stop.swift", "if left.isEmpty {", "if left.count < 2 {"),
    ("clients are not told before the KILL", "Worker+Stop.swift",
     "if plan.answersEveryone { out.actions.append(.front(.cut(generation))) }", ""),
    ("nobody asks the front for the drain", "Worker+Stop.swift",
     "out.actions.append(.front(.reportDrain(generation)))", ""),
    ("a drain goes on though nothing is in flight", "Worker+Stop.swift",
     "guard plan.phase == .drain || plan.phase == .lastDrain else", "guard plan.phase == .lastDrain else"),
    ("requests are served in the whole drain", "StopPlan.swift",
     "serveUntil = delayUntil + drain * 2 / 3", "serveUntil = delayUntil + drain"),
    ("KILL leaves no time to end before the budget does", "StopPlan.swift",
     "end.map { $0 - StopSettings.reserve }", "end.map { $0 + StopSettings.reserve }"),
    ("a stop that comes into a leaving does not bind it", "StopPlan.swift",
     "killBy = min(killBy, end - StopSettings.reserve)", "killBy = max(killBy, end - StopSettings.reserve)"),
    ("the startup deadline is not looked at", "Worker+Probes.swift",
     "if case .starting = life, startupUntil <= now {", "if case .ready = life, startupUntil <= now {"),
    ("readiness once good stays good", "Worker+Probes.swift",
     "if probe.isGood { readinessGood = true } else if probe.isBad { readinessGood = false }",
     "if probe.isGood { readinessGood = true }"),
    ("the watchdog counts the time of a gap", "Worker+Probes.swift",
     "if watchdogAt != nil { watchdogAt = settings.worker.watchdog.map { now + $0 } }\n        case .leaving",
     "case .leaving"),
    ("nothing is said of what was killed", "Worker+Stop.swift",
     "if !killed.isEmpty { out.report(.survivorsKilled(generation, killed)) }", ""),
    ("a worker is ready at its first answer, whatever it is", "Worker+Probes.swift",
     "if probe.isGood { readinessGood = true } else", "if probe.attempt > 0 { readinessGood = true } else"),
    ("a watchdog that is late is forgiven for ever", "Worker+Probes.swift",
     "if let watchdogAt, watchdogAt <= now,", "if let watchdogAt, watchdogAt < .zero,"),
    # Admission
    ("a new request overtakes those that wait", "Admission.swift",
     "if queue.isEmpty, let worker = freeWorker(not: nil), !retries", "if let worker = freeWorker(not: nil), !retries"),
    ("a new request overtakes those that were lost", "Admission.swift",
     "let worker = freeWorker(not: nil), !retries.contains(where: { $0.loser != worker }) {",
     "let worker = freeWorker(not: nil) {"),
    ("a worker gets one more than it may have", "Admission.swift",
     "inFlight(of: routed) < settings.concurrency", "inFlight(of: routed) <= settings.concurrency"),
    ("a POST is made again", "Admission.swift",
     "if request.canRetry || unsent, !request.isTouched {", "if !request.isTouched {"),
    ("a request with a byte of answer is made again", "Admission.swift",
     "if request.canRetry || unsent, !request.isTouched {", "if request.canRetry || unsent {"),
    ("a GET is made again and again", "Admission.swift", "request.canRetry = false", "request.canRetry = true"),
    ("one more than the queue holds waits", "Admission.swift",
     "held > settings.heldRequests ||", "held > settings.heldRequests + 1 ||"),
    ("the bytes of a held request never come back", "Admission.swift",
     "if request.isHeld { heldBytes -= request.bytes }\n        request.isHeld = false", "request.isHeld = false"),
    ("the last answer does not end the drain", "Admission.swift",
     "forget(id)\n        var out: [AdmissionAction] = []\n        if let worker = request.worker { tellEdges(of: worker, &out) }",
     "forget(id)\n        var out: [AdmissionAction] = []\n        _ = request"),
    ("only streams left is told more than once", "Admission.swift",
     "loads[i].owesOnlyStreams = false\n", "loads[i].owesOnlyStreams = true\n"),
    ("a cut answers 504 behind a begun answer", "Admission.swift",
     "end(id, request.isAnswered ? .abort(id) : .timeOut(id), &out)", "end(id, .timeOut(id), &out)"),
    ("lost requests are forgotten by a refusal", "Admission.swift",
     "for id in retries.map(\\.id) + queue {", "for id in queue {"),
    ("a route lets nobody go", "Admission.swift",
     "lastLoss(retry.id), &out) }\n        }\n        release(at: now, &out)\n        return out\n    }\n\n    /// A reload",
     "lastLoss(retry.id), &out) }\n        }\n        return out\n    }\n\n    /// A reload"),
    ("requests wait for twice the hold", "Admission.swift",
     "requests[id].map { $0.heldSince + settings.hold }", "requests[id].map { $0.heldSince + settings.hold * 2 }"),
    ("a lost request has no deadline", "Admission.swift",
     "for retry in retries { first = min(first ?? giveUpAt(retry), giveUpAt(retry)) }", ""),
    ("the rest of a batch is forgotten", "Admission.swift", "if more { releaseAt = now }", "if more { releaseAt = nil }"),
    ("the last to come is the first to go", "Admission.swift",
     "queue.append(id)", "queue.insert(id, at: 0)"),
    ("a late timer refuses whom the batch kept back", "Admission.swift",
     "if freeWorker(not: nil) == nil {\n            // In", "if freeWorker(not: nil) == nil || held > 0 {\n            // In"),
    ("a refused connection is no news", "Worker+Probes.swift",
     "connection = connection ?? Probe(.connection, .ofConnection)\n            connection?.begin(at: now)", "break"),
    ("a worker that refuses connections is ready", "Worker+Life.swift",
     "if connection?.isBad == true { return false }", ""),
    ("one that takes connections again is asked on", "Worker+Probes.swift",
     "with(kind) { _ = $0.end() }\n            if refused", "if refused"),
    ("the end of one whose successor starts is no unplanned one", "Supervisor+Workers.swift",
     "nextIsUnplanned = true\n            if role", "nextIsUnplanned = role != .successor\n            if role"),
    ("a connection that was refused at the last call is a failure of the worker", "Admission.swift",
     "requests[id]?.wasSent == true ? .fail(id)", "requests[id] != nil ? .fail(id)"),
]

# Faults that only a rare world shows, and one of those worlds.
RARE = {"a late timer refuses whom the batch kept back": 84561, "a new request overtakes those that were lost": 14399}


def compile(module: str, files: list[pathlib.Path], into: pathlib.Path, *options: str) -> None:
    subprocess.run(
        ["swiftc", "-swift-version", "6", "-parse-as-library", "-wmo", "-suppress-warnings", "-emit-module",
         "-emit-library", "-static", "-module-name", module, *options, "-o", str(into / f"lib{module}.a"),
         "-emit-module-path", str(into / f"{module}.swiftmodule"), *map(str, files)],
        check=True, capture_output=True, text=True)


def complain(error: subprocess.CalledProcessError) -> str:
    wrong = [line for line in error.stderr.splitlines() if "error" in line or "undefined" in line]
    return wrong[0] if wrong else error.stderr[-300:]


def link(into: pathlib.Path, core: pathlib.Path, common: pathlib.Path) -> pathlib.Path:
    binary = into / "panelind-sim"
    subprocess.run(
        ["swiftc", str(common / "main.o"), str(common / "libPanelindSimulation.a"), str(core / "libPanelindCore.a"), "-o",
         str(binary)], check=True, capture_output=True, text=True)
    return binary


def prepare(common: pathlib.Path) -> None:
    """Compiles the simulation once, against a core that is not optimised into it."""
    compile("PanelindCore", sorted((SOURCES / "PanelindCore").glob("*.swift")), common)
    compile("PanelindSimulation", sorted((SOURCES / "PanelindSimulation").glob("*.swift")), common, "-O", "-I",
            str(common))
    subprocess.run(
        ["swiftc", "-swift-version", "6", "-O", "-I", str(common), "-c", str(SOURCES / "panelind-sim/main.swift"), "-o",
         str(common / "main.o"), "-module-name", "panelind_sim"], check=True, capture_output=True, text=True)


def run(binary: pathlib.Path, seeds: str) -> str | None:
    """The law that some seed breaks, or nil. A crash or a hang is a catch too."""
    try:
        end = subprocess.run([str(binary), "--seeds", seeds, "--first"], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "it never ends"
    if end.returncode == 0:
        return None
    found = re.search(r"SEED=(\d+).*?# (.*)", end.stdout)
    return f"seed {found[1]}: {found[2][:110]}" if found else f"it ends with {end.returncode}"


def judge(number: int, common: pathlib.Path, seeds: str) -> tuple[int, str | None]:
    _, name, before, after = MUTANTS[number]
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        place = pathlib.Path(folder)
        core = place / "core"
        shutil.copytree(SOURCES / "PanelindCore", core)
        text = (core / name).read_text()
        if text.count(before) != 1:
            return number, f"cannot plant it: {name} has its text {text.count(before)} times"
        (core / name).write_text(text.replace(before, after))
        try:
            compile("PanelindCore", sorted(core.glob("*.swift")), place)
        except subprocess.CalledProcessError as error:
            return number, f"cannot plant it: {complain(error)}"
        binary = link(place, place, common)
        rare = RARE.get(MUTANTS[number][0])
        return number, rare and run(binary, f"{rare}..<{rare + 1}") or run(binary, seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0..<5000")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, action="append", help="the number of one fault; may be repeated")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        common = pathlib.Path(folder)
        try:
            prepare(common)
            link(common, common, common)
        except subprocess.CalledProcessError as error:
            print(f"cannot judge: {complain(error)}", file=sys.stderr)
            return 1
        sound = run(link(common, common, common), "0..<300")
        if sound:
            print(f"cannot judge: the core as it is breaks a law: {sound}", file=sys.stderr)
            return 1
        numbers = options.only or range(len(MUTANTS))
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for number, catch in pool.map(lambda n: judge(n, common, options.seeds), numbers):
                isMissed = catch is None or catch.startswith("cannot plant")
                missed += isMissed
                print(f"{number:2} {'MISSED' if isMissed else 'caught'}  {MUTANTS[number][0]}: {catch}", flush=True)
    print(f"{len(list(numbers)) - missed} of {len(list(numbers))} planted faults were caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
