//  Equipment.swift
//  What the pure tests of the front share: heads as text in, judgements and forwarded heads as text out.
//  Read PanelindFront/Judging.swift first; Rig.swift has the whole front.

import NIOCore
import PanelindFuzz
import Testing

@testable import PanelindFront
@testable import PanelindHTTP

/// A raw head and what must come of it.
struct Case: Sendable, CustomTestStringConvertible {
    let raw: String
    let status: Int

    init(_ raw: String, _ status: Int) {
        self.raw = raw
        self.status = status
    }

    var testDescription: String { "\(status) \(raw.prefix(80).debugDescription) (\(raw.utf8.count) bytes)" }
}

/// A request whose first lines are good, with these fields besides Host.
func request(_ fields: String..., method: String = "GET", target: String = "/", version: String = "HTTP/1.1") -> String
{
    "\(method) \(target) \(version)\r\nHost: x\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n"
}

func answer(_ fields: String..., status: String = "200 OK", version: String = "HTTP/1.1") -> String {
    "\(version) \(status)\r\n" + fields.map { $0 + "\r\n" }.joined() + "\r\n"
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
}

/// The judgement of a head that must be accepted.
func accepted(_ raw: [UInt8], trusted: Bool = false) throws -> Judging.Request {
    switch Judging.request(raw, trusted: trusted) {
    case .accepted(let request): return request
    case .more: throw TestFailure(description: "the head is not whole")
    case .refused(let status, let why): throw TestFailure(description: "refused: \(status) \(why)")
    }
}

func accepted(_ raw: String, trusted: Bool = false) throws -> Judging.Request {
    try accepted(Array(raw.utf8), trusted: trusted)
}

func acceptedAnswer(_ raw: String, toHead: Bool = false) throws -> Judging.Answer {
    switch Judging.answer(Array(raw.utf8), toHead: toHead) {
    case .accepted(let answer): return answer
    case .more: throw TestFailure(description: "the head is not whole")
    case .refused(_, let why): throw TestFailure(description: "refused: \(why)")
    }
}

/// 0 while more is needed or where it is accepted; else the refusal's status.
func refusal(_ raw: String) -> Int {
    if case .refused(let status, _) = Judging.request(Array(raw.utf8), trusted: false) { status } else { 0 }
}

/// The lines of a written head, without the empty one.
func lines(_ head: [UInt8]) -> [String] {
    String(decoding: head, as: UTF8.self).split(separator: "\r\n").map(String.init)
}

/// The values of a field in a written head.
func values(_ name: String, _ head: [UInt8]) -> [String] {
    lines(head).dropFirst().compactMap { line in
        let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == name.lowercased() else { return nil }
        return String(parts[1].drop { $0 == " " })
    }
}
