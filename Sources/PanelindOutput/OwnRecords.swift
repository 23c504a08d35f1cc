//  OwnRecords.swift
//  panelind's own records as JSON or as text; the cold path, so it may allocate.
//  Pure. Read after Records.swift; RecordSink.swift puts the result in order with the worker's lines.

/// The record as one JSON object with its newline; `time` is RFC 3339.
func jsonRecord(_ record: OwnRecord, time: String) -> [UInt8] {
    var out: [UInt8] = []
    out.reserveCapacity(256 + record.message.utf8.count)
    out.append(contentsOf: "{\"severity\":\"\(record.severity.name)\",\"time\":\"\(time)\",\"message\":".utf8)
    appendString(record.message, to: &out)
    if !record.event.isEmpty {
        out.append(contentsOf: ",\"event\":".utf8)
        appendString(record.event, to: &out)
    }
    for field in record.fields {
        out.append(0x2C)
        append(field, to: &out)
    }
    out.append(contentsOf: [0x7D, 0x0A])
    return out
}

private func append(_ field: Field, to out: inout [UInt8]) {
    appendString(field.key, to: &out)
    out.append(0x3A)
    append(field.value, to: &out)
}

private func append(_ value: FieldValue, to out: inout [UInt8]) {
    switch value {
    case .string(let text): appendString(text, to: &out)
    case .int(let number): out.append(contentsOf: "\(number)".utf8)
    case .double(let number): out.append(contentsOf: (number.isFinite ? "\(number)" : "null").utf8)
    case .bool(let flag): out.append(contentsOf: (flag ? "true" : "false").utf8)
    case .null: out.append(contentsOf: "null".utf8)
    case .strings(let texts): list(texts, "[", "]", to: &out) { appendString($0, to: &$1) }
    case .ints(let numbers): list(numbers, "[", "]", to: &out) { $1.append(contentsOf: "\($0)".utf8) }
    case .object(let fields): list(fields, "{", "}", to: &out) { append($0, to: &$1) }
    }
}

private func list<T>(
    _ items: [T], _ open: Unicode.Scalar, _ close: Unicode.Scalar, to out: inout [UInt8],
    each: (T, inout [UInt8]) -> Void
) {
    out.append(UInt8(ascii: open))
    for (index, item) in items.enumerated() {
        if index > 0 { out.append(0x2C) }
        each(item, &out)
    }
    out.append(UInt8(ascii: close))
}

private func appendString(_ text: String, to out: inout [UInt8]) {
    var text = text
    out.append(0x22)
    text.withUTF8 { bytes in
        guard let p = bytes.baseAddress else { return }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: escapedRoom(bytes.count)) { room in
            guard let base = room.baseAddress else { return }
            out.append(contentsOf: UnsafeBufferPointer(start: base, count: escapeJSON(p, bytes.count, to: base) - base))
        }
    }
    out.append(0x22)
}

/// The record as lines of text with their newlines; `time` is the local time of day.
///
/// `worker_exited` begins with its cause and shows the worker's last output under it.
func textRecord(_ record: OwnRecord, time: String, colour: Bool) -> [UInt8] {
    var out: [UInt8] = []
    let dim = colour ? "\u{1B}[2m" : ""
    let reset = colour ? "\u{1B}[0m" : ""
    let tag = colour ? "\u{1B}[1m" : ""
    var tone = ""
    if colour, record.severity >= .warning { tone = record.severity >= .error ? "\u{1B}[31m" : "\u{1B}[33m" }
    out.append(contentsOf: "\(dim)\(time)\(reset) \(tag)panelind\(reset)  \(tone)".utf8)
    if record.severity >= .warning { out.append(contentsOf: "\(record.severity.name): ".utf8) }
    if record.event == "worker_exited", let cause = record.string("cause") {
        out.append(contentsOf: "\(cause): ".utf8)
    }
    appendText(record.message, toTerminal: false, to: &out)
    out.append(contentsOf: (tone.isEmpty ? "" : reset).utf8)
    out.append(0x0A)
    for field in record.fields where field.key == "last_output" {
        guard case .strings(let lines) = field.value else { continue }
        for line in lines {
            out.append(contentsOf: "    \(dim)|\(reset) ".utf8)
            appendText(line, toTerminal: colour, to: &out)
            out.append(0x0A)
        }
    }
    return out
}

private func appendText(_ text: String, toTerminal: Bool, to out: inout [UInt8]) {
    var text = text
    text.withUTF8 { bytes in
        guard let p = bytes.baseAddress else { return }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: textRoom(bytes.count)) { room in
            guard let base = room.baseAddress else { return }
            let end = encodeText(p, bytes.count, toTerminal: toTerminal, to: base)
            out.append(contentsOf: UnsafeBufferPointer(start: base, count: end - base))
        }
    }
}
