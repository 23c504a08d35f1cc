//  main.swift
//  `panelind-fuzz`: throws seeds at the front's judges and at the whole front, for so many seconds.
//  A finding is one line to paste. Read PanelindFuzz/Pure.swift and World.swift first.

import Glibc
import PanelindFuzz

let usage = """
    usage: panelind-fuzz [--seconds N] [--seed N] [--judges-only | --front-only]
           panelind-fuzz --judge SEED | --round SEED

    Throws random and mutated heads and bodies at the front's judges, with NIO's decoder as their oracle, and random
    clients with a hostile worker at the whole front.
      --seconds  for so long, half of it each; 60
      --seed     the first seed; by the clock
      --judge    one seed of the judges
      --round    one seed of the whole front, told step by step
    Exit codes: 0 nothing was found, 1 something was, 64 usage.

    """

func say(_ text: String, to descriptor: CInt = 1) { _ = text.withCString { write(descriptor, $0, strlen($0)) } }

func fail(_ message: String) -> Never {
    say("panelind-fuzz: \(message)\n\(usage)", to: 2)
    exit(64)
}

func seconds() -> Double { Double(FrontHost.now().nanoseconds) / 1e9 }

var duration = 60.0
var first = UInt64(FrontHost.now().nanoseconds)
var judges = true
var front = true
var only: UInt64?
var arguments = CommandLine.arguments.dropFirst()
while let argument = arguments.popFirst() {
    func number() -> UInt64 {
        guard let text = arguments.popFirst(), let value = UInt64(text) else { fail("\(argument) needs a number") }
        return value
    }
    switch argument {
    case "--seconds": duration = Double(number())
    case "--seed": first = number()
    case "--judges-only": front = false
    case "--front-only": judges = false
    case "--judge":
        only = number()
        front = false
    case "--round":
        only = number()
        judges = false
    case "--help", "-h":
        say(usage)
        exit(0)
    default: fail("cannot use \(argument)")
    }
}

var findings = 0
@MainActor func found(_ option: String, _ seed: UInt64, _ what: String) {
    findings += 1
    say("panelind-fuzz \(option) \(seed)  # \(what)\n")
    // The first few tell; a thousand of the same would hide them.
    if findings == 10 { exit(1) }
}

if judges {
    var fuzz = PureFuzz()
    let start = seconds()
    var seed = only ?? first
    var count = 0
    repeat {
        // The oracle takes most of the time: it sees every 32nd head.
        if let finding = fuzz.run(seed: seed, withOracle: only != nil || seed % 32 == 0) {
            found("--judge", seed, finding)
        }
        seed &+= 1
        count += 1
    } while only == nil && seconds() - start < (front ? duration / 2 : duration)
    say("\(count * 3) inputs to the judges in \(Int(seconds() - start)) s\n")
    for (agreement, entry) in fuzz.tally.sorted(by: { $0.value.count > $1.value.count }) {
        say("  \(entry.count) \(agreement), first with seed \(entry.seed)\n")
    }
}

if front {
    do {
        let fuzz = try FrontFuzz()
        let start = seconds()
        var seed = only ?? first
        var count = 0
        repeat {
            if let finding = try fuzz.run(seed: seed, isTraced: only != nil) { found("--round", seed, finding) }
            seed &+= 1
            count += 1
            if count % 200 == 0, let finding = fuzz.memoryFinding() { found("--front-only --seed", seed, finding) }
        } while only == nil && seconds() - start < (judges ? duration / 2 : duration)
        if let finding = try fuzz.stop() { found("--front-only --seed", seed, finding) }
        say("\(count) rounds with the front in \(Int(seconds() - start)) s\n")
    } catch {
        fail("\(error)")
    }
}
exit(findings == 0 ? 0 : 1)
