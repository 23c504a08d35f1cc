//  Material.swift
//  What is thrown at the front: heads and bodies out of a grammar that knows the dangerous words, then mutated.
//  Every choice comes from a seed. Read first here.

import PanelindCore

/// Choices.
public struct Dice {
    private var random: RandomNumbers

    /// Makes the choices of a seed.
    public init(seed: UInt64) { random = RandomNumbers(seed: seed) }

    /// A number in 0..<limit, which is at least 1.
    public mutating func roll(_ limit: Int) -> Int { Int(random.next() % UInt64(limit)) }

    /// True once in so many times.
    public mutating func once(in times: Int) -> Bool { roll(times) == 0 }

    /// One of these, of which there is at least one.
    public mutating func pick<Value>(_ values: [Value]) -> Value { values[roll(values.count)] }

    /// Any number.
    public mutating func number() -> UInt64 { random.next() }

    /// Where some bytes are cut into pieces: none of the pieces is empty.
    public mutating func pieces(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        var start = 0
        // Large inputs byte by byte would take the time of a thousand small ones.
        let step = pick(bytes.count > 2000 ? [200, 5000, 100_000] : [1, 3, 17, 200, 5000, 100_000])
        while start < bytes.count {
            let end = min(bytes.count, start + 1 + roll(step))
            pieces.append(bytes[start..<end])
            start = end
        }
        return pieces
    }

    /// The same, but no more than fifty: the first of them are one.
    mutating func fewPieces(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        let last = pieces(bytes).suffix(49)
        guard let first = last.first else { return [] }
        return (first.startIndex > 0 ? [bytes[..<first.startIndex]] : []) + last
    }
}

/// Makes what is thrown.
struct Material {
    var dice: Dice

    /// Makes the material of these dice.
    init(_ dice: Dice) { self.dice = dice }

    /// What a good head may have, and what makes it odd.
    private struct Choice {
        let good: [String]
        let odd: [String]
    }

    private static let methods = Choice(
        good: ["GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "QUERY", "X-Y"],
        odd: ["get", "CONNECT", "TRACE", "PRI", "G@T", "", "GET "])
    private static let targets = Choice(
        good: [
            "/", "/a", "/a%2Fb/../c?q=a;b&%zz", "http://x/", "http://x", "http://x?q", "HTTP://X:80/a", "//x/a", "/a#b",
        ],
        odd: [
            "*", "http://y/", "https://x:443/a", "x:443", "/\u{e9}", "/a b", "", "http://", "http://u@x/", "/\t",
            "/\u{7f}", "a",
        ])
    private static let versions = Choice(
        good: ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
        odd: ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "http/1.1", "HTTP/1.10", "HTTP/11", "HTTP/1.1 ", ""])
    private static let fields = Choice(
        good: [
            "Content-Length: 0", "Content-Length: 5", "Content-Length:05\t", "Transfer-Encoding: chunked",
            "transfer-encoding:Chunked", "Connection: close", "Connection: keep-alive",
            "Connection: x-a, content-length",
            "Connection: upgrade\r\nUpgrade: websocket", "Connection: Upgrade\r\nUpgrade: h2c, websocket",
            "Connection: host, transfer-encoding", "Expect: 100-continue", "TE: trailers", "TE: gzip", "Trailer: x-t",
            "X-Forwarded-For: 1.2.3.4, unknown", "X-Forwarded-Proto: https", "X-Forwarded-Host: z", "X-Request-Id: ab",
            "X-Request-Id:", "Keep-Alive: 5", "Proxy: z", "Proxy-Connection: close", "HTTP2-Settings: AA",
            "Authorization: Bearer s", "Cookie: a=b; c=d", "traceparent: 00-1-2-3", "X-A: 1", "x-a: \u{e9}\t\"q\"",
            "Content-Type: text/event-stream", "Date: now", "X_A: 2", "A:", "Upgrade: h2c", "Connection:",
        ],
        odd: [
            "Content-Length: +5", "Content-Length: -1", "Content-Length: 0x5", "Content-Length: 5, 5",
            "Content-Length: 18446744073709551621", "Content-Length:", "Content-Length : 5", " Content-Length: 5",
            "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \u{b}chunked", "Transfer-Encoding: chunked;a=b", "Transfer-Encoding : chunked",
            "Transfer-Encoding:", "Transfer-\u{b}Encoding: chunked", "Transfer-Encoding: identity", "Host: x",
            "Host: y",
            "Host: a b", "Host: x, y", "Host:", "Expect: 200-ok", "X: a\u{0}b", "X: a\u{7f}b", "X: a\rb", "X: a\nb",
            "X: a\r\n b", "X\u{e9}: 1", ": 1", "X", "X: 1\r\n\tContent-Length: 5", "\u{0}",
        ])
    static let words = [
        "\r\n", "\r\n\r\n", "\n", "\r", "\n\n", "\0", ":", " ", "\t", ",", "\u{7f}", "\u{80}", "0\r\n\r\n", "5\r\n",
        "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Host: x\r\n", "GET / HTTP/1.1\r\n", " HTTP/1.1",
        "chunked", "close", ";", "=", "ffffffffffffffff", "\u{b}", "\u{c}", "\u{a0}", "HTTP/1.1 200 OK\r\n",
    ]

    private static let wordBytes = words.map { Array($0.utf8) }

    /// The head of a request: mostly a good one with something odd about it.
    mutating func requestHead() -> [UInt8] {
        let start = "\(choose(Self.methods)) \(choose(Self.targets)) \(choose(Self.versions))\r\n"
        return finish(dice.once(in: 20) ? start : start + "Host: x\r\n")
    }

    private mutating func choose(_ choice: Choice) -> String {
        dice.once(in: 16) ? dice.pick(choice.odd) : dice.pick(choice.good)
    }

    /// A head of a request that is certainly good, before anything odd happens to it.
    mutating func plainRequestHead() -> [UInt8] {
        let body = dice.pick(["", "", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
        let method = dice.pick(["GET", "POST", "HEAD", "OPTIONS", "PUT"])
        return mutated(Array("\(method) /a?b HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\(body)\r\n".utf8))
    }

    /// The head of an answer.
    mutating func answerHead() -> [UInt8] {
        let version = dice.pick(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1"])
        let status = dice.pick([
            "200 OK", "200 OK", "200", "200 ", "204 No Content", "304 Not Modified", "205 Reset", "100 Continue",
            "103 E",
            "101 Switching Protocols", "404 N\u{e9}", "99 X", "600 X", "2000 X", "-1 X", "20 X", "", "500 \u{0} X",
            "426 U",
        ])
        return finish("\(version) \(status)\r\n")
    }

    private mutating func finish(_ start: String) -> [UInt8] {
        var text = start
        for _ in 0..<dice.roll(dice.once(in: 50) ? 130 : 4) {
            text += choose(Self.fields) + (dice.once(in: 60) ? dice.pick(["\n", "\r", " \r\n", "\r\n\r\n"]) : "\r\n")
        }
        var bytes = Array((text + "\r\n").utf8)
        if dice.once(in: 200) {
            bytes.insert(contentsOf: [UInt8](repeating: 0x61, count: dice.roll(80_000)), at: dice.roll(bytes.count))
        }
        return dice.once(in: 3) ? mutated(bytes) : bytes
    }

    /// A chunked body, mostly a good one, with something behind it.
    mutating func chunkedBody() -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<dice.roll(6) {
            let count = 1 + dice.roll(dice.once(in: 60) ? 20_000 : 40)
            var size = String(count, radix: 16, uppercase: dice.once(in: 2))
            if dice.once(in: 6) { size = String(repeating: "0", count: dice.roll(16)) + size }
            if dice.once(in: 6) {
                size += dice.pick([
                    ";a=b", ";", ";a=\"x;y\"", " ;a", ";" + String(repeating: "e", count: 250 + dice.roll(12)),
                ])
            }
            bytes += Array((size + "\r\n").utf8)
            bytes += (0..<count).map { _ in UInt8(truncatingIfNeeded: dice.roll(256)) }
            bytes += [0x0d, 0x0a]
        }
        bytes += Array("0\(dice.pick(["", "", "", ";x", "00"]))\r\n".utf8)
        if dice.once(in: 3) { bytes += Array("X-T: v\r\nContent-Length: 3\r\n".utf8) }
        bytes += Array("\r\n".utf8)
        if dice.once(in: 2) { bytes += Array("GET /next HTTP/1.1\r\n".utf8) }
        return dice.once(in: 2) ? bytes : mutated(bytes)
    }

    private mutating func mutated(_ bytes: [UInt8]) -> [UInt8] { dice.mutated(bytes, Self.wordBytes) }
}
