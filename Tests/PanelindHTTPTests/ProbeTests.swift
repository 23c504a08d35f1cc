//  ProbeTests.swift
//  Every way an attempt can end: on the loop, and blocking as `panelind probe` does it.
//  Equipment.swift first.

import Glibc
import NIOCore
import NIOPosix
import PanelindCore
import Testing

@testable import PanelindHTTP

/// Core has a `ProbeOutcome` of its own, without the status.
typealias AttemptOutcome = PanelindHTTP.ProbeOutcome

/// A server that accepts, reads a little, says something fixed, and may close.
private final class Fixed {
    let port: Int
    private let channel: any Channel
    private let group: MultiThreadedEventLoopGroup

    private final class Speaker: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        let answer: String?
        let closes: Bool
        init(_ answer: String?, _ closes: Bool) { (self.answer, self.closes) = (answer, closes) }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            if let answer { context.writeAndFlush(NIOAny(ByteBuffer(string: answer)), promise: nil) }
            if closes { context.close(promise: nil) }
        }
    }

    init(_ group: MultiThreadedEventLoopGroup, answer: String?, closes: Bool = true) throws {
        self.group = group
        let (descriptor, port) = try listenerOnLoopback()
        self.port = port
        channel = try ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Speaker(answer, closes))
                }
            }
            .withBoundSocket(descriptor).wait()
    }

    func stop() throws { try channel.close().wait() }
}

/// Asks on a loop and waits for the outcome.
private func ask(
    _ group: MultiThreadedEventLoopGroup, _ target: ProbeTarget, timeout: Duration = .seconds(20)
) throws -> AttemptOutcome {
    let loop = group.next()
    let promise = loop.makePromise(of: AttemptOutcome.self)
    loop.execute {
        _ = Prober(loop: loop, version: "1.0.0").ask(target, timeout: timeout) { promise.succeed($0) }
    }
    return try promise.futureResult.wait()
}

private func answer(_ status: Int) -> String { "HTTP/1.1 \(status) X\r\nContent-Length: 0\r\n\r\n" }

@Suite struct ProbeTests {
    @Test(
        "the status decides, redirects pass and interim answers do not count",
        arguments: [
            (answer(200), false, AttemptOutcome.passed(200)), (answer(302), false, .passed(302)),
            (answer(404), false, .failed("HTTP 404")), (answer(404), true, .passed(404)),
            (answer(503), true, .failed("HTTP 503")), (answer(100) + answer(103) + answer(204), false, .passed(204)),
            ("SSH-2.0-x\r\n", false, .failed("invalid answer")), ("HTTP/1.1 200", false, .failed("invalid answer")),
            ("", false, .failed("closed without an answer")),
            ("HTTP/1.1 2000 X\r\n\r\n", false, .failed("invalid answer")),
            ("HTTP/1.1 101 X\r\n\r\n", false, .failed("invalid answer")),
            ("HTTP/1.0 200\r\n\r\nbody", false, .passed(200)),
        ])
    func outcomes(_ text: String, _ below500: Bool, _ expected: AttemptOutcome) throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try Fixed(group, answer: text)
        let outcome = try ask(
            group, .http(host: "127.0.0.1", port: server.port, path: "/ready", passesBelow500: below500))
        #expect(outcome == expected)
        try server.stop()
        try group.syncShutdownGracefully()
    }

    @Test("a connection alone passes where it is accepted, and not where it is refused")
    func connections() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try Fixed(group, answer: nil)
        let accepted = try ask(group, .tcp(host: "localhost", port: server.port))
        #expect(accepted == .passed(nil))
        try server.stop()
        let refused = try ask(group, .tcp(host: "localhost", port: server.port))
        #expect(refused == .failed("connection refused"))
        let missing = try ask(group, .unix("/nonexistent/panelind.sock"))
        #expect(missing == .failed("no such socket"))
        try group.syncShutdownGracefully()
    }

    @Test("an endless head is invalid at 64 KiB, though the connection stays open")
    func endlessHead() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let text = "HTTP/1.1 200 OK\r\nA: " + String(repeating: "a", count: 70_000)
        let server = try Fixed(group, answer: text, closes: false)
        let outcome = try ask(group, .http(host: "127.0.0.1", port: server.port, path: "/"))
        #expect(outcome == .failed("invalid answer"))
        try server.stop()
        try group.syncShutdownGracefully()
    }

    @Test("a server that hangs is a timeout, and a cancelled attempt says nothing")
    func hanging() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try Fixed(group, answer: nil, closes: false)
        let target = try ProbeTarget.http(host: "127.0.0.1", port: server.port, path: "/")
        #expect(try ask(group, target, timeout: .milliseconds(150)) == .failed("timed out after 150ms"))
        let loop = group.next()
        let silent = try loop.flatSubmit {
            let promise = loop.makePromise(of: Bool.self)
            let attempt = Prober(loop: loop, version: "1").ask(target) { _ in promise.succeed(false) }
            let bound = NIOLoopBound(attempt, eventLoop: loop)
            loop.scheduleTask(in: .milliseconds(50)) {
                bound.value.cancel()
                // A completion in spite of the cancel would be in the loop's queue before this.
                loop.scheduleTask(in: .milliseconds(50)) { promise.succeed(true) }
            }
            return promise.futureResult
        }.wait()
        #expect(silent)
        try server.stop()
        try group.syncShutdownGracefully()
    }

    @Test("what is sent is one GET with Host, a name and close")
    func request() throws {
        let target = try ProbeTarget.http(host: "::1", port: 81, path: "/a?b")
        #expect(
            String(buffer: target.request(version: "1.2")) == "GET /a?b HTTP/1.1\r\nHost: [::1]:81\r\n"
                + "User-Agent: panelind-probe/1.2\r\nAccept: */*\r\nConnection: close\r\n\r\n")
        #expect(throws: ProbeTarget.Invalid.self) { try ProbeTarget.http(host: "name.test", port: 81, path: "/") }
        #expect(throws: ProbeTarget.Invalid.self) { try ProbeTarget.http(host: "::1", port: 81, path: "/ b") }
        #expect(throws: ProbeTarget.Invalid.self) { try ProbeTarget.unix(String(repeating: "a", count: 108)) }
    }

    @Test("URLs are taken apart, and others are refused with what would be right")
    func urls() throws {
        let good: [(String, ProbeURL.Place, String)] = [
            ("http://localhost:8080/ready?x", .tcp(host: "localhost", port: 8080), "/ready?x"),
            ("HTTP://a", .tcp(host: "a", port: 80), "/"), ("http://[::1]:9/#f", .tcp(host: "::1", port: 9), "/"),
            ("http://a?b", .tcp(host: "a", port: 80), "/?b"), ("unix:/run/a:b.sock:/p", .unix("/run/a:b.sock"), "/p"),
            ("unix:rel.sock:/", .unix("rel.sock"), "/"),
        ]
        for (text, place, path) in good {
            let url = try ProbeURL(text)
            #expect(url.place == place && url.path == path)
        }
        for text in ["https://a/", "a", "http://", "http://a:0/", "http://u@a/", "http://[::1", "unix:/a", "unix::/a"] {
            #expect(throws: ProbeTarget.Invalid.self) { try ProbeURL(text) }
        }
    }

    @Test("panelind probe ends with 0, 1 or 64, and says why on one line")
    func once() throws {
        let server = try LoopbackServer { readySidecar() }
        let good = probeOnce(url: "http://localhost:\(server.port)/ready", timeout: .seconds(20), version: "1")
        #expect(good == .passed(200) && good.exitCode == 0 && good.message == nil)
        let missing = probeOnce(url: "http://127.0.0.1:\(server.port)/x", timeout: .seconds(20), version: "1")
        #expect(missing.exitCode == 1 && missing.message?.hasSuffix("HTTP 404") == true)
        try server.stop()
        let refused = probeOnce(url: "http://127.0.0.1:\(server.port)/", timeout: .seconds(20), version: "1")
        #expect(refused.exitCode == 1 && refused.message?.hasSuffix("connection refused") == true)
        let usage = probeOnce(url: "ftp://a", timeout: .seconds(1), version: "1")
        #expect(usage.exitCode == 64)
        let (descriptor, port) = try listenerOnLoopback()
        defer { close(descriptor) }
        let hung = probeOnce(url: "http://127.0.0.1:\(port)/", timeout: .milliseconds(100), version: "1")
        #expect(hung.message?.hasSuffix("timed out after 100ms") == true)
    }
}
