//  HTTPServer.swift
//  A listener: accepts from a descriptor that someone else bound, bounds its connections, ends them.
//  Descriptors run out without a spin and without shutting health out. Read HTTPConnection.swift first.

import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import PanelindCore

/// One HTTP/1.1 listener; on the loop's thread only.
public final class HTTPServer {
    /// What a listener cannot do.
    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public let limits: HTTPLimits
    /// The port of a TCP listener, nil for a unix socket.
    public let port: Int?
    /// From now on every answer says `Connection: close` (a drain).
    public var isLastCall = false
    /// Connections that are open now.
    public var openConnections: Int { deadlines.count }
    /// Connections accepted so far.
    public private(set) var accepted = 0
    /// Idle connections closed early for new ones.
    public private(set) var evicted = 0
    /// Connections closed unanswered for want of room.
    public private(set) var refused = 0

    /// The register of the open connections.
    public let deadlines: ConnectionDeadlines
    /// Makes the handler of a new connection; true for one beyond the limit, which is answered and not kept.
    private let makeConnection: (HTTPServer, Bool) -> any ChannelHandler
    private let loop: any EventLoop
    /// The caller's: what is accepted from is a copy.
    private let source: NIOBSDSocket.Handle
    private var descriptor: NIOBSDSocket.Handle
    private var channel: (any Channel)?
    private var isClosed = false

    /// Makes a listener that does not accept yet.
    ///
    /// - Parameters:
    ///   - descriptor: bound; duplicated here, so that the caller keeps its own, open until `stopAccepting`.
    ///     Its file description becomes non-blocking and close-on-exec here.
    ///   - loop: the loop of the calling thread.
    /// - Errors: `Failure` where the descriptor cannot be duplicated.
    public convenience init(
        descriptor: NIOBSDSocket.Handle, loop: any EventLoop, limits: HTTPLimits = HTTPLimits(),
        responder: any Responder
    ) throws(Failure) {
        try self.init(descriptor: descriptor, loop: loop, limits: limits) { server, answersOnce in
            HTTPConnection(server: server, responder: responder, answersOnce: answersOnce)
        }
    }

    /// The same for connections of another kind: their handler is made for each, and must enter and leave `deadlines`.
    public init(
        descriptor: NIOBSDSocket.Handle, loop: any EventLoop, limits: HTTPLimits,
        makeConnection: @escaping (HTTPServer, _ answersOnce: Bool) -> any ChannelHandler
    ) throws(Failure) {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else {
            throw Failure(
                description: "no copy of its descriptor \(descriptor): \(String(cString: strerror(errno)).lowercased())"
            )
        }
        // Accepted sockets inherit it; on a unix socket it fails and does not matter.
        var on: CInt = 1
        _ = setsockopt(copy, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
        source = descriptor
        self.descriptor = copy
        self.loop = loop
        self.limits = limits.fitted()
        self.makeConnection = makeConnection
        port = Self.port(of: copy)
        deadlines = ConnectionDeadlines(loop: loop) { limits.limit(of: $0) }
    }

    /// Makes the handlers' side only, without a listener: for tests on an embedded loop.
    package init(loop: any EventLoop, limits: HTTPLimits, responder: any Responder) {
        source = -1
        descriptor = -1
        self.loop = loop
        self.limits = limits
        makeConnection = { HTTPConnection(server: $0, responder: responder, answersOnce: $1) }
        port = nil
        deadlines = ConnectionDeadlines(loop: loop) { limits.limit(of: $0) }
    }

    /// Starts to accept.
    ///
    /// - Parameter backlog: of listen(2); the kernel caps it at `net.core.somaxconn`.
    /// - Errors: what listen(2) and epoll_ctl(2) say.
    public func start(backlog: CInt = 4096) -> EventLoopFuture<Void> {
        let bound = NIOLoopBound(self, eventLoop: loop)
        let backlogDescriptor = descriptor
        return ServerBootstrap(group: loop)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptGuard(server: bound.value))
                }
            }
            // One accept(2) per readiness: without a free descriptor a second one says EMFILE though nobody waits.
            .serverChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: limits.receiveAllocator)
            .childChannelOption(
                .writeBufferWaterMark,
                value: ChannelOptions.Types.WriteBufferWaterMark(low: limits.writeHigh / 4, high: limits.writeHigh)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try bound.value.setUp(channel) }
            }
            .withBoundSocket(descriptor)
            .map { channel in
                // NIO listens with a backlog of 128; a second listen(2) only changes the number.
                _ = listen(backlogDescriptor, backlog)
                bound.value.started(channel)
            }
    }

    private func started(_ channel: any Channel) {
        self.channel = channel
        if isClosed { return channel.close(promise: nil) }
        let bound = NIOLoopBound(self, eventLoop: loop)
        channel.closeFuture.whenComplete { _ in bound.value.acceptAgain() }
    }

    /// NIO gives the listener up for an error that is one connection's: a firewall's EPERM, EPROTO, ENETDOWN, which
    /// accept(2) says to treat like EAGAIN. It is taken up again; until then the kernel queues.
    private func acceptAgain() {
        guard !isClosed else { return }
        channel = nil
        loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: .milliseconds(50)) { [weak self] in
            guard let self, !isClosed else { return }
            let copy = fcntl(source, F_DUPFD_CLOEXEC, 3)
            guard copy >= 0 else { return acceptAgain() }
            descriptor = copy
            let bound = NIOLoopBound(self, eventLoop: loop)
            start().whenFailure { _ in bound.value.acceptAgain() }
        }
    }

    /// Gives a new connection its handlers, or no place.
    package func setUp(_ channel: any Channel) throws {
        var answersOnce = false
        if deadlines.count >= limits.connections {
            if deadlines.expireLongest(.idle, atLeast: evictableAge) {
                evicted += 1
            } else if deadlines.count < limits.connections + limits.extraConnections {
                answersOnce = true
            } else if evictUnfinished() {
                evicted += 1
                answersOnce = true
            } else {
                refused += 1
                throw Failure(description: "cannot take a connection: \(deadlines.count) are open and none is idle")
            }
        }
        accepted += 1
        try channel.pipeline.syncOperations.addHandler(makeConnection(self, answersOnce))
    }

    private var evictableAge: TimeAmount { .nanoseconds(limits.evictableAfter.nanoseconds) }

    /// Ends the request that has taken longest to arrive.
    private func evictUnfinished() -> Bool {
        deadlines.expireLongest(.head, atLeast: evictableAge) || deadlines.expireLongest(.body, atLeast: evictableAge)
    }

    /// Makes room when the process or the system is out of descriptors or memory: an idle connection goes, else
    /// accepting rests for a moment. Without either, epoll would report the same connection again and again.
    fileprivate func makeRoom() {
        if deadlines.expireLongest(.idle, atLeast: evictableAge) {
            evicted += 1
            return
        }
        guard let channel else { return }
        try? channel.syncOptions?.setOption(.autoRead, value: false)
        loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: .milliseconds(100)) { [weak self] in
            guard let self, !isClosed else { return }
            try? self.channel?.syncOptions?.setOption(.autoRead, value: true)
        }
    }

    /// Stops accepting; open connections are served on. The caller's own descriptor stays as it is.
    public func stopAccepting() {
        isClosed = true
        channel?.close(promise: nil)
        channel = nil
    }

    /// Stops accepting and closes every connection; answers not yet sent are lost.
    public func close() {
        stopAccepting()
        deadlines.forEach { $0.closeNow() }
    }

    /// getsockname(2).
    private static func port(of descriptor: CInt) -> Int? {
        var storage = sockaddr_storage()
        var size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let family = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                getsockname(descriptor, address, &size) == 0 ? CInt(address.pointee.sa_family) : -1
            }
        }
        // sin_port and sin6_port are at the same place.
        guard family == AF_INET || family == AF_INET6 else { return nil }
        return withUnsafeBytes(of: &storage) { Int($0[2]) << 8 | Int($0[3]) }
    }
}

extension HTTPLimits {
    /// The limit of a wait in the register of deadlines; `answer` has none, its time is the responder's.
    func limit(of wait: ConnectionDeadlines.Wait) -> TimeAmount? {
        let limit: Duration? =
            switch wait {
            case .idle: idleTime
            case .head: headTime
            case .body: bodyTime
            case .answer: nil
            case .write: writeTime
            case .linger: lingerTime
            }
        return limit.map { .nanoseconds($0.nanoseconds) }
    }
}

/// Hears what accept(2) says.
private final class AcceptGuard: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private let server: HTTPServer

    init(server: HTTPServer) { self.server = server }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError else { return context.fireErrorCaught(error) }
        switch error.errnoCode {
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: server.makeRoom()
        default: context.fireErrorCaught(error)  // ECONNABORTED: that client is gone, the next is not.
        }
    }
}
