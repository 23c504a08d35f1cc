//  main.swift
//  `panelind-fuzz`: throws seeds at everything that reads from outside, for so many seconds.
//  A finding is one line to paste. Read PanelindFuzz/Target.swift and World.swift first.

import Glibc
import PanelindFuzz

let names = FuzzTargets.all.map { $0.name } + ["front"]
let usage = """
    usage: panelind-fuzz TARGET [--seconds N] [--seed N] [--corpus DIR] [--findings DIR] [--note FILE]
           panelind-fuzz TARGET --only SEED [--corpus DIR]
           panelind-fuzz TARGET --file FILE
           panelind-fuzz --list

    Throws random, kept and mutated inputs at one reader of panelind's, which has a judge beside it; `front` is random
    clients with a hostile worker around the whole front.
      --seconds   for so long; 60
      --seed      the first seed; by the clock
      --corpus    the folder with kept inputs in a folder for each target; Tests/Corpora
      --findings  where the input of a finding is written
      --note      a file that holds the seed under way, for whoever finds this process dead
      --only      one seed; of the front it is told step by step
      --file      one input
    Targets: \(names.joined(separator: " "))
    Exit codes: 0 nothing was found, 1 something was, 64 usage.

    """

func say(_ text: String, to descriptor: CInt = 1) { _ = text.withCString { write(descriptor, $0, strlen($0)) } }

func fail(_ message: String) -> Never {
    say("panelind-fuzz: \(message)\n\(usage)", to: 2)
    exit(64)
}

func processorSeconds() -> Double { Double(clock()) / Double(CLOCKS_PER_SEC) }

func seconds() -> Double { Double(FrontHost.now().nanoseconds) / 1e9 }

var duration = 60.0
var first = UInt64(FrontHost.now().nanoseconds)
var corpus = "Tests/Corpora"
var target: String?
var findingsFolder: String?
var note: SeedNote?
var only: UInt64?
var file: String?
var arguments = CommandLine.arguments.dropFirst()
while let argument = arguments.popFirst() {
    func text() -> String {
        guard let text = arguments.popFirst() else { fail("\(argument) needs a value") }
        return text
    }
    func number() -> UInt64 {
        guard let value = UInt64(text()) else { fail("\(argument) needs a number") }
        return value
    }
    switch argument {
    case "--seconds": duration = Double(number())
    case "--seed": first = number()
    case "--corpus": corpus = text()
    case "--findings": findingsFolder = text()
    case "--note": note = SeedNote(text())
    case "--only": only = number()
    case "--file": file = text()
    case "--list":
        say(names.joined(separator: "\n") + "\n")
        exit(0)
    case "--help", "-h":
        say(usage)
        exit(0)
    default:
        guard target == nil, names.contains(argument) else { fail("cannot use \(argument)") }
        target = argument
    }
}
guard let target else { fail("no target") }

var findings = 0
@MainActor func found(_ option: String, _ what: String) {
    findings += 1
    say("panelind-fuzz \(target) \(option)  # \(what)\n")
    // The first few tell; a thousand of the same would hide them.
    if findings == 10 { exit(1) }
}

@MainActor func fuzz(_ type: any FuzzTarget.Type) throws {
    let kept = Corpus.files(in: "\(corpus)/\(target)")
    let run = try FuzzRun(type, corpus: kept.map(\.bytes))
    if let file {
        guard let input = Corpus.read(file) else { fail("cannot read \(file)") }
        if let finding = run.judge(input) { found("--file \(file)", finding) }
        return
    }
    for (name, input) in only == nil ? kept : [] {
        if let finding = run.judge(input) { found("--file \(corpus)/\(target)/\(name)", finding) }
    }
    let memory = MemoryWatch()
    let start = seconds()
    var seed = only ?? first
    var count = 0
    repeat {
        note?.note(seed)
        let input = run.input(seed: seed)
        if let finding = run.judge(input) {
            found("--only \(seed)", "\(finding): \(shown(input))")
            if let findingsFolder { _ = Corpus.write(input, to: "\(findingsFolder)/\(target)-\(seed)") }
        }
        seed &+= 1
        count += 1
        if count % 20_000 == 0, let finding = memory.finding() { found("--seed \(first)", finding) }
    } while only == nil && seconds() - start < duration
    let time = Int(seconds() - start)
    let rate = Int(Double(count) / max(processorSeconds(), 0.001))
    say("\(target): \(count) inputs in \(time) s, \(rate) for each second of processor, from seed \(first)\n")
    for note in run.notes { say("  \(note)\n") }
}

@MainActor func fuzzFront() throws {
    let fuzz = try FrontFuzz()
    let memory = MemoryWatch()
    let start = seconds()
    var seed = only ?? first
    var count = 0
    repeat {
        note?.note(seed)
        if let finding = try fuzz.run(seed: seed, isTraced: only != nil) { found("--only \(seed)", finding) }
        seed &+= 1
        count += 1
        if count % 200 == 0, let finding = memory.finding() { found("--seed \(first)", finding) }
    } while only == nil && seconds() - start < duration
    if let finding = try fuzz.stop() { found("--seed \(first)", finding) }
    say("front: \(count) rounds in \(Int(seconds() - start)) s, \(fuzz.requests) requests, from seed \(first)\n")
}

do {
    if let type = FuzzTargets.all.first(where: { $0.name == target }) { try fuzz(type) } else { try fuzzFront() }
} catch {
    fail("\(error)")
}
exit(findings == 0 ? 0 : 1)
