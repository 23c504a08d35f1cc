//  BytesTests.swift
//  Tables for the pure functions over bytes: escaping, validity, prefixes, tracebacks, times, the ring.
//  String and Foundation are the oracles where they can be. No threads here.

import Foundation
import Glibc
import Testing

@testable import PanelindOutput

private func escaped(_ bytes: [UInt8]) -> String {
    onBytes(bytes) { p, count in
        let room = UnsafeMutablePointer<UInt8>.allocate(capacity: escapedRoom(count))
        defer { room.deallocate() }
        let end = escapeJSON(p, count, to: room)
        #expect(end - room <= escapedRoom(count))
        return String(decoding: UnsafeBufferPointer(start: room, count: end - room), as: UTF8.self)
    }
}

private func text(_ bytes: String, toTerminal: Bool) -> String {
    onBytes(bytes) { p, count in
        let room = UnsafeMutablePointer<UInt8>.allocate(capacity: textRoom(count))
        defer { room.deallocate() }
        let end = encodeText(p, count, toTerminal: toTerminal, to: room)
        return String(decoding: UnsafeBufferPointer(start: room, count: end - room), as: UTF8.self)
    }
}

@Suite("bytes")
struct BytesTests {
    @Test("any bytes escape to a JSON string that parses to what String makes of them")
    func escapingAgreesWithString() throws {
        var random = SystemRandomNumberGenerator()
        let interesting: [UInt8] = [
            0, 9, 10, 13, 31, 32, 34, 92, 127, 0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xA0, 0xED, 0x9F, 0xF0, 0x90, 0xF4, 0x8F,
            0xFF,
        ]
        for round in 0..<600 {
            let bytes = (0..<(round % 97)).map { _ -> UInt8 in
                switch round % 3 {
                case 0: .random(in: 0...255, using: &random)
                case 1: interesting.randomElement(using: &random) ?? 0
                default: Bool.random(using: &random) ? 97 : interesting.randomElement(using: &random) ?? 0
                }
            }
            let object = try parsed("{\"m\":\"\(escaped(bytes))\"}")
            #expect(object["m"] as? String == String(decoding: bytes, as: UTF8.self), "\(bytes)")
        }
    }

    @Test("control characters are written as RFC 8259 has them")
    func controls() {
        #expect(
            escaped([0, 8, 9, 10, 12, 13, 0x1B, 0x1F, 34, 92, 47, 127]) == #"\u0000\b\t\n\f\r\u001b\u001f\"\\/"#
                + "\u{7F}")
    }

    @Test(
        "a valid JSON object is seen as one",
        arguments: [
            "{}", " { } ", #"{"a":1}"#, #"{"a":[1,2,{"b":null}],"c":true,"d":false}"#, #"{"a":-0.5e+10,"b":0,"c":1E3}"#,
            #"{"a":"\u00e9\"\\\/\b\f\n\r\t"}"#, #"{"message":"ñandú 日本 🚀 and a text longer than sixteen bytes"}"#,
            #"{"a":{"b":{"c":[[[]]]}}}"#, #"{"":""}"#, "{\"a\" :\t1 , \"b\": [ ] }",
        ])
    func validObjects(_ line: String) throws {
        #expect(onBytes(line, isJSONObject))
        _ = try parsed(line)
    }

    @Test(
        "what is not exactly one JSON object is not taken for one",
        arguments: [
            "", "x", "[]", "1", "{", "}", "{}{}", "{} x", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{a:1}"#, #"{"a":01}"#,
            #"{"a":1.}"#, #"{"a":.5}"#, #"{"a":+1}"#, #"{"a":1e}"#, #"{"a":tru}"#, #"{"a":"\x"}"#, #"{"a":"\u12g4"}"#,
            "{\"a\":\"\t\"}", #"{"a":"b}"#, #"{"a":[1}}"#, #"{"a":{"b":1]}"#, #"{,}"#, #"{"a":1 "b":2}"#, #"{"a":NaN}"#,
            #"{'a':1}"#, #"{"a":"\ud8"}"#,
        ])
    func invalidObjects(_ line: String) { #expect(!onBytes(line, isJSONObject)) }

    @Test("an object with invalid UTF-8, or nested without end, is not passed")
    func hostileObjects() {
        #expect(!onBytes(Array(#"{"a":""#.utf8) + [0xC3, 0x28] + Array(#""}"#.utf8), isJSONObject))
        let deep = String(repeating: #"{"a":"#, count: 100_000)
        #expect(!onBytes(deep + "1" + String(repeating: "}", count: 100_000), isJSONObject))
        let within = String(repeating: "[", count: deepestJSON - 1) + String(repeating: "]", count: deepestJSON - 1)
        #expect(onBytes("{\"a\":\(within)}", isJSONObject))
    }

    @Test("every prefix of a valid object but the whole is refused")
    func truncation() {
        let line = Array(#"{"a":[1.5e3,{"b":"\u00e9x"}],"cc":null,"d":false}"#.utf8)
        for length in 0..<line.count { #expect(!onBytes(Array(line[..<length]), isJSONObject)) }
        #expect(onBytes(line, isJSONObject))
    }

    @Test(
        "a line's own prefix decides its severity",
        arguments: [
            ("<0>down", Severity.emergency, 3), ("<3>bad", .error, 3), ("<7>detail", .debug, 3), ("<8>x", .info, 0),
            ("<b>html", .info, 0), ("INFO:     Started server process [7]", .info, 0), ("WARNING: disk", .warning, 0),
            ("WARNING:root:careful", .warning, 0), ("ERROR:    Exception in ASGI application", .error, 0),
            ("CRITICAL:app:gone", .critical, 0), ("DEBUG:x", .debug, 0), ("WARN something", .warning, 0),
            ("[ERROR] x", .error, 0), ("[error] x", .error, 0), ("[INFO] x", .info, 0),
            ("error: no such file", .error, 0),
            ("Error: Cannot find module 'x'", .error, 0), ("panic: runtime error", .critical, 0),
            ("FATAL:  role \"x\" does not exist", .critical, 0),
            ("2026-01-01 12:00:00,123 - name - ERROR - text", .error, 0),
            ("2026-01-01 12:00:00,123 - a.b-c.d - WARNING - text - INFO - x", .warning, 0),
            ("2026-01-01 12:00:00,123 ERROR name text", .error, 0),
            ("2026-01-01 12:00:00,123 name ERROR text", .error, 0),
            ("2026-01-01 12:00:00.123 | WARNING  | mod:func:12 - text", .warning, 0),
            ("2026-01-01 12:00:00.123 | SUCCESS  | mod:func:12 - text", .info, 0),
            ("[2026-01-01 12:00:00 +0000] [123] [CRITICAL] WORKER TIMEOUT", .critical, 0),
            ("[2026-01-01 12:00:00 -0300] [123] [ERROR] Connection in use: ('0.0.0.0', 8080)", .error, 0),
            ("2026/01/01 12:00:00 [warn] 7#7: x", .warning, 0),
            ("2026/01/01 12:00:00 [emerg] 7#7: bind()", .emergency, 0),
            ("[2026-01-01T00:00:00Z WARN  crate] x", .warning, 0), ("2026-01-01T00:00:00.1Z ERROR crate: x", .error, 0),
            ("2026-01-01 12:00:00 [error    ] event", .error, 0), ("12:00:00 ERROR x", .error, 0),
            ("time=2026-01-01T00:00:00Z level=error msg=\"x\"", .error, 0), ("level=warn msg=x", .warning, 0),
            ("\u{1B}[31mERROR\u{1B}[0m:    x", .error, 0),
            ("\u{1B}[2m2026-01-01T00:00:00Z\u{1B}[0m \u{1B}[33m WARN\u{1B}[0m x", .warning, 0),
            ("hello", .info, 0), ("", .info, 0), ("information is power", .info, 0), ("Error while frying", .info, 0),
            ("Errors: 0", .info, 0), ("2026-01-01 all is well, no ERROR today", .info, 0), ("12 errors", .info, 0),
            ("10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] \"GET /error HTTP/1.1\" 200", .info, 0),
            ("127.0.0.1:5000 - \"GET / HTTP/1.1\" 200 OK", .info, 0), ("[main] starting ERROR handler", .info, 0),
        ] as [(String, Severity, Int)])
    func severities(_ line: String, _ severity: Severity, _ drop: Int) {
        #expect(onBytes(line, linePrefix) == LinePrefix(severity: severity, drop: drop))
    }

    @Test("a cut never tears a character, and never goes back more than three bytes")
    func cuts() {
        let line = Array("añ日🚀z".utf8)
        for limit in 4..<line.count {
            let at = onBytes(line) { p, _ in utf8Cut(p, limit) }
            #expect(limit - at < 4)
            #expect(String(validating: line[..<at], as: UTF8.self) != nil)
        }
        #expect(onBytes([UInt8](repeating: 0x80, count: 20)) { p, _ in utf8Cut(p, 10) } == 10)
    }

    @Test(
        "a taken port is recognised in its usual spellings",
        arguments: [
            "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8080): address already in use",
            "OSError: [Errno 98] Address already in use", "Error: listen EADDRINUSE: address already in use :::3000",
            "listen tcp :8080: bind: address already in use", "[ERROR] Connection in use: ('', 80) errno 98",
            "[2026-11-28 12:00:00 +0000] [7] [ERROR] Connection in use: ('0.0.0.0', 8000)",
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",
            "java.net.BindException: Address already in use",
            "Os { code: 98, kind: AddrInUse, message: (os error 98) }",
            "Bind for 0.0.0.0:80 failed: port is already allocated", "Port 5000 is in use by another program.",
            "Only one usage of each socket address (protocol/network address/port) is normally permitted",
        ])
    func portInUse(_ line: String) { #expect(portInUseLine(["x", line, "y"]) == 1) }

    @Test(
        "other troubles are not a taken port", arguments: ["exit 98 (98)", "KeyError: 'port'", "", "address unknown"])
    func portNotInUse(_ line: String) { #expect(portInUseLine([line]) == nil) }

    @Test("times are those of the C library, and a bump is one nanosecond")
    func stamps() {
        var stamp = Stamp()
        for second in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_767_225_600, 4_102_444_799, 9_000_000_000] {
            var seconds = time_t(second)
            var parts = tm()
            gmtime_r(&seconds, &parts)
            var wanted = [CChar](repeating: 0, count: 64)
            strftime(&wanted, 64, "%Y-%m-%dT%H:%M:%S", &parts)
            stamp.set(Int64(second) * 1_000_000_000 + 999_999_999)
            #expect(
                content(stamp) == String(
                    decoding: wanted.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self) + ".999999999Z")
            stamp.bump()
            #expect(stamp.nanoseconds == Int64(second + 1) * 1_000_000_000)
            #expect(content(stamp).hasSuffix(".000000000Z"))
        }
    }

    private func content(_ stamp: borrowing Stamp) -> String {
        String(decoding: UnsafeBufferPointer(start: stamp.text, count: Stamp.length), as: UTF8.self)
    }

    @Test("no escape is left but, on a terminal, the worker's colours, which end with the line")
    func textEscapes() {
        let line = "\u{1B}[31mred\u{1B}[0m and \u{1B}]0;title\u{7}plain\ttab\u{8} \u{1B}(B."
        #expect(text(line, toTerminal: false) == "red and plain\ttab\\x08 .")
        #expect(
            text(line, toTerminal: true)
                == "\u{1B}[31mred\u{1B}[0m and plain\ttab\\x08 .\u{1B}[0m")
        for toTerminal in [false, true] {
            // Unfinished ones, the clipboard, a question whose answer would be typed, a line over another, C1.
            for hostile in [
                "\u{1B}\u{1B}[\u{1B}]x\u{1B}[12;", "\u{1B}]52;c;eA==\u{7}", "\u{1B}[6n", "\u{1B}[2A\u{1B}[2K",
                "\u{1B}[?1m",
                "\u{1B}[>4;1m", "\u{1B}P$qm\u{1B}\\", "\u{1B}[1;31", "\u{1B}",
            ] {
                #expect(!text(hostile, toTerminal: toTerminal).contains("\u{1B}"), "\(hostile.debugDescription)")
            }
            #expect(text("a\u{9B}31mb\u{85}c\u{A0}d\re", toTerminal: toTerminal) == "a\\x9b31mb\\x85c\u{A0}d\\x0de")
        }
        #expect(text("\u{1B}[38:5:1mx", toTerminal: true) == "\u{1B}[38:5:1mx\u{1B}[0m")
        #expect(text("sixteen bytes at once\u{7F} and more", toTerminal: true) == "sixteen bytes at once\\x7f and more")
        // U+009B begins a sequence too, U+00E9 does not.
        #expect(text("\u{9B}31m\u{E9}\u{80}\u{A0}", toTerminal: false) == "\\x9b31m\u{E9}\\x80\u{A0}")
        // DEL too, also where sixteen bytes are copied at once.
        for at in 0..<40 {
            let line = String(repeating: "a", count: at) + "\u{7F}" + String(repeating: "b", count: 40 - at)
            #expect(
                text(line, toTerminal: false)
                    == line.split(separator: "\u{7F}", omittingEmptySubsequences: false).joined(separator: "\\x7f"))
        }
        #expect(!text("\u{1B}\u{1B}[\u{1B}]x\u{1B}[12;", toTerminal: false).contains("\u{1B}"))
    }

    @Test("the ring keeps exactly the newest lines that fit, in order")
    func ring() {
        var ring = Ring(bytes: 4096, lines: 1000)
        var model: [String] = []
        for i in 0..<3000 {
            let line = String(repeating: "x", count: (i * 37) % 400) + "\(i)"
            onBytes(line) { p, count in ring.append(p, count, generation: i % 3, stream: .stdout, time: Int64(i)) }
            model.append(line)
            let lines = ring.lines(last: .max)
            #expect(lines.map(\.text) == model.suffix(lines.count))
            #expect(lines.count >= min(i + 1, 5))
            #expect(lines.last?.sequence == UInt64(i + 1))
        }
        #expect(ring.lines(last: 2, generation: 1).allSatisfy { $0.generation == 1 })
        #expect(ring.lines(last: 10, after: 2998).map(\.sequence) == [2999, 3000])
        var few = Ring(bytes: 1 << 20, lines: 3)
        for i in 0..<10 { onBytes("\(i)") { few.append($0, $1, generation: 1, stream: .stderr, time: 0) } }
        #expect(few.lines(last: 50).map(\.text) == ["7", "8", "9"])
    }

    @Test("own records carry every kind of field as JSON")
    func ownRecords() throws {
        let record = OwnRecord(
            .warning, event: "e", message: "a \"b\"\n",
            fields: [
                Field("s", .string("x\u{1}")), Field("i", .int(-5)), Field("d", .double(0.25)), Field("n", .null),
                Field("nan", .double(.nan)), Field("b", .bool(true)), Field("l", .strings(["p", "q"])),
                Field("p", .ints([1, 2])), Field("o", .object([Field("k", .int(1))])), Field("none", .strings([])),
            ])
        let line = String(decoding: jsonRecord(record, time: "T"), as: UTF8.self)
        #expect(
            line
                == #"{"severity":"WARNING","time":"T","message":"a \"b\"\n","event":"e","s":"x\u0001","i":-5,"d":0.25,"#
                + #""n":null,"nan":null,"b":true,"l":["p","q"],"p":[1,2],"o":{"k":1},"none":[]}"# + "\n")
        _ = try parsed(line)
    }

    @Test("an exit in text shows its cause first and the last lines under it")
    func textExit() {
        let record = OwnRecord(
            .error, event: "worker_exited", message: "g3 ended",
            fields: [Field("cause", .string("port_in_use")), Field("last_output", .strings(["a\u{1B}[1mb", "c"]))])
        let plain = String(decoding: textRecord(record, time: "12:00:00.000", colour: false), as: UTF8.self)
        #expect(plain == "12:00:00.000 panelind  ERROR: port_in_use: g3 ended\n    | ab\n    | c\n")
        #expect(String(decoding: textRecord(record, time: "t", colour: true), as: UTF8.self).contains("\u{1B}[31m"))
    }
}
