//  RestartTests.swift
//  What follows an end: gaps, jitter, resets, limits, policies, permanent codes, first starts.
//  Times are those of the machine's clock. Read Machine.swift first.

import Testing

@testable import PanelindCore

@Suite("Restarts")
struct RestartTests {
    static func ending(
        _ status: ExitStatus?, ready: Duration? = nil, cause: ExitCause = .exit, failure: StartFailure? = nil
    ) -> Ending {
        Ending(
            pid: 1, status: status, cause: cause, failure: failure, use: ResourceUse(), uptime: .seconds(1),
            wasReady: ready != nil, readyFor: ready ?? .zero, requested: false)
    }

    static func delay(_ decision: RestartDecision) -> Duration? {
        if case .restart(let delay, _) = decision { return delay }
        return nil
    }

    // MARK: Gaps

    @Test("a worker that crashes at once is started after 0.1, 0.2, 0.4, 0.8, 1, 1 s")
    func gaps() {
        var machine = Machine(
            .bench {
                $0.restart.delay = .milliseconds(100)
                $0.restart.maxDelay = .seconds(1)
            })
        var gaps: [Int64] = []
        for _ in 1...6 {
            machine.spawn()
            machine.die()
            let died = machine.now
            machine.pass(.seconds(1))
            gaps.append(((machine.spawns.last ?? died) - died).nanoseconds / 1_000_000)
        }
        #expect(gaps == [100, 200, 400, 800, 1000, 1000])
    }

    @Test("jitter keeps every wait within a fifth and makes them differ", arguments: [UInt64(1), 7, 99])
    func jitter(seed: UInt64) {
        var settings = RestartSettings()
        settings.delay = .seconds(1)
        settings.factor = 1
        var policy = RestartPolicy(seed: seed)
        let waits = (1...50).compactMap { _ in
            Self.delay(policy.judge(Self.ending(.code(1)), settings, isFirstStart: false))?.seconds
        }
        #expect(waits.count == 50)
        #expect(waits.allSatisfy { (0.8...1.2).contains($0) })
        #expect(Set(waits).count > 40)
        #expect(waits.contains { $0 < 0.95 } && waits.contains { $0 > 1.05 })
    }

    @Test("the same seed gives the same waits")
    func seeds() {
        func waits(_ seed: UInt64) -> [RestartDecision] {
            var policy = RestartPolicy(seed: seed)
            return (1...9).map { _ in policy.judge(Self.ending(.code(1)), RestartSettings(), isFirstStart: false) }
        }
        #expect(waits(3) == waits(3))
        #expect(waits(3) != waits(4))
    }

    @Test("a thousand failures neither overflow nor pass the ceiling")
    func ceiling() {
        var settings = RestartSettings()
        settings.factor = 1000
        settings.jitter = 0
        var policy = RestartPolicy(seed: 1)
        for n in 1...1000 {
            let delay = Self.delay(policy.judge(Self.ending(.code(1)), settings, isFirstStart: false))
            #expect(delay == (n == 1 ? .milliseconds(250) : .seconds(30)))
        }
    }

    @Test("the wait counts from the end of the leader, not from the empty tree")
    func waitFromTheEnd() {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.exited(.code(1), ResourceUse(), oom: false))
        let died = machine.now
        machine.pass(.milliseconds(200))
        machine.send(.swept(left: [], killed: []))
        machine.pass(.seconds(1))
        #expect(machine.spawns.last == died + .milliseconds(250))
    }

    @Test("no worker starts before the tree of the last one is empty")
    func neverTwoTrees() {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.exited(.code(1), ResourceUse(), oom: false))
        machine.pass(.seconds(2))
        #expect(machine.spawns.count == 1)
        machine.send(.swept(left: [], killed: [Survivor(pid: 7, command: "sleep")]))
        #expect(machine.spawns.count == 2)
        #expect(machine.reports.contains(.survivorsKilled(Generation(1), [Survivor(pid: 7, command: "sleep")])))
    }

    @Test("a tree that not even KILL ends is left behind after 10 s")
    func unkillable() {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.exited(.code(1), ResourceUse(), oom: false))
        machine.pass(.seconds(11))
        #expect(machine.spawns.count == 2)
        #expect(machine.rules.contains(.unkillable))
    }

    // MARK: The count

    @Test("the count returns to zero after 60 s of readiness, and not a moment before")
    func reset() {
        for (ready, expected) in [(Duration.milliseconds(59_900), Duration.seconds(1)), (.seconds(60), .zero)] {
            var policy = RestartPolicy(seed: 1)
            var settings = RestartSettings()
            settings.jitter = 0
            for _ in 1...2 { _ = policy.judge(Self.ending(.code(1)), settings, isFirstStart: false) }
            let decision = policy.judge(Self.ending(.code(1), ready: ready), settings, isFirstStart: false)
            #expect(Self.delay(decision) == expected)
        }
    }

    @Test("flapping just before the reset never gets fast")
    func flapping() {
        var machine = Machine(.bench { $0.restart.maxDelay = .seconds(4) })
        for _ in 1...6 {
            machine.becomeReady()
            for _ in 1...5 {
                machine.pass(.milliseconds(11_000))
                machine.answer(.readiness, .passed)
            }
            machine.die()
            machine.pass(.seconds(4))
        }
        #expect(machine.supervisor.policy.failures == 6)
    }

    @Test("a flap behind a minute of readiness takes nothing back")
    func flapBehindReadiness() {
        var machine = Machine(
            .bench {
                var probe = ProbeSettings(.http("/ready"))
                probe.failures = 1
                $0.worker.readiness = probe
            })
        for _ in 1...3 {
            machine.spawn()
            machine.die()
            machine.pass(.seconds(2))
        }
        machine.becomeReady()
        for _ in 1...7 {
            machine.pass(.seconds(10))
            machine.answer(.readiness, .passed)
        }
        machine.pass(.seconds(10))
        machine.answer(.readiness, .failed("HTTP 503"))
        #expect(machine.state == .unready)
        machine.die()
        #expect(machine.supervisor.policy.failures == 1)
    }

    @Test("only the first of a count waits nothing, and only behind 10 s of readiness")
    func firstIsImmediate() {
        var settings = RestartSettings()
        settings.jitter = 0
        var policy = RestartPolicy(seed: 1)
        let waits = [Duration.seconds(10), .seconds(10), .milliseconds(9999)].map { ready in
            Self.delay(policy.judge(Self.ending(.code(1), ready: ready), settings, isFirstStart: false))
        }
        #expect(waits == [.zero, .milliseconds(500), .seconds(1)])
        policy.clear()
        let short = policy.judge(Self.ending(.code(1), ready: .milliseconds(9999)), settings, isFirstStart: false)
        #expect(Self.delay(short) == .milliseconds(250))
    }

    @Test("a clean end under always is followed by a start after the delay, uncounted")
    func cleanEnd() {
        var settings = RestartSettings()
        settings.limit = 1
        var policy = RestartPolicy(seed: 1)
        for _ in 1...9 {
            let decision = policy.judge(Self.ending(.code(0), ready: .seconds(1)), settings, isFirstStart: false)
            #expect(decision == .restart(after: .milliseconds(250), .cleanEnd(delay: .milliseconds(250))))
        }
        #expect(policy.failures == 0)
    }

    @Test("an end before first ready is a failure whatever its code")
    func earlyZero() {
        var policy = RestartPolicy(seed: 1)
        _ = policy.judge(Self.ending(.code(0)), RestartSettings(), isFirstStart: false)
        #expect(policy.failures == 1)
    }

    // MARK: Policies

    @Test("always restarts after every end", arguments: [ExitStatus.code(0), .code(1), .kill, .segv])
    func always(status: ExitStatus) {
        var machine = Machine()
        for n in 1...4 {
            machine.becomeReady()
            machine.die(status)
            machine.pass(.seconds(5))
            #expect(machine.spawns.count == n + 1)
        }
        #expect(machine.exitCode == nil)
        #expect(machine.supervisor.restarts == 4)
    }

    @Test("on-failure restarts failures, and ends with the code of a clean end")
    func onFailure() {
        var settings = RestartSettings()
        settings.policy = .onFailure
        settings.successCodes = [0, 143]
        for (status, restarts) in [
            (ExitStatus.code(0), false), (.code(143), false), (.code(1), true), (.kill, true), (.segv, true),
        ] {
            var policy = RestartPolicy(seed: 1)
            let decision = policy.judge(Self.ending(status, ready: .seconds(1)), settings, isFirstStart: false)
            #expect((Self.delay(decision) != nil) == restarts, "\(status)")
            if !restarts { #expect(decision == .finish(exitCode: status.shellCode, .cleanEndOnFailure)) }
        }
    }

    @Test(
        "never ends with the worker's own code, or 128 + signal",
        arguments: [(ExitStatus.code(0), 0), (.code(7), 7), (.kill, 137), (.segv, 139)] as [(ExitStatus, Int32)])
    func never(status: ExitStatus, code: Int32) {
        var machine = Machine(.bench { $0.restart.policy = .never })
        machine.becomeReady()
        machine.die(status)
        machine.send(.flushed)
        #expect(machine.exitCode == code)
        #expect(machine.spawns.count == 1)
    }

    @Test("a permanent code gives up before first ready, and is an ordinary failure behind it")
    func permanent() {
        var settings = RestartSettings()
        settings.permanentExitCodes = [3, 4, 126, 127]
        for code in [Int32(3), 4, 126, 127] {
            var policy = RestartPolicy(seed: 1)
            #expect(
                policy.judge(Self.ending(.code(code)), settings, isFirstStart: false)
                    == .giveUp(.permanentExitCode(code), exitCode: 70, holds: false))
            let later = policy.judge(Self.ending(.code(code), ready: .seconds(1)), settings, isFirstStart: false)
            #expect(Self.delay(later) != nil)
        }
        var machine = Machine(.bench { $0.restart.permanentExitCodes = [3] })
        machine.spawn()
        machine.die(.code(3))
        machine.send(.flushed)
        #expect(machine.exitCode == 70)
        #expect(machine.spawns.count == 1)
        #expect(machine.endings.map(\.cause) == [.permanent])
    }

    @Test("more failures in a row than the limit give up, with the limit in the reason")
    func limit() {
        var machine = Machine(
            .bench {
                $0.restart.limit = 3
                $0.restart.onGiveUp = .hold
            })
        for _ in 1...4 {
            #expect(machine.state == .starting)
            machine.spawn()
            machine.die()
            machine.pass(.seconds(5))
        }
        #expect(machine.state == .failed)
        #expect(machine.reports.contains(.workerFailed(Generation(4), .limitExceeded(3))))
        #expect(machine.supervisor.deadline == nil)
        machine.send(.restart)
        #expect(machine.state == .starting)
        #expect(machine.supervisor.policy.failures == 0)
        machine.send(.spawned(pid: 5))
        machine.die()
        #expect(machine.state == .backoff)
    }

    @Test("a hold that is stopped ends with 0, giving up with 70")
    func giveUpExit() {
        for (action, code) in [(GiveUpAction.hold, Int32(0)), (.exit, 70)] {
            var machine = Machine(
                .bench {
                    $0.restart.limit = 0
                    $0.restart.onGiveUp = action
                })
            machine.spawn()
            machine.die()
            #expect(machine.state == .failed)
            if action == .hold { machine.send(.stop(by: "SIGTERM")) }
            machine.send(.flushed)
            #expect(machine.exitCode == code)
        }
    }

    // MARK: Starts that fail

    @Test(
        "the first start that cannot be ends panelind: 127, 126, 71, whatever onGiveUp says",
        arguments: [
            (StartFailure.Kind.notFound, 127), (.notExecutable, 126), (.noProcess, 71),
        ] as [(StartFailure.Kind, Int32)], [GiveUpAction.exit, .hold])
    func firstStart(_ row: (kind: StartFailure.Kind, code: Int32), onGiveUp: GiveUpAction) {
        var machine = Machine(.bench { $0.restart.onGiveUp = onGiveUp })
        machine.send(.start)
        machine.send(.spawnFailed(StartFailure(row.kind, "cannot start worker")))
        machine.send(.flushed)
        #expect(machine.exitCode == row.code)
    }

    @Test("at a later start a missing command gives up, and a missing process is one failure more")
    func laterStart() {
        var machine = Machine()
        machine.spawn()
        machine.die()
        machine.pass(.seconds(1))
        machine.send(.spawnFailed(StartFailure(.noProcess, "cannot start worker: EAGAIN")))
        #expect(machine.state == .backoff)
        machine.pass(.seconds(1))
        machine.send(.spawnFailed(StartFailure(.notFound, "cannot start worker: ENOENT")))
        machine.send(.flushed)
        #expect(machine.exitCode == 70)
        #expect(machine.endings.map(\.cause) == [.exit, .exit, .notFound])
    }

    @Test("a first preparation that fails is tried again; one that hangs fails at the startup deadline")
    func preparation() {
        var machine = Machine(.bench { $0.worker.needsPreparation = true })
        machine.send(.start)
        machine.send(.prepareFailed(StartFailure(.other, "cannot read secret")))
        machine.pass(.seconds(1))
        #expect(machine.life == .preparing(until: machine.now + .milliseconds(59_250)))
        machine.pass(.seconds(60))
        #expect(machine.endings.count == 2)
        #expect(machine.spawns.isEmpty)
        #expect(machine.endings.last?.text == "cannot prepare worker g2: no answer in time")
    }

    @Test("causes follow from how the leader ended")
    func causes() {
        for (status, oom, cause) in [
            (ExitStatus.code(1), false, ExitCause.exit), (.segv, false, .signal), (.kill, true, .oom),
            (.segv, true, .signal), (.kill, false, .signal),
        ] {
            var machine = Machine()
            machine.becomeReady()
            machine.die(status, oom: oom)
            #expect(machine.endings.map(\.cause) == [cause])
        }
    }
}

extension ExitStatus {
    static let kill = ExitStatus.signal(.kill, coreDumped: false)
    static let segv = ExitStatus.signal(Signal(number: 11), coreDumped: true)
}
