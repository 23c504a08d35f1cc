//  Report.swift
//  How `panelind check` shows what it found: as text, and as JSON.
//  Values of secrets never reach it. JSON is only written here, never read (RFC 8259). Read after Loader.swift.

extension SettingsReport {
    /// For people: aligned settings, then advice and warnings; `errorText` has the errors.
    public func text() -> String {
        let keyWidth = effective.map(\.key.count).max() ?? 0
        // A long command must not push every origin to the right.
        let valueWidth = min(40, effective.map(\.value.count).max() ?? 0)
        var lines = effective.map { setting in
            let value = shownValue(setting.value)
            let line = padded(setting.key, keyWidth) + " = " + padded(value, valueWidth)
            return line + "   (" + source(setting) + ")"
        }
        lines += advice.map { "advice: \($0)" }
        lines += warnings.map { "warning: \($0)" }
        return lines.map { $0 + "\n" }.joined()
    }

    /// For programs: `settings` with `key`, `value`, `origin`, `place`; `advice`, `warnings`, `errors`, `ok`.
    public func json() -> String {
        let settings = effective.map { setting in
            Json.object([
                ("key", .text(setting.key)), ("value", .text(setting.value)), ("origin", .text(setting.origin.name)),
                ("place", (setting.origin.place ?? setting.note).map(Json.text) ?? .null),
            ])
        }
        let errors = problems.map { problem in
            Json.object([
                ("key", problem.key.map(Json.text) ?? .null), ("message", .text(problem.message)),
            ])
        }
        return Json.object([
            ("ok", .bool(problems.isEmpty)),
            ("file", file.map(Json.text) ?? .null),
            ("settings", .list(settings)),
            ("advice", .texts(advice)),
            ("warnings", .texts(warnings)),
            ("errors", .list(errors)),
        ]).written() + "\n"
    }

    /// The errors alone, one a line, as stderr has them.
    public func errorText() -> String { problems.map { $0.message + "\n" }.joined() }

    private func source(_ setting: EffectiveSetting) -> String {
        let detail = setting.origin.place ?? setting.note
        return setting.origin.name + (detail.map { ": \($0)" } ?? "")
    }

    private func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    /// Control characters escaped; whole, however long.
    private func shownValue(_ value: String) -> String {
        let isPlain = value.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }
        return isPlain ? value : jsonString(value)
    }
}

/// A JSON string with its quotes; control characters escaped.
func jsonString(_ text: String) -> String {
    var out = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": out += "\\\""
        case "\\": out += "\\\\"
        case "\n": out += "\\n"
        case "\r": out += "\\r"
        case "\t": out += "\\t"
        default:
            // DEL and C1 too: the answer may reach a terminal. The rest is what YAML folds or refuses.
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
                || [0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF].contains(scalar.value)
            {
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
    }
    return out + "\""
}

/// A JSON value to write.
indirect enum Json {
    case text(String)
    case bool(Bool)
    case null
    case list([Json])
    case object([(String, Json)])

    static func texts(_ texts: [String]) -> Json { .list(texts.map(Json.text)) }

    /// On several lines where that helps to read: two levels deep.
    func written(depth: Int = 0) -> String {
        switch self {
        case .text(let text): return jsonString(text)
        case .bool(let value): return value ? "true" : "false"
        case .null: return "null"
        case .list(let items):
            return Self.lines(items.map { $0.written(depth: depth + 1) }, "[", "]", depth)
        case .object(let pairs):
            return Self.lines(pairs.map { "\(jsonString($0.0)): \($0.1.written(depth: depth + 1))" }, "{", "}", depth)
        }
    }

    private static func lines(_ parts: [String], _ open: String, _ close: String, _ depth: Int) -> String {
        if parts.isEmpty { return open + close }
        if depth >= 2 { return open + parts.joined(separator: ", ") + close }
        let indent = String(repeating: "  ", count: depth)
        return open + "\n" + parts.map { "\(indent)  \($0)" }.joined(separator: ",\n") + "\n\(indent)\(close)"
    }
}
