//  Judging.swift
//  The readers of settings by themselves: text in, values out, without a loader around them.
//  For the fuzzer. Read Expansion.swift, Quantities.swift and Addresses.swift first.

import PanelindCore

/// The readers of this module as functions of text.
package enum SettingsJudging {
    /// What is known of one setting.
    package struct Key: Hashable, Sendable {
        package let key: String
        package let variable: String
        package let example: String
        /// In the environment and in `--set` it is read as YAML flow where it begins like that.
        package let mayBeStructured: Bool
    }

    /// Every setting.
    package static var keys: [Key] {
        Table.all.map {
            Key(key: $0.key, variable: $0.variable, example: $0.example, mayBeStructured: $0.mayBeStructured)
        }
    }

    /// What became of an expansion.
    package enum Expansion: Hashable {
        case pieces([CommandArgument.Piece])
        case unset
    }

    /// Expands text by these variables.
    package static func expand(_ text: String, placeholders: Bool, _ variables: [String: String]) -> Expansion {
        do throws(BadValue) {
            let argument = try PanelindSettings.expand(text, placeholders: placeholders) { name in
                variables[name].map { .text($0) } ?? .unset
            }
            return .pieces(argument.pieces)
        } catch {
            return .unset
        }
    }

    /// Reads a size in bytes.
    package static func size(_ text: String) -> Int? { try? parseSize(text) }

    /// Reads an address of any kind.
    package static func address(_ text: String) -> ListenAddress? { try? parseAddress(text, systemd: true) }

    /// Writes a list in YAML flow style, and reads it back.
    package static func flowAndBack(_ texts: [String]) -> [String?]? {
        let yaml = parseYaml(flowList(texts))
        guard yaml.problems.isEmpty, case .list(let items)? = yaml.root?.content else { return nil }
        return items.map(\.text)
    }
}
