//  JSON.swift
//  Values on their way into an answer: written in the order they are given, never read (RFC 8259).
//  Read first in this module.

import PanelindHTTP

/// One JSON value.
public indirect enum JSON: Hashable, Sendable {
    case string(String)
    case int(Int64)
    /// Not finite is written as null: JSON has no such numbers.
    case double(Double)
    case bool(Bool)
    case null
    case array([JSON])
    case object([Member])

    /// One member of an object.
    public struct Member: Hashable, Sendable {
        public var name: String
        public var value: JSON

        /// Makes a member.
        public init(_ name: String, _ value: JSON) {
            self.name = name
            self.value = value
        }
    }

    /// The text, or null.
    public static func string(orNull text: String?) -> JSON { text.map(JSON.string) ?? .null }
    /// The number, or null.
    public static func int(orNull number: Int?) -> JSON { number.map { .int(Int64($0)) } ?? .null }
    /// The number with at most three decimals, or null: seconds in answers need no more.
    public static func seconds(_ value: Double?) -> JSON {
        guard let value, value.isFinite else { return .null }
        return .double((value * 1000).rounded() / 1000)
    }
    /// An array of texts.
    public static func strings(_ texts: [String]) -> JSON { .array(texts.map(JSON.string)) }

    /// As one line without spaces.
    public var text: String {
        var out = ""
        write(to: &out)
        return out
    }

    private func write(to out: inout String) {
        switch self {
        case .string(let text): out += AnswerText.quoted(text)
        case .int(let number): out += "\(number)"
        case .double(let number):
            guard number.isFinite else { return out += "null" }
            out += number == number.rounded() && abs(number) < 1e15 ? "\(Int64(number))" : "\(number)"
        case .bool(let flag): out += flag ? "true" : "false"
        case .null: out += "null"
        case .array(let items):
            out += "["
            for (index, item) in items.enumerated() {
                if index > 0 { out += "," }
                item.write(to: &out)
            }
            out += "]"
        case .object(let members):
            out += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { out += "," }
                out += AnswerText.quoted(member.name) + ":"
                member.value.write(to: &out)
            }
            out += "}"
        }
    }
}
