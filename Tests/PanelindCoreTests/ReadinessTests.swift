//  ReadinessTests.swift
//  What makes a worker ready or unready, who decides, and in which order the sources count (CONTRACT section 4).
//  Schedules and verdicts of single probes are in ProbeTests.swift. Read Machine.swift first.

import Testing

@testable import PanelindCore

@Suite("Readiness")
struct ReadinessTests {
    static func probe(_ method: ProbeMethod, _ change: (inout ProbeSettings) -> Void = { _ in }) -> ProbeSettings {
        var probe = ProbeSettings(method)
        change(&probe)
        return probe
    }

    @Test("a second of life is readiness where nothing else is known")
    func alive() {
        var machine = Machine(.direct())
        machine.spawn()
        machine.pass(.milliseconds(999))
        #expect(machine.state == .starting)
        machine.pass(.milliseconds(1))
        #expect(machine.state == .ready)
    }

    @Test("a second of life behind a startup probe waits for the probe, without a spin")
    func aliveBehindStartup() {
        var machine = Machine(.direct { $0.worker.startup = Self.probe(.log("listening")) })
        machine.spawn()
        machine.pass(.seconds(5))
        #expect(machine.state == .starting)
        machine.send(.logMatched)
        #expect(machine.state == .ready)
    }

    @Test("a given probe decides alone, whatever the worker says")
    func givenProbe() {
        var machine = Machine(.bench { $0.worker.readiness = Self.probe(.http("/ready")) })
        machine.spawn()
        machine.send(.notified(.ready))
        #expect(machine.state == .starting)
        machine.answer(.readiness, .passed)
        #expect(machine.state == .ready)
        machine.send(.notified(.stopping))
        #expect(machine.state == .ready)
    }

    @Test("from its first READY=1 the worker's word decides, and the implied probe ends")
    func notifications() {
        var machine = Machine()
        machine.spawn()
        machine.send(.notified(.stopping))
        machine.send(.notified(.reloading))
        #expect(machine.state == .starting)
        machine.send(.notified(.ready))
        #expect(machine.state == .ready)
        machine.send(.notified(.reloading))
        #expect(machine.state == .unready)
        machine.send(.notified(.status("warming up")))
        #expect(machine.state == .unready)
        machine.send(.notified(.ready))
        #expect(machine.state == .ready)
        machine.send(.notified(.stopping))
        #expect(machine.state == .unready)
        #expect(machine.asked(.readiness).count == 1)
        let why = "the worker said that it does not serve"
        #expect(machine.reports.contains(.workerUnready(Generation(1), reason: why)))
    }

    @Test("an answer of the implied probe behind READY=1 is late")
    func lateImplied() {
        var machine = Machine()
        machine.spawn()
        machine.send(.notified(.ready))
        for _ in 1...5 { machine.answer(.readiness, .failed("HTTP 500")) }
        #expect(machine.state == .ready)
    }

    @Test("what was said in one generation does not count in the next")
    func nextGeneration() {
        var machine = Machine()
        machine.spawn()
        machine.send(.notified(.ready))
        machine.die()
        machine.pass(.seconds(1))
        machine.spawn()
        #expect(machine.state == .starting)
        #expect(machine.asked(.readiness).count == 2)
    }

    @Test(
        "readiness by notify, by descriptor, and by log before a start",
        arguments: [
            (ProbeMethod.notify, WorkerEvent.notified(.ready)), (.descriptor(4), .descriptor(ready: true)),
        ] as [(ProbeMethod, WorkerEvent)])
    func told(method: ProbeMethod, event: WorkerEvent) {
        for isStartup in [false, true] {
            var machine = Machine(
                .direct {
                    if isStartup {
                        $0.worker.startup = Self.probe(method)
                        $0.worker.readiness = Self.probe(.http("/ready"))
                    } else {
                        $0.worker.readiness = Self.probe(method)
                    }
                })
            machine.spawn()
            machine.pass(.seconds(5))
            #expect(machine.state == .starting)
            #expect(machine.asked(.readiness).isEmpty)
            machine.send(event)
            if isStartup { machine.answer(.readiness, .passed) }
            #expect(machine.state == .ready)
        }
    }

    @Test("a descriptor that ends without a newline is not readiness, and the deadline decides")
    func descriptorEnds() {
        var machine = Machine(.direct { $0.worker.readiness = Self.probe(.descriptor(4)) })
        machine.spawn()
        machine.send(.descriptor(ready: false))
        #expect(machine.state == .starting)
        machine.pass(.seconds(61))
        #expect(machine.rules.contains(.startupDeadlinePassed(.seconds(60), nil)))
        #expect(machine.state == .backoff)
    }

    @Test("liveness and readiness wait for the startup probe, and liveness for first ready")
    func order() {
        var machine = Machine(
            .bench {
                $0.worker.startup = Self.probe(.http("/started"))
                $0.worker.readiness = Self.probe(.http("/ready"))
                $0.worker.liveness = Self.probe(.http("/live"))
            })
        machine.spawn()
        machine.answer(.startup, .failed("HTTP 503"))
        machine.pass(.milliseconds(100))
        #expect(machine.asked(.readiness).isEmpty)
        machine.answer(.startup, .passed)
        #expect(machine.asked(.readiness).count == 1)
        #expect(machine.asked(.liveness).isEmpty)
        machine.answer(.readiness, .passed)
        #expect(machine.asked(.liveness).count == 1)
        machine.pass(.seconds(9))
        #expect(machine.asked(.startup).count == 2)
    }

    @Test("a connection that the front was refused is followed by one question, and its failure is unreadiness")
    func refusedConnection() {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.front(.refused(machine.current)))
        machine.send(.front(.refused(machine.current)))
        // A death closes the listener first, and is heard of within this time.
        #expect(machine.asked(.connection).isEmpty && machine.state == .ready)
        machine.pass(.milliseconds(5))
        #expect(machine.attempt(.connection, of: machine.current) == 1)
        machine.answer(.connection, .failed("connection refused"))
        #expect(machine.state == .unready)
        #expect(machine.rules.last == .connectionRefused("connection refused"))
        #expect(machine.reports.last == .workerUnready(machine.current, reason: "connection refused"))
    }

    @Test("a worker that takes connections again is ready again, and its next refusal is news")
    func acceptsAgain() {
        var machine = Machine()
        machine.becomeReady()
        for _ in 1...2 {
            machine.send(.front(.refused(machine.current)))
            machine.pass(.milliseconds(5))
            for _ in 1...3 {
                machine.answer(.connection, .failed("connection refused"))
                machine.answer(.readiness, .passed)
                #expect(machine.state == .unready, "whatever its readiness probe says")
                machine.pass(.milliseconds(250))
            }
            machine.answer(.connection, .passed)
            #expect(machine.state == .ready)
            let asked = machine.asked(.connection).count
            machine.pass(.seconds(5))
            #expect(machine.asked(.connection).count == asked, "it is asked only while in doubt")
        }
        let failures = machine.reports.count {
            if case .probeFailed(_, .connection, _, _, _) = $0 { true } else { false }
        }
        #expect(failures == 2, "one record for each time")
    }

    /// A ready machine whose front was refused a connection, and which asks about it.
    static func doubted() -> Machine {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.front(.refused(machine.current)))
        machine.pass(.milliseconds(5))
        return machine
    }

    @Test("one that takes connections again but does not serve is unready for another reason, and that is told")
    func anotherReason() {
        var machine = Self.doubted()
        machine.answer(.connection, .failed("connection refused"))
        machine.pass(.seconds(10))
        for _ in 1...3 {
            machine.answer(.readiness, .failed("HTTP 503"))
            machine.pass(.seconds(1))
        }
        machine.answer(.connection, .passed)
        #expect(machine.state == .unready)
        #expect(machine.rules.last == .readinessFailed("HTTP 503"))
        #expect(machine.reports.last == .workerUnready(machine.current, reason: "HTTP 503"))
    }

    @Test("a refusal that was none changes nothing")
    func refusedOnce() {
        var machine = Self.doubted()
        machine.answer(.connection, .passed)
        #expect(machine.state == .ready)
        #expect(!machine.reports.contains { if case .workerUnready = $0 { true } else { false } })
    }

    @Test("a failing readiness never restarts")
    func neverRestarts() {
        var machine = Machine()
        machine.becomeReady()
        machine.pass(.seconds(300))
        #expect(machine.state == .unready)
        #expect(machine.signals(to: Generation(1)).isEmpty)
        #expect(machine.routes.last == .hold)
    }

    @Test("three liveness failures in a row are a failed worker")
    func liveness() {
        var machine = Machine(.bench { $0.worker.liveness = Self.probe(.http("/live")) })
        machine.spawn()
        machine.send(.notified(.ready))
        for outcome: ProbeOutcome in [.failed("a"), .failed("b"), .passed, .failed("c"), .failed("d")] {
            machine.answer(.liveness, outcome)
            machine.pass(outcome == .passed ? .seconds(10) : .seconds(1))
            #expect(machine.state == .ready)
        }
        machine.answer(.liveness, .failed("HTTP 500"))
        #expect(machine.state == .backoff)
        #expect(machine.signals(to: Generation(1)) == ["TERM group"])
        machine.die(.signal(.terminate, coreDumped: false))
        #expect(machine.endings.map(\.cause) == [.liveness])
        // It had been ready for 10 s: no wait.
        #expect(machine.supervisor.policy.failures == 1)
        #expect(machine.state == .starting)
    }

    @Test("a death during the wait for readiness is noticed at once, not at the deadline")
    func deathWins() {
        var machine = Machine()
        machine.spawn()
        machine.die(.code(3))
        #expect(machine.state == .backoff)
        let attempt = machine.attempt(.readiness, of: Generation(1))
        machine.send(.answered(.readiness, attempt: attempt, .passed), of: Generation(1))
        #expect(machine.state == .backoff)
    }

    // MARK: Startup deadline and watchdog

    @Test("a worker that is not ready by the startup deadline has failed")
    func startupDeadline() {
        var machine = Machine(.bench { $0.worker.startupDeadline = .seconds(5) })
        machine.spawn()
        let start = machine.now
        machine.answer(.readiness, .failed("HTTP 503"))
        machine.pass(.seconds(6))
        let rule = machine.rules.first { if case .startupDeadlinePassed = $0 { true } else { false } }
        #expect(rule == .startupDeadlinePassed(.seconds(5), "no answer in 1s"))
        let signal = machine.log.first { $0.action == .worker(Generation(1), .signal(.terminate, .group)) }
        #expect(signal.map { $0.at - start } == .seconds(5))
        machine.die(.signal(.terminate, coreDumped: false))
        #expect(machine.endings.map(\.cause) == [.startupDeadline])
    }

    @Test("EXTEND_TIMEOUT_USEC moves the startup deadline further, never nearer")
    func extend() {
        var machine = Machine(.bench { $0.worker.startupDeadline = .seconds(5) })
        machine.spawn()
        machine.pass(.seconds(4))
        machine.send(.notified(.extendTimeout(.milliseconds(100))))
        #expect(machine.supervisor.current?.startupUntil == machine.now + .seconds(1))
        machine.send(.notified(.extendTimeout(.seconds(10))))
        machine.pass(.milliseconds(9900))
        #expect(machine.state == .starting)
        machine.pass(.milliseconds(200))
        #expect(machine.state == .backoff)
    }

    @Test("a missed watchdog is ABRT, then KILL after 2 s, and a failure")
    func watchdog() {
        var machine = Machine(.direct { $0.worker.watchdog = .seconds(3) })
        machine.spawn()
        machine.pass(.seconds(1))
        for _ in 1...5 {
            machine.pass(.seconds(2))
            machine.send(.notified(.watchdog))
        }
        #expect(machine.state == .ready)
        machine.pass(.seconds(3))
        #expect(machine.signals(to: Generation(1)) == ["ABRT leader"])
        machine.pass(.milliseconds(1999))
        #expect(machine.signals(to: Generation(1)) == ["ABRT leader"])
        machine.pass(.milliseconds(1))
        #expect(machine.signals(to: Generation(1)) == ["ABRT leader", "sweep KILL"])
        machine.die(.signal(.abort, coreDumped: true))
        #expect(machine.endings.map(\.cause) == [.watchdog])
        #expect(machine.endings.first?.requested == false)
    }

    @Test("WATCHDOG=trigger is a missed watchdog, also where none is set")
    func trigger() {
        for interval in [nil, Duration.seconds(3)] {
            var machine = Machine(.direct { $0.worker.watchdog = interval })
            machine.spawn()
            machine.pass(.seconds(1))
            machine.send(.notified(.watchdogTrigger))
            #expect(machine.signals(to: Generation(1)) == ["ABRT leader"])
            #expect(machine.rules.contains(.watchdogMissed(nil)))
        }
    }

    @Test("who is ready at the very instant of the startup deadline is in time")
    func readyAtTheDeadline() {
        var machine = Machine(.direct { $0.worker.startupDeadline = .seconds(1) })
        machine.spawn()
        machine.pass(.seconds(1))
        #expect(machine.state == .ready)
    }

    @Test("before first ready no watchdog is missed")
    func watchdogBeforeReady() {
        var machine = Machine(.bench { $0.worker.watchdog = .seconds(3) })
        machine.spawn()
        machine.pass(.seconds(30))
        #expect(machine.state == .starting)
    }

    // MARK: Clock gaps

    @Test("a clock gap fails no probe, no watchdog and no startup deadline")
    func gap() {
        for isReady in [false, true] {
            var machine = Machine(
                .bench {
                    $0.worker.watchdog = .seconds(60)
                    $0.worker.startupDeadline = .seconds(5)
                    $0.worker.liveness = Self.probe(.http("/live")) { $0.failures = 1 }
                })
            if isReady { machine.becomeReady() } else { machine.spawn() }
            let state = machine.state
            machine.freeze(.seconds(3600))
            #expect(machine.state == state)
            #expect(machine.log.contains { $0.action == .front(.dropIdle) })
            #expect(machine.reports.contains { if case .clockGap = $0 { true } else { false } })
            #expect(machine.reports.allSatisfy { if case .probeFailed = $0 { false } else { true } })
            machine.pass(.milliseconds(100))
            machine.answer(.readiness, .passed)
            if isReady { machine.answer(.liveness, .passed) }
            #expect(machine.state == .ready)
        }
    }

    @Test("a deadline that is late by a second or less is load, and no gap")
    func load() {
        var machine = Machine()
        machine.spawn()
        machine.freeze(.seconds(2))
        #expect(machine.rules.allSatisfy { if case .clockGap = $0 { false } else { true } })
    }

    @Test("behind a gap a backoff has one restart due, not many")
    func gapInBackoff() {
        var machine = Setup.backoff.machine
        machine.freeze(.seconds(3600))
        #expect(machine.supervisor.newest == Generation(2))
        machine.pass(.milliseconds(10))
        #expect(machine.supervisor.newest == Generation(2))
    }

    @Test("a suspension stops the worker's group and resumes it as behind a gap")
    func suspension() {
        var machine = Machine()
        machine.becomeReady()
        let asleep = machine.send(.suspend)
        #expect(asleep.suffix(2) == [.worker(Generation(1), .signal(.stop, .group)), .suspendSelf])
        machine.now = machine.now + .seconds(600)
        machine.send(.resume)
        #expect(machine.signals(to: Generation(1)) == ["STOP group", "CONT group"])
        machine.send(.time)
        #expect(machine.state == .ready)
    }

    @Test("the SIGCONT that systemd sends with a reload is no gap; any other is one of unknown length")
    func continued() {
        var machine = Machine()
        machine.becomeReady()
        #expect(machine.send(.resume).contains(.report(.clockGap(.zero))))
        machine.send(.reloadRefused("bad"))
        #expect(machine.send(.resume) == [.worker(Generation(1), .signal(.continue, .group))])
        machine.now = machine.now + .seconds(1)
        #expect(machine.send(.resume).contains(.report(.clockGap(.zero))))
        machine.send(.suspend)
        machine.now = machine.now + .milliseconds(20)
        #expect(machine.send(.resume).contains(.report(.clockGap(.milliseconds(20)))))
    }
}
