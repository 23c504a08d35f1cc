//  LoopbackTests.swift
//  The server over real sockets: keep-alive, pipelining, refusals that arrive, many connections, slow ones.
//  Equipment.swift first.

import Glibc
import NIOCore
import PanelindCore
import Testing

@testable import PanelindHTTP

private let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

/// Answers health and nothing else, so that all other connections are not idle.
private final class Silent: Responder {
    private let sidecar = readySidecar()
    func respond(to request: Request) -> Answer {
        request.path == "/health" ? sidecar.respond(to: request) : .later { _ in }
    }
}

/// Raises the soft limit of open files as far as it goes; the limit then.
private func raiseOpenFiles(to wanted: UInt) -> UInt {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    if limit.rlim_cur < wanted {
        limit.rlim_cur = min(wanted, limit.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    return limit.rlim_cur
}

@Suite struct LoopbackTests {
    @Test("a kept connection serves request after request, GET and HEAD, quick and slow")
    func keepAlive() throws {
        let server = try LoopbackServer { readySidecar() }
        let client = try Client(port: server.port)
        for _ in 0..<50 {
            client.send(health)
            #expect(client.readAnswers(1).hasPrefix("HTTP/1.1 200 OK\r\n"))
            client.send("GET /ready?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(client.readAnswers(1).contains("\"status\":\"ready\""))
        }
        client.send("HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        let head = client.readAll()
        #expect(head.contains("Content-Length: ") && head.hasSuffix("\r\n\r\n"))
        let connections = try server.look { $0.accepted }
        #expect(connections == 1)
        try server.stop()
    }

    @Test("a hundred pipelined requests are answered in order", arguments: [true, false])
    func pipelining(_ atOnce: Bool) throws {
        let server = try LoopbackServer { () -> any Responder in atOnce ? readySidecar() : Echo() }
        let client = try Client(port: server.port)
        let targets = (0..<100).map { atOnce ? ["/health", "/ready", "/x"][$0 % 3] : "/\($0)" }
        client.send(targets.map { "GET \($0) HTTP/1.1\r\nHost: localhost\r\n\r\n" }.joined())
        let answers = client.readAnswers(100)
        if atOnce {
            #expect(EmbeddedConnection.statuses(answers) == targets.map { $0 == "/x" ? 404 : 200 })
        } else {
            let expected = targets.map { "GET \($0)" }
            #expect(
                answers.split(separator: "HTTP/1.1 200 OK").compactMap { $0.split(separator: "\r\n").last }
                    .map(String.init) == expected)
        }
        try server.stop()
    }

    @Test("a refused client reads why, even while it is still sending")
    func refusalsArrive() throws {
        let server = try LoopbackServer { readySidecar() }
        let much = String(repeating: "a", count: 300_000)
        let cases: [(String, Int)] = [
            ("GET / HTTP/1.1\r\nHost: a\r\nA: " + much + "\r\n\r\n", 431),
            ("GET /" + much + " HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + much, 413),
            ("\0\u{1}garbage\r\n\r\n" + much, 400),
            ("POST /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        ]
        for (raw, status) in cases {
            let client = try Client(port: server.port)
            client.send(raw)
            client.finishSending()
            #expect(EmbeddedConnection.statuses(client.readAll()) == [status])
        }
        try server.stop()
    }

    @Test("an HTTP/2 preface is closed without an answer")
    func preface() throws {
        let server = try LoopbackServer { readySidecar() }
        let client = try Client(port: server.port)
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        #expect(client.readAll().isEmpty)
        try server.stop()
    }

    @Test("a request in single bytes, and one with a body, are answered")
    func oddRequests() throws {
        let server = try LoopbackServer { readySidecar() }
        let client = try Client(port: server.port)
        var on: CInt = 1
        setsockopt(client.descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
        for byte in health.utf8 { client.send([byte]) }
        #expect(client.readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        client.send(
            "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
                + String(repeating: "a", count: 100_000))
        #expect(client.readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        client.send("GET /ready HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        #expect(client.readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        client.send(health)
        client.finishSending()
        #expect(EmbeddedConnection.statuses(client.readAll()) == [200])
        try server.stop()
    }

    @Test("a client that drips its head is cut off")
    func slowloris() throws {
        var limits = HTTPLimits()
        limits.headTime = .milliseconds(150)
        let server = try LoopbackServer(limits: limits) { readySidecar() }
        let client = try Client(port: server.port)
        client.send("GET / HTTP/1.1\r\nA: b")
        #expect(EmbeddedConnection.statuses(client.readAll()) == [408])
        try server.stop()
    }

    @Test("health answers beside 1,500 idle connections, and beyond the limit the oldest idle one goes")
    func manyConnections() throws {
        let room = Int(clamping: raiseOpenFiles(to: 8192))
        let count = min(1500, room / 2 - 200)
        var limits = HTTPLimits()
        limits.connections = count
        limits.evictableAfter = .zero
        let server = try LoopbackServer(limits: limits) { readySidecar() }
        var idle: [Client] = []
        for _ in 0..<count {
            idle.append(try Client(port: server.port))
        }
        // The last one in the accept queue has been accepted when it is answered.
        idle[count - 1].send(health)
        #expect(idle[count - 1].readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        let open = try server.look { $0.openConnections }
        #expect(open == count)
        let extra = try Client(port: server.port)
        extra.send(health)
        #expect(extra.readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        #expect(idle[0].readAll().isEmpty)
        idle[1].send(health)
        #expect(idle[1].readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        let evicted = try server.look { $0.evicted }
        #expect(evicted == 1)
        try server.stop()
    }

    @Test("where no connection is idle, health is still answered, and its connection not kept")
    func noneIdle() throws {
        var limits = HTTPLimits()
        limits.connections = 8
        limits.extraConnections = 2
        let server = try LoopbackServer(limits: limits) { Silent() }
        var busy: [Client] = []
        for index in 0..<8 {
            // The answer to the first proves that the connection is in; the second keeps it from being idle.
            let client = try Client(port: server.port)
            client.send(health + "POST /silent HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(client.readAnswers(1).hasPrefix("HTTP/1.1 200 "), "\(index)")
            busy.append(client)
        }
        for _ in 0..<5 {
            let extra = try Client(port: server.port)
            extra.send(health)
            let answer = extra.readAll()
            #expect(answer.hasPrefix("HTTP/1.1 200 ") && answer.contains("\r\nConnection: close\r\n"))
        }
        let open = try server.look { $0.openConnections }
        #expect(open == busy.count)
        try server.stop()
    }

    @Test("after close nothing is accepted and every client is gone")
    func closes() throws {
        let server = try LoopbackServer { readySidecar() }
        let client = try Client(port: server.port)
        client.send(health)
        _ = client.readAnswers(1)
        try server.stop()
        #expect(client.readAll().isEmpty)
        #expect(throws: TestFailure.self) { try Client(port: server.port) }
    }

    @Test("a flood of clients that do not read is bounded and does not stop the others")
    func readsNothing() throws {
        var limits = HTTPLimits()
        limits.writeTime = .milliseconds(200)
        let server = try LoopbackServer(limits: limits) { readySidecar() }
        let deaf = try Client(port: server.port, timeout: 2)
        var small: CInt = 4096
        setsockopt(deaf.descriptor, SOL_SOCKET, SO_RCVBUF, &small, socklen_t(MemoryLayout<CInt>.size))
        // Returns when the server reads no more of it and has cut it off.
        deaf.send(String(repeating: health, count: 200_000))
        let other = try Client(port: server.port)
        other.send(health)
        #expect(other.readAnswers(1).hasPrefix("HTTP/1.1 200 "))
        let open = try server.look { $0.openConnections }
        #expect(open <= 2)
        try server.stop()
    }
}
