//  FrontSettings.swift
//  What the front is told: its bounds, its paths, whom it trusts, and where a worker serves.
//  Plain values; the runtime makes them of the settings. Read first here.

import NIOCore
import PanelindCore
import PanelindHTTP

/// `serve.*`, as far as the front obeys it (CONTRACT section 2).
public struct FrontSettings {
    public var admission = AdmissionSettings()
    /// Panelind's own paths; nil leaves the path to the worker.
    public var healthPath: [UInt8]? = Array("/health".utf8)
    public var readyPath: [UInt8]? = Array("/ready".utf8)
    /// Largest request body in bytes; nil for none.
    public var bodyLimit: Int? = 32 << 20
    /// From the first byte of a head to its last.
    public var headerTimeout: Duration = .seconds(15)
    /// Between two requests of a connection.
    public var idleTimeout: Duration = .seconds(620)
    /// From the forwarding of a request to the first byte of its answer; nil for ever.
    public var responseTimeout: Duration?
    /// Whose `X-Forwarded-Proto` and `-Host` are kept; asked once for each connection.
    public var isTrusted: (SocketAddress) -> Bool = { _ in false }

    /// Makes the defaults of CONTRACT.
    public init() {}

    /// The limits of the public listener's connections.
    var limits: HTTPLimits {
        var limits = HTTPLimits()
        limits.headTime = headerTimeout
        limits.idleTime = idleTimeout
        limits.bodyTime = Front.bodyStall
        limits.writeTime = Front.writeStall
        limits.descriptorsPerConnection = 2
        limits.receiveBytes = 64 * 1024
        limits.writeHigh = 128 * 1024
        return limits
    }
}

/// Where one generation's worker serves.
public enum UpstreamAddress: Hashable, Sendable {
    /// An absolute path; with an owner only this user may listen there. A worker of another user than ours could put
    /// a link in the place of its socket, to one that we, as root, may connect to and it may not.
    case unix(String, owner: UInt32? = nil)
    /// A numeric address.
    case tcp(SocketAddress)
}

/// A request that is over, for the access log and the metrics.
public struct FinishedRequest {
    /// What the client got; 499 where it left before, 0 where it was cut off before any status.
    public let status: Int
    /// From the whole head to the end.
    public let duration: Duration
    /// From the whole head to the head of the answer; nil where there was none.
    public let untilHead: Duration?
    /// An event stream or a tunnel: its duration says nothing about slowness.
    public let isLasting: Bool
    /// Of the body.
    public let requestBytes: Int
    /// Of the body.
    public let responseBytes: Int
    /// Why it did not end well, in one word or a few; nil where it did.
    public let reason: String?
    /// The client saw the worker's status, but not the whole answer, and did not leave by itself.
    public let isCut: Bool
    public let isHTTP10: Bool
    /// The peer's address, or `unix`.
    public let peer: String
    /// As it was forwarded.
    let head: ByteBuffer

    /// The method and the target as they were sent.
    public var methodAndTarget: (method: String, target: String) {
        head.withUnsafeReadableBytes { raw in
            let line = raw.prefix { $0 != 0x0d }
            let parts = line.split(separator: 0x20, maxSplits: 2)
            guard parts.count == 3 else { return ("", "") }
            return (String(decoding: parts[0], as: UTF8.self), String(decoding: parts[1], as: UTF8.self))
        }
    }

    /// The bytes of the method, without a text of them.
    public func withMethod<Result>(_ body: (Slice<UnsafeRawBufferPointer>) -> Result) -> Result {
        head.withUnsafeReadableBytes { raw in body(raw.prefix { $0 != 0x20 }) }
    }

    /// The first field of this name, in lower case; never ask for one that carries a credential.
    public func field(_ name: StaticString) -> String? {
        head.withUnsafeReadableBytes { raw in
            var lines = HeadLines()
            guard (try? lines.cut(raw)) != nil else { return nil }
            for line in lines.fields where FieldName.equals(HeadLines.name(line, raw), name) {
                return String(decoding: HeadLines.value(line, raw), as: UTF8.self)
            }
            return nil
        }
    }
}

/// A connection's request that was no request, for the log.
public struct RefusedRequest {
    public let status: Int
    /// Never contains bytes of the client.
    public let detail: String
    public let peer: String
    /// Refusals since the last one that was told: they are told ten times a second at most.
    public let untold: Int
}

extension SocketAddress {
    /// The address without its port; nil for a unix socket. An IPv4 address in an IPv6 one is written as itself.
    var peerText: String? {
        guard let text = ipAddress else { return nil }
        return text.hasPrefix("::ffff:") && text.contains(".") ? String(text.dropFirst(7)) : text
    }
}
