//  Pure.swift
//  The front's judges under many inputs: they agree with the oracle, with themselves, and with what they write.
//  Three targets: heads of requests, heads of answers, chunked bodies. Read Oracle.swift and PanelindFront/Judging.swift.

import PanelindFront

/// Heads of requests.
public final class RequestTarget: FuzzTarget {
    public static let name = "requests"
    public static let words = Material.words
    /// What the oracle and the front do not share, counted, with the first input.
    private var tally: [Agreement: (count: Int, first: [UInt8])] = [:]

    public init() {}

    public var notes: [String] {
        tally.sorted { $0.value.count > $1.value.count }.map { "\($1.count) \($0), first \(shown($1.first))" }
    }

    public func make(_ dice: inout Dice) -> [UInt8] {
        var material = Material(dice)
        defer { dice = material.dice }
        return material.dice.once(in: 3) ? material.plainRequestHead() : material.requestHead()
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        // The oracle takes most of the time: it sees every 32nd head.
        if dice.once(in: 32), let finding = consult(input) { return finding }
        return Pure.request(input, &dice)
    }

    /// Asks the oracle.
    func consult(_ input: [UInt8]) -> String? {
        let agreement = Oracle.compare(input)
        tally[agreement] = ((tally[agreement]?.count ?? 0) + 1, tally[agreement]?.first ?? input)
        if case .conflict(let why) = agreement { return "oracle: \(why)" }
        return nil
    }
}

/// Heads of answers.
public final class AnswerTarget: FuzzTarget {
    public static let name = "answers"
    public static let words = Material.words

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        var material = Material(dice)
        defer { dice = material.dice }
        return material.answerHead()
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        Pure.answer(input, toHead: dice.once(in: 4))
    }
}

/// Chunked bodies.
public final class BodyTarget: FuzzTarget {
    public static let name = "bodies"
    public static let words = Material.words

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        var material = Material(dice)
        defer { dice = material.dice }
        return material.chunkedBody()
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? { Pure.body(input, &dice) }
}

/// What holds of the front's judges for every input.
enum Pure {
    // MARK: requests

    /// Judged as a whole, as a beginning, and as it is forwarded.
    static func request(_ bytes: [UInt8], _ dice: inout Dice) -> String? {
        let trusted = dice.once(in: 2)
        guard case .accepted(let mine) = Judging.request(bytes, trusted: trusted) else { return nil }
        if case .accepted = Judging.request(Array(bytes[..<dice.roll(mine.count)]), trusted: trusted) {
            return "accepted before its end"
        }
        // A long host is written twice: what is added may go beyond the bounds of a head.
        if mine.forwarded.count > 60_000 { return nil }
        guard case .accepted(let again) = Judging.request(mine.forwarded, trusted: true) else {
            return "the forwarded head is refused: \(shown(mine.forwarded))"
        }
        if again.count != mine.forwarded.count { return "the forwarded head is two: \(shown(mine.forwarded))" }
        if again.method != mine.method { return "another method is forwarded" }
        if again.body != mine.body { return "another framing is forwarded: \(shown(mine.forwarded))" }
        if again.isHTTP10 { return "HTTP/1.0 is forwarded" }
        if mine.target.first == 0x2f, again.target != mine.target { return "another target is forwarded" }
        return fields(of: again, upgrade: mine.asksUpgrade)
    }

    /// What a worker must never see, and must see once.
    private static func fields(of request: Judging.Request, upgrade: Bool) -> String? {
        var counts: [String: Int] = [:]
        for field in request.fields {
            counts[String(decoding: field.name, as: UTF8.self).lowercased(), default: 0] += 1
        }
        for name in ["keep-alive", "proxy", "proxy-connection", "http2-settings"] where counts[name] != nil {
            return "\(name) is forwarded"
        }
        for name in ["host", "x-forwarded-for", "x-request-id"] where counts[name] != 1 && name != "x-request-id" {
            return "\(counts[name] ?? 0) of \(name)"
        }
        if counts["x-request-id"] == nil || counts["x-forwarded-proto"] == nil { return "a field is missing" }
        for name in ["connection", "upgrade"] where (counts[name] != nil) != upgrade { return "\(name) is wrong" }
        if counts["content-length"] != nil && counts["transfer-encoding"] != nil { return "two framings" }
        return nil
    }

    // MARK: answers

    /// Judged, and as it is passed on.
    static func answer(_ bytes: [UInt8], toHead: Bool) -> String? {
        guard case .accepted(let mine) = Judging.answer(bytes, toHead: toHead) else { return nil }
        guard case .accepted(let again) = Judging.answer(mine.forwarded, toHead: toHead) else {
            return "what is passed on is refused: \(shown(mine.forwarded))"
        }
        if again.count != mine.forwarded.count { return "what is passed on is two" }
        if again.status != mine.status { return "another status" }
        let expected: Judging.Framing = mine.body == .untilClose ? .chunked : mine.body
        if again.body != expected { return "another framing: \(shown(mine.forwarded))" }
        for field in again.fields {
            let name = String(decoding: field.name, as: UTF8.self).lowercased()
            if ["connection", "keep-alive", "proxy-connection", "te"].contains(name) { return "\(name) is passed on" }
        }
        return nil
    }

    // MARK: bodies

    /// The same however it comes, and what a simple reader makes of it.
    static func body(_ bytes: [UInt8], _ dice: inout Dice) -> String? {
        let whole = Judging.body(.chunked, pieces: [bytes[...]])
        let pieces = dice.pieces(bytes)
        let split = Judging.body(.chunked, pieces: pieces)
        if split != whole { return "split into \(pieces.map(\.count).prefix(20)) it is another" }
        let reference = reference(bytes)
        if whole.isBroken != (reference == nil) { return whole.isBroken ? "refused" : "accepted" }
        guard let reference, reference != whole else { return nil }
        return "the reader found \(reference.data.count) bytes and \(reference.left) left, whole \(reference.isWhole)"
    }

    /// RFC 9112 section 7.1, slowly; nil for what is broken.
    private static func reference(_ bytes: [UInt8]) -> Judging.Body? {
        var result = Judging.Body()
        var rest = bytes[...]
        func isValue(_ byte: UInt8) -> Bool { byte == 9 || byte >= 0x20 && byte != 0x7f }
        while true {
            let digits = rest.prefix { ($0 | 0x20) >= 0x61 && ($0 | 0x20) <= 0x66 || $0 >= 0x30 && $0 <= 0x39 }
            if digits.count > 15 { return nil }
            var tail = rest.dropFirst(digits.count)
            if digits.isEmpty { return tail.isEmpty ? ended(result, rest) : nil }
            if tail.first == UInt8(ascii: ";") {
                let text = tail.prefix(while: isValue)
                if text.count > 256 { return nil }
                tail = tail.dropFirst(text.count)
            }
            if tail.isEmpty || tail.elementsEqual([0x0d]) { return ended(result, rest) }
            guard tail.starts(with: [0x0d, 0x0a]) else { return nil }
            rest = tail.dropFirst(2)
            guard let size = Int(String(decoding: digits, as: UTF8.self), radix: 16) else { return nil }
            if size == 0 { return trailers(rest, result) }
            result.data += rest.prefix(size)
            if rest.count < size { return ended(result, []) }
            rest = rest.dropFirst(size)
            if rest.isEmpty || rest.elementsEqual([0x0d]) { return ended(result, rest) }
            guard rest.starts(with: [0x0d, 0x0a]) else { return nil }
            rest = rest.dropFirst(2)
        }
    }

    private static func ended(_ result: Judging.Body, _ rest: ArraySlice<UInt8>) -> Judging.Body {
        var result = result
        result.left = rest.count
        return result
    }

    private static func trailers(_ rest: ArraySlice<UInt8>, _ before: Judging.Body) -> Judging.Body? {
        var result = before
        if rest.isEmpty || rest.elementsEqual([0x0d]) { return ended(result, rest) }
        if rest.first == 0x0d {
            guard rest.starts(with: [0x0d, 0x0a]) else { return nil }
            result.isWhole = true
            return ended(result, rest.dropFirst(2))
        }
        var index = rest.startIndex
        while let found = rest[index...].firstIndex(of: 0x0a) {
            guard found > rest.startIndex, rest[found - 1] == 0x0d else { return nil }
            if found - rest.startIndex >= 3, rest[found - 2] == 0x0a {
                result.isWhole = true
                result.trailers = Array(rest[...found])
                return ended(result, rest[(found + 1)...])
            }
            index = found + 1
        }
        return ended(result, rest)
    }
}
