//  AdmissionAction.swift
//  What the front is told to do with a request, and the words for it.
//  Plain data, as Action.swift is for the supervisor. Read before Admission.swift.

/// The ordinal of a request since the front started.
public struct RequestID: Hashable, Comparable, Sendable {
    public var number: UInt64

    /// Makes an ordinal; those of requests begin at 1.
    public init(number: UInt64) { self.number = number }

    public static func < (a: RequestID, b: RequestID) -> Bool { a.number < b.number }
}

/// What a request in flight occupies.
public enum TrafficKind: Hashable, Sendable {
    /// An answer that ends by itself.
    case plain
    /// Server-sent events.
    case stream
    /// Upgraded: bytes both ways.
    case tunnel
}

/// How far the worker's answer has come.
public enum AnswerPart: Hashable, Sendable {
    /// A byte of anything, an interim answer included: the worker has begun, no other may.
    case firstByte
    /// The final head went to the client: from here on only truncation can tell of an end.
    case head(TrafficKind)
}

/// Why a request is answered 503.
public enum Refusal: Hashable, Sendable {
    case notReady(NotReadyReason)
    /// `serve.heldRequests` wait already, or their heads fill the memory kept for them.
    case queueFull
    /// It waited for `serve.hold`.
    case holdOver
}

/// What the front does with requests. Nothing is answered; what ends a request is not followed by `ended`.
public enum AdmissionAction: Hashable, Sendable {
    /// Send it to this worker. The first action of a request, or the second after it was held or lost.
    case forward(RequestID, Generation)
    /// 503 with Retry-After, which ends it.
    case refuse(RequestID, Refusal, retryAfter: Duration)
    /// 502, which ends it.
    case fail(RequestID)
    /// 504, which ends it.
    case timeOut(RequestID)
    /// Cut the client off so that it sees truncation, which ends it.
    case abort(RequestID)
    /// Tell the supervisor.
    case tell(FrontEvent)
}

/// `serve.*`, as far as admission depends on it.
public struct AdmissionSettings: Hashable, Sendable {
    /// `serve.hold`
    public var hold: Duration = .seconds(10)
    /// `serve.heldRequests`
    public var heldRequests: Int = 128
    /// What held requests may keep in memory: their heads, for bodies are not read before a worker takes them.
    public var heldBytes: Int = 8 << 20
    /// `serve.concurrency`, for each worker.
    public var concurrency: Int = 1000

    /// Makes the defaults of CONTRACT.
    public init() {}
}
