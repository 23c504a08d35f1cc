//  Host.swift
//  A front on a loop of its own inside the process, with a worker's place that the caller plays.
//  For the tests and the fuzzer. Read PanelindFront/Front.swift first.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore
import PanelindFront
import PanelindHTTP

/// What cannot be made.
public struct FuzzFailure: Error, CustomStringConvertible {
    public let description: String

    /// Makes a failure.
    public init(_ description: String) { self.description = description }
}

/// A running front.
public final class FrontHost {
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let front: NIOLoopBound<Box>
    /// On loopback.
    public let port: Int

    /// Connections made to it.
    private(set) var connections = 0
    private var hasStopped = false

    private final class Box {
        var front: Front?
        init(_ front: Front) { self.front = front }
    }

    private final class Weak {
        weak var front: Front?
        init(_ front: Front?) { self.front = front }
    }

    /// Starts one that holds every request.
    public init(_ change: @escaping @Sendable (inout FrontSettings) -> Void) throws {
        let (descriptor, port) = try Self.listener()
        self.port = port
        defer { close(descriptor) }
        let loop = group.next()
        front = try loop.submit {
            var settings = FrontSettings()
            change(&settings)
            let board = HealthBoard(version: "0", revision: nil, startedAt: Self.now(), clock: Self.now)
            let front = try Front(
                descriptor: descriptor, listenerIsInherited: false, loop: loop, board: board, settings: settings,
                clock: Self.now)
            return NIOLoopBound(Box(front), eventLoop: loop)
        }.wait()
        let bound = front
        try loop.flatSubmit { bound.value.front?.start() ?? loop.makeSucceededVoidFuture() }.wait()
    }

    /// The loop ends first: what is still under way on it would find no front.
    deinit {
        if hasStopped { return }
        let bound = front
        try? group.next().submit { bound.value.front?.close() }.wait()
        try? group.syncShutdownGracefully()
    }

    /// Does something with it, on its loop.
    public func on<Value: Sendable>(_ body: @escaping @Sendable (Front) throws -> Value) throws -> Value {
        let bound = front
        return try group.next().submit {
            guard let front = bound.value.front else { throw FuzzFailure("the front has stopped") }
            return try body(front)
        }.wait()
    }

    /// Carries out what the machine would say.
    public func perform(_ action: FrontAction) throws { try on { $0.perform(action) } }

    /// A connection of a client.
    func connect() throws -> Peer {
        let peer = try Peer.connect(port: port)
        connections += 1
        return peer
    }

    /// Ends it; false where something still holds the front afterwards.
    public func stop() throws -> Bool {
        let bound = front
        let loop = group.next()
        hasStopped = true
        try loop.submit { bound.value.front?.close() }.wait()
        // The channels' handlers leave in the next turn.
        try loop.submit {}.wait()
        let isFreed = try loop.submit {
            let last = Weak(bound.value.front)
            bound.value.front = nil
            return last.front == nil
        }.wait()
        try group.syncShutdownGracefully()
        return isFreed
    }

    /// The monotonic clock.
    public static func now() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    private static func listener() throws -> (descriptor: CInt, port: Int) {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: 0)
        let bound = address.withSockAddr { pointer, size in bind(descriptor, pointer, socklen_t(size)) }
        guard descriptor >= 0, bound == 0 else { throw FuzzFailure("cannot bind on loopback: errno \(errno)") }
        var name = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
        }
        return (descriptor, Int(UInt16(bigEndian: name.sin_port)))
    }
}
