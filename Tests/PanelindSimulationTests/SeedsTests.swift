//  SeedsTests.swift
//  A thousand drawn worlds hold every law, and a seed is a world: the same transcript every time.
//  Read Simulation.swift first.

import PanelindCore
import PanelindSimulation
import Testing

@Suite("drawn worlds")
struct SeedsTests {
    /// With the checks of a debug build; `make seeds` runs 5,000 without.
    @Test("every law holds in a thousand worlds", arguments: 0..<10)
    func lawsHold(hundred: UInt64) {
        let (broken, steps, _) = Simulation.run(seeds: hundred * 100..<(hundred + 1) * 100)
        for verdict in broken {
            let what = verdict.violation?.description ?? ""
            Issue.record("make simulate SEED=\(verdict.seed)  # \(what)")
        }
        #expect(steps > 1000)
    }

    @Test("the same seed gives the same transcript, byte for byte", arguments: [0, 7, 42, 1138, 7504])
    func sameSeed(seed: UInt64) {
        let first = Simulation.run(seed: seed, transcript: true, actions: true)
        let second = Simulation.run(seed: seed, transcript: true, actions: true)
        #expect(first.transcript == second.transcript)
        #expect(!first.transcript.isEmpty)
    }

    @Test("a transcript changes nothing in the world it is of", arguments: [3, 99, 512])
    func transcriptIsSilent(seed: UInt64) {
        let with = Simulation.run(seed: seed, transcript: true)
        let without = Simulation.run(seed: seed)
        #expect(with.steps == without.steps)
        #expect(with.simulated == without.simulated)
        #expect(with.transcript.count == with.steps)
        #expect(without.transcript.isEmpty)
    }

    @Test("a world whose worker cannot become ready in time fails its liveness phase")
    func impossibleWorld() {
        var plan = FaultPlan(seed: 1)
        var slow = ProbeSettings(.http("/ready"))
        slow.delay = .seconds(10)
        plan.settings.mode = .front
        plan.settings.worker.readiness = slow
        plan.settings.worker.startupDeadline = .seconds(2)
        plan.safety = .seconds(5)
        plan.checksLiveness = true
        #expect(Simulation.run(plan).violation?.law == .becomesReady)
    }

    @Test("every law holds in every named world", arguments: Place.allCases)
    func namedWorlds(place: Place) {
        let (broken, _, _) = Simulation.run(seeds: 10_000..<10_060, place: place)
        for verdict in broken {
            let what = verdict.violation?.description ?? ""
            Issue.record("make simulate SEED=\(verdict.seed) WORLD=\(place.rawValue)  # \(what)")
        }
    }

    @Test("a broken world shrinks to a short story of the same law")
    func shrinks() throws {
        // Drawn with all that goes wrong in it, and with a worker that cannot be ready in time.
        var plan = FaultPlan.draw(seed: 4, place: .wild)
        var slow = ProbeSettings(.http("/ready"))
        slow.delay = .seconds(10)
        plan.settings.worker.readiness = slow
        plan.settings.worker.startupDeadline = .seconds(2)
        plan.settings.restart.policy = .always
        plan.settings.restart.limit = nil
        plan.wishes = plan.wishes.filter { wish in
            switch wish.wish {
            case .tell(.start), .tell(.pass), .freeze, .signal, .burst: true
            case .tell: false
            }
        }
        let short = try #require(Shrink(plan, runs: 300))
        #expect(short.verdict.violation?.law == .becomesReady)
        #expect(short.plan.story.count < plan.story.count)
        #expect(!short.verdict.transcript.isEmpty)
        #expect(Shrink(FaultPlan(seed: 1)) == nil)
    }

    @Test("the report of what was met lists what was not, and knows why of most")
    func coverage() {
        let coverage = Coverage()
        _ = Simulation.run(seeds: 0..<150, coverage: coverage)
        let (met, all) = coverage.met
        #expect(met > all / 2)
        #expect(coverage.missing.count == all - met)
        #expect(coverage.missing.contains { $0.pair == "ready x flushed" && $0.reason != nil })
    }

    @Test("the worlds reach every state, every mode and every kind of end")
    func worldsAreVaried() {
        var codes: Set<Int32> = []
        var states: Set<String> = []
        for seed in UInt64(0)..<150 {
            let verdict = Simulation.run(seed: seed, transcript: true)
            if let code = verdict.exitCode { codes.insert(code) }
            for state in State.allCases where verdict.transcript.contains(where: { $0.contains("-> \(state)") }) {
                states.insert(state.rawValue)
            }
        }
        #expect(codes.isSuperset(of: [0, 1, 70]))
        #expect(states.isSuperset(of: ["starting", "ready", "unready", "backoff", "draining", "stopping", "failed"]))
    }
}
