//  StopPlan.swift
//  How one worker is made to leave: an absolute deadline, divided once.
//  delay -> drain -> signal(s) -> KILL of the tree; each step ends as soon as it can. Read before Worker+Stop.swift.

/// Why a worker has to leave.
public enum LeaveReason: Hashable, Sendable {
    /// panelind ends.
    case stop
    /// Somebody asked for a restart.
    case restart
    /// A reload put a newer one in its place, or will.
    case replaced
    /// It is the newer one of a reload that is called off.
    case discarded
    /// It failed while it ran.
    case failed(ExitCause)

    /// Whether its end is what somebody wanted, and so no failure.
    var isRequested: Bool {
        switch self {
        case .stop, .restart, .replaced, .discarded: true
        case .failed: false
        }
    }
}

/// The plan of one worker's leaving, and how far it has come.
public struct StopPlan: Hashable, Sendable {
    /// How far it has come.
    public enum Phase: Hashable, Sendable {
        /// Serving, though no longer ready.
        case delay
        /// Serving with `Connection: close` while requests in flight end.
        case drain
        /// New requests are refused, those in flight may end.
        case lastDrain
        /// This step of `stop.signal` was sent; the next, or KILL, follows at `stepUntil`.
        case signalled(step: Int)
        /// KILL was sent to the tree.
        case killing
    }

    let reason: LeaveReason
    let steps: [StopStep]
    let target: SignalTarget
    let delay: Duration
    let drain: Duration
    let grace: Duration
    let delayUntil: Instant
    private(set) var drainUntil: Instant
    /// The end of the first two thirds of the drain: afterwards new requests are refused (CONTRACT section 5).
    private(set) var serveUntil: Instant
    /// KILL comes no later, whatever happens.
    private(set) var killBy: Instant
    /// The grace was set and counts from the signal; else it is all that is left until `killBy`.
    let graceIsSet: Bool
    private(set) var phase: Phase
    private(set) var stepUntil: Instant
    /// When KILL comes as things stand; while killing, when the tree is looked at again.
    private(set) var killAt: Instant
    private(set) var signalledSince: Instant?
    private(set) var killedSince: Instant
    /// It ends with panelind's own budget.
    private(set) var isBoundToStop: Bool

    /// Plans to leave from `now` on.
    /// - Parameters:
    ///   - serving: requests may be in flight: keep the delay and, if `drains`, the drain.
    ///   - end: the budget's end, for a stop of panelind.
    init(
        _ reason: LeaveReason, _ stop: StopSettings, serving: Bool, drains: Bool, end: Instant?, at now: Instant
    ) {
        self.reason = reason
        let isStop = end != nil
        delay = serving && isStop ? stop.delay : .zero
        drain = serving && drains ? stop.drain : .zero
        delayUntil = now + delay
        drainUntil = delayUntil + drain
        serveUntil = delayUntil + drain * 2 / 3
        if case .failed(.watchdog) = reason {
            // Two seconds for the core dump that ABRT is for (CONTRACT section 2, worker.watchdog).
            steps = [StopStep(.abort)]
            target = .leader
            grace = .seconds(2)
            graceIsSet = true
        } else {
            steps = stop.steps
            target = stop.target
            grace = stop.grace
            graceIsSet = stop.graceIsSet || !isStop
        }
        killBy = end.map { $0 - StopSettings.reserve } ?? drainUntil + grace
        killAt = killBy
        stepUntil = killBy
        killedSince = killBy
        isBoundToStop = isStop
        phase = .delay
    }

    var deadline: Instant {
        switch phase {
        case .delay: delayUntil
        case .drain: serveUntil
        case .lastDrain: drainUntil
        case .signalled: stepUntil
        case .killing: killAt
        }
    }

    /// Requests are still served: before the signal, and not in the last third of the drain.
    var serves: Bool { phase == .delay || phase == .drain }
    /// Before the stop signal.
    var drains: Bool { serves || phase == .lastDrain }

    /// A drain and a stop end with an answer for everyone. Where another worker follows, and this one failed or is only
    /// started anew, its death tells: an untouched GET is then made again.
    var answersEveryone: Bool {
        switch reason {
        case .stop, .replaced: true
        case .restart, .discarded, .failed: isBoundToStop
        }
    }

    /// A stop of panelind came while this worker was leaving already: its end binds.
    mutating func bind(to end: Instant) {
        isBoundToStop = true
        killBy = min(killBy, end - StopSettings.reserve)
        drainUntil = min(drainUntil, killBy - grace)
        serveUntil = min(serveUntil, drainUntil)
        killAt = min(killAt, killBy)
        stepUntil = min(stepUntil, killAt)
    }

    mutating func beginDrain() { phase = .drain }
    mutating func beginLastDrain() { phase = .lastDrain }

    /// The next signal to send, or nil if it is time for KILL.
    mutating func nextSignal(at now: Instant) -> Signal? {
        let next: Int
        if case .signalled(let step) = phase { next = step + 1 } else { next = 0 }
        if next == 0 {
            signalledSince = now
            killAt = graceIsSet ? min(now + grace, killBy) : killBy
        }
        guard next < steps.count, now < killAt else { return nil }
        phase = .signalled(step: next)
        stepUntil = next + 1 < steps.count ? min(now + (steps[next].wait ?? .zero), killAt) : killAt
        return steps[next].signal
    }

    mutating func beginKilling(at now: Instant) {
        phase = .killing
        killedSince = now
    }
    mutating func pollKilling(at next: Instant) { killAt = next }

    /// When the first signal went, or `now` if none did.
    func signalledAt(or now: Instant) -> Instant { signalledSince ?? now }
}
