//  Rig.swift
//  The whole front in the test's process: the test plays the client and the worker, step by step, with bounded waits.
//  Read PanelindFuzz/Host.swift first.

import Glibc
import NIOCore
import PanelindCore
import PanelindHTTP
import Testing

@testable import PanelindFront
@testable import PanelindFuzz

/// A front, and the place of its worker.
final class Rig {
    let host: FrontHost
    let listener: PrivateListener
    static let generation = Generation(1)

    init(_ change: @escaping @Sendable (inout FrontSettings) -> Void = { _ in }) throws {
        listener = try PrivateListener()
        host = try FrontHost(change)
        let path = listener.path
        try host.on { front in
            front.open(Self.generation, at: .unix(path))
            front.perform(.route(.forward(Self.generation)))
        }
    }

    func client() throws -> Talk { Talk(try host.connect()) }

    /// The next connection that the front makes.
    func worker() throws -> Talk {
        var wait = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&wait, 1, Talk.limit) == 1, let peer = listener.accept() else {
            throw TestFailure(description: "the front made no connection")
        }
        return Talk(peer)
    }

    /// Whether the front makes no further connection: it has answered everything there was.
    var hasNoWorker: Bool { listener.accept() == nil }

    /// Waits until the front keeps nothing; what it keeps after the longest wait.
    func kept() throws -> FrontKept {
        var last = FrontKept()
        for _ in 0..<Talk.limit / 5 {
            // A second attempt finds nobody either.
            while let late = listener.accept() { late.close() }
            last = try host.on { front in
                front.perform(.dropIdle)
                return front.kept
            }
            if last == FrontKept() { return last }
            poll(nil, 0, 5)
        }
        return last
    }
}

/// One end of a connection, played by the test.
final class Talk {
    /// Milliseconds of the longest wait.
    static let limit: CInt = 20_000
    let peer: Peer
    private(set) var received: [UInt8] = []

    init(_ peer: Peer) { self.peer = peer }

    var text: String { String(decoding: received, as: UTF8.self) }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(peer.descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EAGAIN || !wait(POLLOUT) {
                return
            }
        }
    }

    private func wait(_ event: CInt) -> Bool {
        var wait = pollfd(fd: peer.descriptor, events: Int16(event), revents: 0)
        return poll(&wait, 1, Self.limit) == 1
    }

    /// Reads until it has what is wanted, or everything; what came since the last call.
    @discardableResult
    func read(until isEnough: (String) -> Bool) -> String {
        while !isEnough(text), !peer.inputEnded, wait(POLLIN) { received += peer.read() }
        defer { received = [] }
        return text
    }

    /// Reads until this has come.
    @discardableResult
    func read(to end: String) -> String { read { $0.contains(end) } }

    /// Reads up to the end of the connection.
    func readAll() -> String { read { _ in false } }

    /// Nothing has come.
    var isQuiet: Bool {
        var wait = pollfd(fd: peer.descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 0) == 0
    }

    func finishSending() { shutdown(peer.descriptor, CInt(SHUT_WR)) }

    func close() { peer.close() }

    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(peer.descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
        peer.close()
    }
}
