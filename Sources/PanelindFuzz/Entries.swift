//  Entries.swift
//  Records of panelind's own with others' text in them: JSON that reads back, entries of the journal that read back.
//  The journal's protocol is systemd.io/JOURNAL_NATIVE_PROTOCOL. Read JSONReader.swift first.

import PanelindOutput

/// Reads an entry of the journal, apart from the output's own code.
enum EntryReader {
    struct Field: Hashable {
        let name: String
        let value: [UInt8]
    }

    /// Nil for bytes that journald would not take as they are meant.
    static func fields(_ bytes: [UInt8]) -> [Field]? {
        var fields: [Field] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let end = rest.firstIndex(where: { $0 == 0x3d || $0 == 0x0a }) else { return nil }
            let name = String(decoding: rest[..<end], as: UTF8.self)
            guard !name.isEmpty, name.utf8.count <= 64, name.utf8.first != 0x5f,
                name.utf8.allSatisfy({ (0x41...0x5a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5f })
            else { return nil }
            let isLong = rest[end] == 0x0a
            rest = rest[(end + 1)...]
            var count = 0
            if isLong {
                guard rest.count >= 8 else { return nil }
                for byte in rest.prefix(8).reversed() {
                    guard count < 1 << 40 else { return nil }
                    count = count << 8 | Int(byte)
                }
                rest = rest.dropFirst(8)
            } else {
                guard let end = rest.firstIndex(of: 0x0a) else { return nil }
                count = end - rest.startIndex
            }
            guard rest.count > count, rest[rest.startIndex + count] == 0x0a else { return nil }
            fields.append(Field(name: name, value: Array(rest.prefix(count))))
            rest = rest.dropFirst(count + 1)
        }
        return fields
    }
}

/// Whether a terminal would obey some of it: control characters but newline and tab, C1 too.
func holdsControls(_ bytes: [UInt8]) -> Bool {
    String(decoding: bytes, as: UTF8.self).unicodeScalars.contains { scalar in
        scalar.value < 0x20 && scalar != "\n" && scalar != "\t" || (0x7f...0x9f).contains(scalar.value)
    }
}

/// Text in records of panelind's own: messages, fields, lists.
public final class EntryTarget: FuzzTarget {
    public static let name = "entries"
    public static let words = [
        "\n", "\r\n", "\0", "\"", "\\", "\u{10}", "\u{10}n", "\u{10}p", "\u{7f}", "\u{1b}[31m", "=", "\u{2028}",
        "\u{FFFD}",
        "\u{e9}", "\u{1f600}", "\u{301}", "\nMESSAGE=x\n", "\u{9b}",
    ]

    private var json = LineJudging(.json, lineLimit: 1024)
    private var journal = LineJudging(.journal, lineLimit: 1024)
    private var text = LineJudging(.text(colour: false), lineLimit: 1024)
    private static let keys = ["exit_code", "remoteIp", "pids", "a", "last_output", "logging.googleapis.com/trace"]

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        Array(dice.some(Self.words + ["abc", " ", "x"], upTo: 12).utf8)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let said = String(decoding: input, as: UTF8.self)
        let parts = said.unicodeScalars.split(separator: "=", omittingEmptySubsequences: false).map { String($0) }
        var record = OwnRecord(dice.pick(Severity.allCases), event: "probe_failed", message: said)
        var numbers: [Int64] = []
        for key in Self.keys where dice.once(in: 2) {
            switch dice.roll(6) {
            case 0: record.set(key, .strings(parts))
            case 1: record.set(key, .double(dice.once(in: 4) ? .nan : 1.5))
            case 2:
                numbers = (0..<dice.roll(4)).map { _ in Int64(bitPattern: dice.number()) }
                record.set(key, .ints(numbers))
            case 3: record.set(key, .object([Field("requestUrl", .string(said)), Field("n", .null)]))
            default: record.set(key, .string(parts[dice.roll(parts.count)]))
            }
        }
        return Self.json(json.own(record), record) ?? Self.journal(journal.own(record), record)
            ?? Self.text(text.own(record))
    }

    private static func json(_ bytes: [UInt8], _ record: OwnRecord) -> String? {
        guard bytes.last == 0x0a, let value = JSONReader.read(bytes.dropLast()) else {
            return "no JSON: \(shown(bytes))"
        }
        if bytes.dropLast().contains(0x0a) { return "two lines: \(shown(bytes))" }
        if value["message"]?.text != record.message { return "another message: \(shown(bytes))" }
        for field in record.fields {
            let found = value[field.key]
            let isRight: Bool
            switch field.value {
            case .string(let text): isRight = found == .string(text)
            case .strings(let texts): isRight = found == .array(texts.map { .string($0) })
            case .ints(let numbers): isRight = found == .array(numbers.map { .number("\($0)") })
            case .object(let fields): isRight = found?["requestUrl"]?.text == fields.first.flatMap(Self.text)
            default: isRight = found != nil
            }
            if !isRight { return "another \(field.key): \(shown(bytes))" }
        }
        return nil
    }

    private static func text(_ field: Field) -> String? {
        if case .string(let text) = field.value { text } else { nil }
    }

    private static func journal(_ bytes: [UInt8], _ record: OwnRecord) -> String? {
        guard bytes.last == 0x0a, !bytes.dropLast().contains(0x0a) else { return "not one line: \(shown(bytes))" }
        guard let fields = EntryReader.fields(LineJudging.entry(Array(bytes.dropLast()))) else {
            return "no entry: \(shown(bytes))"
        }
        let messages = fields.filter { $0.name == "MESSAGE" }
        guard messages.count == 1, messages[0].value == Array(record.message.utf8) else {
            return "another message: \(shown(bytes))"
        }
        let known: Set = ["PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE"]
        for field in fields where !known.contains(field.name) && !field.name.hasPrefix("PANELIND_") {
            return "a field that nobody set, \(field.name): \(shown(bytes))"
        }
        for case .string(let text) in record.fields.map(\.value)
        where !fields.contains(where: { $0.value == Array(text.utf8) }) {
            return "a text is lost: \(shown(bytes))"
        }
        return nil
    }

    /// For people: whatever others wrote, no control character reaches a terminal.
    private static func text(_ bytes: [UInt8]) -> String? {
        if holdsControls(bytes) {
            return "a control character: \(shown(bytes))"
        }
        return nil
    }
}
