//  ForwardingTests.swift
//  What the worker gets: which fields pass, which are dropped, which are added, and that nothing else changes.
//  CONTRACT section 5 and RFC 9110 section 7.6. Equipment.swift first.

import Testing

@testable import PanelindFront

@Suite("Forwarded requests")
struct ForwardingTests {
    @Test(
        "method, path and query pass byte for byte, as HTTP/1.1",
        arguments: [
            "/", "/a%2Fb/../c?q=a;b&%zz", "//x//", "/?", "/a?b?c#d", "/~!$&'()*+,;=:@-._", "/%", "/\\^`{|}<>\"[]",
        ])
    func targets(target: String) throws {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let head = try accepted(request(method: "PaTcH", target: target, version: version)).forwarded
            #expect(lines(head).first == "PaTcH \(target) HTTP/1.1")
        }
    }

    @Test(
        "a target in absolute form is forwarded as its path",
        arguments: [
            ("http://x/a?b", "GET", "/a?b"), ("http://x", "GET", "/"), ("http://x?q", "GET", "/?q"),
            ("HTTP://X/", "GET", "/"),
            ("http://x:80/a", "GET", "/a"), ("https://x:443/a", "GET", "/a"), ("http://x", "OPTIONS", "*"),
            ("http://x//a", "GET", "//a"),
        ])
    func absolute(target: String, method: String, forwarded: String) throws {
        let head = try accepted(request(method: method, target: target)).forwarded
        #expect(lines(head).first == "\(method) \(forwarded) HTTP/1.1")
        #expect(values("host", head) == ["x"])
    }

    @Test("OPTIONS * passes")
    func asterisk() throws {
        #expect(lines(try accepted(request(method: "OPTIONS", target: "*")).forwarded).first == "OPTIONS * HTTP/1.1")
    }

    @Test("without anything special the fields pass in order, byte for byte, and four are added")
    func plain() throws {
        let fields = ["accept:*/*", "X-Empty:", "Cookie: a=b", "cookie: c=d", "X: a\tb  "]
        let head = try accepted("GET / HTTP/1.1\r\nHost: x:8080\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n")
            .forwarded
        #expect(
            String(decoding: head, as: UTF8.self) == "GET / HTTP/1.1\r\nHost: x:8080\r\n"
                + fields.map { $0 + "\r\n" }.joined()
                + "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: x:8080\r\n"
                + "X-Request-Id: 00000000000000010000000000000002\r\n\r\n")
    }

    @Test("bytes beyond ASCII in values pass as they are")
    func bytes() throws {
        let field = Array("X-Name: ".utf8) + [0xe9, 0xff, 0x80] + Array("\r\n".utf8)
        let head = try accepted(Array("GET / HTTP/1.1\r\nHost: x\r\n".utf8) + field + [0x0d, 0x0a]).forwarded
        #expect(head.firstRange(of: field) != nil)
    }

    @Test(
        "fields of the connection are dropped",
        arguments: [
            "Connection: close", "Connection:", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
            "Proxy: http://evil",
            "Proxy-Authorization: Basic QQ==", "Proxy-Anything: x", "TE: gzip", "TE: deflate, gzip;q=0.5",
            "Upgrade: websocket",
            "HTTP2-Settings: AAMAAABkAAQ", "Upgrade: h2c",
        ])
    func hopByHop(field: String) throws {
        let head = try accepted(request("A: 1", field, "B: 2")).forwarded
        #expect(head == (try accepted(request("A: 1", "B: 2")).forwarded))
    }

    @Test("fields that Connection names are dropped, but not those that must pass")
    func named() throws {
        let head = try accepted(
            request(
                "Connection: x-a, X-B,, close , content-length, host, authorization, traceparent, x-forwarded-for",
                "Connection: \tx-c", "X-A: 1", "x-b: 2", "X-C: 3", "X-D: 4", "X-A: 5", "Content-Length: 5",
                "Authorization: Bearer t", "traceparent: 00-a", "X-Forwarded-For: 1.2.3.4",
                "X-Serverless-Authorization: s", "X-Cloud-Trace-Context: c")
        ).forwarded
        for name in ["x-a", "x-b", "x-c", "connection"] { #expect(values(name, head).isEmpty, "\(name)") }
        #expect(values("x-d", head) == ["4"])
        #expect(values("content-length", head) == ["5"])
        #expect(values("host", head) == ["x"])
        #expect(values("authorization", head) == ["Bearer t"])
        #expect(values("traceparent", head) == ["00-a"])
        #expect(values("x-serverless-authorization", head) == ["s"])
        #expect(values("x-cloud-trace-context", head) == ["c"])
        #expect(values("x-forwarded-for", head) == ["1.2.3.4, 192.0.2.1"])
    }

    @Test("TE says trailers and nothing else")
    func te() throws {
        let head = try accepted(request("TE: gzip, Trailers", "TE: deflate")).forwarded
        #expect(values("te", head) == ["trailers"])
    }

    @Test("the peer is appended to one X-Forwarded-For, whoever sent the rest")
    func forwardedFor() throws {
        for trusted in [true, false] {
            let none = try accepted(request(), trusted: trusted).forwarded
            #expect(values("x-forwarded-for", none) == ["192.0.2.1"])
            let two = try accepted(
                request("X-Forwarded-For: 1.2.3.4, 5.6.7.8", "A: b", "x-forwarded-for: unknown", "X-Forwarded-For:"),
                trusted: trusted
            ).forwarded
            #expect(values("x-forwarded-for", two) == ["1.2.3.4, 5.6.7.8, unknown, 192.0.2.1"])
        }
    }

    @Test("X-Forwarded-Proto and -Host are kept from trusted peers and set for others")
    func trust() throws {
        let raw = request("X-Forwarded-Proto: https", "X-Forwarded-Host: public.example")
        let kept = try accepted(raw, trusted: true).forwarded
        #expect(values("x-forwarded-proto", kept) == ["https"])
        #expect(values("x-forwarded-host", kept) == ["public.example"])
        let set = try accepted(raw, trusted: false).forwarded
        #expect(values("x-forwarded-proto", set) == ["http"])
        #expect(values("x-forwarded-host", set) == ["x"])
        let absent = try accepted(request(), trusted: true).forwarded
        #expect(values("x-forwarded-proto", absent) == ["http"])
        #expect(values("x-forwarded-host", absent) == ["x"])
    }

    @Test("X-Request-Id is added where it is absent or empty, else kept")
    func requestID() throws {
        #expect(values("x-request-id", try accepted(request("X-Request-Id: abc")).forwarded) == ["abc"])
        for raw in [request(), request("X-Request-Id:"), request("X-Request-Id: \t ")] {
            #expect(values("x-request-id", try accepted(raw).forwarded) == ["00000000000000010000000000000002"])
        }
    }

    @Test("Expect passes where it is waited for, Upgrade where it is asked for")
    func expectAndUpgrade() throws {
        let expecting = try accepted(request("Expect: 100-continue", "Content-Length: 1")).forwarded
        #expect(values("expect", expecting) == ["100-continue"])
        #expect(values("expect", try accepted(request("Expect: 100-continue")).forwarded).isEmpty)
        let upgrading = try accepted(
            request("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k")
        ).forwarded
        #expect(values("connection", upgrading) == ["Upgrade"])
        #expect(values("upgrade", upgrading) == ["websocket"])
        #expect(values("sec-websocket-key", upgrading) == ["k"])
        let plain = try accepted(request("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A"))
            .forwarded
        for name in ["connection", "upgrade", "http2-settings"] { #expect(values(name, plain).isEmpty) }
    }

    @Test(
        "one framing is forwarded, in the one way to write it",
        arguments: [
            ("Content-Length: 5", "5"), ("Content-Length: 005", "5"), ("Content-Length: 5\t ", "5"),
            ("Content-Length: 0", "0"),
            ("Content-Length: 000", "0"), ("CONTENT-LENGTH:120", "120"),
        ])
    func length(field: String, written: String) throws {
        let head = try accepted(request(field)).forwarded
        #expect(values("content-length", head) == [written])
        #expect(values("transfer-encoding", head).isEmpty)
    }

    @Test("chunked is forwarded as chunked")
    func chunked() throws {
        let head = try accepted(request("transfer-encoding: CHUNKED", "Trailer: X-T")).forwarded
        #expect(lines(head).filter { $0.lowercased().hasPrefix("transfer-encoding") } == ["Transfer-Encoding: chunked"])
        #expect(values("trailer", head) == ["X-T"])
    }

    @Test("HTTP/1.0 without Host gets the host of its target, or an empty one")
    func hostless() throws {
        #expect(values("host", try accepted("GET / HTTP/1.0\r\n\r\n").forwarded) == [""])
        let absolute = try accepted("GET http://a:81/b HTTP/1.0\r\n\r\n").forwarded
        #expect(values("host", absolute) == ["a:81"])
        #expect(values("x-forwarded-host", absolute) == ["a:81"])
    }

    @Test("the longest head of the most added bytes fits")
    func longest() throws {
        let fields = (0..<96).map { _ in "X-Forwarded-For:1" } + ["Connection:Upgrade", "Upgrade:a", "TE:trailers"]
        let head = try accepted("GET http://h HTTP/1.1\r\nHost:h\r\n" + fields.joined(separator: "\r\n") + "\r\n\r\n")
            .forwarded
        #expect(values("x-forwarded-for", head) == [String(repeating: "1, ", count: 96) + "192.0.2.1"])
        let host = String(repeating: "h", count: 60_000)
        let long = try accepted("GET / HTTP/1.1\r\nHost: \(host)\r\n\r\n").forwarded
        #expect(values("x-forwarded-host", long) == [host])
    }
}
