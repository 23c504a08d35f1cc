//  RequestTests.swift
//  Every refusal of CONTRACT section 5 that the judge of request heads makes, and what it makes of the rest.
//  The cases of research: conflicting framing, targets, limits, expectations. Equipment.swift first.

import Testing

@testable import PanelindFront
@testable import PanelindFuzz

private let chunked = "Transfer-Encoding: chunked"

private let framing: [Case] = [
    Case(request("Content-Length: 5", chunked), 400), Case(request(chunked, "Content-Length: 5"), 400),
    Case(request("Content-Length: 5", "Content-Length: 6"), 400),
    Case(request("Content-Length: 5", "Content-Length: 5"), 400),
    Case(request("Content-Length: 5", "CONTENT-LENGTH: 5"), 400),
    Case(request("Content-Length: 5, 6"), 400), Case(request("Content-Length: 5, 5"), 400),
    Case(request("Content-Length: +5"), 400), Case(request("Content-Length: -5"), 400),
    Case(request("Content-Length: 5 x"), 400), Case(request("Content-Length: 0x5"), 400),
    Case(request("Content-Length: 5 5"), 400), Case(request("Content-Length: \"5\""), 400),
    Case(request("Content-Length:"), 400), Case(request("Content-Length: 99999999999999999999"), 400),
    Case(request("Content-Length: 18446744073709551621"), 400), Case(request("Content-Length: ٥"), 400),
    Case(request("Transfer-Encoding: xchunked"), 400), Case(request("Transfer-Encoding: chunked, identity"), 400),
    Case(request("Transfer-Encoding: identity"), 400), Case(request("Transfer-Encoding: \u{0b}chunked"), 400),
    Case(request("Transfer-Encoding: chunked, chunked"), 400), Case(request("Transfer-Encoding: chunked;q=1"), 400),
    Case(request("Transfer-Encoding: gzip, chunked"), 400), Case(request("Transfer-Encoding: \"chunked\""), 400),
    Case(request("Transfer-Encoding:"), 400), Case(request("Transfer-Encoding: ,chunked"), 400),
    Case(request(chunked, chunked), 400), Case(request(chunked, "Transfer-Encoding: identity"), 400),
    Case(request("Transfer-Encoding: gzip"), 501), Case(request("Transfer-Encoding: Deflate"), 501),
    Case(request("Transfer-Encoding: compress"), 501), Case(request(chunked, version: "HTTP/1.0"), 400),
]

private let syntax: [Case] = [
    Case(request("Transfer-Encoding : chunked"), 400), Case(request("Content-Length : 5"), 400),
    Case(request("X: a\r\n b"), 400), Case(request("X: a\r\n\tb"), 400),
    Case("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    Case("GET / HTTP/1.1\nHost: x\n\n", 400), Case("GET / HTTP/1.1\r\nHost: x\n\r\n", 400),
    Case("GET / HTTP/1.1\r\nHost: x\r\n\n", 400), Case("GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    Case(request("X: a\u{0}b"), 400), Case(request("X: a\rb"), 400), Case(request("X: a\u{7f}b"), 400),
    Case(request("X: a\u{1b}b"), 400), Case(request("X\u{0}: a"), 400), Case(request("X\u{e9}: a"), 400),
    Case(request(": a"), 400), Case(request("X"), 400), Case(request("X Y: a"), 400), Case(request("(X): a"), 400),
    Case(request("X\t: a"), 400), Case("\r\n\r\n\r\n", 400), Case("GET / HTTP/1.1\r\r\n\r\n", 400),
    Case("GET /\u{0} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
]

private let firstLines: [Case] = [
    Case(request(method: "CONNECT"), 405), Case(request(method: "CONNECT", target: "x:443"), 405),
    Case(request(method: "TRACE"), 405), Case("PRI * HTTP/2.0\r\n\r\n", 505), Case(request(version: "HTTP/2.0"), 505),
    Case(request(version: "HTTP/1.2"), 505), Case(request(version: "HTTP/0.9"), 505),
    Case(request(version: "HTTP/3"), 400),
    Case(request(version: "HTTP/1.10"), 400), Case(request(version: "http/1.1"), 400),
    Case(request(version: "ICY/1.1"), 400),
    Case("GET /\r\n\r\n", 400), Case("GET\r\n\r\n", 400), Case("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    Case("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400), Case(" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    Case("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400), Case("GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    Case(request(method: String(repeating: "M", count: 33)), 501),
    Case(request(target: "/a b"), 400), Case(request(target: "/\u{e9}"), 400), Case(request(target: "/\u{7f}"), 400),
    Case(request(target: "/\u{fffd}"), 400), Case(request(target: "a"), 400), Case(request(target: "*"), 400),
    Case(request(target: "x:443"), 400), Case(request(target: "ftp://x/"), 400),
    Case(request(target: "http:///a"), 400),
    Case(request(target: "http://"), 400), Case(request(target: "http://?q"), 400),
]

private let hosts: [Case] = [
    Case("GET / HTTP/1.1\r\n\r\n", 400), Case("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    Case("GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400), Case("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    Case("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400), Case("GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    Case("GET / HTTP/1.1\r\nHost: x/a\r\n\r\n", 400), Case("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400),
    Case("GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400), Case(request(target: "http://other/"), 400),
    Case(request(target: "http://x:81/"), 400), Case(request(target: "http://u@x/"), 400),
    Case("GET http://u@x/ HTTP/1.0\r\n\r\n", 400), Case("GET http://x,y HTTP/1.0\r\n\r\n", 400),
    Case(request(target: "https://x:80/"), 400),
]

private let expectations: [Case] = [
    Case(request("Expect: 200-ok", "Content-Length: 5"), 417), Case(request("Expect: 200-ok"), 417),
    Case(request("Expect: 100-continue, x"), 417), Case(request("Expect:"), 417),
    Case(request("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5"), 417),
]

private let limits: [Case] = [
    Case(request("X: " + String(repeating: "a", count: 70_000)), 431),
    Case(request((1...101).map { "X-\($0): a" }.joined(separator: "\r\n")), 431),
    Case(request((1...100).map { "X-\($0): a" }.joined(separator: "\r\n")), 431),
    Case("GET / HTTP/1.1\r\nX: " + String(repeating: "a", count: 65_536), 431),
    Case(request(target: "/" + String(repeating: "a", count: 16_384)), 414),
    Case(request(target: "/" + String(repeating: "a", count: 20_480)), 414),
    Case("GET /" + String(repeating: "a", count: 20_480), 414),
    Case(request(target: "/" + String(repeating: "a", count: 20_480) + "\u{e9}"), 414),
]

@Suite("Request heads")
struct RequestTests {
    @Test("ambiguous framing is refused", arguments: framing)
    private func framed(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("lines that are none are refused", arguments: syntax)
    private func cut(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("first lines that cannot be served are refused", arguments: firstLines)
    private func started(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("a host that is missing, doubled, malformed or another than the target's is refused", arguments: hosts)
    private func hosted(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("expectations other than 100-continue are refused", arguments: expectations)
    private func expected(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("heads beyond the bounds are refused", arguments: limits)
    private func bounded(one: Case) { #expect(refusal(one.raw) == one.status) }

    @Test("heads at the bounds are served")
    private func atBounds() throws {
        _ = try accepted(request((1...99).map { "X-\($0): a" }.joined(separator: "\r\n")))
        _ = try accepted(request(target: "/" + String(repeating: "a", count: 16_383)))
        _ = try accepted(request(method: String(repeating: "M", count: 32)))
        let short = request("X: ").utf8.count
        let whole = request("X: " + String(repeating: "a", count: 65_536 - short))
        #expect(whole.utf8.count == 65_536)
        #expect(try accepted(whole).count == 65_536)
        #expect(refusal(request("X: " + String(repeating: "a", count: 65_537 - short))) == 431)
    }

    @Test("what is refused as a whole is never served as a beginning", arguments: framing + syntax + firstLines + hosts)
    private func beginnings(one: Case) {
        let bytes = Array(one.raw.utf8)
        for count in 0..<min(bytes.count, 2000) {
            guard case .accepted = Judging.request(Array(bytes[..<count]), trusted: false) else { continue }
            Issue.record("its first \(count) bytes are served")
        }
    }

    @Test("the framing of good requests is known")
    func good() throws {
        #expect(try accepted(request()).body == .none)
        #expect(try accepted(request("Content-Length: 0")).body == .none)
        #expect(try accepted(request("Content-Length: 5")).body == .length(5))
        #expect(try accepted(request("content-length:\t 005 \t")).body == .length(5))
        #expect(try accepted(request("Content-Length: 999999999999999999")).body == .length(999_999_999_999_999_999))
        #expect(try accepted(request("Transfer-Encoding: chunked")).body == .chunked)
        #expect(try accepted(request("transfer-encoding:\tCHUNKED ")).body == .chunked)
    }

    @Test("the connection is kept by the rules of each version")
    func persistence() throws {
        #expect(try accepted(request()).keepsAlive)
        #expect(try !accepted(request("Connection: close")).keepsAlive)
        #expect(try !accepted(request("Connection: x-a , CLOSE,")).keepsAlive)
        #expect(try !accepted(request("Connection: keep-alive", "Connection: close")).keepsAlive)
        #expect(try !accepted(request(version: "HTTP/1.0")).keepsAlive)
        #expect(try accepted(request("Connection: Keep-Alive", version: "HTTP/1.0")).keepsAlive)
        #expect(try !accepted(request("Connection: keep-alive, close", version: "HTTP/1.0")).keepsAlive)
        #expect(try accepted(request("Connection: closed")).keepsAlive)
    }

    @Test("only GET, HEAD and OPTIONS without a body may be made twice")
    func retries() throws {
        for method in ["GET", "HEAD", "OPTIONS"] {
            #expect(try accepted(request(method: method)).canRetry)
            #expect(try !accepted(request("Content-Length: 1", method: method)).canRetry)
            #expect(try !accepted(request("Transfer-Encoding: chunked", method: method)).canRetry)
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "get", "QUERY", "GETT"] {
            #expect(try !accepted(request(method: method)).canRetry, "\(method)")
        }
        #expect(try accepted(request("Connection: upgrade", "Upgrade: websocket")).canRetry)
    }

    @Test("100-continue is awaited for a body of HTTP/1.1 only")
    func continues() throws {
        #expect(try accepted(request("Expect: 100-Continue", "Content-Length: 5")).expectsContinue)
        #expect(try !accepted(request("Expect: 100-continue")).expectsContinue)
        #expect(
            try !accepted(request("Expect: 100-continue", "Content-Length: 5", version: "HTTP/1.0")).expectsContinue)
        #expect(try !accepted(request("Expect: x", version: "HTTP/1.0")).expectsContinue)
    }

    @Test("an upgrade needs both fields, no body, HTTP/1.1, and is not to h2c")
    func upgrades() throws {
        let connection = "Connection: keep-alive, Upgrade"
        #expect(try accepted(request(connection, "Upgrade: websocket")).asksUpgrade)
        #expect(try accepted(request("Upgrade: foo/2", connection)).asksUpgrade)
        #expect(try !accepted(request(connection)).asksUpgrade)
        #expect(try !accepted(request("Upgrade: websocket")).asksUpgrade)
        #expect(try !accepted(request(connection, "Upgrade: websocket", version: "HTTP/1.0")).asksUpgrade)
        #expect(try !accepted(request(connection, "Upgrade: websocket", "Content-Length: 1")).asksUpgrade)
        #expect(try !accepted(request(connection, "Upgrade:")).asksUpgrade)
        for offer in ["h2c", "H2C", "websocket, h2c", "h2c, websocket", " h2c ,"] {
            #expect(try !accepted(request(connection, "Upgrade: \(offer)")).asksUpgrade, "\(offer)")
        }
        #expect(try !accepted(request(connection, "Upgrade: h2c", "Upgrade: websocket")).asksUpgrade)
        #expect(try !accepted(request(connection, "Upgrade: websocket", "Upgrade: h2c")).asksUpgrade)
    }

    @Test("a byte of a value may be beyond ASCII, a tab or a space within")
    func values() throws {
        let raw =
            Array("GET / HTTP/1.1\r\nHost: x\r\nX: \t a\tb ".utf8) + [0xe9, 0x80, 0xff] + Array(" \t\r\n\r\n".utf8)
        let field = try #require(try accepted(raw).fields.last)
        #expect(field.value == Array("a\tb ".utf8) + [0xe9, 0x80, 0xff])
    }

    @Test("a head is found at its first empty line, and no byte of what follows is read")
    func followed() throws {
        let first = request("Content-Length: 3")
        let judged = try accepted(first + "abcGET / HTTP/1.1\r\nHost: y\r\n\r\n")
        #expect(judged.count == first.utf8.count)
        #expect(judged.fields.count == 2)
    }

    @Test("byte by byte a head is found where it is found at once")
    func byteByByte() throws {
        let raw = Array(request("Content-Length: 3", "X: y", method: "POST").utf8)
        var end = HeadEnd()
        for count in 0..<raw.count {
            let found = try raw[..<count].withUnsafeBytes { try end.find(in: $0) }
            #expect(found == nil)
        }
        #expect(try raw.withUnsafeBytes { try end.find(in: $0) } == raw.count)
    }

    @Test(
        "NIO's decoder and the sidecar's judge never read anything else into what the front accepts", arguments: 0..<8)
    func oracle(part: Int) {
        var both = 0
        for seed in 0..<100 {
            var material = Material(Dice(seed: UInt64(part * 1000 + seed)))
            let bytes = seed % 3 == 0 ? material.plainRequestHead() : material.requestHead()
            let agreement = Oracle.compare(bytes)
            if case .conflict(let why) = agreement {
                Issue.record(
                    "seed \(part * 1000 + seed): \(why): \(String(decoding: bytes, as: UTF8.self).debugDescription)")
            }
            if agreement == .bothAccept { both += 1 }
        }
        // Nothing would be proven by heads that both refuse.
        #expect(both > 15)
    }
}
