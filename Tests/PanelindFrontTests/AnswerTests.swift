//  AnswerTests.swift
//  Which answers of a worker pass, how their bodies are framed, and what the client gets of their heads.
//  RFC 9112 section 6.3, RFC 9110 section 15. Equipment.swift first.

import NIOCore
import Testing

@testable import PanelindFront

private let broken: [Case] = [
    Case(answer("Content-Length: 2", "Transfer-Encoding: chunked"), 0),
    Case(answer("Content-Length: 2", "Content-Length: 3"), 0),
    Case(answer("Content-Length: 2", "Content-Length: 2"), 0),
    Case(answer("Content-Length: 2, 2"), 0), Case(answer("Content-Length: -1"), 0), Case(answer("Content-Length:"), 0),
    Case(answer("Transfer-Encoding: gzip, chunked"), 0), Case(answer("Transfer-Encoding: identity"), 0),
    Case(answer("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 0),
    Case(answer("Transfer-Encoding: chunked", version: "HTTP/1.0"), 0),
    Case(answer(status: "99 X"), 0), Case(answer(status: "600 X"), 0), Case(answer(status: "20 X"), 0),
    Case(answer(status: "2000 X"), 0), Case(answer(status: "abc"), 0), Case(answer(status: "-20 X"), 0),
    Case(answer(status: "200\tOK"), 0), Case(answer(version: "HTTP/2.0"), 0), Case(answer(version: "HTTP/1.2"), 0),
    Case(answer(version: "http/1.1"), 0), Case(answer(version: "ICY"), 0), Case("garbage\r\n\r\n", 0),
    Case("\r\n\r\n", 0),
    Case("HTTP/1.1  200 OK\r\n\r\n", 0), Case("HTTP/1.1 200 OK\n\n", 0), Case(answer("X: a\u{0}b"), 0),
    Case(answer("X : a"), 0), Case(answer("X: a\r\n b"), 0), Case(answer("X"), 0), Case(answer(status: "200 \u{1}"), 0),
    Case(answer("X: " + String(repeating: "a", count: 70_000)), 0),
    Case(answer((1...101).map { "X-\($0): a" }.joined(separator: "\r\n")), 0),
]

@Suite("Answers")
struct AnswerTests {
    @Test("broken answers do not pass", arguments: broken)
    private func refused(one: Case) {
        guard case .refused = Judging.answer(Array(one.raw.utf8), toHead: false) else {
            Issue.record("it passes")
            return
        }
    }

    @Test(
        "the body of an answer ends where the rules say",
        arguments: [
            ("200 OK", "Content-Length: 5", Judging.Framing.length(5)), ("200 OK", "Content-Length: 0", .none),
            ("200 OK", "Transfer-Encoding: Chunked", .chunked), ("200 OK", "A: b", .untilClose),
            ("204 No Content", "Content-Length: 5", .none), ("205 Reset Content", "Content-Length: 5", .none),
            ("304 Not Modified", "Content-Length: 5", .none), ("304 Not Modified", "Transfer-Encoding: chunked", .none),
            ("100 Continue", "A: b", .none), ("103 Early Hints", "Content-Length: 5", .none),
            ("404 Not Found", "A: b", .untilClose),
        ])
    func framing(status: String, field: String, body: Judging.Framing) throws {
        #expect(try acceptedAnswer(answer(field, status: status)).body == body)
        #expect(try acceptedAnswer(answer(field, status: status), toHead: true).body == .none)
    }

    @Test(
        "the worker's connection is kept only where the end of the answer is beyond doubt",
        arguments: [
            ("200 OK", "Content-Length: 5", true), ("200 OK", "Transfer-Encoding: chunked", true),
            ("200 OK", "A: b", false),
            ("200 OK", "Content-Length: 5\r\nConnection: close", false), ("204 No Content", "A: b", true),
            ("204 No Content", "Content-Length: 5", false), ("204 No Content", "Transfer-Encoding: chunked", false),
            ("205 Reset Content", "A: b", false), ("205 Reset Content", "Content-Length: 0", true),
            ("304 Not Modified", "Content-Length: 5", true),
        ])
    func persistence(status: String, field: String, kept: Bool) throws {
        #expect(try acceptedAnswer(answer(field, status: status)).keepsAlive == kept)
        #expect(try !acceptedAnswer(answer("Content-Length: 1", version: "HTTP/1.0")).keepsAlive)
    }

    @Test("the status line passes as it came, always as HTTP/1.1")
    func statusLine() throws {
        #expect(
            lines(try acceptedAnswer(answer(status: "404 N\u{e9} such", version: "HTTP/1.0")).forwarded)[0]
                == "HTTP/1.1 404 N\u{e9} such")
        let raw = Array("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n".utf8)
        guard case .accepted(let bare) = Judging.answer(raw, toHead: false) else { return #expect(Bool(false)) }
        #expect(bare.forwarded.starts(with: Array("HTTP/1.1 200 \r\n".utf8)))
    }

    @Test("fields of the connection are dropped, all others pass in order, Date is added once")
    func fields() throws {
        let head = try acceptedAnswer(
            answer(
                "Server: u", "Connection: x-a, keep-alive", "X-A: 1", "Keep-Alive: timeout=5", "Set-Cookie: a",
                "Set-Cookie: b", "Proxy-Authenticate: Basic", "Upgrade: h2c", "TE: x", "X-B: \u{e9}",
                "Content-Length: 5",
                "Trailer: X-T")
        ).forwarded
        #expect(
            lines(head) == [
                "HTTP/1.1 200 OK", "Server: u", "Set-Cookie: a", "Set-Cookie: b", "X-B: \u{e9}", "Content-Length: 5",
                "Date: Thu, 01 Jan 1970 00:00:00 GMT",
            ])
        let dated = try acceptedAnswer(answer("Date: mine", "Content-Length: 0")).forwarded
        #expect(values("date", dated) == ["mine"])
        #expect(values("date", try acceptedAnswer(answer(status: "103 E")).forwarded).isEmpty)
    }

    @Test("426 says which protocol it wants")
    func upgradeRequired() throws {
        let head = try acceptedAnswer(answer("Upgrade: foo/2", "Content-Length: 0", status: "426 Upgrade Required"))
            .forwarded
        #expect(values("upgrade", head) == ["foo/2"])
    }

    @Test(
        "1xx, 204 and 205 carry no length, HEAD and 304 the one that GET would have",
        arguments: [
            ("103 E", false, [String]()), ("204 N", false, []), ("205 R", false, ["0"]), ("304 N", false, ["5"]),
            ("200 OK", true, ["5"]), ("200 OK", false, ["5"]),
        ])
    func length(status: String, toHead: Bool, written: [String]) throws {
        let head = try acceptedAnswer(answer("Content-Length: 5", status: status), toHead: toHead).forwarded
        #expect(values("content-length", head) == written)
    }

    @Test("a length is written in the one way to write it")
    func canonical() throws {
        #expect(values("content-length", try acceptedAnswer(answer("Content-Length: 005\t")).forwarded) == ["5"])
        let head = try acceptedAnswer(answer("Content-Length: 07"), toHead: true).forwarded
        #expect(values("content-length", head) == ["7"])
    }

    @Test(
        "what is said of the client's connection",
        arguments: [
            (AnswerShape.ClientPersistence.keep, [String]()), (.keepAndSay, ["keep-alive"]), (.close, ["close"]),
            (.upgrade, ["Upgrade"]),
        ])
    func shapes(persistence: AnswerShape.ClientPersistence, written: [String]) throws {
        let raw = Array(answer("Connection: x", "Upgrade: websocket", "Trailer: T").utf8)
        var out = ByteBuffer()
        try raw.withUnsafeBytes { head in
            var cut = HeadLines()
            try cut.cut(head)
            let plan = try ResponseHead.judge(head, cut, toHead: false)
            plan.write(
                head, cut, AnswerShape(chunked: true, persistence: persistence, trailers: true, date: []), into: &out)
        }
        let head = Array(out.readableBytesView)
        #expect(values("connection", head) == written)
        #expect(values("transfer-encoding", head) == ["chunked"])
        #expect(values("trailer", head) == ["T"])
        #expect(values("upgrade", head) == (persistence == .upgrade ? ["websocket"] : []))
    }

    @Test(
        "event streams are known by their type",
        arguments: [
            ("text/event-stream", true), ("Text/Event-Stream; charset=utf-8", true), ("text/event-stream;x", true),
            ("text/event-streams", false), ("text/plain", false), ("", false),
        ])
    func eventStream(type: String, isStream: Bool) throws {
        let raw = Array(answer("Content-Type: \(type)").utf8)
        try raw.withUnsafeBytes { head in
            var cut = HeadLines()
            try cut.cut(head)
            #expect(try ResponseHead.judge(head, cut, toHead: false).isEventStream == isStream)
        }
    }
}
