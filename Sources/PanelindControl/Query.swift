//  Query.swift
//  The parameters of a target: decoded, typed, refused where they cannot be meant.
//  Pure. Read before ControlResponder.swift.

/// The query of one request (`a=1&b=2`, percent-encoded).
package struct Query {
    /// A parameter that cannot be used, in a sentence.
    package struct Refusal: Error, Hashable {
        package var detail: String
    }

    private let pairs: [(name: String, value: String)]

    package init(_ text: Substring?) {
        pairs = (text ?? "").split(separator: "&").map { pair in
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return (Self.decoded(parts[0]), parts.count > 1 ? Self.decoded(parts[1]) : "")
        }
    }

    /// A whole number in this range, or nil where the parameter is absent.
    package func number(_ name: String, in range: ClosedRange<UInt64>) throws(Refusal) -> UInt64? {
        guard let text = try value(name) else { return nil }
        return try Self.number(text, named: name, in: range)
    }

    /// The text as a whole number in this range.
    static func number(
        _ text: String, named name: String, in range: ClosedRange<UInt64>
    ) throws(Refusal) -> UInt64 {
        guard let number = UInt64(text), range.contains(number), text.utf8.allSatisfy({ (48...57).contains($0) }) else {
            throw Refusal(
                detail: "cannot use \(name)=\(shown(text)): "
                    + "write a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// `true` or `false`; false where the parameter is absent.
    package func flag(_ name: String) throws(Refusal) -> Bool {
        switch try value(name) {
        case nil, "false"?: return false
        case "true"?: return true
        case let text?: throw Refusal(detail: "cannot use \(name)=\(Self.shown(text)): write true or false")
        }
    }

    private func value(_ name: String) throws(Refusal) -> String? {
        var found: String?
        for pair in pairs where pair.name == name {
            if found != nil { throw Refusal(detail: "cannot use \(name): it is given twice; write it once") }
            found = pair.value
        }
        return found
    }

    private static func shown(_ text: String) -> String { String(text.withoutControls.prefix(40)) }

    /// `%41` is `A`; anything that is no such escape stays as it is.
    private static func decoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let high = digit(rest.first), let low = digit(rest.dropFirst().first) {
                bytes.append(high << 4 | low)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8?) -> UInt8? {
        switch byte {
        case let byte? where (48...57).contains(byte): byte - 48
        case let byte? where (65...70).contains(byte & 0xdf): (byte & 0xdf) - 55
        default: nil
        }
    }
}
