//  BodyTests.swift
//  Where bodies end, however they come; chunk sizes, extensions and trailers; dates; what is told of a request.
//  RFC 9112 section 7.1. Equipment.swift first.

import NIOCore
import PanelindCore
import PanelindFuzz
import Testing

@testable import PanelindFront

private func body(_ text: String, _ framing: Judging.Framing = .chunked) -> Judging.Body {
    Judging.body(framing, pieces: [Array(text.utf8)[...]])
}

@Suite("Bodies")
struct BodyTests {
    @Test(
        "every split of a chunked body gives the same bytes, trailers and rest",
        arguments: [
            "5\r\nhello\r\n0\r\n\r\n", "1;a=b\r\nx\r\n1\r\ny\r\n0;last\r\n\r\nGET / HTTP/1.1\r\n",
            "3\r\n\r\n\r\r\n0\r\nX-T: v\r\nY: w\r\n\r\nrest", "0\r\n\r\n", "00A\r\n0123456789\r\n00\r\n\r\n",
            "5\r\nhel",
        ])
    func splits(text: String) {
        let bytes = Array(text.utf8)
        let whole = body(text)
        #expect(!whole.isBroken)
        for first in 0...bytes.count {
            for second in first...bytes.count {
                #expect(
                    Judging.body(.chunked, pieces: [bytes[..<first], bytes[first..<second], bytes[second...]]) == whole,
                    "split at \(first) and \(second)")
            }
        }
        #expect(Judging.body(.chunked, pieces: bytes.indices.map { bytes[$0...$0] }) == whole)
    }

    @Test(
        "a broken chunk is broken however it comes",
        arguments: [
            "FFFFFFFFFFFFFFFFF\r\n", "1000000000000000\r\n", "-1\r\n", "+1\r\nx\r\n", "0x1\r\nx\r\n", "g\r\n", "\r\n",
            " 1\r\nx\r\n",
            "1 \r\nx\r\n", "1 ;a\r\nx\r\n", "1\nx\r\n", "1\r\nxy\r\n", "1\r\nx\n", "1\r\nx0\r\n", "1\rx", "1;a\nx",
            "1;a\u{0}\r\nx\r\n",
            "1;\(String(repeating: "e", count: 256))\r\nx\r\n", "0\r\nX: a\nY: b\r\n\r\n", "0\r\n\rX", "0\r\n\n",
            "0\n\r\n",
        ])
    func broken(text: String) {
        #expect(body(text).isBroken)
        let bytes = Array(text.utf8)
        #expect(Judging.body(.chunked, pieces: bytes.indices.map { bytes[$0...$0] }).isBroken)
    }

    @Test("extensions of up to 256 bytes are dropped")
    func extensions() {
        let longest = ";" + String(repeating: "e", count: 255)
        let whole = body("5\(longest)\r\nhello\r\n0;\u{e9}\t\"a\"\r\n\r\n")
        #expect(whole.data == Array("hello".utf8))
        #expect(whole.isWhole)
    }

    @Test("sizes have up to fifteen digits")
    func sizes() {
        #expect(body("000000000000005\r\nhello\r\n0\r\n\r\n").isWhole)
        #expect(body("0000000000000005\r\nhello\r\n0\r\n\r\n").isBroken)
        #expect(!body("fffffffffffffff\r\nx").isBroken)
        #expect(body("aB\r\n" + String(repeating: "x", count: 171) + "\r\n0\r\n\r\n").data.count == 171)
    }

    @Test("a trailer section has the bounds of a head")
    func trailers() {
        #expect(body("0\r\nX: v\r\n\r\n").trailers == Array("X: v\r\n\r\n".utf8))
        let long = body("0\r\nX: " + String(repeating: "v", count: 70_000))
        #expect(long.isBroken)
    }

    @Test("a length is counted to its last byte, and the rest is left")
    func length() {
        let bytes = Array("helloGET".utf8)
        for cut in 0...bytes.count {
            let result = Judging.body(.length(5), pieces: [bytes[..<cut], bytes[cut...]])
            #expect(result.data == Array("hello".utf8))
            #expect(result.isWhole && result.left == 3)
        }
        #expect(!body("hell", .length(5)).isWhole)
        #expect(body("", .none).isWhole)
        #expect(body("x", .none).left == 1)
    }

    @Test("up to the end of the connection everything is the body")
    func untilClose() {
        let result = body("0\r\n\r\n", .untilClose)
        #expect(result.data == Array("0\r\n\r\n".utf8))
        #expect(!result.isWhole)
    }

    @Test("trailers with names that mean something to anybody are dropped")
    func relayed() throws {
        let section = Array(
            ("X-A: 1\r\nContent-Length: 5\r\nAuthorization: s\r\nTransfer-Encoding: chunked\r\nHost: y\r\nx-b: 2\r\n"
                + "Set-Cookie: c\r\nConnection: close\r\nTrailer: q\r\nX-Forwarded-For: 1\r\nCookie: c\r\n"
                + "Content-Type: x\r\nX-Serverless-Authorization: t\r\nServer-Timing: a;dur=1\r\n\r\n").utf8)
        var out = ByteBuffer()
        try section.withUnsafeBytes { raw in
            var lines = HeadLines()
            try lines.cutTrailers(raw)
            lines.writeTrailers(raw, into: &out)
        }
        #expect(String(buffer: out) == "X-A: 1\r\nx-b: 2\r\nServer-Timing: a;dur=1\r\n")
    }

    @Test(
        "trailers that are no fields are refused",
        arguments: [
            "X\r\n\r\n", "X : a\r\n\r\n", " X: a\r\n\r\n", "X: a\r\n b\r\n\r\n", "X: \u{0}\r\n\r\n",
        ])
    func badTrailers(section: String) {
        Array(section.utf8).withUnsafeBytes { raw in
            var lines = HeadLines()
            #expect(throws: HeadFault.self) { try lines.cutTrailers(raw) }
        }
    }

    @Test(
        "dates are those of RFC 9110",
        arguments: [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"), (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ])
    func dates(second: Int, text: String) {
        #expect(String(decoding: HTTPDate.text(second), as: UTF8.self) == text)
        var date = HTTPDate()
        #expect(date.now().count == 29)
    }

    @Test("a finished request tells its first line and the fields it is asked for")
    func finished() throws {
        let head = try accepted(request("X-A: 1", "x-a: 2", "Referer:", method: "POST", target: "/a?b=c")).forwarded
        let finished = FinishedRequest(
            status: 200, duration: .milliseconds(5), untilHead: nil, isLasting: false, requestBytes: 0,
            responseBytes: 0, reason: nil, isCut: false, isHTTP10: false, peer: "1.2.3.4",
            head: ByteBuffer(bytes: head))
        #expect(finished.methodAndTarget == ("POST", "/a?b=c"))
        #expect(finished.field("x-a") == "1")
        #expect(finished.field("referer")?.isEmpty == true)
        #expect(finished.field("x-b") == nil)
    }

    @Test("every name of its own meaning is known in any case, and no other")
    func names() {
        func kind(_ name: String) -> FieldName { Array(name.utf8).withUnsafeBytes { FieldName.of($0) } }
        let known: [(String, FieldName)] = [
            ("te", .te), ("host", .host), ("date", .date), ("proxy", .hopByHop), ("expect", .expect),
            ("upgrade", .upgrade), ("trailer", .trailer), ("connection", .connection), ("keep-alive", .hopByHop),
            ("content-type", .contentType), ("x-request-id", .requestID), ("content-length", .contentLength),
            ("http2-settings", .hopByHop), ("x-forwarded-for", .forwardedFor), ("x-forwarded-host", .forwardedHost),
            ("transfer-encoding", .transferEncoding), ("x-forwarded-proto", .forwardedProto), ("proxy-x", .hopByHop),
        ]
        for (name, meaning) in known {
            #expect(kind(name) == meaning)
            #expect(kind(name.uppercased()) == meaning)
            if meaning != .hopByHop {
                // Bit 5 folds letters only: `^` is not `~`, a control is not a hyphen.
                for index in name.utf8.indices {
                    var bytes = Array(name.utf8)
                    let offset = name.utf8.distance(from: name.utf8.startIndex, to: index)
                    if bytes[offset] == 0x2d { bytes[offset] = 0x0d } else { bytes[offset] ^= 0x10 }
                    #expect(bytes.withUnsafeBytes { FieldName.of($0) } == .other)
                }
            }
        }
        for name in ["hosts", "content_length", "proxies", "x-forwarded", "content-lengthx", "t"] {
            #expect(kind(name) == .other)
        }
    }
}
