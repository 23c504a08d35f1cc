//  HTTPLimits.swift
//  How much a client may ask for, hold and delay: every bound of a listener in one value (CONTRACT section 2, 5).
//  Read before HTTPServer.swift.

import Glibc
import NIOCore
import NIOHTTP1
import PanelindCore

/// The bounds of one listener and its connections.
public struct HTTPLimits: Sendable, Hashable {
    /// Names, values and target of one head together, in bytes; beyond: 431.
    public var headBytes: Int = 64 * 1024
    /// Fields of one message, trailers included; beyond: 431.
    public var headFields: Int = 100
    /// The request target, in bytes; beyond: 414.
    public var targetBytes: Int = 16 * 1024
    /// A request body that is read and thrown away, in bytes; beyond: 413.
    public var bodyBytes: Int = 1024 * 1024
    /// Whole heads that wait behind an unfinished answer; beyond: the connection is closed.
    public var pipelined: Int = 1024
    /// Sixteenths of the descriptors that there are for connections: the listeners of one process share a table, and a
    /// flood of one must leave the others theirs, and a worker's start its pipes.
    public var share: Int = 10
    /// Open connections; bounded by RLIMIT_NOFILE too.
    public var connections: Int = 4096
    /// Connections beyond `connections` that are still answered once, so that health is never shut out.
    public var extraConnections: Int = 64
    /// An idle connection younger than this is not closed to make room: its first request may be under way.
    public var evictableAfter: Duration = .milliseconds(100)
    /// Descriptors that one connection may need: its own, and one to the worker.
    public var descriptorsPerConnection: Int = 1
    /// Largest receive buffer of one connection, in bytes; it begins at 2 KiB and grows with what comes.
    public var receiveBytes: Int = 4096
    /// Bytes written but not taken by the kernel, from which on a connection counts as slow.
    public var writeHigh: Int = 16 * 1024
    /// From the first byte of a head to its last.
    public var headTime: Duration = .seconds(15)
    /// Between two requests, or before the first; nil: for ever.
    public var idleTime: Duration? = .seconds(620)
    /// From the end of a head to the end of a body that is thrown away.
    public var bodyTime: Duration = .seconds(60)
    /// Longest time without progress of a client that does not take its answer.
    public var writeTime: Duration = .seconds(30)
    /// How long a refused client is still read from, so that it sees why (RFC 9112 section 9.6).
    public var lingerTime: Duration = .milliseconds(900)

    /// Makes the limits of the front: 15 s for a head, 620 s idle.
    public init() {}

    /// The limits of the sidecar: as the front, 60 s idle; without a front it has the front's descriptors too.
    public static func sidecar(besideFront: Bool) -> HTTPLimits {
        var limits = HTTPLimits()
        limits.idleTime = .seconds(60)
        limits.bodyBytes = 64 * 1024
        limits.share = besideFront ? 4 : 14
        return limits
    }

    /// What NIO's decoder must enforce by itself: its defaults are far larger.
    public var decoder: NIOHTTPDecoderLimitConfiguration {
        var configuration = NIOHTTPDecoderLimitConfiguration()
        configuration.maxHeaderFieldSize = headBytes
        configuration.maxHeaderListSize = headBytes
        configuration.maxHeaderFieldCount = headFields
        return configuration
    }

    /// What each connection reads into. An idle one keeps its buffer: it should be small.
    var receiveAllocator: any RecvByteBufferAllocator {
        receiveBytes <= 4096
            ? FixedSizeRecvByteBufferAllocator(capacity: receiveBytes)
            : AdaptiveRecvByteBufferAllocator(minimum: 1024, initial: 2048, maximum: receiveBytes)
    }

    /// How many connections fit: `connections`, or fewer where descriptors are short; `extraConnections` likewise.
    ///
    /// - Parameter reserve: descriptors kept for everything else.
    /// - Source: getrlimit(2).
    public func fitted(reserve: Int = 128) -> HTTPLimits {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return self }
        return fitted(descriptors: Int(clamping: limit.rlim_cur), reserve: reserve)
    }

    /// The same for a table of so many.
    func fitted(descriptors: Int, reserve: Int) -> HTTPLimits {
        // A small table is shared half and half rather than refused outright.
        let own = max(descriptors - reserve, descriptors / 2) * share / 16
        var limits = self
        limits.extraConnections = min(extraConnections, max(own / 4, 1))
        limits.connections = min(connections, max((own - limits.extraConnections) / descriptorsPerConnection, 2))
        return limits
    }
}
