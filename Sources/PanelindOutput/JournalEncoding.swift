//  JournalEncoding.swift
//  Records as entries of the journal, in its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a field a line.
//  Pure. In the buffer an entry is one line, as every record is: its own newlines are escaped until it is sent.

/// Stands before the escaped form of a newline, and of itself.
private let escape: UInt8 = 0x10

/// The room that `journalText` and `journalEscape` may use for so many bytes: U+FFFD for each.
@inline(__always)
func journalRoom(_ count: Int) -> Int { count * 3 + 16 }

/// The number of syslog(3) for PRIORITY=.
func journalPriority(_ severity: Severity) -> UInt8 { 7 - severity.rawValue }

/// Writes one byte of an entry, escaped.
@inline(__always)
private func put(_ byte: UInt8, _ d: MutableBytes) -> MutableBytes {
    switch byte {
    case 0x0A: (d[0], d[1]) = (escape, 0x6E)
    case escape: (d[0], d[1]) = (escape, 0x70)
    default:
        d[0] = byte
        return d + 1
    }
    return d + 2
}

/// Escapes bytes of an entry and returns the end of what was written.
func journalEscape(_ from: Bytes, _ count: Int, to: MutableBytes) -> MutableBytes {
    var d = to
    for i in 0..<count { d = put(from[i], d) }
    return d
}

/// The same for text that may not be UTF-8: what is invalid becomes U+FFFD.
func journalText(_ from: Bytes, _ count: Int, to: MutableBytes) -> MutableBytes {
    var s = from
    var d = to
    let end = from + count
    while s < end {
        guard s[0] >= 0x80 else {
            d = put(s[0], d)
            s += 1
            continue
        }
        let step = utf8Step(s, end)
        if step > 0 {
            for i in 0..<step { d[i] = s[i] }
            d += step
            s += step
        } else {
            (d[0], d[1], d[2]) = (0xEF, 0xBF, 0xBD)
            d += 3
            s -= step
        }
    }
    return d
}

/// The length of text as `journalText` makes it, before its escapes.
private func textLength(_ from: Bytes, _ count: Int) -> Int {
    var s = from
    var length = 0
    let end = from + count
    while s < end {
        let step = s[0] < 0x80 ? 1 : utf8Step(s, end)
        length += step > 0 ? step : 3
        s += abs(step)
    }
    return length
}

/// Writes a whole field of text: `NAME=text`, or with its length where it has lines.
func journalField(_ name: StaticString, _ from: Bytes, _ count: Int, to: MutableBytes) -> MutableBytes {
    var d = copy(name, to: to)
    var hasLines = false
    for i in 0..<count where from[i] == 0x0A { hasLines = true }
    if hasLines {
        d = put(0x0A, d)
        var length = UInt64(textLength(from, count))
        for _ in 0..<8 {
            d = put(UInt8(truncatingIfNeeded: length), d)
            length >>= 8
        }
    } else {
        d = put(0x3D, d)
    }
    return put(0x0A, journalText(from, count, to: d))
}

/// Undoes the escapes of one entry; returns its length. `to` must have `count` bytes.
func journalUnescape(_ from: Bytes, _ count: Int, to: MutableBytes) -> Int {
    var d = to
    var i = 0
    while i < count {
        if from[i] == escape, i + 1 < count {
            i += 1
            d[0] = from[i] == 0x6E ? 0x0A : escape
        } else {
            d[0] = from[i]
        }
        d += 1
        i += 1
    }
    return d - to
}

/// The severity that a line of JSON gives itself by a `severity` or `level` of its own, INFO where it gives none.
func jsonSeverity(_ p: Bytes, _ count: Int) -> Severity {
    var depth = 0
    var i = 0
    func skipSpace() { while i < count, p[i] <= 0x20 { i += 1 } }
    /// The inside of the string that begins at `i`, which moves behind it.
    func string() -> (at: Int, length: Int) {
        let begin = i + 1
        i = begin
        while i < count, p[i] != 0x22 { i += p[i] == 0x5C ? 2 : 1 }
        let length = min(i, count) - begin
        i += 1
        return (begin, length)
    }
    while i < count {
        switch p[i] {
        case 0x7B, 0x5B: depth += 1
        case 0x7D, 0x5D: depth -= 1
        case 0x22:
            let key = string()
            guard depth == 1 else { continue }
            skipSpace()
            guard i < count, p[i] == 0x3A else { continue }
            i += 1
            skipSpace()
            guard i < count, p[i] == 0x22 else { continue }
            let value = string()
            let names =
                (key.length == 8 && starts(p + key.at, 8, with: "severity"))
                || (key.length == 5 && starts(p + key.at, 5, with: "level"))
            if names, let severity = levelWord(p + value.at, value.length) { return severity }
            continue
        default: break
        }
        i += 1
    }
    return .info
}

/// A record of panelind's own as an entry: each field is `PANELIND_` and its key, lists of text are lines.
func journalRecord(_ record: OwnRecord) -> [UInt8] {
    var out: [UInt8] = []
    add("PRIORITY", "\(journalPriority(record.severity))", to: &out)
    add("SYSLOG_IDENTIFIER", "panelind", to: &out)
    add("MESSAGE", record.message, to: &out)
    if !record.event.isEmpty { add("PANELIND_EVENT", record.event, to: &out) }
    for field in record.fields { add(fieldName(field.key, after: "PANELIND_"), field.value, to: &out) }
    return out
}

private func add(_ name: String, _ value: FieldValue, to out: inout [UInt8]) {
    switch value {
    case .string(let text): add(name, text, to: &out)
    case .int(let number): add(name, "\(number)", to: &out)
    case .double(let number): if number.isFinite { add(name, "\(number)", to: &out) }
    case .bool(let flag): add(name, flag ? "true" : "false", to: &out)
    case .null: break
    case .strings(let texts): if !texts.isEmpty { add(name, texts.joined(separator: "\n"), to: &out) }
    // A field may be there more than once: each number can be looked for.
    case .ints(let numbers): for number in numbers { add(name, "\(number)", to: &out) }
    case .object(let fields):
        for field in fields { add(fieldName(field.key, after: name + "_"), field.value, to: &out) }
    }
}

private func add(_ name: String, _ text: String, to out: inout [UInt8]) {
    var bytes = Array(name.utf8)
    if text.utf8.contains(0x0A) {
        bytes.append(0x0A)
        withUnsafeBytes(of: UInt64(text.utf8.count).littleEndian) { bytes.append(contentsOf: $0) }
    } else {
        bytes.append(0x3D)
    }
    bytes.append(contentsOf: text.utf8)
    bytes.append(0x0A)
    bytes.withUnsafeBufferPointer { given in
        guard let p = given.baseAddress else { return }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: journalRoom(given.count)) { room in
            guard let base = room.baseAddress else { return }
            out.append(
                contentsOf: UnsafeBufferPointer(start: base, count: journalEscape(p, given.count, to: base) - base))
        }
    }
}

/// Text of ours, escaped.
func journalEscaped(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\u{10}n")
}

/// A key as the journal names fields: `exit_code` and `remoteIp` become `EXIT_CODE` and `REMOTE_IP`; at most 64 bytes.
private func fieldName(_ key: String, after prefix: String) -> String {
    var name = prefix
    for byte in key.utf8 {
        switch byte {
        case 0x61...0x7A: name.unicodeScalars.append(Unicode.Scalar(byte - 0x20))
        case 0x41...0x5A:
            if !name.hasSuffix("_") { name += "_" }
            name.unicodeScalars.append(Unicode.Scalar(byte))
        case 0x30...0x39: name.unicodeScalars.append(Unicode.Scalar(byte))
        default: if !name.hasSuffix("_") { name += "_" }
        }
    }
    return String(name.prefix(64))
}
