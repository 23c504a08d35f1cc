//  Equipment.swift
//  What the tests of this module share: an embedded connection, a server on its own loop, a blocking client.
//  Everything is on loopback, on free ports, with bounded waits.

import Glibc
import NIOCore
import NIOEmbedded
import NIOHTTP1
import NIOPosix
import PanelindCore
import Testing

@testable import PanelindHTTP

/// A responder that says what it was asked.
final class Echo: Responder {
    func respond(to request: Request) -> Answer {
        let text = "\(request.method) \(request.path)"
        return .whole(
            AnswerText.whole(
                status: 200, contentType: "text/plain", body: Array(text.utf8), headOnly: request.isHead,
                persistence: request.persistence))
    }
}

/// A connection without a socket.
final class EmbeddedConnection {
    let channel = EmbeddedChannel()
    let server: HTTPServer

    init(responder: any Responder = Echo(), limits: HTTPLimits = HTTPLimits()) throws {
        server = HTTPServer(loop: channel.embeddedEventLoop, limits: limits, responder: responder)
        try server.setUp(channel)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    var isOpen: Bool { channel.isActive }

    /// Feeds bytes as one read; what came out since the last call.
    func feed(_ bytes: [UInt8]) -> String {
        _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
        return output()
    }

    func feed(_ text: String) -> String { feed(Array(text.utf8)) }

    func output() -> String {
        var text = ""
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
        return text
    }

    /// The status codes in an output, in order.
    static func statuses(_ output: String) -> [Int] {
        output.ranges(of: "HTTP/1.1 ").compactMap { range in
            // A problem's text may name the protocol too: a status is three digits and a space.
            let rest = output[range.upperBound...]
            return rest.dropFirst(3).first == " " ? Int(rest.prefix(3)) : nil
        }
    }
}

/// A clock for boards.
func monotonicNow() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}

/// A sidecar that says `ready`.
func readySidecar() -> Sidecar {
    let board = HealthBoard(version: "1.0.0", revision: nil, startedAt: monotonicNow(), clock: monotonicNow)
    board.publish(HealthSnapshot(state: .ready, generation: 1, restarts: 0, retryAfter: .seconds(1)))
    return Sidecar(board: board)
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
}

/// A listening socket on a free loopback port.
func listenerOnLoopback() throws -> (descriptor: CInt, port: Int) {
    let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
    let address = try SocketAddress(ipAddress: "127.0.0.1", port: 0)
    let bound = address.withSockAddr { pointer, size in bind(descriptor, pointer, socklen_t(size)) }
    guard descriptor >= 0, bound == 0, listen(descriptor, 128) == 0 else {
        throw TestFailure(description: "cannot listen: errno \(errno)")
    }
    var name = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    _ = withUnsafeMutablePointer(to: &name) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
    }
    return (descriptor, Int(UInt16(bigEndian: name.sin_port)))
}

/// A server on a loop of its own.
final class LoopbackServer {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let port: Int
    private let server: NIOLoopBound<HTTPServer>

    init(limits: HTTPLimits = HTTPLimits(), responder: @escaping @Sendable () -> any Responder) throws {
        let (descriptor, port) = try listenerOnLoopback()
        self.port = port
        defer { close(descriptor) }
        let loop = group.next()
        server = try loop.submit {
            let server = try HTTPServer(descriptor: descriptor, loop: loop, limits: limits, responder: responder())
            return NIOLoopBound(server, eventLoop: loop)
        }.wait()
        let bound = server
        try loop.flatSubmit { bound.value.start() }.wait()
    }

    /// Reads something of the server on its loop.
    func look<Value: Sendable>(_ body: @escaping @Sendable (HTTPServer) -> Value) throws -> Value {
        let bound = server
        return try group.next().submit { body(bound.value) }.wait()
    }

    func stop() throws {
        let bound = server
        try group.next().submit { bound.value.close() }.wait()
        try group.syncShutdownGracefully()
    }
}

/// A blocking client with a bound on every wait.
final class Client {
    let descriptor: CInt

    init(port: Int, timeout: Int = 20) throws {
        descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: port)
        let code = address.withSockAddr { pointer, size in connect(descriptor, pointer, socklen_t(size)) }
        guard code == 0 else { throw TestFailure(description: "cannot connect: errno \(errno)") }
    }

    deinit { close(descriptor) }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            if count <= 0 { return }
            sent += count
        }
    }

    func finishSending() { shutdown(descriptor, CInt(SHUT_WR)) }

    /// Everything up to the end of the connection.
    func readAll() -> String { read { _ in false } }

    /// Up to this many whole answers with Content-Length, or the end.
    func readAnswers(_ count: Int) -> String {
        read { Self.wholeAnswers($0) >= count }
    }

    private func read(until isEnough: ([UInt8]) -> Bool) -> String {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while !isEnough(all) {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { break }
            all += buffer[..<count]
        }
        return String(decoding: all, as: UTF8.self)
    }

    private static func wholeAnswers(_ bytes: [UInt8]) -> Int {
        var rest = String(decoding: bytes, as: UTF8.self)[...]
        var count = 0
        while let end = rest.firstRange(of: "\r\n\r\n") {
            let head = rest[..<end.lowerBound]
            let length =
                head.split(separator: "\r\n").compactMap { line in
                    line.hasPrefix("Content-Length: ") ? Int(line.dropFirst(16)) : nil
                }.first ?? 0
            let body = rest[end.upperBound...]
            guard body.utf8.count >= length else { return count }
            rest = body.dropFirst(length)
            count += 1
        }
        return count
    }
}
