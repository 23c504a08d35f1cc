//  StopTests.swift
//  A stop is one absolute deadline: its division, its signals, its early ends, in every state.
//  Read Machine.swift and Setups.swift first.

import Testing

@testable import PanelindCore

@Suite("Stops")
struct StopTests {
    @Test("the budget is divided into delay, drain and grace, and KILL leaves half a second")
    func division() {
        var machine = Setup.ready.machine
        let start = machine.now
        machine.log = []
        machine.send(.stop(by: "SIGTERM"))
        #expect(machine.routes.last == .lastCall(Generation(1)))
        machine.pass(.seconds(60))
        let steps = machine.log.compactMap { entry in
            entry.action.brief.map { "\((entry.at - start).text) \($0)" }
        }
        let wanted = [
            "1s report drain g1", "3s route refuse draining 1s", "4s g1 TERM to group",
            "8.5s cut g1", "8.5s g1 sweep KILL",
        ]
        #expect(wanted.allSatisfy(steps.contains), "\(steps)")
        #expect(machine.log.contains { $0.action == .flush && $0.at - start <= .milliseconds(8950) })
        #expect(machine.exitCode == 0)
        #expect(machine.log.last.map { $0.at - start <= .seconds(9) } == true)
        #expect(machine.spawns.isEmpty)
    }

    @Test(
        "only a stop and a drain answer what a killed worker still had; of another end its clients learn by the death")
    func whoAnswers() {
        var hung = Machine(
            .bench {
                $0.stop.grace = .seconds(3)
                $0.stop.graceIsSet = true
            })
        hung.becomeReady()
        hung.send(.restart)
        hung.pass(.seconds(4))
        #expect(hung.log.contains { $0.action == .worker(Generation(1), .sweep(.kill, sparingGroup: false)) })
        #expect(!hung.log.contains { $0.action == .front(.cut(Generation(1))) })
        // Not even KILL ends it: nobody waits for it any longer.
        hung.pass(.seconds(11))
        #expect(hung.log.contains { $0.action == .front(.cut(Generation(1))) })
    }

    @Test("a worker that leaves early ends the stop at once")
    func early() {
        var machine = Setup.signalled.machine
        let start = machine.now
        machine.pass(.milliseconds(100))
        machine.die(.code(0))
        machine.send(.flushed)
        #expect(machine.exitCode == 0)
        #expect(machine.now - start == .milliseconds(100))
    }

    @Test("the drain ends with the last request, or as soon as only streams are left")
    func drainEnds() {
        for event in [FrontEvent.drained(Generation(1)), .onlyStreamsLeft(Generation(1))] {
            for setup in [Setup.drain, .lastDrain] {
                var machine = setup.machine
                machine.send(.front(event))
                #expect(machine.signals(to: Generation(1)) == ["TERM group"])
            }
        }
        var early = Setup.delay.machine
        early.send(.front(.drained(Generation(1))))
        #expect(early.signals(to: Generation(1)).isEmpty)
    }

    @Test("the list of signals escalates, and the last waits for the rest of the grace")
    func escalation() {
        var machine = Machine(
            .direct {
                $0.stop.steps = [
                    StopStep(.terminate, wait: .seconds(2)), StopStep(.interrupt, wait: .seconds(1)), StopStep(.quit),
                ]
                $0.stop.target = .leader
            })
        machine.spawn()
        let start = machine.now
        machine.send(.stop(by: "SIGTERM"))
        machine.pass(.seconds(9))
        let times = machine.log.compactMap { entry -> String? in
            guard case .worker(_, .signal(let signal, let target)) = entry.action else { return nil }
            return "\((entry.at - start).text) \(signal.shortName) \(target)"
        }
        #expect(times == ["0s TERM leader", "2s INT leader", "3s QUIT leader"])
        #expect(machine.rules.contains(.graceOver(.milliseconds(8500))))
    }

    @Test("a set grace counts from the signal; else the grace is all that is left")
    func grace() {
        for (isSet, kill) in [(true, Duration.seconds(4)), (false, .milliseconds(8500))] {
            var machine = Machine(
                .bench {
                    $0.stop.grace = .seconds(3)
                    $0.stop.graceIsSet = isSet
                })
            machine.becomeReady()
            let start = machine.now
            machine.send(.stop(by: "SIGTERM"))
            machine.pass(.seconds(1))
            machine.send(.front(.drained(Generation(1))))
            machine.pass(.seconds(8))
            let killed = machine.log.first { $0.action == .worker(Generation(1), .sweep(.kill, sparingGroup: false)) }
            #expect(killed.map { $0.at - start } == kill)
        }
    }

    @Test("a restart takes the whole grace of its own, and a stop behind it binds it to the budget")
    func bind() {
        var machine = Setup.restarting.machine
        let start = machine.now
        machine.pass(.seconds(1))
        guard case .leaving(let plan)? = machine.life else { Issue.record("not leaving"); return }
        #expect(plan.killAt == start + .milliseconds(4500))
        machine.supervisor.settings.stop.budget = .seconds(2)
        machine.send(.stop(by: "SIGTERM"))
        machine.pass(.seconds(60))
        let kill = machine.log.first { $0.action == .front(.cut(Generation(1))) }
        #expect(kill.map { $0.at - start } == .milliseconds(2500))
        #expect(machine.exitCode == 0)
        #expect(machine.log.last.map { $0.at - start <= .seconds(3) } == true)
    }

    @Test("a drain that a stop binds leaves room for the grace")
    func bindDrain() {
        var stop = StopSettings()
        stop.budget = .seconds(60)
        stop.drain = .seconds(30)
        stop.grace = .seconds(5)
        let now = Instant.zero + .seconds(100)
        var plan = StopPlan(.replaced, stop, serving: true, drains: true, end: nil, at: now)
        plan.beginDrain()
        plan.bind(to: now + .seconds(10))
        #expect(plan.drainUntil == now + .milliseconds(4500))
        #expect(plan.serveUntil <= plan.drainUntil)
        #expect(plan.killBy == now + .milliseconds(9500))
    }

    @Test("the rest of the tree keeps what remains of the grace behind its leader")
    func restOfTheTree() {
        var machine = Setup.signalled.machine
        let signalled = machine.now
        machine.pass(.milliseconds(100))
        let actions = machine.send(.exited(.code(0), ResourceUse(), oom: false))
        #expect(actions.contains(.worker(Generation(1), .sweep(.terminate, sparingGroup: true))))
        let left = [Survivor(pid: 9, command: "sleep 60")]
        machine.send(.swept(left: left, killed: []))
        machine.pass(.seconds(3))
        #expect(!machine.signals(to: Generation(1)).contains("sweep KILL"))
        machine.pass(.milliseconds(2500))
        let kill = machine.log.first { $0.action == .worker(Generation(1), .sweep(.kill, sparingGroup: false)) }
        #expect(kill.map { $0.at - signalled } == .milliseconds(5500))
        machine.send(.swept(left: [], killed: left))
        #expect(machine.reports.contains(.survivorsKilled(Generation(1), left)))
        machine.send(.flushed)
        #expect(machine.exitCode == 0)
    }

    @Test("a process in uninterruptible sleep is reported, not waited for")
    func uninterruptible() {
        var machine = Setup.stopSweep.machine
        let asleep = [Survivor(pid: 9, command: "dd", uninterruptible: true)]
        machine.send(.swept(left: asleep, killed: []))
        #expect(machine.reports.contains(.survivorsLeft(Generation(1), asleep)))
        machine.send(.flushed)
        #expect(machine.exitCode == 0)
    }

    @Test("a stop ends within its budget from every state, with 0 and without a spawn", arguments: Setup.allCases)
    func everywhere(setup: Setup) {
        var machine = setup.machine
        let start = machine.now
        let spawns = machine.spawns.count
        machine.send(.stop(by: "SIGTERM"))
        // The answers of the shell that must come.
        for generation in machine.supervisor.generations { machine.send(.spawned(pid: 5), of: generation) }
        machine.pass(.seconds(60))
        #expect(machine.spawns.count == spawns)
        #expect(machine.exitCode == (setup == .policyEnd ? 7 : 0))
        // The policy's own end had begun: only its tree is bound to the budget, and its flush has half a second.
        let budget: Duration = setup == .policyEnd ? .milliseconds(9500) : .seconds(9)
        #expect(machine.log.last.map { $0.at - start <= budget } == true)
        #expect(machine.supervisor.deadline == nil)
    }

    @Test(
        "a stop where nothing runs waits for the flush alone",
        arguments: [Setup.waiting, .backoff, .failed, .preparing])
    func immediate(setup: Setup) {
        var machine = setup.machine
        #expect(machine.send(.stop(by: "SIGTERM")).contains(.flush))
        #expect(machine.send(.flushed).last == .exit(0))
    }

    @Test("a flush that does not come does not keep panelind")
    func lostFlush() {
        var machine = Setup.flushing.machine
        machine.pass(.seconds(9))
        #expect(machine.exitCode == 0)
    }

    @Test("a second stop changes nothing")
    func second() {
        for setup in [Setup.delay, .drain, .lastDrain, .signalled, .killing, .sweepingInGrace, .stopSweep, .flushing] {
            var machine = setup.machine
            let deadline = machine.supervisor.deadline
            #expect(machine.send(.stop(by: "SIGTERM")).isEmpty)
            #expect(machine.supervisor.deadline == deadline)
        }
    }

    @Test("a second interrupt kills the tree now", arguments: Setup.allCases)
    func killNow(setup: Setup) {
        var machine = setup.machine
        guard setup != .policyEnd else { return }
        let generations = machine.supervisor.generations
        machine.send(.killNow)
        for generation in generations { machine.send(.spawned(pid: 5), of: generation) }
        for generation in machine.supervisor.generations {
            #expect(machine.signals(to: generation).contains("sweep KILL"), "\(setup)")
            machine.send(.exited(.kill, ResourceUse(), oom: false), of: generation)
            machine.send(.swept(left: [], killed: []), of: generation)
        }
        machine.send(.flushed)
        #expect(machine.exitCode == 0)
    }

    @Test("a clock gap never extends a stop", arguments: [Setup.delay, .drain, .signalled, .sweepingInGrace])
    func gap(setup: Setup) {
        var machine = setup.machine
        machine.freeze(.seconds(30))
        #expect(machine.signals(to: Generation(1)).contains("sweep KILL"))
        #expect(machine.rules.contains { if case .clockGap = $0 { true } else { false } })
        machine.pass(.seconds(1))
        #expect(machine.exitCode == 0)
    }

    @Test("KILL that was sent before a clock gap has its time behind it, whoever wakes the machine")
    func killingGap() {
        for wakes in [Event.time, .operator(.killNow), .operator(.resume)] {
            for setup in [Setup.killing, .stopSweep] {
                var machine = setup.machine
                machine.now = machine.now + .seconds(60)
                machine.send(wakes)
                if wakes != .time { machine.send(.time) }
                #expect(!machine.rules.contains(.unkillable), "\(setup), \(wakes)")
                machine.pass(.seconds(1))
                #expect(machine.rules.contains(.unkillable), "\(setup), \(wakes)")
            }
        }
    }

    @Test("SIGCONT again and again gives KILL no more time")
    func killingUnderContinues() {
        for setup in [Setup.killing, .stopSweep] {
            var machine = setup.machine
            for _ in 0..<20 {
                machine.pass(.milliseconds(100))
                machine.send(.resume)
            }
            #expect(machine.rules.contains(.unkillable), "\(setup)")
        }
    }

    @Test("a leader that KILL does not end is reported after ten seconds, however long the budget is")
    func unkillableLeader() {
        var machine = Machine(.bench { $0.stop.budget = .seconds(60) })
        machine.becomeReady()
        machine.send(.stop(by: "SIGTERM"))
        machine.send(.killNow)
        machine.pass(.milliseconds(9900))
        #expect(!machine.rules.contains(.unkillable))
        machine.pass(.milliseconds(200))
        #expect(machine.rules.contains(.unkillable))
    }

    @Test("EXTEND_TIMEOUT_USEC moves no stop")
    func extend() {
        var machine = Setup.signalled.machine
        let deadline = machine.supervisor.deadline
        machine.send(.notified(.extendTimeout(.seconds(90))))
        #expect(machine.supervisor.deadline == deadline)
    }

    @Test("a worker that dies in the drain has its requests refused and its tree killed")
    func deathInDrain() {
        var machine = Setup.drain.machine
        machine.send(.exited(.segv, ResourceUse(), oom: false))
        #expect(machine.signals(to: Generation(1)) == ["sweep KILL"])
        #expect(machine.endings.map(\.requested) == [true])
    }

    @Test("systemd is told of the stop, and how long it may take")
    func systemd() {
        var machine = Setup.ready.machine
        let actions = machine.send(.stop(by: "SIGTERM"))
        let stopping = actions.firstIndex(of: .notify(.stopping))
        let extended = actions.firstIndex(of: .notify(.extendTimeout(.seconds(9))))
        #expect(stopping != nil && extended != nil)
    }
}
