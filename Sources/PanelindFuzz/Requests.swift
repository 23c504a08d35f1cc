//  Requests.swift
//  What clients of the sidecar and of the control socket send, and what every answer to it must be.
//  Read Reader.swift first; Sidecar.swift and Control.swift carry it out.

/// Requests to panelind's own servers.
enum OwnRequests {
    static let words =
        Material.words + [
            "/health", "/ready", "/metrics", "/live", "/v1/status", "/v1/why", "/v1/events", "/v1/logs", "/v1/restart",
            "/v1/reload", "/v1/stop", "?after=", "?lines=", "&follow=true", "&follow=false", "%41",
            "18446744073709551615",
            "Last-Event-ID: 5\r\n", "Accept: text/plain\r\n", "POST ", "HEAD ", "Connection: close\r\n",
            "Expect: 100-continue\r\n",
        ]

    static func make(_ paths: [String], _ dice: inout Dice) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0...dice.roll(3) {
            if dice.once(in: 6) {
                var material = Material(dice)
                bytes += material.requestHead()
                dice = material.dice
                continue
            }
            let method = dice.pick(["GET", "GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "OPTIONS"])
            let query = dice.pick([
                "", "", "", "?", "?after=1", "?lines=2&follow=true", "?lines=10001", "?follow=x", "?after=%31&a=b",
            ])
            let version = dice.pick(["1.1", "1.1", "1.1", "1.0"])
            var head =
                "\(method) \(dice.pick(paths))\(query) HTTP/\(version)\r\nHost: \(dice.pick(["x", "127.0.0.1:8081", ""]))\r\n"
            head += dice.some(
                [
                    "Accept: text/plain\r\n", "Accept: */*\r\n", "User-Agent: x\r\n", "Last-Event-ID: 1\r\n",
                    "Connection: keep-alive\r\n",
                    "Connection: close\r\n",
                ], upTo: 3)
            var body = ""
            switch dice.roll(8) {
            case 0:
                body = String(repeating: "b", count: dice.roll(2000))
                head += "Content-Length: \(body.utf8.count)\r\n"
                if dice.once(in: 4) { head += "Expect: 100-continue\r\n" }
            case 1:
                body = "3\r\nabc\r\n0\r\n\r\n"
                head += "Transfer-Encoding: chunked\r\n"
            default: break
            }
            bytes += Array("\(head)\r\n\(body)".utf8)
        }
        return bytes
    }

    private static let statuses: Set<Int> = [
        100, 200, 400, 404, 405, 408, 409, 413, 414, 417, 422, 431, 501, 502, 503, 505,
    ]

    /// The answers one by one: each is whole, and none says what it must not.
    static func finding(_ output: [UInt8], to input: [UInt8], mayStream: Bool) -> String? {
        // The answer to a HEAD has a length and no body: which answers are those is not known here.
        if input.contains(word: "HEAD") { return nil }
        var reader = Reader()
        reader.feed(output)
        while let head = reader.head() {
            let parts = head.line.split(separator: " ")
            guard parts.count > 1, parts[0] == "HTTP/1.1", let status = Int(parts[1]), statuses.contains(status) else {
                return "a first line that is none: \(head.line)"
            }
            if status == 100 { continue }
            var framing = Reader.Framing.none
            if head.first("transfer-encoding") != nil {
                framing = .size
            } else if let length = head.first("content-length").flatMap({ Int($0) }) {
                framing = .length(length)
            } else if mayStream, status == 200 {
                framing = .untilClose
            }
            if framing == .untilClose || framing == .size, !mayStream { return "a stream: \(head.line)" }
            let body = reader.body(&framing)
            if reader.isBroken || framing != .done && framing != .untilClose {
                return "a broken body behind \(head.line)"
            }
            let type = head.first("content-type") ?? ""
            if type.hasSuffix("json"), JSONReader.read(body) == nil { return "no JSON: \(shown(body))" }
            if type.hasPrefix("text/plain"), holdsControls(body) { return "a control character: \(shown(body))" }
            if status >= 400, type != "application/problem+json", status != 503 { return "\(status) of \(type)" }
        }
        return reader.isEmpty ? nil : "bytes behind the last answer: \(shown(Array(reader.rest)))"
    }
}

extension [UInt8] {
    fileprivate func contains(word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        return indices.dropLast(length - 1).contains { at in
            (0..<length).allSatisfy { self[at + $0] == word.utf8Start[$0] }
        }
    }
}
