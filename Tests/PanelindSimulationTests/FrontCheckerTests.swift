//  FrontCheckerTests.swift
//  Each law of the front is broken once on purpose: a forged answer of Admission, and the checker says which law.
//  Read FrontChecker.swift first.

import PanelindCore
import Testing

@testable import PanelindSimulation

private let g1 = Generation(1)
private let g2 = Generation(2)

/// A real Admission before the checker, whose answers may be replaced.
private final class FrontBench {
    var admission: Admission
    let checker: FrontChecker
    var now = Instant.zero + .seconds(100)

    init(_ change: (inout AdmissionSettings) -> Void = { _ in }) {
        var settings = AdmissionSettings()
        change(&settings)
        admission = Admission(settings)
        checker = FrontChecker(settings)
    }

    var broken: Law? { checker.violation?.law }

    func judge(_ cause: AdmissionCause, _ real: [AdmissionAction], forged: [AdmissionAction]?) {
        checker.judge(cause, forged ?? real, held: admission.held, deadline: admission.deadline, at: now)
        if let worker = checker.concerned { checker.judgeLoad(of: worker, admission.inFlight(of: worker), cause) }
        now = now + .milliseconds(1)
    }

    func get(canRetry: Bool = true, forged: ((RequestID) -> [AdmissionAction])? = nil) -> RequestID {
        let (id, actions) = admission.arrive(bytes: 100, canRetry: canRetry, at: now)
        judge(.arrive(id, bytes: 100, canRetry: canRetry), actions, forged: forged?(id))
        return id
    }

    func route(_ route: Route, forged: [AdmissionAction]? = nil) {
        judge(.take(route), admission.take(route, at: now), forged: forged)
    }

    func lose(_ id: RequestID, forged: [AdmissionAction]? = nil) {
        judge(.lost(id, unsent: false), admission.lost(id, at: now), forged: forged)
    }

    func end(_ id: RequestID, forged: [AdmissionAction]? = nil) {
        judge(.ended(id), admission.ended(id, at: now), forged: forged)
    }

    func report(_ generation: Generation, forged: [AdmissionAction]? = nil) {
        judge(.report(generation), admission.reportDrain(generation), forged: forged)
    }

    func cut(_ generation: Generation, forged: [AdmissionAction]? = nil) {
        judge(.cut(generation), admission.cut(generation, at: now), forged: forged)
    }
}

@Suite("the checker of the front")
struct FrontCheckerTests {
    @Test("a clean life breaks no law")
    func cleanLife() {
        let bench = FrontBench()
        let held = bench.get()
        bench.route(.forward(g1))
        let second = bench.get()
        bench.lose(second)
        bench.route(.forward(g2))
        bench.end(held)
        bench.report(g1)
        bench.cut(g2)
        #expect(bench.broken == nil, "\(bench.checker.violation?.description ?? "")")
    }

    @Test("a request that goes where no route leads is found")
    func routedOnly() {
        let bench = FrontBench()
        bench.route(.forward(g1))
        _ = bench.get { [.forward($0, g2)] }
        #expect(bench.broken == .routedOnly)
    }

    @Test("a POST that is made twice is found, and a GET that goes to its loser")
    func onceOnly() {
        for (canRetry, next) in [(false, g2), (true, g1)] {
            let bench = FrontBench()
            bench.route(.forward(g1))
            let id = bench.get(canRetry: canRetry)
            if next == g2 { bench.route(.forward(g2)) }
            bench.lose(id, forged: [.forward(id, next)])
            #expect(bench.broken == .onceOnly)
        }
    }

    @Test("somebody who overtakes is found")
    func inOrder() {
        let bench = FrontBench()
        _ = bench.get()
        let second = bench.get()
        bench.route(.forward(g1), forged: [.forward(second, g1)])
        #expect(bench.broken == .inOrder)
    }

    @Test("one more than a worker may have is found, and one more than may wait")
    func bounded() {
        let full = FrontBench { $0.concurrency = 1 }
        full.route(.forward(g1))
        _ = full.get()
        _ = full.get { [.forward($0, g1)] }
        #expect(full.broken == .bounded)
        let waiting = FrontBench { $0.heldRequests = 1 }
        // The checker believes in less room than there is.
        waiting.checker.judge(
            .use(AdmissionSettings.room(for: 0)), [], held: 0, deadline: nil, at: waiting.now)
        _ = waiting.get()
        #expect(waiting.broken == .bounded)
    }

    @Test("a refusal in spite of room or time is found")
    func noneRefusedEarly() {
        for why in [Refusal.queueFull, .holdOver, .notReady(.workerFailed)] {
            let bench = FrontBench()
            _ = bench.get { [.refuse($0, why, retryAfter: .seconds(1))] }
            #expect(bench.broken == .noneRefusedEarly)
        }
        let lost = FrontBench()
        lost.route(.forward(g1))
        let id = lost.get()
        lost.lose(id, forged: [.fail(id)])
        #expect(lost.broken == .noneRefusedEarly)
    }

    @Test("a request that waits though it could go is found")
    func noneWaitsInVain() {
        let bench = FrontBench()
        _ = bench.get()
        // The checker hears of a route, and nobody goes.
        bench.checker.judge(.take(.forward(g1)), [], held: 1, deadline: nil, at: bench.now)
        #expect(bench.broken == .noneWaitsInVain)
    }

    @Test("an edge that is told too early, twice or never is found")
    func drainTold() {
        let early = FrontBench()
        early.route(.forward(g1))
        _ = early.get()
        early.report(g1, forged: [.tell(.drained(g1))])
        #expect(early.broken == .drainTold)
        let never = FrontBench()
        never.report(g1, forged: [])
        #expect(never.broken == .drainTold)
        let twice = FrontBench()
        twice.report(g1)
        twice.route(.forward(g1), forged: [.tell(.drained(g1))])
        #expect(twice.broken == .drainTold)
    }

    @Test("an outcome that is missing, doubled or wrong is found")
    func oneOutcome() {
        let missing = FrontBench()
        missing.route(.forward(g1))
        _ = missing.get()
        missing.cut(g1, forged: [])
        #expect(missing.broken == .oneOutcome)
        let doubled = FrontBench()
        doubled.route(.forward(g1))
        let id = doubled.get(canRetry: false)
        doubled.lose(id)
        doubled.cut(g1, forged: [.timeOut(id)])
        #expect(doubled.broken == .oneOutcome)
        let wrong = FrontBench()
        wrong.route(.forward(g1))
        let begun = wrong.get()
        wrong.cut(g1, forged: [.abort(begun)])
        #expect(wrong.broken == .oneOutcome)
    }
}

extension AdmissionSettings {
    fileprivate static func room(for requests: Int) -> AdmissionSettings {
        var settings = AdmissionSettings()
        settings.heldRequests = requests
        return settings
    }
}
