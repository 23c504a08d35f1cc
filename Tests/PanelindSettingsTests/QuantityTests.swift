//  QuantityTests.swift
//  Durations, sizes, addresses and expansion: tables of what is right and what is wrong.
//  Read after Equipment.swift.

import PanelindCore
import Testing

@testable import PanelindSettings

@Suite("quantities") struct QuantityTests {
    @Test(
        "a duration is read exactly",
        arguments: [
            ("250ms", .milliseconds(250)), ("8s", .seconds(8)), ("1m", .seconds(60)), ("1.5s", .milliseconds(1500)),
            ("2h", .seconds(7200)), ("1m30s", .seconds(90)), ("0s", .zero), ("0.000000001s", .nanoseconds(1)),
            ("1h0.5s", .milliseconds(3_600_500)), ("8784h", .seconds(31_622_400)),
        ] as [(String, Duration)])
    func durations(text: String, duration: Duration) throws {
        #expect(try parseDuration(text) == duration)
    }

    @Test(
        "what is no duration says what would be",
        arguments: [
            ("5", "a number without a unit; write 5s"), ("0", "a number without a unit; write 0s"),
            ("1.5", "a number without a unit; write 1.5s, 8s or 250ms"),
            ("", "no value; write a duration such as 250ms, 8s or 1m30s"),
            ("-5s", "a negative duration; write a duration such as 250ms, 8s or 1m30s"),
            ("5 s", "a number without a unit; write 5s, 8s or 250ms"),
            ("5d", "unknown unit d; write a duration such as 250ms, 8s or 1m30s"),
            ("30s1m", "units out of order; write a duration such as 250ms, 8s or 1m30s"),
            ("nan", "not a duration; write a duration such as 250ms, 8s or 1m30s"),
            ("inf", "not a duration; write a duration such as 250ms, 8s or 1m30s"),
            ("1e3s", "unknown unit e; write a duration such as 250ms, 8s or 1m30s"),
            ("9000h", "not a number, or beyond a year; write a duration such as 250ms, 8s or 1m30s"),
            ("99999999999999999999s", "not a number, or beyond a year; write a duration such as 250ms, 8s or 1m30s"),
            ("8784h1s", "longer than a year; write a duration such as 250ms, 8s or 1m30s"),
            (".s", "not a number, or beyond a year; write a duration such as 250ms, 8s or 1m30s"),
        ])
    func noDurations(text: String, why: String) {
        #expect(throws: BadValue(why)) { try parseDuration(text) }
    }

    @Test(
        "a size is read exactly, and shown as it was written",
        arguments: [("32MiB", 32 << 20), ("64KiB", 64 << 10), ("1GiB", 1 << 30), ("0", 0), ("1000", 1000)])
    func sizes(text: String, bytes: Int) throws {
        #expect(try parseSize(text) == bytes)
        #expect(sizeText(bytes) == text)
    }

    @Test(
        "what is no size says what would be",
        arguments: [
            ("5MB", "unknown unit MB; write a size such as 64KiB, 32MiB or 1GiB"),
            ("-1", "a negative size; write a size such as 64KiB, 32MiB or 1GiB"),
            ("9223372036854775807GiB", "too large; write a size such as 64KiB, 32MiB or 1GiB"),
            ("big", "not a size; write a size such as 64KiB, 32MiB or 1GiB"),
        ])
    func noSizes(text: String, why: String) {
        #expect(throws: BadValue(why)) { try parseSize(text) }
    }

    @Test("a decimal has no exponent, infinity or NaN", arguments: ["nan", "inf", "1e3", "0x1p3", "", "2"])
    func decimals(text: String) {
        #expect(throws: BadValue.self) { try parseDecimal(text, 0...1) }
    }

    @Test(
        "an address is read and shown alike",
        arguments: ["0.0.0.0:8080", "[::]:8080", "localhost:1", "unix:/run/x.sock", "systemd", "systemd:web"])
    func addresses(text: String) throws {
        #expect(try parseAddress(text, systemd: true).description == text)
    }

    @Test(
        "what is no address says what would be",
        arguments: [
            ("8080", "no port; write HOST:PORT, [::]:PORT, unix:PATH or systemd"),
            (":8080", "no host; write 0.0.0.0:8080 or 127.0.0.1:8080"),
            ("::1:80", "an IPv6 address without brackets; write [::1]:80"),
            ("0.0.0.0:0", "0 is not a port; write one from 1 to 65535"),
            ("0.0.0.0:70000", "70000 is not a port; write one from 1 to 65535"),
            ("0.0.0.0:+80", "+80 is not a port; write one from 1 to 65535"),
            ("0.0.0.0:", "no port; write a port from 1 to 65535"),
            ("1.2.3:80", "not a host; write HOST:PORT, [::]:PORT, unix:PATH or systemd"),
            ("a b:80", "not a host; write HOST:PORT, [::]:PORT, unix:PATH or systemd"),
            ("unix:", "no path; write unix:PATH"),
            ("systemd:", "not the name of a socket; write systemd:NAME"),
            (
                "unix:/" + String(repeating: "x", count: 107),
                "a path of 108 bytes does not fit a socket address; at most 107"
            ),
        ])
    func noAddresses(text: String, why: String) {
        #expect(throws: BadValue(why)) { try parseAddress(text, systemd: true) }
    }

    @Test("a block contains the addresses that share its first bits")
    func blocks() throws {
        let block = try #require(AddressBlock("10.16.0.0/12"))
        #expect(block.contains([10, 31, 255, 255]))
        #expect(!block.contains([10, 32, 0, 0]))
        #expect(block.contains([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 16, 1, 1]))
        #expect(AddressBlock("10.0.0.0/33") == nil)
        #expect(AddressBlock("ten") == nil)
        #expect(AddressBlock("::1")?.prefixLength == 128)
    }

    @Test(
        "text expands by the rules of the contract",
        arguments: [
            ("${A}", "a"), ("x${A}y${A}", "xaya"), ("${U:-d}", "d"), ("${E:-d}", "d"), ("${E}", ""), ("$$", "$"),
            ("$$A", "$A"), ("$${A}", "${A}"), ("{{A}}", "{A}"), ("{{socket}}", "{socket}"), ("$A", "$A"),
            ("{x}", "{x}"), ("${}", "${}"), ("${1A}", "${1A}"), ("${A", "${A"), ("${A-x}", "${A-x}"),
            ("^a{3}$", "^a{3}$"),
            ("${U:-${A}}", "a"), ("${U:-}", ""), ("${U:-http://x/$$}", "http://x/$"), ("100%", "100%"), ("{", "{"),
        ])
    func expansion(text: String, expected: String) throws {
        let values = ["A": "a", "E": ""]
        let argument = try expand(text, placeholders: true) { values[$0].map { .text($0) } ?? .unset }
        #expect(argument.literal == expected)
    }

    @Test("a name that is not set and has no default is an error")
    func unset() {
        #expect(throws: BadValue("U is not set; set it, or write ${U:-default}")) {
            _ = try expand("${U}", placeholders: true) { _ in .unset }
        }
    }

    @Test("placeholders stay pieces until a worker starts, also inside an argument")
    func pieces() throws {
        let argument = try expand("--bind=unix:{socket}", placeholders: true) { _ in .unset }
        #expect(argument.pieces == [.text("--bind=unix:"), .socket])
        #expect(argument.filled(socket: "/run/s", port: 9, descriptor: 3) == "--bind=unix:/run/s")
        // What a variable holds is text, whatever it looks like.
        let value = try expand("${A}{port}{fd}", placeholders: true) { _ in .text("{socket}") }
        #expect(value.filled(socket: "/run/s", port: 9, descriptor: 3) == "{socket}93")
    }

    @Test("the nearest known word is found by edit distance")
    func near() {
        #expect(editDistance("kitten", "sitting") == 3)
        #expect(editDistance("ab", "ba") == 1)
        #expect(nearest(to: "stop.buget", in: Table.keys) == "stop.budget")
        #expect(nearest(to: "nothing.like.it", in: Table.keys) == nil)
    }
}
