//  HealthTests.swift
//  What /health and /ready say in every state, where requests go, and when systemd hears of it.
//  Read Machine.swift and Setups.swift first.

import Testing

@testable import PanelindCore

@Suite("Health and routes")
struct HealthTests {
    @Test("every state has its row of CONTRACT section 4")
    func states() {
        for state in State.allCases {
            let snapshot = HealthSnapshot(state: state, generation: 1, restarts: 0, retryAfter: .seconds(1))
            #expect(snapshot.isAlive == (state != .failed))
            #expect(snapshot.isReady == (state == .ready))
            let reason: NotReadyReason? =
                switch state {
                case .ready: nil
                case .starting: .workerStarting
                case .unready: .workerUnready
                case .backoff: .workerBackoff
                case .failed: .workerFailed
                case .draining: .draining
                case .stopping, .stopped: .stopping
                }
            #expect(state.reason == reason)
        }
        let words = Set(NotReadyReason.allCases.map(\.rawValue))
        let known: Set = [
            "worker_starting", "worker_unready", "worker_backoff", "worker_failed", "draining", "stopping",
        ]
        #expect(words == known)
    }

    @Test("Retry-After is whole seconds, rounded up, from 1 to 3600")
    func retryAfter() {
        for (wait, seconds) in [
            (Duration.zero, 1), (.milliseconds(1), 1), (.seconds(1), 1), (.milliseconds(1001), 2), (.seconds(90), 90),
            (.seconds(7200), 3600), (.seconds(-5), 1),
        ] {
            let snapshot = HealthSnapshot(state: .backoff, generation: 1, restarts: 0, retryAfter: wait)
            #expect(snapshot.retryAfterSeconds == seconds)
        }
    }

    @Test("the published snapshot is the machine's state after every step", arguments: Setup.allCases)
    func published(setup: Setup) {
        let machine = setup.machine
        let last = machine.log.compactMap { entry in
            if case .publish(let snapshot) = entry.action { snapshot } else { nil }
        }.last
        #expect((last?.state ?? .starting) == machine.state)
        #expect((last?.generation ?? 0) == machine.supervisor.newest.number)
        #expect((last?.restarts ?? 0) == machine.supervisor.restarts)
    }

    @Test("readiness is taken back before anything else of a step is done")
    func first() {
        for wish in [OperatorEvent.stop(by: "SIGTERM"), .restart] {
            var machine = Setup.ready.machine
            let actions = machine.send(wish)
            let routed = actions.firstIndex { if case .front(.route) = $0 { true } else { false } }
            let published = actions.firstIndex { if case .publish = $0 { true } else { false } }
            #expect(routed == 0 && published == 1)
        }
    }

    @Test("every place has its route", arguments: Setup.allCases)
    func routes(setup: Setup) {
        let machine = setup.machine
        let g1 = Generation(1)
        let wanted: Route =
            switch setup {
            case .waiting, .preparing, .spawning, .spawningToLeave, .starting, .refusing, .unready, .crashed,
                .livenessFailed, .backoff, .restarting:
                .hold
            case .ready, .doubted, .trial: .forward(g1)
            case .predecessor: .forward(Generation(2))
            case .delay, .drain: .lastCall(g1)
            case .lastDrain: .refuse(.draining, retryAfter: .seconds(1))
            case .signalled, .killing, .sweepingInGrace, .stopSweep, .policyEnd, .flushing, .exited:
                .refuse(.stopping, retryAfter: .seconds(1))
            case .failed: .refuse(.workerFailed, retryAfter: .seconds(30))
            }
        #expect(machine.supervisor.route == wanted)
    }

    @Test("a backoff longer than the hold refuses, and holds again as soon as its rest is within the hold")
    func longBackoff() {
        var machine = Machine(
            .bench {
                $0.restart.delay = .seconds(30)
                $0.hold = .seconds(10)
            })
        machine.spawn()
        machine.die()
        #expect(machine.routes.last == .refuse(.workerBackoff, retryAfter: .seconds(30)))
        machine.pass(.milliseconds(19_999))
        #expect(machine.routes.last == .refuse(.workerBackoff, retryAfter: .seconds(30)))
        machine.pass(.milliseconds(1))
        #expect(machine.routes.last == .hold)
        #expect(machine.spawns.count == 1)
        machine.pass(.seconds(10))
        #expect(machine.spawns.count == 2)
    }

    @Test("restarts count unplanned replacements only")
    func restarts() {
        var machine = Machine()
        machine.becomeReady()
        machine.die()
        machine.pass(.seconds(1))
        #expect(machine.supervisor.restarts == 1)
        machine.becomeReady()
        machine.send(.restart)
        machine.die(.code(0))
        #expect(machine.supervisor.restarts == 1)
        #expect(machine.supervisor.newest == Generation(3))
    }

    @Test("systemd hears READY=1 once, a status at every change, and pings at their period")
    func systemd() {
        var machine = Machine(.bench { $0.watchdogPing = .seconds(5) })
        machine.becomeReady()
        machine.die()
        machine.pass(.seconds(1))
        machine.becomeReady()
        #expect(machine.log.count { $0.action == .notify(.ready) } == 1)
        let sentences = machine.log.compactMap { entry in
            if case .notify(.status(let text)) = entry.action { text } else { nil }
        }
        #expect(
            sentences == [
                "worker g1 is starting", "worker g1 is ready", "the next start is in 250ms: worker g1 ended: exit 1",
                "worker g2 is starting; before: worker g1 ended: exit 1", "worker g2 is ready",
            ])
        machine.pass(.seconds(60))
        #expect(machine.log.count { $0.action == .notify(.watchdog) } == 12)
    }

    @Test("a backoff beyond the hold refuses from the death on, also while the tree is swept")
    func refusesAtOnce() {
        var machine = Machine(.bench { $0.restart.delay = .seconds(12) })
        machine.becomeReady()
        machine.send(.exited(.code(1), ResourceUse(), oom: false))
        #expect(machine.routes.last == .refuse(.workerBackoff, retryAfter: .seconds(12)))
        // A sweep that takes longer than it has to be refused: who comes now can be served.
        machine.send(.swept(left: [Survivor(pid: 7, command: "child")], killed: []))
        machine.pass(.milliseconds(2100))
        #expect(machine.routes.last == .hold)
    }

    @Test("what systemd does not take now is sent again in 100 ms, and only then is there a deadline for it")
    func busy() {
        var machine = Machine()
        machine.becomeReady()
        let before = machine.supervisor.deadline
        machine.send(.serviceBusy)
        machine.send(.serviceBusy)
        machine.pass(.milliseconds(150))
        #expect(machine.log.count { $0.action == .notify(.kept) } == 1)
        #expect(machine.supervisor.deadline == before)
    }

    @Test("the status says what went wrong until a worker is ready again")
    func trouble() {
        var machine = Machine(.bench { $0.restart.limit = 1 })
        machine.spawn()
        machine.pass(.seconds(61))
        let why = ": it was not ready within 60s: no answer in 1s (probe.startup.deadline)"
        #expect(machine.status == "worker g1 is being replaced" + why)
        machine.die(.signal(.terminate, coreDumped: false))
        #expect(machine.status?.hasPrefix("the next start is in ") == true)
        #expect(machine.status?.hasSuffix(why) == true)
        machine.pass(.seconds(1))
        machine.spawn()
        machine.die(.code(3))
        #expect(machine.status == "gave up: more than 1 failures in a row (restart.limit); worker g2 ended: exit 3")
    }

    @Test("signals pass to a leader, and to nobody where there is none")
    func pass() {
        for setup in Setup.allCases {
            var machine = setup.machine
            let hasLeader = machine.supervisor.current?.hasLeader == true
            #expect(machine.send(.pass(.user1)).count == (hasLeader ? 1 : 0), "\(setup)")
        }
    }
}
