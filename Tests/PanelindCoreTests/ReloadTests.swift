//  ReloadTests.swift
//  Two generations: reloads that overlap, fail, are cut short or refused; restarts in every state.
//  Read Machine.swift and Setups.swift first.

import Testing

@testable import PanelindCore

@Suite("Reloads and restarts")
struct ReloadTests {
    static let g1 = Generation(1), g2 = Generation(2), g3 = Generation(3)

    static func ends(_ machine: Machine) -> [String?] {
        machine.reports.compactMap { report -> String?? in
            if case .reloadEnd(_, let failure) = report { failure } else { nil }
        }
    }

    @Test("the successor starts beside the old one, takes over when ready, and the old one drains and leaves")
    func overlap() {
        var machine = Setup.trial.machine
        #expect(machine.current == Self.g1)
        #expect(machine.state == .ready)
        #expect(machine.routes == [.forward(Self.g1)])
        machine.answer(.readiness, .passed, of: Self.g2)
        #expect(machine.current == Self.g2)
        #expect(machine.state == .ready)
        #expect(machine.routes == [.forward(Self.g1), .forward(Self.g2)])
        #expect(Self.ends(machine) == [nil])
        #expect(machine.log.contains { $0.action == .front(.reportDrain(Self.g1)) })
        #expect(machine.signals(to: Self.g1).isEmpty)
        machine.send(.front(.drained(Self.g1)))
        #expect(machine.signals(to: Self.g1) == ["TERM group"])
        machine.send(.exited(.code(0), ResourceUse(), oom: false), of: Self.g1)
        machine.send(.swept(left: [], killed: []), of: Self.g1)
        #expect(machine.supervisor.other == nil)
        #expect(machine.endings.count == 1)
        #expect(machine.endings.first?.requested == true)
        #expect(machine.supervisor.restarts == 0)
        #expect(machine.state == .ready)
    }

    @Test("systemd is told RELOADING=1, and READY=1 at the end, also of one that failed")
    func systemd() {
        var machine = Setup.trial.machine
        #expect(machine.log.contains { $0.action == .notify(.reloading) })
        let ready = machine.log.count { $0.action == .notify(.ready) }
        machine.send(.exited(.code(1), ResourceUse(), oom: false), of: Self.g2)
        #expect(machine.log.count { $0.action == .notify(.ready) } == ready + 1)
    }

    @Test("a successor that ends on trial is discarded, and the old one keeps serving")
    func failing() {
        var machine = Setup.trial.machine
        machine.send(.exited(.code(3), ResourceUse(), oom: false), of: Self.g2)
        machine.send(.swept(left: [], killed: []), of: Self.g2)
        #expect(Self.ends(machine) == ["exit 3"])
        #expect(machine.state == .ready)
        #expect(machine.routes == [.forward(Self.g1)])
        #expect(machine.supervisor.policy.failures == 0)
        #expect(machine.supervisor.other == nil)
        machine.answer(.readiness, .passed)
        machine.pass(.seconds(5))
        #expect(machine.spawns.count == 2)
    }

    @Test("a successor that cannot be started, or is not ready in time, is discarded")
    func cannotStart() {
        var machine = Setup.ready.machine
        machine.send(.reload(machine.supervisor.settings))
        machine.send(.prepareFailed(StartFailure(.other, "cannot read secret KEY")), of: Self.g2)
        #expect(Self.ends(machine) == ["cannot read secret KEY"])
        #expect(machine.state == .ready)

        machine.supervisor.settings.worker.startupDeadline = .seconds(1)
        machine.send(.reload(machine.supervisor.settings))
        machine.send(.prepared, of: Self.g3)
        machine.send(.spawned(pid: 3), of: Self.g3)
        machine.pass(.seconds(1))
        #expect(Self.ends(machine).last == "startup_deadline")
        #expect(machine.signals(to: Self.g3) == ["TERM group"])
        #expect(machine.state == .ready)
    }

    @Test("when the old one dies during the trial, its successor becomes the current one")
    func oldDies() {
        var machine = Setup.trial.machine
        machine.die(.segv)
        #expect(machine.current == Self.g2)
        #expect(machine.state == .starting)
        // No start of another is announced that will never be.
        #expect(machine.rules.contains(.successorStarts))
        let waits = machine.reports.compactMap { report -> Duration?? in
            if case .workerExited(_, _, let restartIn) = report { restartIn } else { nil }
        }
        #expect(waits == [.zero])
        #expect(!machine.reports.contains { if case .workerBackoff = $0 { true } else { false } })
        #expect(machine.routes.last == .hold)
        machine.answer(.readiness, .passed, of: Self.g2)
        #expect(machine.state == .ready)
        #expect(Self.ends(machine) == [nil])
        #expect(machine.spawns.count == 2)
    }

    @Test("one that died before its successor took over is reported once, and its backoff is over")
    func oldDiesJustBefore() {
        var machine = Setup.trial.machine
        machine.send(.exited(.segv, ResourceUse(), oom: false), of: Self.g1)
        machine.answer(.readiness, .passed, of: Self.g2)
        #expect(machine.state == .ready)
        #expect(machine.supervisor.pause == .none)
        machine.send(.swept(left: [], killed: []), of: Self.g1)
        #expect(machine.endings.count == 1)
        #expect(machine.supervisor.other == nil)
    }

    @Test("when both die, one backoff follows, without a spin while the second leaves")
    func bothDie() {
        var machine = Machine()
        machine.becomeReady()
        machine.send(.reload(machine.supervisor.settings))
        machine.send(.spawned(pid: 2), of: Self.g2)
        machine.pass(.seconds(60))
        #expect(Self.ends(machine) == ["startup_deadline"])
        machine.send(.exited(.code(1), ResourceUse(), oom: false), of: Self.g1)
        machine.send(.swept(left: [], killed: []), of: Self.g1)
        #expect(machine.state == .backoff)
        machine.pass(.seconds(3))
        #expect(machine.rules.allSatisfy { if case .clockGap = $0 { false } else { true } })
        #expect(machine.spawns.count == 2)
        machine.send(.exited(.code(1), ResourceUse(), oom: false), of: Self.g2)
        machine.send(.swept(left: [], killed: []), of: Self.g2)
        #expect(machine.supervisor.newest == Self.g3)
    }

    @Test("the policy's end ends the trial with it, in the same step, also of one that has no process yet")
    func policyEndsDuringReload() {
        for isSpawned in [false, true] {
            var machine = Machine(
                .bench {
                    $0.worker.needsPreparation = true
                    $0.restart.policy = .never
                })
            machine.becomeReady()
            machine.send(.reload(machine.supervisor.settings))
            if isSpawned {
                machine.send(.prepared, of: Self.g2)
                machine.send(.spawned(pid: 2), of: Self.g2)
            }
            machine.send(.exited(.code(5), ResourceUse(), oom: false), of: Self.g1)
            #expect(Self.ends(machine) == ["panelind ends"])
            #expect(machine.supervisor.hasOther == isSpawned)
            #expect(machine.send(.prepared, of: Self.g2).isEmpty)
            if isSpawned {
                machine.send(.exited(.code(0), ResourceUse(), oom: false), of: Self.g2)
                machine.send(.swept(left: [], killed: []), of: Self.g2)
            }
            #expect(machine.send(.swept(left: [], killed: []), of: Self.g1).contains(.flush))
            machine.send(.flushed)
            #expect(machine.exitCode == 5)
        }
    }

    @Test("a stop during a reload ends both and never spawns")
    func stopDuringReload() {
        for setup in [Setup.trial, .predecessor] {
            var machine = setup.machine
            machine.send(.stop(by: "SIGTERM"))
            for generation in [Self.g1, Self.g2] {
                machine.send(.exited(.code(0), ResourceUse(), oom: false), of: generation)
                machine.send(.swept(left: [], killed: []), of: generation)
            }
            machine.send(.flushed)
            #expect(machine.exitCode == 0)
            #expect(machine.spawns.count == 2)
            #expect(Self.ends(machine) == (setup == .trial ? ["panelind stops"] : [nil]))
        }
    }

    @Test("READY=1 of a reload that a stop ends comes before STOPPING=1")
    func stoppingIsLast() {
        var machine = Setup.trial.machine
        let notices = machine.send(.stop(by: "SIGTERM")).filter { $0 == .notify(.ready) || $0 == .notify(.stopping) }
        #expect(notices == [.notify(.ready), .notify(.stopping)])
    }

    @Test("a second reload is refused, and the first goes on")
    func second() {
        var machine = Setup.trial.machine
        let state = machine.state
        machine.send(.reload(machine.supervisor.settings))
        #expect(Self.ends(machine).last == "another reload is under way")
        #expect(machine.state == state)
        #expect(machine.supervisor.newest == Self.g2)
    }

    /// The last reload is over and its predecessor still leaves; another reload was asked for.
    private static var waiting: Machine {
        var machine = Setup.predecessor.machine
        var new = machine.supervisor.settings
        new.revision = 7
        machine.send(.reload(new))
        return machine
    }

    @Test("a reload behind a reload begins when the predecessor of the first is gone")
    func behind() {
        var machine = Self.waiting
        #expect(machine.supervisor.newest == Self.g2)
        #expect(machine.state == .ready)
        machine.send(.reload(machine.supervisor.settings))
        #expect(Self.ends(machine).last == "another reload is under way")
        machine.send(.exited(.code(0), ResourceUse(), oom: false), of: Self.g1)
        machine.send(.swept(left: [], killed: []), of: Self.g1)
        #expect(machine.supervisor.newest == Self.g3)
        #expect(machine.supervisor.other?.settings.revision == 7)
        #expect(machine.state == .ready)
    }

    @Test("a stop and a restart call a reload off that has not begun")
    func calledOff() {
        for (wish, why) in [
            (OperatorEvent.stop(by: "SIGTERM"), "panelind stops"), (.restart, "a restart was asked for"),
        ] {
            var machine = Self.waiting
            machine.send(wish)
            #expect(Self.ends(machine).last == why)
            machine.send(.exited(.code(0), ResourceUse(), oom: false), of: Self.g1)
            machine.send(.swept(left: [], killed: []), of: Self.g1)
            #expect(machine.supervisor.other == nil)
            #expect(machine.supervisor.newest == Self.g2)
        }
    }

    @Test("without overlap the old one stops first while requests wait, and the new settings hold")
    func direct() {
        var machine = Machine(.direct())
        machine.spawn()
        machine.pass(.seconds(1))
        var new = machine.supervisor.settings
        new.revision = 1
        machine.send(.reload(new))
        #expect(machine.state == .starting)
        #expect(machine.signals(to: Self.g1) == ["TERM group"])
        #expect(machine.spawns.count == 1)
        machine.die(.code(0))
        #expect(machine.log.contains { $0.action == .worker(Self.g2, .spawn(revision: 1)) })
        machine.send(.spawned(pid: 2))
        #expect(Self.ends(machine).isEmpty)
        machine.pass(.seconds(1))
        #expect(machine.state == .ready)
        #expect(Self.ends(machine) == [nil])
        #expect(machine.supervisor.restarts == 0)
    }

    @Test("a reload without overlap that fails says so, and the policy follows")
    func directFails() {
        var machine = Machine(.direct())
        machine.spawn()
        machine.pass(.seconds(1))
        machine.send(.reload(machine.supervisor.settings))
        machine.die(.code(0))
        machine.send(.spawned(pid: 2))
        machine.die(.code(2))
        #expect(Self.ends(machine) == ["exit 2"])
        #expect(machine.state == .backoff)
    }

    @Test("in backoff and when given up a reload starts the new one at once", arguments: [Setup.backoff, .failed])
    func paused(setup: Setup) {
        var machine = setup.machine
        machine.send(.reload(machine.supervisor.settings))
        #expect(machine.state == .starting)
        machine.send(.prepared)
        machine.send(.spawned(pid: 9))
        machine.answer(.readiness, .passed)
        #expect(Self.ends(machine) == [nil])
        #expect(machine.supervisor.policy.failures == 0)
    }

    // MARK: Restarts

    @Test("a restart gives exactly one new worker in every state, and counts no failure", arguments: Setup.allCases)
    func restartEverywhere(setup: Setup) {
        var machine = setup.machine
        let newest = machine.supervisor.newest
        let restarts = machine.supervisor.restarts
        let isEnding: Bool
        switch machine.supervisor.intent {
        case .run: isEnding = false
        case .wait, .stop, .leave: isEnding = true
        }
        machine.send(.restart)
        machine.send(.restart)
        for generation in machine.supervisor.generations where generation <= newest {
            machine.send(.spawned(pid: 5), of: generation)
            machine.send(.exited(.code(0), ResourceUse(), oom: false), of: generation)
            machine.send(.swept(left: [], killed: []), of: generation)
        }
        if isEnding {
            #expect(machine.supervisor.newest == newest)
            return
        }
        // The second of two restarts in a state without a process finds the first one's worker and replaces it.
        let isDoubled = machine.supervisor.newest == newest.next.next
        let mayDouble = [.backoff, .failed, .preparing].contains(setup)
        #expect(machine.supervisor.newest == newest.next || isDoubled && mayDouble)
        #expect(machine.supervisor.generations == [machine.supervisor.newest])
        #expect(machine.state == .starting)
        #expect(machine.supervisor.policy.failures == 0)
        #expect(machine.supervisor.restarts == restarts)
    }

    @Test("a restart holds new requests and signals at once, without delay or drain")
    func restartIsNoDrain() {
        var machine = Setup.ready.machine
        machine.send(.restart)
        #expect(machine.routes.last == .hold)
        #expect(machine.signals(to: Self.g1) == ["TERM group"])
        machine.pass(.milliseconds(4500))
        #expect(machine.signals(to: Self.g1).contains("sweep KILL"))
        machine.die(.kill)
        #expect(machine.endings.map(\.cause) == [.requested])
        #expect(machine.supervisor.newest == Self.g2)
    }

    @Test("a restart in a trial discards the successor and starts one worker for both")
    func restartInTrial() {
        var machine = Setup.trial.machine
        machine.send(.restart)
        #expect(Self.ends(machine) == ["a restart was asked for"])
        for generation in [Self.g1, Self.g2] {
            #expect(machine.supervisor.newest == Self.g2)
            machine.send(.exited(.code(0), ResourceUse(), oom: false), of: generation)
            machine.send(.swept(left: [], killed: []), of: generation)
        }
        #expect(machine.supervisor.newest == Self.g3)
        #expect(machine.supervisor.generations == [Self.g3])
    }
}
