//  Lines.swift
//  A worker's bytes, in random pieces, through the output: every record is whole and right, nothing is lost or moved.
//  Read LineOracle.swift and PanelindOutput/Judging.swift first.

import PanelindOutput

/// What workers write.
public final class LineTarget: FuzzTarget {
    public static let name = "lines"
    public static let words = [
        "\n", "\r\n", "\r", "\n\n", "\0", "\u{1b}[31m", "\u{1b}]0;x\u{7}", "\u{FFFD}", "\u{e9}", "\u{20ac}",
        "\u{1f600}",
        "Traceback (most recent call last):\n", "  + Exception Group Traceback (most recent call last):\n",
        "  File \"a.py\", line 1, in f\n", "ValueError: x\n", "INFO: x\n", "<3>", "<7>", "{\"a\":1}\n", "{", "}", "\"",
        "\\",
        "\\u0000", "During handling of the above exception, another exception occurred:\n",
        "The above exception was the direct cause of the following exception:\n", "    | ", "    +---", "> ",
        "level=error ", "[ERROR] ", "2026-01-01 00:00:00,000 - a - ERROR - x", "1e5", "-0", "[[[[", "\u{10}n",
    ]

    /// Used for all inputs, as the thread's are: what one input left behind would be found by the next.
    private struct Judges: ~Copyable {
        var json: LineJudging
        var journal: LineJudging
        var text: LineJudging
        var terminal: LineJudging
        let limit: Int

        init(limit: Int) {
            self.limit = limit
            json = LineJudging(.json, lineLimit: limit)
            journal = LineJudging(.journal, lineLimit: limit)
            text = LineJudging(.text(colour: false), lineLimit: limit)
            terminal = LineJudging(.text(colour: true), lineLimit: limit)
        }
    }

    private var short = Judges(limit: 64)
    private var long = Judges(limit: 1500)

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        var text = ""
        for _ in 0...dice.roll(8) {
            switch dice.roll(6) {
            case 0: text += Self.traceback(&dice)
            case 1: text += Self.object(&dice)
            case 2: text += dice.some(Self.words, upTo: 6)
            case 3:
                text += String(repeating: dice.pick(["a", "\u{e9}", "\u{20ac}", "\"", "\u{1}"]), count: dice.roll(150))
            default: text += dice.some(["INFO: ", "x ", "WARNING ", "<4>", "a=1 ", "\u{20ac}"], upTo: 5)
            }
            if !dice.once(in: 6) { text += dice.pick(["\n", "\n", "\n", "\r\n", "\n\n"]) }
        }
        return Array(text.utf8)
    }

    private static func traceback(_ dice: inout Dice) -> String {
        var text = "Traceback (most recent call last):\n"
        for _ in 0..<dice.roll(4) { text += "  File \"a.py\", line \(dice.roll(99)), in f\n    f()\n" }
        text += dice.pick([
            "ValueError: no\n", "a.b.Error\n", "KeyError:\n", "INFO: x\n", "\n", "  x\n", "Error: a\n  b\n",
        ])
        if dice.once(in: 3) {
            text +=
                "\n\(dice.pick(words.filter { $0.contains("above") }))\n" + (dice.once(in: 2) ? traceback(&dice) : "")
        }
        return text
    }

    private static func object(_ dice: inout Dice) -> String {
        let value = dice.pick([
            "1", "-1.5e+9", "\"x\"", "null", "true", "[]", "{}", "[1,2]", "\"\\ud83d\"", "01", "\"\t\"",
        ])
        return
            "{\"\(dice.pick(["a", "severity", "level", "\u{e9}"]))\":\(value)\(dice.pick(["", ",\"b\":2", ",", " "]))}"
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        if dice.once(in: 3) { Self.judge(input, &long, &dice) } else { Self.judge(input, &short, &dice) }
    }

    private static func judge(_ input: [UInt8], _ judges: inout Judges, _ dice: inout Dice) -> String? {
        let expected = LineOracle.records(input, limit: judges.limit)
        let pieces = dice.fewPieces(input)
        let counts = "in \(pieces.map(\.count).prefix(12)), limit \(judges.limit)"
        if let finding = LineComparison.json(judges.json.records(pieces), expected, judges.limit) {
            return "\(finding), \(counts)"
        }
        switch dice.roll(3) {
        case 0:
            if let finding = LineComparison.journal(judges.journal.records(pieces), expected, judges.limit) {
                return "journal: \(finding), \(counts)"
            }
        case 1:
            let text = judges.text.records(pieces)
            if let finding = LineComparison.text(text, expected) { return "text: \(finding), \(counts)" }
        default: _ = judges.terminal.records(pieces)
        }
        let kept = judges.json.kept
        for (line, next) in zip(kept, kept.dropFirst()) where next.sequence != line.sequence + 1 {
            return "the ring jumps from \(line.sequence) to \(next.sequence)"
        }
        if dice.once(in: 8) { _ = LineJudging.reason(kept.map(\.text)) }
        return nil
    }
}

/// Records against what they must be.
private enum LineComparison {
    private struct Record {
        var raw: [UInt8]
        var message: String
        var isPartial: Bool
        /// `ERROR`, or the number of the journal.
        var severity: String
    }

    static func json(_ bytes: [UInt8], _ expected: [ExpectedRecord], _ limit: Int) -> String? {
        guard bytes.isEmpty || bytes.last == 0x0a else { return "the last record has no end" }
        var records: [Record] = []
        for line in bytes.split(separator: 0x0a, omittingEmptySubsequences: false).dropLast() {
            guard let value = JSONReader.read(Array(line)), case .object = value else {
                return "a record that is no JSON: \(shown(Array(line)))"
            }
            let isPartial = value["partial"] == .bool(true)
            records.append(
                Record(
                    raw: Array(line), message: value["message"]?.text ?? "", isPartial: isPartial,
                    severity: value["severity"]?.text ?? ""))
        }
        return compare(records, expected, limit, errorSeverity: "ERROR", passes: true)
    }

    static func journal(_ bytes: [UInt8], _ expected: [ExpectedRecord], _ limit: Int) -> String? {
        var records: [Record] = []
        for line in bytes.split(separator: 0x0a, omittingEmptySubsequences: false).dropLast() {
            guard let fields = EntryReader.fields(LineJudging.entry(Array(line))),
                let message = fields.first(where: { $0.name == "MESSAGE" }),
                fields.filter({ $0.name == "MESSAGE" }).count == 1,
                let priority = fields.first, priority.name == "PRIORITY"
            else { return "an entry that is none: \(shown(Array(line)))" }
            guard let text = String(validating: message.value, as: UTF8.self) else {
                return "a message that is not UTF-8"
            }
            records.append(
                Record(
                    raw: [], message: text, isPartial: fields.contains { $0.name == "PANELIND_PARTIAL" },
                    severity: String(decoding: priority.value, as: UTF8.self)))
        }
        return compare(records, expected, limit, errorSeverity: "3", passes: false)
    }

    /// One line each, without control characters.
    static func text(_ bytes: [UInt8], _ expected: [ExpectedRecord]) -> String? {
        if holdsControls(bytes) { return "a control character" }
        if String(validating: bytes, as: UTF8.self) == nil { return "not UTF-8" }
        // Tracebacks are not put together here.
        let lines = expected.reduce(0) { sum, record in
            if case .traceback(let lines) = record { sum + lines.count } else { sum + 1 }
        }
        let records = bytes.split(separator: 0x0a).count
        return records < lines ? "\(records) records of \(lines) lines" : nil
    }

    private static func compare(
        _ records: [Record], _ expected: [ExpectedRecord], _ limit: Int, errorSeverity: String, passes: Bool
    ) -> String? {
        var rest = records[...]
        for one in expected {
            guard let first = rest.popFirst() else { return "lost: \(one)" }
            var parts = [first]
            if !(passes && one.isOwn) {
                while parts[parts.count - 1].isPartial {
                    guard let next = rest.popFirst() else { return "the last part is missing: \(one)" }
                    parts.append(next)
                }
            }
            let messages = parts.map(\.message)
            switch one {
            case .own(let bytes):
                if passes ? first.raw != bytes : messages != [decoded(bytes)] { return "\(messages) for \(one)" }
            case .line(let bytes):
                if messages != [decoded(bytes)], messages != [decoded(bytes.withoutPrefix)] {
                    return "\(messages) for \(one)"
                }
            case .cut(let bytes):
                if parts.count < 2 { return "not in parts: \(one)" }
                // A part may end inside of what is no character: it is replaced on both sides.
                let joined = messages.joined().withoutReplacements
                if joined != decoded(bytes).withoutReplacements,
                    joined != decoded(bytes.withoutPrefix).withoutReplacements
                {
                    return "\(messages) for \(one)"
                }
            case .traceback(let lines):
                if messages.joined(separator: "\n") != lines.map(decoded).joined(separator: "\n") {
                    return "\(messages) for \(one)"
                }
                if parts.contains(where: { $0.severity != errorSeverity }) { return "a traceback of \(first.severity)" }
                if parts.count > 1, lines.map(\.count).reduce(0, { $0 + $1 + 1 }) <= limit {
                    return "needless parts: \(one)"
                }
            }
        }
        return rest.isEmpty ? nil : "more: \(rest.map(\.message).prefix(3))"
    }

    private static func decoded(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension ExpectedRecord {
    fileprivate var isOwn: Bool { if case .own = self { true } else { false } }
}

extension [UInt8] {
    /// Without the `<N>` of sd-daemon(3).
    fileprivate var withoutPrefix: [UInt8] {
        count >= 3 && self[0] == 0x3c && (0x30...0x37).contains(self[1]) && self[2] == 0x3e ? Array(dropFirst(3)) : self
    }
}

extension String {
    fileprivate var withoutReplacements: String {
        String(String.UnicodeScalarView(unicodeScalars.filter { $0 != "\u{FFFD}" }))
    }
}
