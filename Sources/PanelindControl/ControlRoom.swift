//  ControlRoom.swift
//  What is remembered for those who ask: chronicle, events, states of the last hour, the workers' times.
//  Fed with every step of the machine; bounded, without a timer. Read after Chronicle.swift and EventLog.swift.

import PanelindCore

/// The memory behind /v1 and the status page; on the main thread only.
public final class ControlRoom {
    /// What is known of one worker's process.
    struct WorkerTimes: Hashable {
        var generation: Int
        var pid: Int32
        var startedWall: Int64
        /// Nil while it is not ready.
        var readyWall: Int64?
    }

    public let events = EventLog()
    public private(set) var chronicle = Chronicle()
    private(set) var history = StateHistory()
    let pending = PendingOperations()
    /// The newest workers, at most four.
    private var workers: [WorkerTimes] = []
    /// When the next start is due, while there is a backoff.
    private(set) var nextStart: Instant?
    /// The newest end.
    private(set) var lastExit: LoggedEvent?
    private var state = State.starting
    /// Events that wait for the last lines of this worker, and those behind them.
    private var waiting: [(event: LoggedEvent, generation: Int?)] = []
    /// Called after each step that is news, when the machine is at rest again.
    var onNews: [ObjectIdentifier: () -> Void] = [:]
    private var hasNews = false

    /// Makes an empty room.
    public init() {}

    /// Takes a step before its actions are performed. `wall` is its time in nanoseconds since 1970.
    public func take(_ step: Step, wall: Int64) {
        chronicle.take(step, wall: wall)
        pending.take(step)
        if step.to != state || history.changes.isEmpty {
            state = step.to
            history.enter(state, at: wall)
            hasNews = true
        }
        if step.to != .backoff { nextStart = nil }
        for case .report(let report) in step.actions { take(report, at: step.at, wall: wall) }
    }

    private func take(_ report: Report, at now: Instant, wall: Int64) {
        switch report {
        case .workerStarted(let generation, let pid):
            if workers.count == 4 { workers.removeFirst() }
            workers.append(WorkerTimes(generation: generation.number, pid: pid, startedWall: wall))
        case .workerReady(let generation, _): change(generation) { $0.readyWall = wall }
        case .workerUnready(let generation, _): change(generation) { $0.readyWall = nil }
        case .workerExited(let generation, let ending, let restartIn):
            workers.removeAll { $0.generation == generation.number }
            if let restartIn { nextStart = now + restartIn }
            if !ending.requested { history.end(at: wall) }
        default: return
        }
        hasNews = true
    }

    private func change(_ generation: Generation, _ body: (inout WorkerTimes) -> Void) {
        guard let index = workers.firstIndex(where: { $0.generation == generation.number }) else { return }
        body(&workers[index])
    }

    /// The machine is at rest: answers that became due are given, those who look are told.
    public func settle() {
        pending.answer()
        guard hasNews else { return }
        hasNews = false
        for tell in onNews.values { tell() }
    }

    /// Keeps a record of panelind's own.
    ///
    /// - Parameter generation: the event is this worker's end and becomes whole with its last lines; it, and all that
    ///   come behind it, wait for them, so that the events have the order of the log.
    public func record(_ event: LoggedEvent, awaitingLastLinesOf generation: Int? = nil) {
        if event.name == "worker_exited" { lastExit = event }
        hasNews = true
        guard generation != nil || !waiting.isEmpty else { return events.append(event) }
        waiting.append((event, generation))
        // The log's sink takes nothing for so long that its word is no longer waited for.
        if waiting.count > 256 { release(all: true) }
    }

    /// A dead worker's last lines were read; they may have refined cause and message.
    public func exitRecorded(generation: Int, cause: String, message: String, lines: [String]) {
        hasNews = true
        chronicle.exitRecorded(generation: generation, cause: cause, lines: lines)
        guard let index = waiting.firstIndex(where: { $0.generation == generation }) else { return }
        waiting[index].generation = nil
        waiting[index].event.message = message
        waiting[index].event.set("cause", .string(cause))
        waiting[index].event.set("last_output", .strings(lines))
        if lastExit?.generation == generation { lastExit = waiting[index].event }
        release(all: false)
    }

    private func release(all: Bool) {
        while let first = waiting.first, all || first.generation == nil {
            events.append(first.event)
            waiting.removeFirst()
        }
    }

    /// The configuration was read and refused.
    public func rejected(_ errors: [String], at now: Instant, wall: Int64) {
        chronicle.rejected(errors, at: now, wall: wall)
        hasNews = true
    }

    func worker(_ generation: Int?) -> WorkerTimes? { workers.last { $0.generation == generation } }
}

/// The states of the last hour; bounded.
struct StateHistory {
    static let span: Int64 = 3_600_000_000_000
    private static let capacity = 1024

    private(set) var changes: [(wall: Int64, state: State)] = []
    /// When workers ended unasked.
    private(set) var ends: [Int64] = []

    mutating func enter(_ state: State, at wall: Int64) {
        // The last change before the hour says how it began.
        while changes.count > 1, changes[1].wall < wall - Self.span { changes.removeFirst() }
        if changes.count == Self.capacity { changes.removeFirst(Self.capacity / 4) }
        changes.append((wall, state))
    }

    mutating func end(at wall: Int64) {
        while let first = ends.first, first < wall - Self.span { ends.removeFirst() }
        if ends.count == Self.capacity { ends.removeFirst(Self.capacity / 4) }
        ends.append(wall)
    }
}
