//  FramingTests.swift
//  Raw bytes in, status codes out: what the decoder, the judge and the connection together let through.
//  CONTRACT section 5 in a table; Equipment.swift first.

import NIOCore
import NIOEmbedded
import NIOHTTP1
import Testing

@testable import PanelindHTTP

private let host = "Host: x\r\n"

/// A raw request and the status codes it must bring.
struct Case: Sendable, CustomTestStringConvertible {
    let raw: String
    let statuses: [Int]
    let stays: Bool

    init(_ raw: String, _ statuses: [Int], stays: Bool = false) {
        self.raw = raw
        self.statuses = statuses
        self.stays = stays
    }

    var testDescription: String { String(raw.prefix(100).debugDescription) }
}

private let served: [Case] = [
    Case("GET / HTTP/1.1\r\n\(host)\r\n", [200], stays: true),
    Case("HEAD /a?b HTTP/1.1\r\n\(host)\r\n", [200], stays: true),
    Case("GET http://x/health HTTP/1.1\r\n\(host)\r\n", [200], stays: true),
    Case("OPTIONS * HTTP/1.1\r\n\(host)\r\n", [200], stays: true),
    Case("\r\n\r\nGET / HTTP/1.1\r\n\(host)\r\n", [200], stays: true),
    Case("GET / HTTP/1.1\r\nHost:\r\n\r\n", [200], stays: true),
    Case("GET / HTTP/1.1\r\nhOsT: x\r\nA: \u{e9}\tb  \r\n\r\n", [200], stays: true),
    Case("GET / HTTP/1.1\r\n\(host)Connection: close\r\n\r\n", [200]),
    Case("GET / HTTP/1.1\r\n\(host)Connection: foo, CLOSE\r\n\r\n", [200]),
    Case("GET / HTTP/1.0\r\n\r\n", [200]),
    Case("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", [200], stays: true),
    Case("GET / HTTP/1.1\r\n\(host)Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", [200]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3\r\n\r\nabc", [200], stays: true),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3 \r\n\r\nabc", [200], stays: true),
    Case("GET / HTTP/1.1\r\n\(host)Content-Length: 0\r\n\r\n", [200], stays: true),
    Case(
        "GET / HTTP/1.1\r\n\(host)Transfer-Encoding: Chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: v\r\n\r\n", [200],
        stays: true),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3\r\nExpect: 100-Continue\r\n\r\nabc", [100, 200], stays: true),
    Case("GET / HTTP/1.1\r\n\(host)\r\nGET /2 HTTP/1.1\r\n\(host)\r\n", [200, 200], stays: true),
    Case("GET / HTTP/1.1\r\n\(host)Connection: close\r\n\r\nGET /2 HTTP/1.1\r\n\(host)\r\n", [200]),
]

private let refused: [Case] = [
    Case("GET / HTTP/1.1\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)\(host)\r\n", [400]),
    Case("GET / HTTP/1.0\r\n\(host)\(host)\r\n", [400]),
    Case("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\n\(host)\r\n", [400]),
    Case("GET / HTTP/1.1\r\nHost: x\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)A: b\r\n c\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)A : b\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)A: b\0c\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)A: b\rc\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host): x\r\n\r\n", [400]),
    Case("GET / HTTP/1.1\r\n\(host)NoColon\r\n\r\n", [400]),
    Case("GET /\u{e9} HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET /a\u{1} HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET foo HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET * HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET ftp://x/ HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET http:///a HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("get / HTTP/1.1\r\n\(host)\r\n", [400]),
    Case("GET /\r\n\r\n", [400]),
    Case("GET / HTTP/2.0\r\n\(host)\r\n", [400]),
    Case("GET / HTTP/1.1 \r\n\(host)\r\n", [400]),
    Case("\u{16}\u{3}\u{1}", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 3, 3\r\n\r\nabc", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: +3\r\n\r\nabc", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: -1\r\n\r\nabc", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 99999999999999999999\r\n\r\nabc", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [501]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: identity\r\n\r\n", [501]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [501]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.0\r\n\(host)Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", [400]),
    Case("POST / HTTP/1.1\r\n\(host)Content-Length: 2000000\r\n\r\n", [413]),
    Case(
        "POST / HTTP/1.1\r\n\(host)Transfer-Encoding: chunked\r\n\r\n200000\r\n"
            + String(repeating: "a", count: 1_100_000), [413]),
    Case("CONNECT x:1 HTTP/1.1\r\n\(host)\r\n", [405]),
    Case("TRACE / HTTP/1.1\r\n\(host)\r\n", [405]),
    Case("GET / HTTP/1.1\r\n\(host)Expect: 200-ok\r\n\r\n", [417]),
    Case("GET /" + String(repeating: "a", count: 20000) + " HTTP/1.1\r\n\(host)\r\n", [414]),
    Case("GET / HTTP/1.1\r\n\(host)" + String(repeating: "A: b\r\n", count: 100) + "\r\n", [431]),
    Case("GET / HTTP/1.1\r\n\(host)A: " + String(repeating: "a", count: 70000) + "\r\n\r\n", [431]),
    Case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []),
    Case("GET / HTTP/1.1\r\n\(host)\r\nGARBAGE\r\n\r\n", [200, 400]),
]

@Suite struct FramingTests {
    @Test("a valid request is answered, and the connection stays where HTTP says so", arguments: served)
    func servedRequests(_ given: Case) throws {
        let connection = try EmbeddedConnection()
        #expect(EmbeddedConnection.statuses(connection.feed(given.raw)) == given.statuses)
        #expect(connection.isOpen == given.stays)
    }

    @Test("what is ambiguous, too large or unknown is refused and the connection closed", arguments: refused)
    func refusedRequests(_ given: Case) throws {
        let connection = try EmbeddedConnection()
        #expect(EmbeddedConnection.statuses(connection.feed(given.raw)) == given.statuses)
        #expect(!connection.isOpen)
    }

    @Test(
        "requests that come byte by byte are judged the same",
        arguments: (served + refused).filter { $0.raw.utf8.count < 1000 })
    func byteByByte(_ given: Case) throws {
        let connection = try EmbeddedConnection()
        var output = ""
        for byte in given.raw.utf8 where connection.isOpen { output += connection.feed([byte]) }
        #expect(EmbeddedConnection.statuses(output) == given.statuses)
        #expect(connection.isOpen == given.stays)
    }

    @Test("a target beyond the head's limit is 414, a field beyond it 431, also in small pieces")
    func overlongHeads() throws {
        for (start, status) in [("GET /", 414), ("GET / HTTP/1.1\r\nA: ", 431)] {
            let connection = try EmbeddedConnection()
            var output = connection.feed(start)
            for _ in 0..<20 where connection.isOpen { output += connection.feed(String(repeating: "a", count: 4096)) }
            #expect(EmbeddedConnection.statuses(output) == [status])
            #expect(!connection.isOpen)
        }
    }

    @Test("the path is matched undecoded and without the query")
    func paths() {
        #expect(Request.path(of: "/health?x=1?y") == "/health")
        #expect(Request.path(of: "/%68ealth") == "/%68ealth")
        #expect(Request.path(of: "http://a:1/health?x") == "/health")
        #expect(Request.path(of: "HTTP://a") == "/")
        #expect(Request.path(of: "https://a?x=/b") == "/")
        #expect(Request.path(of: "*") == "*")
    }
}
