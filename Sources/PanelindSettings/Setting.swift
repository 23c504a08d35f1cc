//  Setting.swift
//  What is declared about one setting: key, kind, defaults, sentence, example; and what follows from the key.
//  Parsing, origins, `check`, the reference and the names in the environment all come from it. Read after Kind.swift.

import PanelindCore

/// One setting, declared once in SettingsTable.swift.
struct Setting<Value: Sendable>: Declared {
    let key: String
    let kind: Kind<Value>
    /// What it is where nobody says anything.
    let base: Value
    /// What it is on some platforms instead.
    let profile: [Platform: Value]
    /// How the reference writes a default that is no plain value.
    let described: String?
    let doc: String
    let example: String

    init(
        _ key: String, _ kind: Kind<Value>, _ base: Value, on profile: [Platform: Value] = [:],
        described: String? = nil, _ doc: String, example: String
    ) {
        self.key = key
        self.kind = kind
        self.base = base
        self.profile = profile
        self.described = described
        self.doc = doc
        self.example = example
    }

    var kindName: String { kind.name }
    var isStructured: Bool { kind.shape == .structured }
    var mayBeStructured: Bool { kind.shape != .scalar }

    /// `9s`, or `25s`; `9s` on cloudrun and local.
    var defaultText: String {
        if let described { return described }
        var text = "`\(kind.show(base))`"
        var groups: [(shown: String, platforms: [String])] = []
        for platform in Platform.allCases {
            guard let value = profile[platform] else { continue }
            let shown = kind.show(value)
            if let index = groups.firstIndex(where: { $0.shown == shown }) {
                groups[index].platforms.append(platform.rawValue)
            } else {
                groups.append((shown, [platform.rawValue]))
            }
        }
        for group in groups { text += "; `\(group.shown)` on \(group.platforms.joined(separator: " and "))" }
        return text
    }

    func accepts(_ node: Node) -> BadValue? {
        do {
            _ = try kind.read(node)
            return nil
        } catch {
            return error
        }
    }
}

/// A setting whose type of value does not matter: what tables and look-ups need.
protocol Declared: Sendable {
    var key: String { get }
    var kindName: String { get }
    /// Always a list or a map.
    var isStructured: Bool { get }
    /// A list or a map, or text.
    var mayBeStructured: Bool { get }
    /// In Markdown.
    var defaultText: String { get }
    /// One sentence, in Markdown.
    var doc: String { get }
    /// A value as the file writes it.
    var example: String { get }
    /// Why this value would be refused, expansion aside.
    func accepts(_ node: Node) -> BadValue?
}

extension Declared {
    /// `PANELIND_RESTART_MAX_DELAY`
    var variable: String { variableName(key) }

    /// A reload cannot change it (CONTRACT section 5, Reload).
    var needsRestart: Bool {
        key == "platform" || key == "serve.listen" || key.hasPrefix("sidecar.") || key.hasPrefix("control.")
    }
}

/// The name in the environment: dots and camel case become `_`.
func variableName(_ key: String) -> String {
    var name = "PANELIND_"
    for character in key {
        if character == "." {
            name += "_"
        } else {
            if character.isUppercase { name += "_" }
            name += character.uppercased()
        }
    }
    return name
}
