//  Worker.swift
//  One generation's life: preparing -> starting -> ready/unready -> leaving -> sweeping -> gone.
//  It owns its probes, watchdog and stop plan and knows nothing of restarts. Its events are handled in
//  Worker+Life.swift (start, readiness), Worker+Probes.swift and Worker+Stop.swift. Read after StopPlan.swift.

/// What a step decided: actions in order, and the rules that led to them.
struct Decisions {
    var actions: [Action] = []
    var rules: [Rule] = []

    mutating func worker(_ generation: Generation, _ action: WorkerAction) {
        actions.append(.worker(generation, action))
    }
    mutating func report(_ report: Report) { actions.append(.report(report)) }
    mutating func because(_ rule: Rule) { rules.append(rule) }
}

/// One generation of the supervised process and its tree.
public struct Worker: Hashable, Sendable {
    /// Where it is. Each case carries what is valid only there.
    enum Life: Hashable, Sendable {
        /// `prepare` was asked for. Leaves on its answer, or at `until`.
        case preparing(until: Instant)
        /// `spawn` was asked for; its answer must come. Somebody may have asked it to leave meanwhile.
        case spawning(leave: Leave?)
        /// It runs and was never ready. Leaves on readiness, its end, or the startup deadline.
        case starting
        /// A request sent now reaches it.
        case ready(since: Instant)
        /// It was ready; its readiness fails.
        case unready
        /// It has to leave. Ends with its leader, which KILL ends at last. Indirect: rare, and by far the largest.
        indirect case leaving(StopPlan)
        /// Its leader is gone; the rest of its tree is made to follow.
        case sweeping(Sweep)
        /// No process of it is left. Final.
        case gone
    }

    /// A wish to leave that came while the process was being made.
    struct Leave: Hashable, Sendable {
        var reason: LeaveReason
        var end: Instant?
        /// By KILL, as soon as there is something to kill.
        var kills = false
    }

    /// What is left of a tree whose leader has gone.
    struct Sweep: Hashable, Sendable {
        /// Nil: it is being killed. Else it has so long to end by itself.
        var graceUntil: Instant?
        /// When the tree is looked at again, should no news come before.
        var nextPass: Instant
        /// When what is left is reported as unkillable and left behind.
        var unkillableAt: Instant
        /// Why, for the record.
        var grace: Duration
    }

    public let generation: Generation
    /// The settings it was started with, whatever was loaded since.
    @Shared public private(set) var settings: SupervisorSettings
    var life: Life

    var startup: Probe?
    var readiness: Probe?
    var liveness: Probe?
    /// The implied probe (CONTRACT section 4), until the worker notifies by itself.
    var implied: Probe?
    /// Since the front was first refused a connection; it asks until one is taken.
    var connection: Probe?
    var startupPassed: Bool
    /// The verdict of the asked readiness, with its hysteresis.
    var readinessGood = false
    /// The last of READY, RELOADING, STOPPING; nil before the first READY.
    var notifiedReady: Bool?
    var logSeen = false
    var descriptorSeen = false
    /// When life alone is readiness.
    var aliveAt: Instant?

    var pid: Int32 = 0
    var spawnedAt = Instant.zero
    /// The startup deadline as set; the worker can move the one that counts.
    var startupDeadline = Instant.zero
    var extendedDeadline: Instant?
    var watchdogAt: Instant?
    public internal(set) var firstReadyAt: Instant?
    /// The longest unbroken time of readiness that is over.
    var longestReady: Duration = .zero
    /// Processes that had to be killed.
    var killed: [Survivor] = []
    /// Those that the last sweep still saw.
    var left: [Survivor] = []
    /// How it ended; set when its leader is gone or was never made.
    public internal(set) var ending: Ending?

    init(_ generation: Generation, _ settings: SupervisorSettings) {
        self.generation = generation
        _settings = Shared(wrappedValue: settings)
        let worker = settings.worker
        life = .gone
        startup = worker.startup.map { Probe(.startup, $0) }
        readiness = worker.readiness.map { Probe(.readiness, $0) }
        liveness = worker.liveness.map { Probe(.liveness, $0) }
        startupPassed = worker.startup == nil
        if worker.readiness == nil, case .ask(let probe) = worker.impliedReadiness {
            implied = Probe(.readiness, probe)
        }
    }

    /// Runs on this worker, in place.
    mutating func change(_ body: (inout Worker) -> Void) { body(&self) }

    /// Nothing of it is left.
    var isGone: Bool { life == .gone }

    /// It has a process that panelind counts on, or will have.
    var isInService: Bool {
        switch life {
        case .preparing, .spawning(leave: nil), .starting, .ready, .unready: true
        case .spawning, .leaving, .sweeping, .gone: false
        }
    }

    /// Its leader may be signalled: it lives, or was not reaped yet.
    var hasLeader: Bool {
        switch life {
        case .starting, .ready, .unready, .leaving: true
        case .preparing, .spawning, .sweeping, .gone: false
        }
    }

    var isReady: Bool {
        if case .ready = life { return true }
        return false
    }

    /// The longest unbroken time of readiness up to now: a later flap takes nothing back.
    func readyFor(at now: Instant) -> Duration {
        if case .ready(let since) = life { return max(longestReady, now - since) }
        return longestReady
    }

    /// When it next has something to do by itself.
    var deadline: Instant? {
        switch life {
        case .gone: return nil
        case .preparing(let until): return until
        case .spawning: return nil
        case .starting:
            let alive = startupPassed ? aliveAt : nil
            return earliest(startup?.deadline, readiness?.deadline, implied?.deadline, alive, startupUntil)
        case .ready, .unready:
            return earliest(
                readiness?.deadline, implied?.deadline, liveness?.deadline, connection?.deadline, watchdogAt)
        case .leaving(let plan): return plan.deadline
        case .sweeping(let sweep): return earliest(sweep.graceUntil, sweep.nextPass, sweep.unkillableAt)
        }
    }

    /// The startup deadline that counts: the one set, unless EXTEND_TIMEOUT_USEC moved it further.
    var startupUntil: Instant { max(startupDeadline, extendedDeadline ?? startupDeadline) }
}

/// The first of those that are. Not of an array: every step asks several times.
func earliest(
    _ a: Instant?, _ b: Instant?, _ c: Instant?, _ d: Instant? = nil, _ e: Instant? = nil, _ f: Instant? = nil
) -> Instant? {
    func earlier(_ x: Instant?, _ y: Instant?) -> Instant? {
        guard let x, let y else { return x ?? y }
        return min(x, y)
    }
    return earlier(earlier(earlier(a, b), earlier(c, d)), earlier(e, f))
}
