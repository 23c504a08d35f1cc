//  Control.swift
//  The control socket, a real one, on a loop of its own: requests and queries in, whole answers out.
//  Waiting operations and streams are ended as panelind's own end does it. Read Requests.swift first.

import Glibc
import NIOCore
import NIOPosix
import PanelindControl
import PanelindCore
import PanelindHTTP

/// Requests to the control socket.
public final class ControlTarget: FuzzTarget {
    public static let name = "control"
    public static let words = OwnRequests.words

    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let listener: PrivateListener
    private let host: NIOLoopBound<ControlHost>

    public init() throws {
        let listener = try PrivateListener()
        self.listener = listener
        let loop = group.next()
        let descriptor = listener.descriptor
        host = try loop.submit { NIOLoopBound(try ControlHost(descriptor, loop), eventLoop: loop) }.wait()
        let bound = host
        try loop.flatSubmit { bound.value.start() }.wait()
    }

    deinit {
        let bound = host
        try? group.next().submit { bound.value.close() }.wait()
        try? group.syncShutdownGracefully()
    }

    public func make(_ dice: inout Dice) -> [UInt8] {
        OwnRequests.make(
            [
                "/v1/status", "/v1/why", "/v1/events", "/v1/events?follow=true", "/v1/logs", "/v1/logs?follow=true",
                "/v1/restart",
                "/v1/reload", "/v1/stop", "/", "http://x/v1/status",
            ], &dice)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let bound = host
        let text = String(decoding: input.prefix(300), as: UTF8.self)
        let answersLater = dice.once(in: 3)
        do {
            let loop = group.next()
            try loop.submit { bound.value.begin(text, answersLater) }.wait()
            let output = try talk(dice.fewPieces(input))
            // What the client's end leaves to do is done in the next turns.
            var turns = 0
            while try loop.submit({ bound.value.openConnections > 0 }).wait() {
                turns += 1
                if turns == 5000 { return "a connection is kept" }
                if turns > 20 { usleep(1000) }
            }
            return OwnRequests.finding(output, to: input, mayStream: true)
        } catch {
            return "\(error)"
        }
    }

    /// Says all of it and no more, and reads to the end; what waits meanwhile is ended.
    private func talk(_ pieces: [ArraySlice<UInt8>]) throws -> [UInt8] {
        let peer = try connect()
        defer { close(peer) }
        var output: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 65536)
        for piece in pieces {
            // What the server does not take is never sent: a client that gives up.
            let flags = CInt(MSG_NOSIGNAL | MSG_DONTWAIT)
            let sent = piece.withUnsafeBytes { send(peer, $0.baseAddress, $0.count, flags) }
            if sent < piece.count { break }
        }
        shutdown(peer, CInt(SHUT_WR))
        let bound = host
        for turn in 0..<4000 {
            var ask = pollfd(fd: peer, events: Int16(POLLIN), revents: 0)
            if poll(&ask, 1, turn < 2 ? 1 : 2) == 0 {
                try group.next().submit { bound.value.endWaiting() }.wait()
                continue
            }
            let count = recv(peer, &block, block.count, 0)
            if count <= 0 { return output }
            output += block[..<count]
        }
        throw FuzzFailure("no end of the connection")
    }

    private func connect() throws -> CInt {
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let address = try SocketAddress(unixDomainSocketPath: listener.path)
        let code = address.withSockAddr { pointer, size in Glibc.connect(descriptor, pointer, socklen_t(size)) }
        guard descriptor >= 0, code == 0 else { throw FuzzFailure("cannot connect: errno \(errno)") }
        return descriptor
    }
}

/// The server and what it asks; on its loop only.
private final class ControlHost: Responder {
    let daemon: PlayedDaemon
    let room = ControlRoom()
    private var responder: ControlResponder
    /// Ended ones, as long as there may be a connection of theirs.
    private var ended: [ControlResponder] = []
    private let loop: any EventLoop
    private var listening: HTTPServer?

    init(_ descriptor: CInt, _ loop: any EventLoop) throws {
        self.loop = loop
        daemon = PlayedDaemon(loop)
        responder = ControlResponder(daemon, room, users: [getuid()])
        listening = try HTTPServer(descriptor: descriptor, loop: loop, limits: .control, responder: self)
        for number in 0..<5 {
            room.record(
                LoggedEvent(
                    name: "probe_failed", severity: "WARNING", time: 1_700_000_000_000_000_000,
                    message: "no \(number)\u{1b}[2J",
                    fields: []))
        }
    }

    var openConnections: Int { listening?.openConnections ?? 0 }

    func start() -> EventLoopFuture<Void> { listening?.start() ?? loop.makeSucceededVoidFuture() }

    /// The server keeps this one as its responder.
    func close() {
        listening?.close()
        listening = nil
    }

    func endWaiting() {
        daemon.answerAll()
        responder.end(code: 0)
        ended.append(responder)
    }

    /// The next client.
    func begin(_ text: String, _ answersLater: Bool) {
        daemon.set(text, answersLater)
        guard !ended.isEmpty else { return }
        responder = ControlResponder(daemon, room, users: [getuid()])
        ended = []
    }

    func respond(to request: Request) -> Answer { responder.respond(to: request) }
}

/// A daemon whose worker wrote what the client sent.
private final class PlayedDaemon: ControlledDaemon {
    private var lines: [WorkerLine] = []
    private struct Question {
        let id: Int
        let count: Int
        let after: UInt64?
        let answer: ([WorkerLine]) -> Void
    }

    private let loop: any EventLoop
    private var waiting: [Question] = []
    private var answersLater = false
    private var nextID = 0

    init(_ loop: any EventLoop) { self.loop = loop }

    func set(_ text: String, _ answersLater: Bool) {
        self.answersLater = answersLater
        lines = text.split(separator: "\n").enumerated().map { index, line in
            WorkerLine(sequence: UInt64(index + 1), generation: 1, stream: "stdout", time: 0, text: String(line))
        }
    }

    var facts: Facts {
        Facts(
            version: "1", revision: nil, pid: 1, startedAt: .zero, now: .zero + .seconds(9),
            wall: 1_700_000_000_000_000_000,
            health: HealthSnapshot(state: .ready, generation: 1, restarts: 0, retryAfter: .seconds(1)), mode: .front,
            platform: .local, listen: "port 8080", sidecar: nil, command: "uvicorn api:app", serving: 1,
            workerStatus: lines.first?.text, startupDeadline: .seconds(60), stopBudget: .seconds(9))
    }

    /// Never at once: the true one asks the output thread.
    func lines(_ count: Int, after: UInt64?, _ answer: @escaping ([WorkerLine]) -> Void) -> Int {
        nextID += 1
        waiting.append(Question(id: nextID, count: count, after: after, answer: answer))
        let id = nextID
        if !answersLater { loop.assumeIsolated().execute { [unowned self] in answerQuestion(id) } }
        return id
    }

    func cancelLines(_ id: Int) { waiting.removeAll { $0.id == id } }

    func answerAll() { for id in waiting.map(\.id) { answerQuestion(id) } }

    /// Unless it was cancelled; whoever asks for what comes behind waits until something does.
    private func answerQuestion(_ id: Int) {
        guard let at = waiting.firstIndex(where: { $0.id == id }) else { return }
        let question = waiting[at]
        let behind = lines.filter { $0.sequence > question.after ?? 0 }
        if question.after != nil, behind.isEmpty { return }
        waiting.remove(at: at)
        question.answer(question.after == nil ? behind.suffix(question.count) : behind)
    }

    func restart() {}
    func reload() -> ReloadRefusal? {
        lines.count % 2 == 0 ? nil : ReloadRefusal(errors: lines.map(\.text), needsRestart: false)
    }
    func stop() {}
}
