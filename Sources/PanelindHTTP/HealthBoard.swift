//  HealthBoard.swift
//  What /health and /ready answer, ready to be sent: encoded from the last published snapshot, at most every 100 ms.
//  Bodies are those of CONTRACT section 4. Read PanelindCore/Health.swift and AnswerText.swift first.

import NIOCore
import NIOHTTP1
import PanelindCore

/// The two health endpoints.
public enum HealthEndpoint: Int, Hashable, Sendable, CaseIterable {
    case health, ready
}

/// The stored health answers; used on the loop's thread only.
public final class HealthBoard {
    private let startedAt: Instant
    private let clock: () -> Instant
    /// The end of every body: version and revision never change.
    private let tail: String
    /// Endpoint × GET or HEAD × persistence; nil until asked for.
    private var cache: [ByteBuffer?]
    private var encodedAt: Instant
    /// When the snapshot came: the wait of a backoff is counted down from here.
    private var publishedAt: Instant
    /// What the answers say now.
    public private(set) var snapshot: HealthSnapshot

    /// `uptime_seconds` has one decimal: an answer is true this long.
    private static let freshFor: Duration = .milliseconds(100)
    private static let variants = HealthEndpoint.allCases.count * 2 * Persistence.allCases.count

    /// Makes a board that says `starting` until the first snapshot.
    ///
    /// - Parameters:
    ///   - startedAt: when panelind started; `uptime_seconds` counts from here.
    ///   - clock: the monotonic clock.
    public init(version: String, revision: String?, startedAt: Instant, clock: @escaping () -> Instant) {
        self.startedAt = startedAt
        self.clock = clock
        let revision = revision.map(AnswerText.quoted) ?? "null"
        tail = ",\"version\":\(AnswerText.quoted(version)),\"revision\":\(revision)}\n"
        cache = Array(repeating: nil, count: Self.variants)
        encodedAt = startedAt
        publishedAt = startedAt
        snapshot = HealthSnapshot(state: .starting, generation: 0, restarts: 0, retryAfter: .seconds(1))
    }

    /// Replaces what is answered from now on.
    public func publish(_ snapshot: HealthSnapshot) {
        self.snapshot = snapshot
        publishedAt = clock()
        forget()
    }

    /// The whole answer to a request for an endpoint; 405 for other methods than GET and HEAD.
    public func answer(_ endpoint: HealthEndpoint, method: HTTPMethod, persistence: Persistence) -> ByteBuffer {
        switch method {
        case .GET: return encoded(endpoint, headOnly: false, persistence)
        case .HEAD: return encoded(endpoint, headOnly: true, persistence)
        default:
            return AnswerText.problem(
                status: 405, detail: "only GET and HEAD", fields: ["Allow: GET, HEAD"], persistence: persistence)
        }
    }

    /// The body of an endpoint, for `/v1/status` and tests.
    public func body(_ endpoint: HealthEndpoint) -> String {
        let now = clock()
        let isGood = isGood(endpoint)
        let status: String
        switch endpoint {
        case .health: status = isGood ? "ok" : "failed"
        case .ready: status = isGood ? "ready" : "not ready"
        }
        let reason = snapshot.state.reason.map { "\"\($0.rawValue)\"" } ?? "null"
        let tenths = max(0, (now - startedAt).nanoseconds / 100_000_000)
        return """
            {"status":"\(status)","state":"\(snapshot.state.rawValue)","reason":\(reason),\
            "generation":\(snapshot.generation),"restarts":\(snapshot.restarts),\
            "uptime_seconds":\(tenths / 10).\(tenths % 10)
            """ + tail
    }

    private func isGood(_ endpoint: HealthEndpoint) -> Bool {
        switch endpoint {
        case .health: snapshot.isAlive
        case .ready: snapshot.isReady
        }
    }

    private func encoded(_ endpoint: HealthEndpoint, headOnly: Bool, _ persistence: Persistence) -> ByteBuffer {
        let now = clock()
        if now - encodedAt >= Self.freshFor {
            forget()
            encodedAt = now
        }
        let index = (endpoint.rawValue * 2 + (headOnly ? 1 : 0)) * Persistence.allCases.count + persistence.rawValue
        if let buffer = cache[index] { return buffer }
        let isGood = isGood(endpoint)
        var fields = ["Cache-Control: no-store"]
        if !isGood { fields.append("Retry-After: \(retryAfterSeconds(at: now))") }
        let buffer = AnswerText.whole(
            status: isGood ? 200 : 503, contentType: "application/json", fields: fields,
            body: Array(body(endpoint).utf8), headOnly: headOnly, persistence: persistence)
        cache[index] = buffer
        return buffer
    }

    /// A backoff has an end, which comes nearer; in the other states the advice is the same at any time.
    private func retryAfterSeconds(at now: Instant) -> Int {
        guard snapshot.state == .backoff else { return snapshot.retryAfterSeconds }
        var left = snapshot
        left.retryAfter = snapshot.retryAfter - (now - publishedAt)
        return left.retryAfterSeconds
    }

    private func forget() {
        for index in cache.indices { cache[index] = nil }
    }
}
