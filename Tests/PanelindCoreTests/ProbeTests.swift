//  ProbeTests.swift
//  One probe: when it is asked, how long it may take, and what its answers amount to.
//  Read Machine.swift first; what readiness makes of it is in ReadinessTests.swift.

import Testing

@testable import PanelindCore

@Suite("Probes")
struct ProbeTests {
    /// Answers every attempt the moment it is asked, for so long.
    static func run(_ machine: inout Machine, _ duration: Duration, kind: ProbeKind, _ outcome: ProbeOutcome) {
        let end = machine.now + duration
        while machine.now < end {
            if case .asking = Self.phase(machine, kind) { machine.answer(kind, outcome) }
            guard let next = machine.supervisor.deadline, next <= end else { break }
            machine.now = max(machine.now, next)
            machine.send(.time)
        }
        machine.now = end
    }

    static func phase(_ machine: Machine, _ kind: ProbeKind) -> Probe.Phase? {
        guard let worker = machine.supervisor.current else { return nil }
        switch kind {
        case .startup: return worker.startup?.phase
        case .readiness: return (worker.readiness ?? worker.implied)?.phase
        case .liveness: return worker.liveness?.phase
        case .connection: return worker.connection?.phase
        }
    }

    static func machine(_ method: ProbeMethod, _ change: (inout ProbeSettings) -> Void = { _ in }) -> Machine {
        var probe = ProbeSettings(method)
        change(&probe)
        return Machine(.bench { $0.worker.readiness = probe })
    }

    @Test(
        "before first ready a probe is asked every 100 ms, a command every second",
        arguments: [(ProbeMethod.http("/"), 100), (.tcp(""), 100), (.exec(["true"]), 1000)] as [(ProbeMethod, Int64)])
    func beforeReady(method: ProbeMethod, milliseconds: Int64) {
        var machine = Self.machine(method)
        machine.spawn()
        Self.run(&machine, .seconds(5), kind: .readiness, .failed("no"))
        let asked = machine.asked(.readiness)
        #expect(asked.count >= 5)
        #expect(zip(asked, asked.dropFirst()).allSatisfy { $1 - $0 == .milliseconds(milliseconds) })
    }

    @Test("a ready worker is asked every period, and every second behind a failed attempt")
    func steady() {
        var machine = Self.machine(.http("/"))
        machine.becomeReady()
        let ready = machine.now
        machine.pass(.milliseconds(9999))
        #expect(machine.asked(.readiness).count == 1)
        machine.pass(.milliseconds(1))
        #expect(machine.asked(.readiness).count == 2)
        machine.answer(.readiness, .failed("no"))
        machine.pass(.seconds(1))
        #expect(machine.asked(.readiness).count == 3)
        machine.answer(.readiness, .passed)
        machine.pass(.milliseconds(9999))
        #expect(machine.asked(.readiness).count == 3)
        #expect(machine.now - ready == .milliseconds(20_999))
    }

    @Test("an unready worker is asked every second, or every period where that is shorter")
    func unready() {
        for (period, gap) in [(Duration.seconds(10), Duration.seconds(1)), (.milliseconds(300), .milliseconds(300))] {
            var machine = Self.machine(.http("/")) { $0.period = period }
            machine.becomeReady()
            Self.run(&machine, .seconds(30), kind: .readiness, .failed("no"))
            #expect(machine.state == .unready)
            let asked = machine.asked(.readiness).suffix(5)
            #expect(zip(asked, asked.dropFirst()).allSatisfy { $1 - $0 == gap })
        }
    }

    @Test("a delay comes before the first attempt only")
    func delay() {
        var machine = Self.machine(.http("/")) { $0.delay = .seconds(3) }
        machine.spawn()
        machine.pass(.milliseconds(2999))
        #expect(machine.asked(.readiness).isEmpty)
        machine.pass(.milliseconds(1))
        #expect(machine.asked(.readiness).count == 1)
        machine.answer(.readiness, .failed("no"))
        machine.pass(.milliseconds(100))
        #expect(machine.asked(.readiness).count == 2)
    }

    @Test("two failures and a success keep it ready; three in a row do not, and only once")
    func failures() {
        var machine = Self.machine(.http("/"))
        machine.becomeReady()
        machine.pass(.seconds(10))
        for outcome: ProbeOutcome in [.failed("a"), .failed("b"), .passed] {
            machine.answer(.readiness, outcome)
            machine.pass(outcome == .passed ? .seconds(10) : .seconds(1))
            #expect(machine.state == .ready)
        }
        for n in 1...5 {
            machine.answer(.readiness, .failed("HTTP 503"))
            #expect(machine.state == (n < 3 ? .ready : .unready))
            machine.pass(.seconds(1))
        }
        let unready = machine.reports.filter { if case .workerUnready = $0 { true } else { false } }
        #expect(unready == [.workerUnready(Generation(1), reason: "HTTP 503")])
        machine.answer(.readiness, .passed)
        #expect(machine.state == .ready)
    }

    @Test("so many successes in a row as set make it good, before first ready and behind a failure")
    func successes() {
        var machine = Self.machine(.http("/")) { $0.successes = 3 }
        machine.spawn()
        for outcome: ProbeOutcome in [.passed, .passed, .failed("no"), .passed, .passed] {
            machine.answer(.readiness, outcome)
            #expect(machine.state == .starting)
            machine.pass(.milliseconds(100))
        }
        machine.answer(.readiness, .passed)
        #expect(machine.state == .ready)
        machine.pass(.seconds(10))
        for _ in 1...3 {
            machine.answer(.readiness, .failed("no"))
            machine.pass(.seconds(1))
        }
        for n in 1...3 {
            #expect(machine.state == .unready)
            machine.answer(.readiness, .passed)
            if n < 3 { machine.pass(.seconds(1)) }
        }
        #expect(machine.state == .ready)
    }

    @Test("an attempt without an answer is abandoned and failed at its timeout")
    func timeout() {
        var machine = Self.machine(.http("/")) { $0.timeout = .milliseconds(700) }
        machine.spawn()
        machine.pass(.milliseconds(699))
        #expect(!machine.log.contains { $0.action == .worker(Generation(1), .abandon(.readiness, attempt: 1)) })
        machine.pass(.milliseconds(1))
        #expect(machine.log.contains { $0.action == .worker(Generation(1), .abandon(.readiness, attempt: 1)) })
        let failure = Report.probeFailed(
            Generation(1), .readiness, reason: "no answer in 700ms", consecutive: 1, beforeReady: true)
        #expect(machine.reports.contains(failure))
    }

    @Test("a late answer, a second one and one of a future attempt change nothing")
    func late() {
        var machine = Self.machine(.http("/"))
        machine.spawn()
        machine.pass(.milliseconds(1100))
        #expect(machine.attempt(.readiness, of: Generation(1)) == 2)
        for attempt in [1, 3] {
            #expect(machine.send(.answered(.readiness, attempt: attempt, .passed)).isEmpty)
            #expect(machine.state == .starting)
        }
        machine.send(.answered(.readiness, attempt: 2, .failed("no")))
        machine.send(.answered(.readiness, attempt: 2, .passed))
        #expect(machine.state == .starting)
    }

    @Test("attempts of one probe never overlap", arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8])
    func neverOverlap(seed: UInt64) {
        var random = RandomNumbers(seed: seed)
        var machine = Self.machine(.http("/"))
        machine.spawn()
        var open: Set<Int> = []
        var seen = 0
        for _ in 1...300 {
            switch random.next() % 4 {
            case 0: machine.answer(.readiness, .passed)
            case 1: machine.answer(.readiness, .failed("no"))
            case 2: machine.freeze(.milliseconds(Int64(random.next() % 5000)))
            default: machine.pass(.milliseconds(Int64(random.next() % 2000)))
            }
            if machine.supervisor.current == nil || machine.state == .backoff { break }
            for (_, action) in machine.log.dropFirst(seen) {
                switch action {
                case .worker(_, .ask(.readiness, let attempt, _)):
                    #expect(open.allSatisfy { $0 < attempt })
                    open = [attempt]
                case .worker(_, .abandon(.readiness, let attempt)): open.remove(attempt)
                default: break
                }
            }
            seen = machine.log.count
        }
    }

    @Test("in socket mode a shared probe says nothing while two generations live; an own one counts")
    func sharedSocket() {
        for (method, isReady) in [
            (ProbeMethod.http("/ready"), false), (.tcp(""), false), (.exec(["check"]), true),
            (.http("http://127.0.0.1:9/ready"), true), (.tcp("127.0.0.1:9"), true),
        ] {
            var machine = Machine(
                .bench {
                    $0.mode = .socket
                    $0.worker.readiness = ProbeSettings(method)
                })
            machine.becomeReady()
            machine.send(.reload(machine.supervisor.settings))
            machine.send(.spawned(pid: 2), of: Generation(2))
            machine.answer(.readiness, .passed, of: Generation(2))
            #expect((machine.current == Generation(2)) == isReady, "\(method)")
        }
    }
}
