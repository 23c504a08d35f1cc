//  HTTPMetrics.swift
//  What the front counts for each finished request: a slot of a fixed table and one bucket.
//  No String and no allocation on the way of a request. Read after Histogram.swift.

import PanelindCore

/// Requests of the front, by method and code; on the main thread only.
public final class HTTPMetrics {
    /// The methods of RFC 9110 and PATCH; any other is `other`, so that a client cannot make labels.
    public enum Method: Int, Hashable, Sendable, CaseIterable {
        case get, head, post, put, delete, patch, options, other

        /// The method of this name; names are case-sensitive (RFC 9110 section 9.1).
        public init(_ name: some Collection<UInt8>) {
            for method in Self.allCases.dropLast() {
                let label = method.label
                let bytes = UnsafeBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount)
                if name.elementsEqual(bytes) {
                    self = method
                    return
                }
            }
            self = .other
        }

        /// As the label says it.
        public var label: StaticString {
            switch self {
            case .get: "GET"
            case .head: "HEAD"
            case .post: "POST"
            case .put: "PUT"
            case .delete: "DELETE"
            case .patch: "PATCH"
            case .options: "OPTIONS"
            case .other: "other"
            }
        }
    }

    /// Codes 100...599; index 0 is for what is none.
    private static let codes = 501

    private var requests = [Int](repeating: 0, count: Method.allCases.count * HTTPMetrics.codes)
    /// From the request's head to the answer's end, or to the break.
    public private(set) var durations = Histogram(
        milliseconds: [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000])
    /// All finished requests.
    public private(set) var finishedRequests = 0
    /// Those answered with 500...599.
    public private(set) var serverErrors = 0
    /// Requests in flight to the worker now; asked at a scrape.
    public var inFlight: () -> Int = { 0 }
    /// Requests that wait for a worker now; asked at a scrape.
    public var held: () -> Int = { 0 }

    /// Makes an empty table.
    public init() {}

    /// Counts one request that is over.
    ///
    /// - Parameters:
    ///   - status: of the answer; 499 or 0 where the client was gone before one.
    ///   - nanoseconds: from the request's head to the answer's end.
    public func finished(method: Method, status: Int, nanoseconds: Int64) {
        let code = (100...599).contains(status) ? status - 99 : 0
        requests[method.rawValue * Self.codes + code] += 1
        finishedRequests += 1
        if (500...599).contains(status) { serverErrors += 1 }
        durations.observe(nanoseconds)
    }

    /// Counts one that was refused before it was a request: nothing is known of its method and its time.
    public func refused(status: Int) {
        let code = (100...599).contains(status) ? status - 99 : 0
        requests[Method.other.rawValue * Self.codes + code] += 1
    }

    /// What was counted, where it is not nothing, in a fixed order; code 0 is for an answer that never came.
    func forEach(_ body: (Method, _ code: Int, _ count: Int) -> Void) {
        for method in Method.allCases {
            for code in 0..<Self.codes {
                let count = requests[method.rawValue * Self.codes + code]
                if count > 0 { body(method, code == 0 ? 0 : code + 99, count) }
            }
        }
    }
}
