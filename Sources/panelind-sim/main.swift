//  main.swift
//  `panelind-sim SEED [--transcript] [--actions]`, `panelind-sim --seeds A..<B`: runs simulated worlds.
//  A seed that breaks a law is one line to paste: `make simulate SEED=n`. Read Simulation.swift first.

import Glibc
import PanelindSimulation

let usage = """
    usage: panelind-sim SEED [--transcript] [--actions]
           panelind-sim --seeds FIRST..<END

    Plays the world of a seed in virtual time and judges every step by the laws of the simulation.
      --transcript  one line a step
      --actions     with the actions of each step
      --seeds       many worlds; prints those that break a law
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

func report(_ verdict: Verdict) {
    guard let violation = verdict.violation else { return }
    print("make simulate SEED=\(verdict.seed)  # \(violation)")
}

var seed: UInt64?
var seeds: Range<UInt64>?
var transcript = false
var actions = false
var arguments = CommandLine.arguments.dropFirst()
while let argument = arguments.popFirst() {
    switch argument {
    case "--transcript": transcript = true
    case "--actions":
        transcript = true
        actions = true
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

if let seeds {
    let start = clock()
    let (broken, steps, simulated) = Simulation.run(seeds: seeds)
    // Of this process: whoever else uses the machine is left out.
    let wall = Double(clock() - start) / Double(CLOCKS_PER_SEC) * 1000
    for verdict in broken { report(verdict) }
    let rate = wall > 0 ? Int(simulated / .milliseconds(1) / wall) : 0
    print(
        "\(seeds.count) seeds, \(steps) steps, \(simulated.components.seconds) simulated seconds in \(Int(wall)) ms: "
            + "\(rate) simulated seconds a second, \(broken.count) broken")
    exit(broken.isEmpty ? 0 : 1)
}
guard let seed else { fail("cannot run: a seed or --seeds is needed") }
let verdict = Simulation.run(seed: seed, transcript: transcript, actions: actions)
for line in verdict.transcript { print(line) }
let end = verdict.exitCode.map { "exit \($0)" } ?? "no exit"
print("seed \(seed): \(verdict.steps) steps, \(verdict.simulated.components.seconds) simulated seconds, \(end)")
report(verdict)
exit(verdict.violation == nil ? 0 : 1)
