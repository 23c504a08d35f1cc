//  Server.swift
//  Listeners and connections: bytes in, requests out to Answers.swift, bytes back.
//  Read Worker.swift (the poll) before it; man 2 accept, man 7 tcp.

import Glibc

/// Everything the worker serves; non-blocking throughout.
final class Server {
    /// How /ready answers.
    var health = Health.code(200)
    /// Alive, but nothing is accepted, read or answered.
    var hung = false
    private(set) var draining = false
    private var listeners: [Int32] = []
    private var connections: [Connection] = []
    /// Clients that left while a request of theirs was never to be answered.
    var aborted = 0

    var firstListener: Int32? { listeners.first }

    /// Requests begun and not answered.
    var inFlight: Int { connections.count { $0.isBusy } }

    /// When a connection has something to do by the clock.
    var nextTime: Nanoseconds? { hung ? nil : connections.compactMap(\.wakeTime).min() }

    // MARK: listeners

    func listen(_ address: Address) {
        let listener = open(address)
        closeOnExec(listener)
        // A shared listener too: another generation may take the connection between poll and accept.
        nonBlocking(listener)
        listeners.append(listener)
    }

    func stopListening() {
        for listener in listeners { close(listener) }
        listeners = []
    }

    func drain() {
        draining = true
        stopListening()
        for connection in connections where !connection.isBusy {
            // A client that has just connected is about to ask; to close on it would lose its request.
            if connection.isFresh { connection.patience = monotonic() + 500_000_000 } else { connection.end() }
        }
        connections.removeAll { $0.isClosed }
    }

    private func open(_ address: Address) -> Int32 {
        switch address {
        case .descriptor(let descriptor):
            guard fcntl(descriptor, F_GETFD) >= 0 else {
                fail("cannot listen on descriptor \(descriptor): \(reason())")
            }
            return descriptor
        case .activated:
            let (pid, count) = (environment("LISTEN_PID") ?? "unset", environment("LISTEN_FDS") ?? "unset")
            guard pid == "\(getpid())" else {
                fail("cannot take a passed socket: LISTEN_PID is \(pid), not \(getpid())")
            }
            guard let number = Int(count), number > 0 else {
                fail("cannot take a passed socket: LISTEN_FDS is \(count)")
            }
            return open(.descriptor(3))
        case .environment(let name):
            guard let port = environment(name).flatMap({ UInt16($0) }) else {
                fail("cannot listen on $\(name): it is \(environment(name) ?? "unset"), not a port")
            }
            return open(.tcp(host: "127.0.0.1", port: port))
        case .unix(let path):
            let listener = makeSocket(AF_UNIX, SOCK_STREAM)
            // What a predecessor left behind does not count, as with the servers we stand in for.
            unlink(path)
            let bound = withUnixAddress(path) { bind(listener, $0, $1) } ?? -1
            guard bound == 0, Glibc.listen(listener, 1024) == 0 else {
                fail("cannot listen on unix:\(path): \(reason())")
            }
            return listener
        case .tcp(let host, let port):
            let listener = makeSocket(AF_INET, SOCK_STREAM)
            var on: Int32 = 1
            setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, 4)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
                fail("cannot listen on \(host):\(port): \(host) is not an IPv4 address")
            }
            let bound = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, 16) }
            }
            guard bound == 0, Glibc.listen(listener, 1024) == 0 else {
                fail("cannot listen on \(host):\(port): \(reason())")
            }
            return listener
        }
    }

    // MARK: the poll

    /// What to wait for: listeners, then connections.
    func wanted() -> [pollfd] {
        if hung { return [] }
        return listeners.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            + connections.map { pollfd(fd: $0.descriptor, events: $0.wanted, revents: 0) }
    }

    func serve(_ entries: ArraySlice<pollfd>, for worker: Worker) {
        // A signal or an answer may have closed some of them: go by number, not by position.
        for entry in entries where entry.revents != 0 {
            if listeners.contains(entry.fd) {
                accept(entry.fd)
            } else if let connection = connections.first(where: { $0.descriptor == entry.fd }) {
                connection.move(entry.revents, server: self, worker: worker)
            }
        }
        connections.removeAll { $0.isClosed }
    }

    func tick(for worker: Worker) {
        guard !hung, let next = nextTime, next <= monotonic() else { return }
        for connection in connections { connection.wake(server: self, worker: worker) }
        connections.removeAll { $0.isClosed }
    }

    private func accept(_ listener: Int32) {
        while true {
            let descriptor = Glibc.accept(listener, nil, nil)
            // EAGAIN: taken by another; the rest is the client's affair.
            guard descriptor >= 0 else { return }
            closeOnExec(descriptor)
            nonBlocking(descriptor)
            connections.append(Connection(descriptor))
        }
    }
}

/// One client: what it sent, what it is still owed.
final class Connection {
    /// What follows once the output has been written.
    enum Duty {
        case idle
        case reading(Request)
        case later(Nanoseconds, Answer)
        case silent
        case flood(left: Int?, line: Int)
        case stream(next: Nanoseconds, period: Nanoseconds, sent: Int, of: Int?)
        case tunnel
    }

    /// POLLRDHUP of <poll.h>; the importer does not see it without _GNU_SOURCE.
    private static let peerClosed: Int16 = 0x2000

    let descriptor: Int32
    var duty = Duty.idle
    var output: [UInt8] = []
    var closesAfterwards = false
    /// While draining: how long the first request of this client is waited for.
    var patience: Nanoseconds?
    private(set) var isFresh = true
    private(set) var isClosed = false
    private var input: [UInt8] = []
    private var clientEnded = false

    init(_ descriptor: Int32) { self.descriptor = descriptor }

    var isBusy: Bool {
        if case .idle = duty { return !output.isEmpty || !input.isEmpty || (isFresh && patience != nil) }
        return true
    }

    var wakeTime: Nanoseconds? {
        switch duty {
        case .later(let time, _), .stream(let time, _, _, _): return time
        case .idle: return isFresh ? patience : nil
        case .reading, .silent, .flood, .tunnel: return nil
        }
    }

    var wanted: Int16 {
        var events: Int16 = 0
        // One request at a time: what is pipelined waits in the kernel, and so does an echo that is not read.
        switch duty {
        case .idle, .reading, .tunnel: if !clientEnded && output.count < 65_536 { events |= Int16(POLLIN) }
        case .flood: events |= Int16(POLLOUT)
        case .silent: events |= Self.peerClosed
        case .later, .stream: break
        }
        return output.isEmpty ? events : events | Int16(POLLOUT)
    }

    func end() {
        guard !isClosed else { return }
        close(descriptor)
        isClosed = true
    }

    func move(_ events: Int16, server: Server, worker: Worker) {
        guard !isClosed else { return }
        // Only a silent one ends here: a client's FIN after a whole request is not a cancel where an answer comes.
        if case .silent = duty, events & (Self.peerClosed | Int16(POLLERR) | Int16(POLLHUP)) != 0 {
            server.aborted += 1
            return end()
        }
        if events & Int16(POLLERR) != 0 { return end() }
        // A hang-up alone comes unasked for as long as it lasts: nobody is left to answer.
        if events & Int16(POLLHUP) != 0 && events & Int16(POLLIN) == 0 { return end() }
        if events & Int16(POLLIN) != 0 { receive() }
        think(server: server, worker: worker)
    }

    func wake(server: Server, worker: Worker) {
        guard !isClosed, let time = wakeTime, time <= monotonic() else { return }
        switch duty {
        case .later(_, let answer): reply(answer, server: server)
        case .stream(_, let period, let sent, let total):
            send(chunk: Array("id: \(sent + 1)\ndata: \(sent + 1)\n\n".utf8))
            if sent + 1 == total {
                output += Array("0\r\n\r\n".utf8)
                duty = .idle
            } else {
                duty = .stream(next: time + period, period: period, sent: sent + 1, of: total)
            }
        case .idle, .reading, .silent, .flood, .tunnel: break
        }
        think(server: server, worker: worker)
    }

    /// One piece of a chunked body.
    func send(chunk: [UInt8]) { output += Array("\(String(chunk.count, radix: 16))\r\n".utf8) + chunk + [13, 10] }

    private func receive() {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        if count > 0 {
            input += buffer[..<count]
        } else if count == 0 {
            clientEnded = true
        } else if errno != EAGAIN && errno != EINTR {
            end()
        }
    }

    /// Goes on until something must be waited for.
    private func think(server: Server, worker: Worker) {
        while !isClosed {
            fillOutput()
            guard flush() else { return }
            switch duty {
            case .idle:
                let waits = isFresh && patience.map { $0 > monotonic() } ?? false
                if closesAfterwards || (input.isEmpty && (clientEnded || (server.draining && !waits))) {
                    return end()
                }
                guard let request = Request(&input) else {
                    if clientEnded || input.count > 65_536 || (isFresh && patience != nil && !waits) { end() }
                    return
                }
                isFresh = false
                duty = .reading(request)
                if request.expectsContinue { output += Array("HTTP/1.1 100 Continue\r\n\r\n".utf8) }
            case .reading(var request):
                switch request.takeBody(&input) {
                case .whole: answer(request, server: server, worker: worker)
                case .more:
                    duty = .reading(request)
                    if clientEnded { end() }
                    return
                case .wrong: return end()
                }
            case .tunnel:
                output += input
                input = []
                if output.isEmpty {
                    if clientEnded { end() }
                    return
                }
            case .flood: continue
            case .later, .silent, .stream: return
            }
        }
    }

    private func fillOutput() {
        guard case .flood(var left, var line) = duty, output.isEmpty else { return }
        let piece = floodLines(160, after: &line)
        if let rest = left {
            output = Array(piece.prefix(rest))
            left = rest - output.count
            duty = left == 0 ? .idle : .flood(left: left, line: line)
        } else {
            send(chunk: piece)
            duty = .flood(left: nil, line: line)
        }
    }

    /// Writes what it can; true when nothing is left.
    private func flush() -> Bool {
        while !output.isEmpty {
            let count = Glibc.send(descriptor, output, output.count, Int32(MSG_NOSIGNAL))
            if count > 0 {
                output.removeFirst(count)
            } else if errno == EAGAIN {
                return false
            } else if errno != EINTR {
                end()
                return false
            }
        }
        return true
    }
}
