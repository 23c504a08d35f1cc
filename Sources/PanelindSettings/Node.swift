//  Node.swift
//  A value as somebody wrote it: text, list or map, each with its place and its quoting.
//  Made by Yaml.swift from files and flow text. Read first in this module.

/// A line and a column, both counted from one.
struct Mark: Hashable, Sendable {
    var line: Int
    var column: Int

    static let start = Mark(line: 1, column: 1)
}

/// One value with the place where it begins.
struct Node: Hashable, Sendable {
    /// What kind of value, and its content.
    indirect enum Content: Hashable, Sendable {
        /// Text; `quoted` tells `"5"` from `5`.
        case scalar(String, quoted: Bool)
        case list([Node])
        /// In the order of the source, keys distinct.
        case map([Entry])
        /// Already complained about: whoever meets it says nothing more.
        case broken
    }

    /// One key of a map with its value.
    struct Entry: Hashable, Sendable {
        var key: String
        var keyMark: Mark
        var value: Node
    }

    var content: Content
    var mark: Mark

    init(_ content: Content, at mark: Mark = .start) {
        self.content = content
        self.mark = mark
    }

    /// Plain text, as it comes from a flag or a variable.
    init(text: String) { self.init(.scalar(text, quoted: true)) }

    /// Nothing was written: an empty plain scalar or `~`.
    var isAbsent: Bool {
        if case .scalar(let text, quoted: false) = content { return text.isEmpty || text == "~" }
        return false
    }

    /// The text of a scalar, nil for lists and maps.
    var text: String? {
        if case .scalar(let text, _) = content { return text }
        return nil
    }

    /// As messages quote it: short, on one line, in flow style.
    var summary: String { shortened(flow) }

    /// In YAML flow style, on one line.
    var flow: String {
        switch content {
        case .scalar(let text, _): text
        case .list(let items): "[" + items.map(\.flow).joined(separator: ", ") + "]"
        case .map(let entries): "{" + entries.map { "\($0.key): \($0.value.flow)" }.joined(separator: ", ") + "}"
        case .broken: "?"
        }
    }

    /// Applies a change to every text in it, map keys excepted.
    func mapTexts<E: Error>(_ change: (String) throws(E) -> String) throws(E) -> Node {
        switch content {
        case .scalar(let text, let quoted):
            return Node(.scalar(try change(text), quoted: quoted), at: mark)
        case .list(let items):
            var changed: [Node] = []
            for item in items { changed.append(try item.mapTexts(change)) }
            return Node(.list(changed), at: mark)
        case .map(let entries):
            var changed: [Entry] = []
            for entry in entries {
                let value = try entry.value.mapTexts(change)
                changed.append(Entry(key: entry.key, keyMark: entry.keyMark, value: value))
            }
            return Node(.map(changed), at: mark)
        case .broken:
            return self
        }
    }
}

/// Text for a message: control characters escaped, at most so many characters; of a path the end matters too.
func shortened(_ text: String, to limit: Int = 80) -> String {
    var out = ""
    var count = 0
    for scalar in text.unicodeScalars {
        if count == limit { return out + "…" }
        count += 1
        switch scalar {
        case "\n": out += "\\n"
        case "\t": out += "\\t"
        case "\r": out += "\\r"
        default:
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) {
                out += "\\u{" + String(scalar.value, radix: 16) + "}"
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
    }
    return out
}
