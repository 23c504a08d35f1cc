//  Machine.swift
//  The supervisor on a bench: events in, actions kept, time moved by hand.
//  Read before every other file of these tests.

import Testing

@testable import PanelindCore

/// Swift Testing has a type of this name too.
typealias ExitStatus = PanelindCore.ExitStatus

/// A supervisor, its clock, and everything it has asked for.
struct Machine {
    var supervisor: Supervisor
    var now = Instant.zero + .seconds(1000)
    /// Everything since the machine was made.
    var log: [(at: Instant, action: Action)] = []
    var rules: [Rule] = []

    /// Makes a machine that was not started.
    init(_ settings: SupervisorSettings = .bench(), seed: UInt64 = 1) {
        supervisor = Supervisor(settings, seed: seed)
    }

    var state: State { supervisor.state }
    var current: Generation { supervisor.current?.generation ?? supervisor.newest }
    var life: Worker.Life? { supervisor.current?.life }

    /// Sends one event now.
    @discardableResult
    mutating func send(_ event: Event) -> [Action] {
        let (actions, because) = supervisor.handle(event, at: now)
        log += actions.map { (now, $0) }
        rules += because
        if event == .time, let next = supervisor.deadline {
            #expect(next > now, "the machine asks for the time that is already: it would spin in \(state)")
        }
        return actions
    }

    @discardableResult
    mutating func send(_ wish: OperatorEvent) -> [Action] { send(.operator(wish)) }

    /// Sends news of the current worker, or of the given one.
    @discardableResult
    mutating func send(_ news: WorkerEvent, of generation: Generation? = nil) -> [Action] {
        send(.worker(generation ?? current, news))
    }

    /// Moves the time, stopping at every deadline on the way.
    mutating func pass(_ duration: Duration) {
        let end = now + duration
        var steps = 0
        while let next = supervisor.deadline, next <= end {
            now = max(now, next)
            send(.time)
            steps += 1
            guard steps < 20_000 else { Issue.record("no end of deadlines"); return }
        }
        now = end
    }

    /// Moves the time at once, as a frozen CPU does, and lets the timer fire behind it.
    mutating func freeze(_ duration: Duration) {
        now = now + duration
        send(.time)
    }

    // MARK: A worker's usual life

    /// From the start, or from a spawn that was asked for, to a process.
    mutating func spawn(pid: Int32 = 100) {
        if case .wait = supervisor.intent { send(.start) }
        if case .preparing? = life { send(.prepared) }
        send(.spawned(pid: pid))
    }

    /// A worker that was just asked for becomes ready.
    mutating func becomeReady() {
        spawn()
        answer(.readiness, .passed)
    }

    /// Answers the attempt under way of a probe.
    @discardableResult
    mutating func answer(_ kind: ProbeKind, _ outcome: ProbeOutcome, of generation: Generation? = nil) -> [Action] {
        let generation = generation ?? current
        return send(.answered(kind, attempt: attempt(kind, of: generation), outcome), of: generation)
    }

    /// The newest attempt that was asked for.
    func attempt(_ kind: ProbeKind, of generation: Generation) -> Int {
        for (_, action) in log.reversed() {
            if case .worker(generation, .ask(kind, let attempt, _)) = action { return attempt }
        }
        return 0
    }

    /// The current worker's leader ends, and nothing is left of its tree.
    mutating func die(_ status: ExitStatus = .code(1), oom: Bool = false) {
        let generation = current
        send(.exited(status, ResourceUse(), oom: oom), of: generation)
        send(.swept(left: [], killed: []), of: generation)
    }

    // MARK: What was asked for

    /// The last STATUS= for systemd.
    var status: String? {
        for entry in log.reversed() { if case .notify(.status(let text)) = entry.action { return text } }
        return nil
    }

    /// When workers were spawned.
    var spawns: [Instant] {
        log.compactMap { entry in
            if case .worker(_, .spawn) = entry.action { entry.at } else { nil }
        }
    }

    /// Signals and sweeps with a signal, with their times.
    func signals(to generation: Generation) -> [String] {
        log.compactMap { entry in
            switch entry.action {
            case .worker(generation, .signal(let signal, let target)): "\(signal.shortName) \(target)"
            case .worker(generation, .sweep(let signal?, _)): "sweep \(signal.shortName)"
            default: nil
            }
        }
    }

    var reports: [Report] {
        log.compactMap { entry in
            if case .report(let report) = entry.action { report } else { nil }
        }
    }

    /// Ends as the records tell them.
    var endings: [Ending] {
        reports.compactMap { report in
            if case .workerExited(_, let ending, _) = report { ending } else { nil }
        }
    }

    var exitCode: Int32? {
        for (_, action) in log.reversed() {
            if case .exit(let code) = action { return code }
        }
        return nil
    }

    var routes: [Route] {
        log.compactMap { entry in
            if case .front(.route(let route)) = entry.action { route } else { nil }
        }
    }

    /// When each attempt of a probe was made, counted from the first.
    func asked(_ kind: ProbeKind) -> [Duration] {
        let times = log.compactMap { entry -> Instant? in
            if case .worker(_, .ask(kind, _, _)) = entry.action { entry.at } else { nil }
        }
        return times.map { $0 - (times.first ?? $0) }
    }
}

extension SupervisorSettings {
    /// A worker behind the front that is asked for its readiness, and a stop of 9 s: 1 s delay, 3 s drain.
    static func bench(_ change: (inout SupervisorSettings) -> Void = { _ in }) -> SupervisorSettings {
        var settings = SupervisorSettings()
        settings.mode = .front
        settings.overlaps = true
        settings.worker.impliedReadiness = .ask(ProbeSettings(.http("/ready")))
        settings.restart.jitter = 0
        settings.stop.budget = .seconds(9)
        settings.stop.delay = .seconds(1)
        settings.stop.drain = .seconds(3)
        settings.stop.grace = .milliseconds(4500)
        change(&settings)
        return settings
    }

    /// A worker that is ready after a second of life, in direct mode, and a stop without delay and drain.
    static func direct(_ change: (inout SupervisorSettings) -> Void = { _ in }) -> SupervisorSettings {
        bench {
            $0.mode = .direct
            $0.overlaps = false
            $0.worker.impliedReadiness = .alive(.seconds(1))
            $0.stop.delay = .zero
            $0.stop.drain = .zero
            $0.stop.grace = .milliseconds(8500)
            change(&$0)
        }
    }
}

extension [Action] {
    /// The actions that do something to the world, in few words; records and the status sentence are left out.
    var brief: String { compactMap(\.brief).joined(separator: ", ") }
}

extension Action {
    var brief: String? {
        switch self {
        case .worker(let g, .prepare): "\(g) prepare"
        case .worker(let g, .spawn): "\(g) spawn"
        case .worker(let g, .signal(let signal, let target)): "\(g) \(signal.shortName) to \(target)"
        case .worker(let g, .sweep(let signal, let sparing)):
            "\(g) sweep\(signal.map { " " + $0.shortName } ?? "")\(sparing ? " but its group" : "")"
        case .worker(let g, .ask(let kind, let attempt, _)): "\(g) ask \(kind) \(attempt)"
        case .worker(let g, .abandon(let kind, let attempt)): "\(g) abandon \(kind) \(attempt)"
        case .worker(let g, .forget): "\(g) forget"
        case .front(.route(.forward(let g))): "route \(g)"
        case .front(.route(.hold)): "route hold"
        case .front(.route(.lastCall(let g))): "route last call \(g)"
        case .front(.route(.refuse(let reason, let wait))): "route refuse \(reason.rawValue) \(wait.text)"
        case .front(.reportDrain(let g)): "report drain \(g)"
        case .front(.cut(let g)): "cut \(g)"
        case .front(.dropIdle): "drop idle"
        case .notify(.status), .publish, .report: nil
        case .notify(.extendTimeout(let duration)): "extend \(duration.text)"
        case .notify(let notice): "tell \(notice)"
        case .flush: "flush"
        case .suspendSelf: "suspend self"
        case .exit(let code): "exit \(code)"
        }
    }
}
