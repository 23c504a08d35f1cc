//  Health.swift
//  What /health and /ready say: a pure function of the machine's state (CONTRACT section 4).
//  Stored as a snapshot, encoded once; HTTP never reaches into the machine.

/// The public state of panelind (CONTRACT section 4).
public enum State: String, Hashable, Sendable, CaseIterable {
    case starting, ready, unready, backoff, draining, stopping, failed, stopped

    /// Why `/ready` is 503, or nil where it is 200.
    public var reason: NotReadyReason? {
        switch self {
        case .ready: nil
        case .starting: .workerStarting
        case .unready: .workerUnready
        case .backoff: .workerBackoff
        case .failed: .workerFailed
        case .draining: .draining
        case .stopping, .stopped: .stopping
        }
    }
}

/// The words of `reason` in the health bodies.
public enum NotReadyReason: String, Hashable, Sendable, CaseIterable {
    case workerStarting = "worker_starting"
    case workerUnready = "worker_unready"
    case workerBackoff = "worker_backoff"
    case workerFailed = "worker_failed"
    case draining
    case stopping
}

/// What the health endpoints answer from, until the next one is published.
public struct HealthSnapshot: Hashable, Sendable {
    public var state: State
    /// The newest worker's ordinal; 0 before the first.
    public var generation: Int
    /// Unplanned replacements only.
    public var restarts: Int
    /// When a client that was told 503 may ask again; at least a second once rounded up.
    public var retryAfter: Duration

    /// Makes a snapshot.
    public init(state: State, generation: Int, restarts: Int, retryAfter: Duration) {
        self.state = state
        self.generation = generation
        self.restarts = restarts
        self.retryAfter = retryAfter
    }

    /// `/health` is 200: panelind runs and has not given up.
    public var isAlive: Bool { state != .failed }
    /// `/ready` is 200: a request sent now reaches a ready worker.
    public var isReady: Bool { state == .ready }
    /// Whole seconds for `Retry-After` (RFC 9110 section 10.2.3), 1...3600.
    public var retryAfterSeconds: Int {
        Int(min(3600, max(1, (retryAfter.nanoseconds + 999_999_999) / 1_000_000_000)))
    }
}

/// Where a request may go now. The supervisor publishes it; the front obeys.
public enum Route: Hashable, Sendable {
    /// To this generation.
    case forward(Generation)
    /// Nowhere yet: a worker can come within the hold.
    case hold
    /// To this generation, with `Connection: close`: the stop has begun.
    case lastCall(Generation)
    /// Nowhere: answer 503 at once.
    case refuse(NotReadyReason, retryAfter: Duration)
}
