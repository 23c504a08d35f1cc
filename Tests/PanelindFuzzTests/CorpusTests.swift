//  CorpusTests.swift
//  Every kept input, and some of each target's own, once: what was found stays found.
//  Read Tests/Corpora/README.md and PanelindFuzz/Target.swift first.

import Foundation
import PanelindFuzz
import Testing

private let names = FuzzTargets.all.map { $0.name }

private func run(_ name: String) throws -> (FuzzRun, kept: [(name: String, bytes: [UInt8])]) {
    let type = try #require(FuzzTargets.all.first { $0.name == name })
    let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    let kept = Corpus.files(in: tests.appendingPathComponent("Corpora/\(name)").path)
    return (try FuzzRun(type, corpus: kept.map(\.bytes)), kept)
}

@Suite("Fuzz targets")
struct CorpusTests {
    // One after the other: a target of processes changes this one's name.
    @Test("every kept input is judged without a finding", arguments: names)
    func kept(name: String) throws {
        let (run, kept) = try run(name)
        #expect(kept.count >= 5, "the corpus of \(name) is found")
        for file in kept {
            let finding = run.judge(file.bytes)
            #expect(finding == nil, "panelind-fuzz \(name) --file Tests/Corpora/\(name)/\(file.name)")
        }
    }

    @Test("the first seeds find nothing", arguments: names)
    func seeds(name: String) throws {
        let (run, _) = try run(name)
        for seed in 0..<UInt64(name == "control" ? 50 : 300) {
            let finding = run.judge(run.input(seed: seed))
            #expect(finding == nil, "panelind-fuzz \(name) --only \(seed)")
        }
    }

    @Test("a seed is one input, and an input one judgement", arguments: names)
    func reproducible(name: String) throws {
        let (first, _) = try run(name)
        let (second, _) = try run(name)
        for seed in 0..<50 as Range<UInt64> { #expect(first.input(seed: seed) == second.input(seed: seed)) }
    }
}
