//  Exchange.swift
//  What a responder is asked and what it may answer: at once, later in one piece, or as a stream.
//  Read AnswerText.swift and Framing.swift first; HTTPConnection.swift carries it out.

import Glibc
import NIOCore
import NIOHTTP1

/// One whole request; its body, if any, was read and thrown away.
public struct Request {
    /// As NIO decoded it; judged by `Framing`.
    public let head: HTTPRequestHead
    public let framing: RequestFraming
    /// What the answer must say about the connection.
    public let persistence: Persistence
    /// Asked for its address only when someone wants to know: it costs a lock and a copy.
    let channel: (any Channel)?

    /// Who asks; nil in tests without a socket.
    public var peer: SocketAddress? { channel?.remoteAddress }

    /// The method.
    public var method: HTTPMethod { head.method }
    /// HEAD: an answer without its body.
    public var isHead: Bool { head.method == .HEAD }

    /// The path, undecoded and without the query.
    public var path: Substring { Self.path(of: head.uri) }

    /// What follows the first `?`, undecoded; nil without one.
    public var query: Substring? {
        guard let mark = head.uri.utf8.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        return head.uri[head.uri.utf8.index(after: mark)...]
    }

    /// Whether the peer is this machine: a loopback address or a unix socket.
    public var isFromLoopback: Bool {
        switch peer {
        case .v4(let address):
            return UInt32(bigEndian: address.address.sin_addr.s_addr) >> 24 == 127
        case .v6(let address):
            return withUnsafeBytes(of: address.address.sin6_addr) { bytes in
                // ::1, or 127/8 mapped into IPv6.
                let isZero = bytes.prefix(10).allSatisfy { $0 == 0 }
                let isMapped = isZero && bytes[10] == 0xff && bytes[11] == 0xff && bytes[12] == 127
                return isMapped || isZero && bytes[10...14].allSatisfy { $0 == 0 } && bytes[15] == 1
            }
        case .unixDomainSocket: return true
        case nil: return false
        }
    }

    /// The user at the other end of a unix socket when it connected (SO_PEERCRED of unix(7)).
    ///
    /// Of any other socket the kernel says -1, which is nobody's number; nil in tests without a socket.
    public var peerUser: UInt32? {
        struct Credentials {
            var pid: Int32 = 0
            var user: UInt32 = 0
            var group: UInt32 = 0
        }
        guard let provider = channel as? any SocketOptionProvider else { return nil }
        var found: UInt32?
        let name = NIOBSDSocket.Option(rawValue: CInt(SO_PEERCRED))
        let answer: EventLoopFuture<Credentials> = provider.unsafeGetSocketOption(level: .socket, name: name)
        // On the channel's own loop it is known at once.
        answer.assumeIsolatedUnsafeUnchecked().whenSuccess { found = $0.user }
        return found
    }

    /// The path of a target in origin or absolute form (RFC 9112 section 3.2).
    public static func path(of target: String) -> Substring {
        var rest = target[...]
        if rest.utf8.first != UInt8(ascii: "/"), let start = Framing.pathStart(of: target) {
            rest = target[start...]
            if rest.utf8.first != UInt8(ascii: "/") { return "/" }
        }
        guard let mark = rest.utf8.firstIndex(of: UInt8(ascii: "?")) else { return rest }
        return rest[..<mark]
    }
}

/// What a responder says to a request.
public enum Answer {
    /// These bytes, a whole answer that agrees with the request's `persistence`.
    case whole(ByteBuffer)
    /// The closure gets the exchange and must end it, now or later; the caller owns the time it takes.
    case later((Exchange) -> Void)
}

/// Answers the requests of a listener, on the loop's thread.
public protocol Responder: AnyObject {
    /// Answers one request; called in the order in which requests arrived on a connection.
    func respond(to request: Request) -> Answer
    /// Answers one of the plainest requests from memory, or returns nil: then `respond` is asked.
    /// The answer keeps the connection and says nothing about it.
    func respondAtOnce(to request: QuickRequest) -> ByteBuffer?
}

extension Responder {
    /// Nothing is answered at once unless a responder says so.
    public func respondAtOnce(to request: QuickRequest) -> ByteBuffer? { nil }
}

/// An answer that was not given at once. Later requests of the connection wait for its end.
public final class Exchange {
    /// What was asked.
    public let request: Request
    /// Called once if the client is gone before the end: nothing more need be sent.
    public var onGone: (() -> Void)?
    /// Called when a client that was slow takes more again.
    public var onWritable: (() -> Void)?

    private enum Stage { case waiting, streaming(chunked: Bool), ended }
    private var stage = Stage.waiting
    private weak var connection: HTTPConnection?

    init(request: Request, connection: HTTPConnection) {
        self.request = request
        self.connection = connection
    }

    /// The client takes more without a backlog; false once it is gone.
    public var isWritable: Bool { connection?.isWritable ?? false }
    /// No more may be sent.
    public var isEnded: Bool { if case .ended = stage { true } else { false } }

    /// Sends a whole answer and ends the exchange; ignored once ended (the client may be gone by then).
    public func send(_ whole: ByteBuffer) {
        guard case .waiting = stage else { return }
        stage = .ended
        connection?.exchangeWrites(whole)
        connection?.exchangeEnds(keeping: request.persistence != .close)
    }

    /// Starts a stream: chunked, or up to the end of the connection for HTTP/1.0.
    public func begin(status: Int, contentType: String, fields: [String] = []) {
        guard case .waiting = stage else { return }
        let chunked = !request.framing.isHTTP10
        stage = .streaming(chunked: chunked)
        connection?.exchangeWrites(
            AnswerText.streamHead(
                status: status, contentType: contentType, fields: fields, chunked: chunked,
                persistence: chunked ? request.persistence : .close))
    }

    /// Sends a piece of the stream now.
    public func write(_ bytes: ByteBuffer) {
        guard case .streaming(let chunked) = stage, bytes.readableBytes > 0, !request.isHead else { return }
        guard chunked else {
            connection?.exchangeWrites(bytes)
            return
        }
        var piece = ByteBuffer()
        piece.reserveCapacity(bytes.readableBytes + 16)
        piece.writeString(String(bytes.readableBytes, radix: 16))
        piece.writeStaticString("\r\n")
        piece.writeImmutableBuffer(bytes)
        piece.writeStaticString("\r\n")
        connection?.exchangeWrites(piece)
    }

    /// Ends the stream.
    public func end() {
        guard case .streaming(let chunked) = stage else { return }
        stage = .ended
        if chunked && !request.isHead { connection?.exchangeWrites(ByteBuffer(string: "0\r\n\r\n")) }
        connection?.exchangeEnds(keeping: chunked && request.persistence != .close)
    }

    /// Breaks the answer off so that the client sees truncation (RFC 9112 section 8).
    public func abort() {
        guard !isEnded else { return }
        stage = .ended
        connection?.exchangeAborts()
    }

    func gone() {
        guard !isEnded else { return }
        stage = .ended
        onGone?()
    }

    func writable() {
        if !isEnded { onWritable?() }
    }
}
