//  Facts.swift
//  What the answers are made from: the moment's facts, and the daemon behind the questions.
//  PanelindRuntime is the one that implements it. Read after EventLog.swift.

import PanelindCore

/// Everything about panelind and its worker at one moment.
public struct Facts: Sendable {
    public var version: String
    /// K_REVISION.
    public var revision: String?
    /// panelind's own process.
    public var pid: Int32
    public var startedAt: Instant
    public var now: Instant
    /// Nanoseconds since 1970.
    public var wall: Int64
    public var health: HealthSnapshot
    public var mode: ServeMode
    public var platform: Platform
    /// Where the service is; nil where the worker says it to nobody.
    public var listen: String?
    public var sidecar: String?
    /// The worker's command for people; never with a secret.
    public var command: String
    /// The worker that serves, or is to: not one on trial beside it. Nil between two.
    public var serving: Int?
    /// Its first process, or the one that a MAINPID of its own named; nil where none lives.
    public var servingPID: Int32?
    /// Its last STATUS=.
    public var workerStatus: String?
    public var startupDeadline: Duration
    public var stopBudget: Duration
    /// Zero in socket and direct mode.
    public var inFlight = 0
    public var held = 0
    /// Nil without a front.
    public var requests: RequestFacts?

    /// Makes facts of one moment.
    public init(
        version: String, revision: String?, pid: Int32, startedAt: Instant, now: Instant, wall: Int64,
        health: HealthSnapshot, mode: ServeMode, platform: Platform, listen: String?, sidecar: String?,
        command: String, serving: Int?, workerStatus: String?, startupDeadline: Duration, stopBudget: Duration
    ) {
        self.version = version
        self.revision = revision
        self.pid = pid
        self.startedAt = startedAt
        self.now = now
        self.wall = wall
        self.health = health
        self.mode = mode
        self.platform = platform
        self.listen = listen
        self.sidecar = sidecar
        self.command = command
        self.serving = serving
        self.workerStatus = workerStatus
        self.startupDeadline = startupDeadline
        self.stopBudget = stopBudget
    }

    /// When a monotonic instant was, in nanoseconds since 1970.
    func wall(of instant: Instant) -> Int64 { wall - (now - instant).nanoseconds }
}

/// The front's requests in short.
public struct RequestFacts: Hashable, Sendable {
    public var finished: Int
    public var serverErrors: Int
    /// Seconds.
    public var median: Double?
    /// Seconds.
    public var p95: Double?

    /// Makes a summary.
    public init(finished: Int, serverErrors: Int, median: Double?, p95: Double?) {
        self.finished = finished
        self.serverErrors = serverErrors
        self.median = median
        self.p95 = p95
    }
}

/// A line that a worker wrote.
public struct WorkerLine: Hashable, Sendable {
    /// Counts all lines since the start, from 1.
    public var sequence: UInt64
    public var generation: Int
    /// `stdout` or `stderr`.
    public var stream: String
    /// Nanoseconds since 1970.
    public var time: Int64
    public var text: String

    /// Makes a line.
    public init(sequence: UInt64, generation: Int, stream: String, time: Int64, text: String) {
        self.sequence = sequence
        self.generation = generation
        self.stream = stream
        self.time = time
        self.text = text
    }

    var json: JSON {
        .object([
            JSON.Member("sequence", .int(Int64(sequence))), JSON.Member("time", .string(Times.utc(time))),
            JSON.Member("generation", .int(Int64(generation))), JSON.Member("stream", .string(stream)),
            JSON.Member("text", .string(text)),
        ])
    }
}

/// The daemon as the control endpoints see it; everything on the main thread, nothing blocks.
public protocol ControlledDaemon: AnyObject {
    /// The present moment.
    var facts: Facts { get }
    /// Asks for the last lines of the workers. The answer comes later, once, unless it is cancelled.
    ///
    /// - Parameter after: with a number, the first lines behind it instead, as soon as there is one.
    /// - Returns: what `cancelLines` takes.
    func lines(_ count: Int, after: UInt64?, _ answer: @escaping ([WorkerLine]) -> Void) -> Int
    /// Forgets a question.
    func cancelLines(_ id: Int)
    /// Hands a restart to the machine.
    func restart()
    /// Reads the configuration and hands it to the machine.
    func reload() -> ReloadRefusal?
    /// Hands a stop to the machine.
    func stop()
}

/// Why a configuration was not even tried.
public struct ReloadRefusal: Hashable, Sendable {
    /// One sentence each.
    public var errors: [String]
    /// The configuration is good, but needs a restart of panelind.
    public var needsRestart: Bool

    /// Makes a refusal.
    public init(errors: [String], needsRestart: Bool) {
        self.errors = errors
        self.needsRestart = needsRestart
    }
}
