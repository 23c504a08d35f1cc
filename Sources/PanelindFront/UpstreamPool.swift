//  UpstreamPool.swift
//  Connections to workers: made when needed, kept for three seconds, given to one request at a time.
//  One that may be dead is not given: a look at its socket comes first. Read UpstreamConnection.swift next.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore
import PanelindHTTP

/// The register of connections to workers; on the loop's thread only.
final class UpstreamPool {
    /// Below the keep-alive of most workers (uvicorn's is 5 s, gunicorn's 2 s).
    private static let idleTime: TimeAmount = .seconds(3)
    /// A worker may close a connection at the very moment it is used again. A request that must not be made twice
    /// would be lost with it, so it goes only where the last answer is younger than any usual keep-alive.
    private static let freshTime: TimeAmount = .milliseconds(500)
    /// A worker that neither answers nor says `100 Continue` for so long gets the body.
    private static let continueTime: TimeAmount = .seconds(3)
    private static let connectTime: TimeAmount = .seconds(5)
    /// A unix socket's queue is full: asked again so often, every 10 ms.
    private static let queueTries = 100

    let deadlines: ConnectionDeadlines
    private unowned let front: Front
    let loop: any EventLoop
    private var addresses: [Generation: UpstreamAddress] = [:]
    /// The one used last is last, and taken first.
    private var idle: [Generation: [UpstreamConnection]] = [:]
    /// Workers that have sent what nobody asked for.
    private var distrusted: Set<Generation> = []

    init(front: Front) {
        self.front = front
        loop = front.loop
        deadlines = ConnectionDeadlines(loop: front.loop) { wait in
            switch wait {
            case .idle: Self.idleTime
            case .head: Self.continueTime
            case .linger: .nanoseconds(Front.bodyStall.nanoseconds)
            case .body, .answer, .write: nil
            }
        }
        use(front.settings)
    }

    func use(_ settings: FrontSettings) {
        deadlines.setLimit(.answer, settings.responseTimeout.map { .nanoseconds($0.nanoseconds) })
    }

    func open(_ generation: Generation, at address: UpstreamAddress) { addresses[generation] = address }

    func forget(_ generation: Generation) {
        addresses[generation] = nil
        distrusted.remove(generation)
        for connection in idle.removeValue(forKey: generation) ?? [] { connection.close() }
    }

    /// Closes what is idle; of all generations, or of all but one.
    func dropIdle(except kept: Generation? = nil) {
        for (generation, connections) in idle where generation != kept {
            idle[generation] = nil
            for connection in connections { connection.close() }
        }
    }

    /// Gives the transaction a connection, now or later; `unreachable` where there is none to be had.
    func connect(_ transaction: Transaction, to generation: Generation, fresh: Bool) {
        while !fresh, let connection = idle[generation]?.last {
            if !transaction.plan.canRetry, connection.idleTime > Self.freshTime { break }
            idle[generation]?.removeLast()
            if connection.isUsable {
                connection.isReused = true
                return transaction.attach(connection)
            }
            connection.close()
        }
        switch addresses[generation] {
        case nil: transaction.unreachable(ECONNREFUSED)
        case .unix(let path, let owner):
            connectUnix(transaction, generation, path, owner, triesLeft: Self.queueTries)
        case .tcp(let address): connectTCP(transaction, generation, address)
        }
    }

    /// A request is over and the connection in order: it may serve the next.
    func give(_ connection: UpstreamConnection) {
        let generation = connection.generation
        guard addresses[generation] != nil, isRouted(generation), !distrusted.contains(generation) else {
            return connection.close()
        }
        connection.rest()
        idle[generation, default: []].append(connection)
    }

    /// The worker sent more than an answer. What comes behind one that looks whole would be read as the next, where
    /// it comes too late to be seen before: each of its connections serves one request from now on.
    func distrust(_ generation: Generation) {
        guard addresses[generation] != nil, distrusted.insert(generation).inserted else { return }
        for connection in idle.removeValue(forKey: generation) ?? [] { connection.close() }
    }

    /// It closed while it was idle.
    func remove(_ connection: UpstreamConnection) {
        guard let place = idle[connection.generation]?.firstIndex(where: { $0 === connection }) else { return }
        idle[connection.generation]?.remove(at: place)
    }

    private func isRouted(_ generation: Generation) -> Bool {
        switch front.admission.route {
        case .forward(generation), .lastCall(generation): true
        case .forward, .lastCall, .hold, .refuse: false
        }
    }

    // MARK: connecting

    /// connect(2) on a unix socket says yes or no at once.
    private func connectUnix(
        _ transaction: Transaction, _ generation: Generation, _ path: String, _ owner: UInt32?, triesLeft: Int
    ) {
        guard transaction.isConnecting(to: generation) else { return }
        let (descriptor, error) = Self.dial(path, owner)
        switch error {
        case 0:
            let connection = UpstreamConnection(pool: self, generation: generation, transaction: transaction)
            finish(bootstrap(connection).withConnectedSocket(descriptor), connection)
        case EMFILE, ENFILE: noDescriptor(transaction)
        case EAGAIN where triesLeft > 0:
            front.loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: .milliseconds(10)) { [weak self] in
                self?.connectUnix(transaction, generation, path, owner, triesLeft: triesLeft - 1)
            }
        default: transaction.unreachable(error)
        }
    }

    /// A connected socket, or the error; EPERM where another than the owner listens.
    private static func dial(_ path: String, _ owner: UInt32?) -> (descriptor: CInt, error: CInt) {
        let descriptor = socket(
            AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return (-1, errno) }
        var error: CInt = 0
        if !connect(descriptor, path) {
            error = errno
        } else if let owner, user(listeningAt: descriptor) != owner {
            error = EPERM
        }
        guard error != 0 else { return (descriptor, 0) }
        Glibc.close(descriptor)
        return (-1, error)
    }

    /// Whether this error of connect(2) is the worker's address's own. The others are of a worker that is busy, and of
    /// panelind's descriptors, ports and memory.
    static func isRefusal(_ error: CInt) -> Bool {
        switch error {
        case 0, EAGAIN, ETIMEDOUT, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL: false
        default: true
        }
    }

    /// Makes a connection as for a request and closes it: the error of connect(2), or 0. Inside this call for a unix
    /// socket; after five seconds at the latest.
    func tryConnection(to generation: Generation, _ answer: @escaping (CInt) -> Void) {
        switch addresses[generation] {
        case nil: answer(ECONNREFUSED)
        case .unix(let path, let owner):
            let (descriptor, error) = Self.dial(path, owner)
            if error == 0 { Glibc.close(descriptor) }
            answer(error)
        case .tcp(let address):
            ClientBootstrap(group: loop).connectTimeout(Self.connectTime).connect(to: address)
                .assumeIsolatedUnsafeUnchecked().whenComplete { result in
                    switch result {
                    case .success(let channel):
                        channel.close(promise: nil)
                        answer(0)
                    case .failure(let error): answer((error as? IOError)?.errnoCode ?? ETIMEDOUT)
                    }
                }
        }
    }

    private func connectTCP(_ transaction: Transaction, _ generation: Generation, _ address: SocketAddress) {
        let connection = UpstreamConnection(pool: self, generation: generation, transaction: transaction)
        finish(
            bootstrap(connection).channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .connectTimeout(Self.connectTime).connect(to: address),
            connection)
    }

    /// Descriptors ran out: an idle connection makes room for one, else the request waits as for a dead worker.
    private func noDescriptor(_ transaction: Transaction) {
        dropIdle()
        transaction.unreachable(EMFILE)
    }

    private func bootstrap(_ connection: UpstreamConnection) -> ClientBootstrap {
        let bound = NIOLoopBound(connection, eventLoop: front.loop)
        return ClientBootstrap(group: front.loop)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 1024, initial: 2048, maximum: 65536)
            )
            .channelOption(
                .writeBufferWaterMark,
                value: ChannelOptions.Types.WriteBufferWaterMark(low: 32 * 1024, high: 128 * 1024)
            )
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
    }

    private func finish(_ future: EventLoopFuture<any Channel>, _ connection: UpstreamConnection) {
        future.assumeIsolatedUnsafeUnchecked().whenFailure { error in
            connection.connectFailed((error as? IOError)?.errnoCode ?? ETIMEDOUT)
        }
    }

    /// Who listens at the other end of a unix socket (SO_PEERCRED of unix(7)): as it was when it began to.
    private static func user(listeningAt descriptor: CInt) -> UInt32? {
        // struct ucred: process, user, group.
        var credentials: (Int32, UInt32, UInt32) = (0, 0, 0)
        var size = socklen_t(12)
        return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0 ? credentials.1 : nil
    }

    private static func connect(_ descriptor: CInt, _ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            errno = ENAMETOOLONG
            return false
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }
}
