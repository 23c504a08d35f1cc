//  main.swift
//  `panelind-sim SEED`, `panelind-sim --seeds A..<B`: runs simulated worlds; one that breaks a law is shrunk to a story.
//  A broken seed is one line to paste: `make simulate SEED=n`. Read Simulation.swift first.

import Glibc
import PanelindSimulation

let usage = """
    usage: panelind-sim SEED [--world NAME] [--transcript] [--actions]
           panelind-sim --seeds FIRST..<END [--world NAME] [--coverage] [--first]

    Plays the world of a seed in virtual time and judges every step by the laws of the simulation.
      --world NAME  terminal, cloudrun, systemd, kubernetes or wild instead of the seed's own
      --transcript  one line a step
      --actions     with the actions of each step
      --seeds       many worlds; prints those that break a law
      --coverage    lists the pairs of state and event that no world met, and why
      --first       ends at the first world that breaks a law
    A single seed that breaks a law is shrunk to the shortest story that breaks it.
    Exit codes: 0 all laws held, 1 one was broken, 64 usage.

    """

func fail(_ message: String) -> Never {
    // stderr of C is a mutable global, which Swift 6 does not let us touch.
    let text = "panelind-sim: \(message)\n\(usage)"
    _ = text.withCString { write(2, $0, strlen($0)) }
    exit(64)
}

/// `10..<20` as a range.
func range(_ text: String) -> Range<UInt64>? {
    guard let dots = text.firstIndex(of: "."), text[dots...].hasPrefix("..<"), let first = UInt64(text[..<dots]),
        let end = UInt64(text[dots...].dropFirst(3)), first < end
    else { return nil }
    return first..<end
}

var seed: UInt64?
var seeds: Range<UInt64>?
var place: Place?
var transcript = false
var actions = false
var coverage: Coverage?
var isFirstEnough = false
var arguments = CommandLine.arguments.dropFirst()
while let argument = arguments.popFirst() {
    switch argument {
    case "--transcript": transcript = true
    case "--actions":
        transcript = true
        actions = true
    case "--coverage": coverage = Coverage()
    case "--first": isFirstEnough = true
    case "--world":
        let name = arguments.popFirst() ?? ""
        place = Place(rawValue: name)
        if place == nil {
            let names = Place.allCases.map(\.rawValue).joined(separator: ", ")
            fail("cannot use --world \(name): it is none of \(names)")
        }
    case "--seeds":
        let text = arguments.popFirst() ?? ""
        guard let given = range(text) else {
            fail("cannot use --seeds \(text): two numbers are needed, as in 0..<2000")
        }
        seeds = given
    case "--help", "-h":
        print(usage, terminator: "")
        exit(0)
    default:
        guard let number = UInt64(argument) else { fail("cannot use \(argument): it is neither a seed nor an option") }
        seed = number
    }
}

/// One line to paste.
@MainActor func report(_ verdict: Verdict) {
    guard let violation = verdict.violation else { return }
    let world = place.map { " WORLD=\($0.rawValue)" } ?? ""
    print("make simulate SEED=\(verdict.seed)\(world)  # \(violation)")
}

func report(_ coverage: Coverage) {
    print("\(coverage.met.pairs) of \(coverage.met.of) pairs were met; never:")
    for (pair, reason) in coverage.missing { print("  \(pair): \(reason ?? "NOT EXPLAINED")") }
}

if let seeds {
    let start = clock()
    let (broken, steps, simulated) = Simulation.run(
        seeds: seeds, place: place, coverage: coverage, stopsAtFirst: isFirstEnough)
    // Of this process: whoever else uses the machine is left out.
    let spent = Double(clock() - start) / Double(CLOCKS_PER_SEC) * 1000
    for verdict in broken { report(verdict) }
    if let coverage { report(coverage) }
    let rate = spent > 0 ? Int(simulated / .milliseconds(1) / spent) : 0
    print(
        "\(seeds.count) seeds, \(steps) steps, \(simulated.components.seconds) simulated seconds in \(Int(spent)) ms "
            + "of CPU: \(rate) simulated seconds a second, \(broken.count) broken")
    exit(broken.isEmpty ? 0 : 1)
}
guard let seed else { fail("cannot run: a seed or --seeds is needed") }
let verdict = Simulation.run(seed: seed, place: place, transcript: transcript, actions: actions)
for line in verdict.transcript { print(line) }
let end = verdict.exitCode.map { "exit \($0)" } ?? "no exit"
print("seed \(seed): \(verdict.steps) steps, \(verdict.simulated.components.seconds) simulated seconds, \(end)")
report(verdict)
if let short = Shrink(FaultPlan.draw(seed: seed, place: place)) {
    print("the shortest story of it, of \(short.runs) that were tried:")
    for line in short.plan.story { print("  \(line)") }
    for line in short.verdict.transcript { print(line) }
    report(short.verdict)
}
exit(verdict.violation == nil ? 0 : 1)
