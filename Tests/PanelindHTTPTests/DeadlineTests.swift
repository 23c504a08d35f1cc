//  DeadlineTests.swift
//  Connections in virtual time: what is cut, when, and what is not; answers given later, and streams.
//  Equipment.swift first.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import PanelindHTTP

/// Keeps every exchange for the test to end.
private final class Later: Responder {
    var exchanges: [Exchange] = []
    func respond(to request: Request) -> Answer { .later { self.exchanges.append($0) } }
}

private let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"

@Suite struct DeadlineTests {
    @Test("an idle connection is closed after the idle time, and activity begins it anew")
    func idle() throws {
        var limits = HTTPLimits()
        limits.idleTime = .seconds(60)
        let connection = try EmbeddedConnection(limits: limits)
        let loop = connection.channel.embeddedEventLoop
        loop.advanceTime(by: .seconds(59))
        #expect(EmbeddedConnection.statuses(connection.feed(get)) == [200])
        loop.advanceTime(by: .seconds(59))
        #expect(connection.isOpen)
        loop.advanceTime(by: .seconds(1))
        #expect(!connection.isOpen)
        #expect(connection.server.openConnections == 0)
    }

    @Test("a head that drips is cut at the head time, however it drips")
    func slowHead() throws {
        let connection = try EmbeddedConnection()
        _ = connection.feed("GET / HTTP/1.1\r\n")
        var output = ""
        for _ in 0..<14 {
            connection.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
            output += connection.feed("A: b\r\n")
        }
        #expect(connection.isOpen && output.isEmpty)
        connection.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
        #expect(EmbeddedConnection.statuses(connection.output()) == [408])
        #expect(!connection.isOpen)
    }

    @Test("a body that drips is cut at the body time")
    func slowBody() throws {
        let connection = try EmbeddedConnection()
        _ = connection.feed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        for _ in 0..<60 {
            connection.channel.embeddedEventLoop.advanceTime(by: .seconds(1))
            _ = connection.feed("a")
        }
        #expect(!connection.isOpen)
    }

    @Test("an unfinished answer has no deadline here, and later requests wait for it in order")
    func laterAnswers() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        #expect(connection.feed(get + get + get).isEmpty)
        connection.channel.embeddedEventLoop.advanceTime(by: .hours(2))
        #expect(connection.isOpen && responder.exchanges.count == 1)
        for index in 0..<3 {
            responder.exchanges[index].send(
                AnswerText.whole(status: 200, contentType: "", body: [UInt8(48 + index)], persistence: .keep))
            #expect(connection.output().hasSuffix("\r\n\r\n\(index)"))
        }
        #expect(responder.exchanges.count == 3 && connection.isOpen)
    }

    @Test("a refusal waits behind the answer before it")
    func refusalInOrder() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        #expect(connection.feed(get + "GARBAGE\r\n\r\n").isEmpty)
        responder.exchanges[0].send(AnswerText.whole(status: 200, contentType: "", body: [], persistence: .keep))
        #expect(EmbeddedConnection.statuses(connection.output()) == [200, 400])
        #expect(!connection.isOpen)
    }

    @Test("a stream is chunked, and its end keeps the connection")
    func streams() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        _ = connection.feed(get)
        let exchange = responder.exchanges[0]
        exchange.begin(status: 200, contentType: "text/event-stream")
        exchange.write(ByteBuffer(string: "hello, world: 20 byt"))
        #expect(connection.output().hasSuffix("Transfer-Encoding: chunked\r\n\r\n14\r\nhello, world: 20 byt\r\n"))
        exchange.end()
        exchange.end()
        #expect(connection.output() == "0\r\n\r\n")
        #expect(connection.isOpen)
    }

    @Test("a stream for HTTP/1.0 ends with the connection")
    func oldStreams() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        _ = connection.feed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        responder.exchanges[0].begin(status: 200, contentType: "text/plain")
        responder.exchanges[0].write(ByteBuffer(string: "abc"))
        #expect(connection.output().hasSuffix("Connection: close\r\n\r\nabc"))
        responder.exchanges[0].end()
        #expect(!connection.isOpen)
    }

    @Test("a client that is gone is told to the responder once, and a late answer is ignored")
    func gone() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        _ = connection.feed(get)
        var told = 0
        responder.exchanges[0].onGone = { told += 1 }
        connection.channel.close(promise: nil)
        connection.channel.embeddedEventLoop.run()
        responder.exchanges[0].send(ByteBuffer(string: "late"))
        #expect(told == 1 && !connection.isOpen)
        #expect(connection.server.openConnections == 0)
    }

    @Test("a client's FIN after a whole request is not a cancel")
    func halfClose() throws {
        let responder = Later()
        let connection = try EmbeddedConnection(responder: responder)
        _ = connection.feed(get)
        connection.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(connection.isOpen)
        responder.exchanges[0].send(AnswerText.whole(status: 200, contentType: "", body: [], persistence: .keep))
        #expect(EmbeddedConnection.statuses(connection.output()) == [200])
        #expect(!connection.isOpen)
    }

    @Test("in the last call every answer says close")
    func lastCall() throws {
        let connection = try EmbeddedConnection(responder: readySidecar())
        connection.server.isLastCall = true
        let output = connection.feed("GET /health HTTP/1.1\r\nHost: abcdefgh\r\n\r\n")
        #expect(output.contains("\r\nConnection: close\r\n") && !connection.isOpen)
    }

    @Test("the register expires in order of time whatever the order of entry, and finds the longest wait")
    func register() {
        final class Owner: DeadlineOwner {
            var passed: [ConnectionDeadlines.Wait] = []
            func deadlinePassed(_ wait: ConnectionDeadlines.Wait) { passed.append(wait) }
            func closeNow() {}
        }
        let loop = EmbeddedEventLoop()
        let register = ConnectionDeadlines(loop: loop) { $0 == .idle ? .seconds(10) : $0 == .head ? .seconds(3) : nil }
        let owners = (0..<3).map { _ in Owner() }
        let entries = owners.map { owner in
            loop.advanceTime(by: .seconds(1))
            return register.add(owner, wait: .idle)
        }
        loop.advanceTime(by: .seconds(5))
        entries[0].since = loop.now
        #expect(register.longest(.idle) === entries[1])
        register.move(entries[2], to: .head)
        loop.advanceTime(by: .seconds(3))
        #expect(owners.map(\.passed) == [[], [], [.head]])
        loop.advanceTime(by: .seconds(1))
        #expect(owners.map(\.passed) == [[], [.idle], [.head]])
        for entry in entries { register.remove(entry) }
        loop.advanceTime(by: .seconds(100))
        #expect(owners.map(\.passed) == [[], [.idle], [.head]] && register.count == 0)
    }
}
