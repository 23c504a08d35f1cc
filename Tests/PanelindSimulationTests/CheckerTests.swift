//  CheckerTests.swift
//  Each law is broken once on purpose, and the checker says which: a checker that never fires proves nothing.
//  Read Checker.swift first.

import Testing

@testable import PanelindCore
@testable import PanelindSimulation

private let g1 = Generation(1)
private let g2 = Generation(2)

/// A stream of steps made by hand, before the checker.
private final class Bench {
    let checker: Checker
    var kernel = Kernel()
    var now = Instant.zero
    var state = State.starting
    private(set) var leader = 0

    init(_ settings: SupervisorSettings = SupervisorSettings()) { checker = Checker(settings) }

    var broken: Law? { checker.violation?.law }

    func step(
        _ event: Event, to state: State? = nil, because rules: [Rule] = [], _ actions: [Action] = [],
        deadline: Duration? = .seconds(1)
    ) {
        let step = Step(
            at: now, event: event, from: self.state, to: state ?? self.state, rules: rules, actions: actions)
        self.state = step.to
        checker.decided(step, deadline: deadline.map { now + $0 }, kernel: kernel)
        now = now + .milliseconds(10)
    }

    /// A worker that has started.
    func start() {
        step(.operator(.start), [.worker(g1, .spawn(revision: 0))], deadline: nil)
        leader = kernel.make(g1, isLeader: true, isInGroup: true)
        step(.worker(g1, .spawned(pid: 2)), [.report(.workerStarted(g1, pid: 2))])
    }

    /// A worker that is ready.
    func ready() {
        start()
        step(.time, to: .ready, publish(.ready, .forward(g1)) + [.report(.workerReady(g1, after: .seconds(1)))])
    }

    /// The leader has ended and was reaped; its end was not asked for.
    func crash(restartIn delay: Duration? = .seconds(1), _ more: [Action] = []) {
        if let index = kernel.index(of: leader) { kernel.reap(index) }
        step(
            exited, to: .backoff,
            publish(.backoff, .hold) + [
                .worker(g1, .sweep(.kill, sparingGroup: false)),
                .report(.workerExited(g1, ending(), restartIn: delay)),
            ] + more)
    }

    /// A stop was asked for, and its signal went.
    func stop() {
        step(
            .operator(.stop(by: "SIGTERM")), to: .stopping,
            publish(.stopping, .refuse(.stopping, retryAfter: .seconds(1)))
                + [.worker(g1, .signal(.terminate, .group))])
    }

    var exited: Event { .worker(g1, .exited(.code(1), ResourceUse(), oom: false)) }

    func publish(_ state: State, _ route: Route, generation: Int = 1, restarts: Int = 0) -> [Action] {
        [
            .front(.route(route)),
            .publish(HealthSnapshot(state: state, generation: generation, restarts: restarts, retryAfter: .seconds(1))),
        ]
    }

    func ending(requested: Bool = false) -> Ending {
        Ending(
            pid: 2, status: .code(1), cause: .exit, failure: nil, use: ResourceUse(), uptime: .seconds(1),
            wasReady: true, readyFor: .seconds(1), requested: requested)
    }

    func kill(_ id: Int) {
        if let index = kernel.index(of: id) { _ = kernel.send(.kill, to: index) }
    }

    func end(_ id: Int) {
        if let index = kernel.index(of: id) { kernel.reap(index) }
    }
}

@Suite("the checker")
struct CheckerTests {
    @Test("a clean life breaks no law")
    func cleanLife() {
        let bench = Bench()
        bench.ready()
        bench.stop()
        bench.end(bench.leader)
        bench.step(
            bench.exited, [.report(.workerExited(g1, bench.ending(requested: true), restartIn: nil))])
        bench.step(.worker(g1, .swept(left: [], killed: [])), [.worker(g1, .forget), .flush])
        bench.step(.flushed, to: .stopped, [.exit(0)], deadline: nil)
        #expect(bench.broken == nil)
        #expect(bench.checker.exitCode == 0)
    }

    @Test("each law that is broken is named", arguments: Law.allCases.filter { !CheckerTests.ofOthers.contains($0) })
    func eachLaw(law: Law) {
        let bench = Bench()
        #expect(breakIt(law, bench) == law, "\(bench.checker.violation?.description ?? "nothing is broken")")
    }

    /// SeedsTests has a world that breaks the first two, FrontCheckerTests breaks the others.
    static let ofOthers: Set<Law> = [
        .becomesReady, .reloadLosesNobody, .routedOnly, .onceOnly, .inOrder, .bounded, .noneRefusedEarly,
        .noneWaitsInVain, .drainTold, .oneOutcome,
    ]

    private func breakIt(_ law: Law, _ bench: Bench) -> Law? {
        switch law {
        case .oneWorker:
            bench.ready()
            bench.step(.operator(.restart), [.worker(g2, .spawn(revision: 0))])
        case .emptyTree:
            bench.ready()
            bench.crash(restartIn: .zero, [.worker(g1, .forget)])
            _ = bench.kernel.make(g1, isLeader: false, isInGroup: false)
            bench.step(.time, [.worker(g2, .spawn(revision: 0))])
        case .intentionalStop:
            bench.ready()
            bench.stop()
            bench.end(bench.leader)
            bench.step(
                bench.exited,
                [.report(.workerExited(g1, bench.ending(requested: true), restartIn: nil)), .worker(g1, .forget)])
            bench.step(.time, [.worker(g2, .spawn(revision: 0))])
        case .stopBudget:
            bench.ready()
            bench.stop()
            bench.now = bench.now + SupervisorSettings().stop.budget
            bench.step(.time)
        case .leavingEnds:
            bench.ready()
            bench.crash()
            bench.now = bench.now + .seconds(12)
            bench.step(.time)
        case .killFollows:
            bench.ready()
            _ = bench.kernel.make(g1, isLeader: false, isInGroup: false)
            bench.end(bench.leader)
            bench.step(
                bench.exited, to: .backoff,
                bench.publish(.backoff, .hold) + [
                    .report(.workerExited(g1, bench.ending(), restartIn: .seconds(1))), .worker(g1, .forget),
                ])
        case .nothingLeft:
            bench.ready()
            bench.stop()
            bench.kill(bench.leader)
            bench.step(
                .time,
                [
                    .report(.survivorsLeft(g1, [])), .worker(g1, .forget),
                    .report(.workerExited(g1, bench.ending(requested: true), restartIn: nil)), .flush,
                ])
            bench.step(.flushed, to: .stopped, [.exit(0)], deadline: nil)
        case .exitCode:
            bench.step(
                .operator(.stop(by: "SIGTERM")), to: .stopping,
                bench.publish(.stopping, .refuse(.stopping, retryAfter: .seconds(1)), generation: 0) + [.flush])
            bench.step(.flushed, to: .stopped, [.exit(1)], deadline: nil)
        case .readyIsTrue:
            bench.step(.operator(.start), [.worker(g1, .spawn(revision: 0))], deadline: nil)
            bench.step(.time, to: .ready, bench.publish(.ready, .forward(g1)))
        case .publishedFirst:
            bench.ready()
            bench.step(
                bench.exited, to: .backoff,
                [.worker(g1, .sweep(.kill, sparingGroup: false))] + bench.publish(.backoff, .hold))
        case .routeLives:
            bench.ready()
            bench.step(bench.exited, to: .draining, bench.publish(.draining, .lastCall(g1)))
        case .wayOut:
            bench.start()
            bench.step(.worker(g1, .notified(.status("busy"))), deadline: nil)
        case .deadlineAhead:
            bench.start()
            bench.step(.time, deadline: .milliseconds(-1))
        case .progress:
            bench.start()
            for _ in 0...Checker.stepsAtOneInstant {
                bench.now = .zero + .seconds(1)
                bench.step(.time)
            }
        case .generations:
            bench.step(.operator(.start), [.worker(g2, .spawn(revision: 0))], deadline: nil)
        case .restarts:
            bench.ready()
            bench.step(.time, to: .ready, bench.publish(.ready, .forward(g1), restarts: 1))
        case .failures:
            bench.ready()
            bench.step(
                bench.exited, to: .backoff, because: [.backoff(failures: 2, delay: .milliseconds(500))],
                bench.publish(.backoff, .hold) + [
                    .report(.workerExited(g1, bench.ending(), restartIn: .milliseconds(500)))
                ])
        case .backoff:
            bench.ready()
            bench.crash(restartIn: .seconds(1))
            bench.end(bench.leader)
            bench.step(.worker(g1, .swept(left: [], killed: [])), [.worker(g1, .forget)])
            bench.step(.time, [.worker(g2, .spawn(revision: 0))])
        case .exitReported:
            bench.ready()
            bench.crash()
            bench.step(.time, [.report(.workerExited(g1, bench.ending(), restartIn: .seconds(1)))])
        case .survivorsReported:
            bench.ready()
            let child = bench.kernel.make(g1, isLeader: false, isInGroup: false)
            bench.crash()
            bench.kill(child)
            bench.step(.worker(g1, .swept(left: [], killed: [])), [.worker(g1, .forget)])
        case .goneIsSilent:
            bench.ready()
            bench.crash(restartIn: .seconds(1), [.worker(g1, .forget)])
            bench.step(.worker(g1, .orphansReaped), [.worker(g1, .sweep(.kill, sparingGroup: false))])
        case .oneQuestion:
            bench.ready()
            let ask = Action.worker(g1, .ask(.readiness, attempt: 1, ProbeSettings(.tcp(""))))
            bench.step(.time, [ask])
            bench.step(.time, [.worker(g1, .ask(.readiness, attempt: 2, ProbeSettings(.tcp(""))))])
        case .lateAnswer:
            bench.ready()
            bench.step(
                .worker(g1, .answered(.readiness, attempt: 7, .failed("no"))),
                [.report(.probeFailed(g1, .readiness, reason: "no", consecutive: 1, beforeReady: false))])
        case .clockGap:
            bench.ready()
            bench.step(.time, because: [.clockGap(.seconds(5)), .watchdogMissed(.seconds(1))])
        case .holdsHope:
            bench.ready()
            bench.step(bench.exited, to: .failed, bench.publish(.failed, .hold))
        case .earlyDrain:
            let draining = Bench(Self.front)
            draining.ready()
            draining.step(
                .operator(.stop(by: "SIGTERM")), to: .draining,
                draining.publish(.draining, .refuse(.draining, retryAfter: .seconds(1))))
            return draining.broken
        case .drainEnds:
            let draining = Bench(Self.front)
            draining.ready()
            draining.step(
                .operator(.stop(by: "SIGTERM")), to: .draining,
                draining.publish(.draining, .lastCall(g1)) + [.front(.reportDrain(g1))])
            draining.step(.front(.drained(g1)))
            return draining.broken
        case .cutFirst:
            let draining = Bench(Self.front)
            draining.ready()
            draining.step(
                .operator(.stop(by: "SIGTERM")), to: .draining,
                draining.publish(.draining, .lastCall(g1)) + [.front(.reportDrain(g1))])
            draining.step(
                .time, to: .draining, [.worker(g1, .sweep(.kill, sparingGroup: false))])
            return draining.broken
        case .becomesReady, .reloadLosesNobody, .routedOnly, .onceOnly, .inOrder, .bounded, .noneRefusedEarly,
            .noneWaitsInVain, .drainTold, .oneOutcome:
            break
        }
        return bench.broken
    }

    private static var front: SupervisorSettings {
        var settings = SupervisorSettings()
        settings.mode = .front
        settings.stop.drain = .seconds(6)
        return settings
    }

    @Test("a drain that nobody asked the front for is found")
    func silentDrain() {
        let bench = Bench(Self.front)
        bench.ready()
        bench.stop()
        #expect(bench.broken == .drainEnds)
    }

    @Test("a question at the worker's address that no refusal led to is found")
    func needlessQuestion() {
        let ask = Action.worker(g1, .ask(.connection, attempt: 1, ProbeSettings(.tcp(""))))
        let asked = Bench()
        asked.ready()
        asked.step(.front(.refused(g1)))
        asked.step(.time, [ask])
        #expect(asked.broken == nil)
        let needless = Bench()
        needless.ready()
        needless.step(.time, [ask])
        #expect(needless.broken == .oneQuestion)
    }

    @Test("a delay outside of the policy's bounds is found")
    func wrongDelay() {
        let bench = Bench()
        bench.ready()
        bench.step(
            bench.exited, to: .backoff, because: [.backoff(failures: 1, delay: .seconds(2))],
            bench.publish(.backoff, .hold) + [.report(.workerExited(g1, bench.ending(), restartIn: .seconds(2)))])
        #expect(bench.broken == .backoff)
    }

    @Test("a killed process of which nothing is said is found")
    func silentKill() {
        let bench = Bench()
        bench.ready()
        bench.crash()
        bench.step(
            .worker(g1, .swept(left: [], killed: [Survivor(pid: 9, command: "child")])), [.worker(g1, .forget)])
        #expect(bench.broken == .survivorsReported)
    }
}
