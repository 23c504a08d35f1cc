//  Setups.swift
//  Every place the machine can be in, and how to drive it there; every kind of event, and a sample of each.
//  A new case of `Worker.Life`, `State` or an event fails to compile, or fails a test. Read before StatesTests.swift.

@testable import PanelindCore

/// A place of the machine.
enum Setup: String, CaseIterable {
    case waiting, preparing, spawning, spawningToLeave, starting, ready, doubted, refusing, unready
    case delay, drain, lastDrain, signalled, killing, sweepingInGrace, stopSweep
    case crashed, livenessFailed, backoff, failed, restarting, trial, predecessor, policyEnd, flushing, exited

    /// The machine, driven there.
    var machine: Machine {
        var machine = Machine(
            .bench {
                $0.worker.needsPreparation = true
                $0.worker.liveness = ProbeSettings(.http("/live"))
                $0.worker.watchdog = .seconds(60)
                $0.restart.limit = 1
                $0.restart.onGiveUp = .hold
            })
        switch self {
        case .waiting: break
        case .preparing: machine.send(.start)
        case .spawning:
            machine.send(.start)
            machine.send(.prepared)
        case .spawningToLeave:
            machine = Setup.spawning.machine
            machine.send(.restart)
        case .starting: machine.spawn()
        case .ready:
            machine.becomeReady()
            machine.answer(.liveness, .passed)
            machine.pass(.seconds(10))
        case .doubted:
            machine = Setup.ready.machine
            machine.send(.front(.refused(machine.current)))
            machine.pass(.milliseconds(5))
        case .refusing:
            machine = Setup.doubted.machine
            machine.answer(.connection, .failed("connection refused"))
        case .unready:
            machine = Setup.ready.machine
            for _ in 1...3 {
                machine.answer(.readiness, .failed("HTTP 503"))
                machine.answer(.liveness, .passed)
                machine.pass(.seconds(1))
            }
        case .delay:
            machine = Setup.ready.machine
            machine.send(.stop(by: "SIGTERM"))
        case .drain:
            machine = Setup.delay.machine
            machine.pass(.seconds(1))
        case .lastDrain:
            machine = Setup.drain.machine
            machine.pass(.seconds(2))
        case .signalled:
            machine = Setup.lastDrain.machine
            machine.send(.front(.drained(machine.current)))
        case .killing:
            machine = Setup.signalled.machine
            machine.pass(.milliseconds(5500))
        case .sweepingInGrace:
            machine = Setup.signalled.machine
            machine.send(.exited(.code(0), ResourceUse(), oom: false))
        case .stopSweep:
            machine = Setup.killing.machine
            machine.send(.exited(.signal(.kill, coreDumped: false), ResourceUse(), oom: false))
        case .crashed:
            machine.becomeReady()
            machine.send(.exited(.code(1), ResourceUse(), oom: false))
        case .livenessFailed:
            machine = Setup.ready.machine
            for _ in 1...3 {
                machine.answer(.liveness, .failed("HTTP 500"))
                machine.answer(.readiness, .passed)
                machine.pass(.seconds(1))
            }
        case .backoff:
            machine.becomeReady()
            machine.die()
        case .failed:
            machine = Setup.backoff.machine
            machine.pass(.milliseconds(250))
            machine.spawn()
            machine.die()
        case .restarting:
            machine = Setup.ready.machine
            machine.send(.restart)
        case .trial:
            machine = Setup.ready.machine
            machine.send(.reload(machine.supervisor.settings))
            machine.send(.prepared, of: Generation(2))
            machine.send(.spawned(pid: 200), of: Generation(2))
        case .predecessor:
            machine = Setup.trial.machine
            machine.answer(.readiness, .passed, of: Generation(2))
        case .policyEnd:
            machine.supervisor.settings.restart.policy = .never
            machine.becomeReady()
            machine.send(.exited(.code(7), ResourceUse(), oom: false))
        case .flushing:
            machine = Setup.sweepingInGrace.machine
            machine.send(.swept(left: [], killed: []))
        case .exited:
            machine = Setup.flushing.machine
            machine.send(.flushed)
        }
        return machine
    }
}

/// What kind of event it is, for the table.
enum EventKind: String, CaseIterable {
    case prepared, prepareFailed, spawned, spawnFailed, exited, orphansReaped, sweptEmpty, sweptLeft
    case readinessPassed, readinessFailed, livenessFailed, lateAnswer, logMatched, descriptor
    case saysReady, saysReloading, saysStopping, saysStatus, saysWatchdog, triggersWatchdog, extendsTimeout
    case refused, connectionPassed, connectionFailed, drained, onlyStreamsLeft
    case start, stop, killNow, restart, reload, reloadRefused, pass, suspend, resume, time, flushed, serviceBusy

    /// The kind of every event there is: what is new has to be given a row.
    init(_ event: Event) {
        switch event {
        case .worker(_, let news): self = Self.kind(of: news)
        case .front(.refused): self = .refused
        case .front(.drained): self = .drained
        case .front(.onlyStreamsLeft): self = .onlyStreamsLeft
        case .operator(let wish): self = Self.kind(of: wish)
        case .time: self = .time
        case .flushed: self = .flushed
        case .serviceBusy: self = .serviceBusy
        }
    }

    private static func kind(of news: WorkerEvent) -> EventKind {
        switch news {
        case .prepared: .prepared
        case .prepareFailed: .prepareFailed
        case .spawned: .spawned
        case .spawnFailed: .spawnFailed
        case .exited: .exited
        case .orphansReaped: .orphansReaped
        case .swept(let left, _): left.isEmpty ? .sweptEmpty : .sweptLeft
        case .answered(_, 0, _): .lateAnswer
        case .answered(.liveness, _, _): .livenessFailed
        case .answered(.connection, _, .passed): .connectionPassed
        case .answered(.connection, _, .failed): .connectionFailed
        case .answered(_, _, .passed): .readinessPassed
        case .answered(_, _, .failed): .readinessFailed
        case .logMatched: .logMatched
        case .descriptor: .descriptor
        case .notified(.ready): .saysReady
        case .notified(.reloading): .saysReloading
        case .notified(.stopping): .saysStopping
        case .notified(.status): .saysStatus
        case .notified(.watchdog): .saysWatchdog
        case .notified(.watchdogTrigger): .triggersWatchdog
        case .notified(.extendTimeout): .extendsTimeout
        }
    }

    private static func kind(of wish: OperatorEvent) -> EventKind {
        switch wish {
        case .start: .start
        case .stop: .stop
        case .killNow: .killNow
        case .restart: .restart
        case .reload: .reload
        case .reloadRefused: .reloadRefused
        case .pass: .pass
        case .suspend: .suspend
        case .resume: .resume
        }
    }

    /// An event of this kind about the machine's current worker.
    func sample(for machine: Machine) -> Event {
        let g = machine.current
        let readiness = max(1, machine.attempt(.readiness, of: g))
        let connection = max(1, machine.attempt(.connection, of: g))
        let failure = StartFailure(.other, "cannot start worker: no reason")
        switch self {
        case .prepared: return .worker(g, .prepared)
        case .prepareFailed: return .worker(g, .prepareFailed(failure))
        case .spawned: return .worker(g, .spawned(pid: 300))
        case .spawnFailed: return .worker(g, .spawnFailed(failure))
        case .exited: return .worker(g, .exited(.code(1), ResourceUse(), oom: false))
        case .orphansReaped: return .worker(g, .orphansReaped)
        case .sweptEmpty: return .worker(g, .swept(left: [], killed: []))
        case .sweptLeft: return .worker(g, .swept(left: [Survivor(pid: 9, command: "sleep 60")], killed: []))
        case .readinessPassed: return .worker(g, .answered(.readiness, attempt: readiness, .passed))
        case .readinessFailed: return .worker(g, .answered(.readiness, attempt: readiness, .failed("HTTP 503")))
        case .livenessFailed:
            let attempt = max(1, machine.attempt(.liveness, of: g))
            return .worker(g, .answered(.liveness, attempt: attempt, .failed("HTTP 500")))
        case .lateAnswer: return .worker(g, .answered(.readiness, attempt: 0, .passed))
        case .logMatched: return .worker(g, .logMatched)
        case .descriptor: return .worker(g, .descriptor(ready: true))
        case .saysReady: return .worker(g, .notified(.ready))
        case .saysReloading: return .worker(g, .notified(.reloading))
        case .saysStopping: return .worker(g, .notified(.stopping))
        case .saysStatus: return .worker(g, .notified(.status("busy")))
        case .saysWatchdog: return .worker(g, .notified(.watchdog))
        case .triggersWatchdog: return .worker(g, .notified(.watchdogTrigger))
        case .extendsTimeout: return .worker(g, .notified(.extendTimeout(.seconds(90))))
        case .refused: return .front(.refused(g))
        case .connectionPassed: return .worker(g, .answered(.connection, attempt: connection, .passed))
        case .connectionFailed:
            return .worker(g, .answered(.connection, attempt: connection, .failed("connection refused")))
        case .drained: return .front(.drained(g))
        case .onlyStreamsLeft: return .front(.onlyStreamsLeft(g))
        case .start: return .operator(.start)
        case .stop: return .operator(.stop(by: "SIGTERM"))
        case .killNow: return .operator(.killNow)
        case .restart: return .operator(.restart)
        case .reload: return .operator(.reload(machine.supervisor.settings))
        case .reloadRefused: return .operator(.reloadRefused("bad"))
        case .pass: return .operator(.pass(.user1))
        case .suspend: return .operator(.suspend)
        case .resume: return .operator(.resume)
        case .time: return .time
        case .flushed: return .flushed
        case .serviceBusy: return .serviceBusy
        }
    }
}
