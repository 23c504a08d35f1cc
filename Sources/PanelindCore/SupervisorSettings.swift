//  SupervisorSettings.swift
//  What the machine must know of the settings, already validated.
//  PanelindSettings makes it from CONTRACT section 2. Read before Supervisor.swift.

/// How the worker is served.
public enum ServeMode: String, Hashable, Sendable, CaseIterable {
    /// panelind owns the public port and proxies to a private address.
    case front
    /// The worker inherits panelind's listening socket.
    case socket
    /// The worker binds for itself.
    case direct
}

/// Where panelind runs.
public enum Platform: String, Hashable, Sendable, CaseIterable {
    case kubernetes, cloudrun, systemd, local
}

/// A question from outside, or the lack of one.
public enum ProbeKind: String, Hashable, Sendable, CaseIterable {
    case startup, readiness, liveness
    /// Whether the worker's address takes connections, asked where the front was refused one. It is no setting.
    case connection
}

/// How a probe asks.
public enum ProbeMethod: Hashable, Sendable {
    /// GET; 200...399 passes (below 500 for the implied readiness). A path, or a full `http://` URL.
    case http(String)
    /// A connection is accepted. Empty: the worker's own address.
    case tcp(String)
    /// A command ends with 0.
    case exec([String])
    /// READY=1 on the notify socket.
    case notify
    /// A line of output matches this POSIX extended expression.
    case log(String)
    /// A newline arrives on this descriptor of the worker.
    case descriptor(Int32)

    /// Whether panelind asks (true), or the worker tells by itself (false).
    public var isAsked: Bool {
        switch self {
        case .http, .tcp, .exec: true
        case .notify, .log, .descriptor: false
        }
    }

    /// Whether the question goes to the address where the worker serves, and not to one of its own.
    var asksWorkersAddress: Bool {
        switch self {
        case .http(let target): target.hasPrefix("/")
        case .tcp(let address): address.isEmpty
        case .exec, .notify, .log, .descriptor: false
        }
    }
}

/// One probe of CONTRACT section 2 (`probe.*`).
public struct ProbeSettings: Hashable, Sendable {
    public var method: ProbeMethod
    /// Between two attempts once ready.
    public var period: Duration = .seconds(10)
    /// Longest wait for one answer.
    public var timeout: Duration = .seconds(1)
    /// Consecutive failures that turn a verdict to bad, at least 1.
    public var failures: Int = 3
    /// Consecutive successes that turn a verdict to good, at least 1.
    public var successes: Int = 1
    /// From the worker's start to the first attempt.
    public var delay: Duration = .zero
    /// Answers 400...499 pass too: the implied readiness only asks whether the worker serves.
    public var passesBelow500: Bool = false

    /// Makes a probe with the defaults of CONTRACT.
    public init(_ method: ProbeMethod) { self.method = method }

    /// Whether the worker takes connections: one answer decides.
    static let ofConnection: ProbeSettings = {
        var it = ProbeSettings(.tcp(""))
        it.delay = Admission.suspicion
        it.period = .milliseconds(250)
        it.failures = 1
        return it
    }()
}

/// How readiness is known where no `probe.readiness` is given (CONTRACT section 4).
public enum ImpliedReadiness: Hashable, Sendable {
    /// Ask like this (front and socket mode, direct mode with PORT).
    case ask(ProbeSettings)
    /// So long a life is readiness (direct mode without PORT).
    case alive(Duration)
}

/// What the machine must know to judge one worker.
public struct WorkerSettings: Hashable, Sendable {
    public var startup: ProbeSettings?
    public var readiness: ProbeSettings?
    public var liveness: ProbeSettings?
    public var impliedReadiness: ImpliedReadiness = .alive(.seconds(1))
    /// `probe.startup.deadline`
    public var startupDeadline: Duration = .seconds(60)
    /// `worker.watchdog`, nil when off.
    public var watchdog: Duration?
    /// `prepare` has something to do (secrets to read); else the machine spawns at once.
    public var needsPreparation: Bool = false

    /// Makes settings of a worker that is ready after a second of life.
    public init() {}
}

/// `restart.policy`
public enum RestartWhen: String, Hashable, Sendable, CaseIterable {
    case always
    case onFailure = "on-failure"
    case never
}

/// `restart.onGiveUp`
public enum GiveUpAction: String, Hashable, Sendable, CaseIterable {
    case exit, hold
}

/// `restart.*`
public struct RestartSettings: Hashable, Sendable {
    public var policy: RestartWhen = .always
    public var delay: Duration = .milliseconds(250)
    public var factor: Double = 2
    public var maxDelay: Duration = .seconds(30)
    /// 0...1 of the delay, both ways.
    public var jitter: Double = 0.2
    public var resetAfter: Duration = .seconds(60)
    /// More consecutive failures than this: give up. Nil: never.
    public var limit: Int?
    public var successCodes: Set<Int32> = [0]
    public var permanentExitCodes: Set<Int32> = [126, 127]
    public var onGiveUp: GiveUpAction = .exit

    /// Makes the defaults of CONTRACT for plain machines.
    public init() {}
}

/// `stop.target`
public enum SignalTarget: String, Hashable, Sendable, CaseIterable {
    case leader, group
}

/// One step of `stop.signal`: a signal, and how long it may work before the next.
public struct StopStep: Hashable, Sendable {
    public var signal: Signal
    /// Nil on the last step: the rest of the grace.
    public var wait: Duration?

    /// Makes a step.
    public init(_ signal: Signal, wait: Duration? = nil) {
        self.signal = signal
        self.wait = wait
    }
}

/// `stop.*`
public struct StopSettings: Hashable, Sendable {
    /// At least one step.
    public var steps: [StopStep] = [StopStep(.terminate)]
    public var target: SignalTarget = .group
    /// From the request to panelind's exit, everything included.
    public var budget: Duration = .seconds(25)
    public var delay: Duration = .zero
    public var drain: Duration = .zero
    /// From the stop signal to KILL; the effective value when none was set.
    public var grace: Duration = .milliseconds(24_500)
    /// Whether the user set it: else the grace is whatever is left of the budget.
    public var graceIsSet: Bool = false

    /// What is kept for the kill, the reap and the flush at the end of the budget.
    public static let reserve: Duration = .milliseconds(500)

    /// Makes the defaults of CONTRACT for plain machines.
    public init() {}
}

/// Everything the machine must know.
public struct SupervisorSettings: Hashable, Sendable {
    /// Counts configurations: the shell keeps the full settings of each under this number.
    public var revision: Int = 0
    public var mode: ServeMode = .direct
    public var worker = WorkerSettings()
    public var restart = RestartSettings()
    public var stop = StopSettings()
    /// A reload may run two workers side by side (CONTRACT section 5, Reload).
    public var overlaps: Bool = false
    /// A descendant's end raises SIGCHLD here (PID 1 or subreaper); else the machine polls for survivors.
    public var adoptsOrphans: Bool = true
    /// Half of systemd's WATCHDOG_USEC, nil when not asked for.
    public var watchdogPing: Duration?
    /// `serve.hold`
    public var hold: Duration = .seconds(10)

    /// Makes settings for a worker in direct mode.
    public init() {}
}
