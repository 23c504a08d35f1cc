//  Supervisor.swift
//  The machine: intent (what the operator wants), at most two workers, and what follows an end.
//  Events come in with their time, actions go out; nothing else is touched. One event is one step, and a step has its
//  rules. Operator events are in Supervisor+Operator.swift, the workers' in Supervisor+Workers.swift.

/// The supervisor of one worker at a time, and of a second one while a reload replaces it.
public struct Supervisor: Sendable {
    /// What the operator wants.
    enum Intent: Hashable, Sendable {
        /// Nothing yet: `start` has not come.
        case wait
        /// A worker that serves.
        case run
        /// The end of everything by this instant.
        case stop(by: Instant)
        /// An end with this code, by the policy's own decision; by this instant, once a stop was asked for too.
        case leave(code: Int32, by: Instant?)
    }

    /// What fills the time while there is no current worker.
    enum Pause: Hashable, Sendable {
        case none
        /// The next start waits until then.
        case backoff(until: Instant)
        /// Given up, and held.
        case failed
    }

    /// What the second worker is.
    enum Role: Hashable, Sendable {
        /// Newer than the current one, on trial.
        case successor
        /// Older than the current one, leaving.
        case predecessor
    }

    /// What happens when the current worker is gone.
    enum Sequel: Hashable, Sendable {
        /// Its end decides.
        case judge
        /// Start another.
        case replace
    }

    /// How far panelind's own end has come.
    enum End: Hashable, Sendable {
        case no
        /// The output is written out, until then at the latest.
        case flushing(until: Instant, code: Int32)
        case exited
    }

    @Shared public internal(set) var settings: SupervisorSettings
    var intent = Intent.wait
    var pause = Pause.none
    public internal(set) var current: Worker?
    public internal(set) var other: Worker?
    var role = Role.predecessor
    var sequel = Sequel.judge
    var end = End.no
    var policy: RestartPolicy
    var newest = Generation(0)
    var restarts = 0
    /// Whether the worker that is to come replaces one that ended unasked.
    var nextIsUnplanned = false
    /// A process ran: later failures to start are failures, not the end.
    var ranBefore = false
    /// The newest worker whose end was judged.
    var judged = Generation(0)
    /// The worker that a reload waits for.
    var reloading: Generation?
    /// A reload that waits for the predecessor of the last one to be gone.
    @Shared var nextReload: SupervisorSettings?
    var toldReady = false
    /// What the last STATUS= was about.
    var told: Telling?
    /// What went wrong last, in words.
    var trouble: String?
    var pingAt: Instant?
    /// When systemd is asked again to take what it did not.
    var resendAt: Instant?
    /// Since when panelind has stopped itself.
    var suspendedAt: Instant?
    /// When a stop or a reload was last asked for.
    var askedAt: Instant?

    var snapshot: HealthSnapshot
    var route = Route.hold

    /// Makes the machine. `start` sets it going.
    public init(_ settings: SupervisorSettings, seed: UInt64) {
        _settings = Shared(wrappedValue: settings)
        policy = RestartPolicy(seed: seed)
        snapshot = HealthSnapshot(state: .starting, generation: 0, restarts: 0, retryAfter: .seconds(1))
    }

    // What every step asks is inlined: a call would be given a copy of the machine.

    /// When `time` is due, or nil if nothing will happen by itself.
    @inline(__always)
    public var deadline: Instant? {
        var pauseEnds: Instant?
        if case .backoff(let until) = pause {
            if case .refuse(.workerBackoff, _) = route {
                pauseEnds = until - settings.hold
            } else if current == nil, !startIsBlocked {
                pauseEnds = until
            }
        }
        var flushEnds: Instant?
        if case .flushing(let until, _) = end { flushEnds = until }
        if end == .exited { return nil }
        return earliest(current?.deadline, other?.deadline, pauseEnds, flushEnds, pingAt, resendAt)
    }

    /// Takes one event and answers with what to do, in order, and why.
    public mutating func handle(_ event: Event, at now: Instant) -> (actions: [Action], rules: [Rule]) {
        var out = Decisions()
        guard end != .exited else { return ([], []) }
        switch event {
        case .worker(let generation, let news): handle(news, of: generation, at: now, &out)
        case .front(.refused(let generation)):
            change(generation) { $0.refused(at: now) }
        case .front(.drained(let generation)):
            change(generation) { $0.drained(.drained, at: now, &out) }
        case .front(.onlyStreamsLeft(let generation)):
            change(generation) { $0.drained(.onlyStreamsLeft, at: now, &out) }
        case .operator(let wish): handle(wish, at: now, &out)
        case .time: tick(at: now, &out)
        case .flushed:
            if case .flushing(_, let code) = end { exit(code, &out) }
        case .serviceBusy: resendAt = resendAt ?? now + .milliseconds(100)
        }
        settle(at: now, &out)
        note(out.rules)
        publish(at: now, &out)
        return (out.actions, out.rules)
    }

    /// The deadline fired: whatever is due, in every part.
    private mutating func tick(at now: Instant, _ out: inout Decisions) {
        if let armed = deadline, now - armed > Self.gapThreshold { thaw(now - armed, at: now, &out) }
        let isShared = socketIsShared
        current?.tick(isShared: isShared, at: now, &out)
        other?.tick(isShared: isShared, at: now, &out)
        if case .flushing(let until, let code) = end, until <= now { exit(code, &out) }
        if let pingAt, pingAt <= now, let interval = settings.watchdogPing {
            out.actions.append(.notify(.watchdog))
            self.pingAt = now + interval
        }
        if let resendAt, resendAt <= now {
            out.actions.append(.notify(.kept))
            self.resendAt = nil
        }
    }

    /// A deadline that fires so late was not late by load: nobody ran (a frozen CPU, SIGSTOP, a suspended machine).
    static let gapThreshold: Duration = .seconds(1)

    /// Decides what a clock gap means. It never extends a stop.
    mutating func thaw(_ gap: Duration, at now: Instant, _ out: inout Decisions) {
        out.because(.clockGap(gap))
        out.report(.clockGap(gap))
        out.actions.append(.front(.dropIdle))
        for generation in generations { change(generation) { $0.thaw(gap, at: now, &out) } }
    }

    /// The generations in the slots, the current one first.
    public var generations: [Generation] { [current?.generation, other?.generation].compactMap { $0 } }

    /// The revisions of the settings that it, its workers and a reload that waits have; the shell keeps them.
    public var revisions: Set<Int> {
        Set(
            [settings.revision, current?.settings.revision, other?.settings.revision, nextReload?.revision]
                .compactMap { $0 })
    }

    /// Never a second tree, but for the predecessor of a worker that may overlap with it.
    var startIsBlocked: Bool { hasOther && !(role == .predecessor && settings.overlaps) }

    /// A probe through the listening socket that two generations have may be answered by the other.
    var socketIsShared: Bool { hasOther && settings.mode == .socket }

    /// Asked by the generation: a comparison with nil would copy the worker.
    var hasOther: Bool { other?.generation != nil }

    /// Runs on the worker of this generation; one that is gone, or was never, hears nothing.
    mutating func change(_ generation: Generation, _ body: (inout Worker) -> Void) {
        // In place: a worker is a large value, and every event comes through here.
        if current?.generation == generation {
            current?.change(body)
        } else if other?.generation == generation {
            other?.change(body)
        }
    }

    /// Starts a worker in the slot that is free.
    mutating func start(_ settings: SupervisorSettings, at now: Instant, _ out: inout Decisions) -> Worker {
        newest = newest.next
        var worker = Worker(newest, settings)
        worker.begin(at: now, &out)
        return worker
    }

    private mutating func exit(_ code: Int32, _ out: inout Decisions) {
        end = .exited
        out.actions.append(.exit(code))
    }

    /// The public state (CONTRACT section 4): a function of intent, workers and pause.
    @inline(__always)
    public var state: State {
        switch intent {
        case .wait: return .starting
        case .stop:
            if end == .exited { return .stopped }
            if case .leaving(let plan) = current?.life, plan.drains { return .draining }
            return .stopping
        case .leave(let code, _):
            return code == 70 ? .failed : end == .no ? .stopping : .stopped
        case .run: break
        }
        guard let life = current?.life else {
            switch pause {
            case .none: return .starting
            case .backoff: return .backoff
            case .failed: return .failed
            }
        }
        switch life {
        case .preparing, .spawning, .starting: return .starting
        case .ready: return .ready
        case .unready: return .unready
        case .leaving, .sweeping, .gone:
            if case .failed = pause { return .failed }
            return sequel == .replace ? .starting : .backoff
        }
    }
}
