//  JSONReader.swift
//  JSON read the slow and simple way (RFC 8259), apart from the output's own code: a value, or nil for what is none.
//  Read before LineOracle.swift.

/// One value.
indirect enum JSONValue: Hashable {
    case null
    case bool(Bool)
    /// As it is written.
    case number(String)
    case string(String)
    case array([JSONValue])
    /// In its order; keys may repeat.
    case object([Member])

    struct Member: Hashable {
        let key: String
        let value: JSONValue
    }

    /// The first value of a key.
    subscript(key: String) -> JSONValue? {
        if case .object(let members) = self { return members.first { $0.key == key }?.value }
        return nil
    }

    var text: String? { if case .string(let text) = self { text } else { nil } }
}

/// Reads one value that is the whole of some bytes.
struct JSONReader {
    private let bytes: [UInt8]
    private var at = 0
    private let deepest: Int

    /// The value, or nil; deeper nesting than this is not read.
    static func read(_ bytes: [UInt8], deepest: Int = 512) -> JSONValue? {
        guard String(validating: bytes, as: UTF8.self) != nil else { return nil }
        var reader = JSONReader(bytes: bytes, deepest: deepest)
        guard let value = reader.value(0) else { return nil }
        reader.skipSpace()
        return reader.at == bytes.count ? value : nil
    }

    private init(bytes: [UInt8], deepest: Int) {
        self.bytes = bytes
        self.deepest = deepest
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() { while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { at += 1 } }

    private mutating func take(_ text: String) -> Bool {
        guard bytes[at...].starts(with: text.utf8) else { return false }
        at += text.utf8.count
        return true
    }

    private mutating func value(_ depth: Int) -> JSONValue? {
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return depth < deepest ? object(depth + 1) : nil
        case UInt8(ascii: "["): return depth < deepest ? array(depth + 1) : nil
        case UInt8(ascii: "\""): return string().map { .string($0) }
        case UInt8(ascii: "t"): return take("true") ? .bool(true) : nil
        case UInt8(ascii: "f"): return take("false") ? .bool(false) : nil
        case UInt8(ascii: "n"): return take("null") ? .null : nil
        default: return number().map { .number($0) }
        }
    }

    private mutating func object(_ depth: Int) -> JSONValue? {
        at += 1
        var members: [JSONValue.Member] = []
        skipSpace()
        if take("}") { return .object([]) }
        while true {
            skipSpace()
            guard next == UInt8(ascii: "\""), let key = string() else { return nil }
            skipSpace()
            guard take(":"), let value = value(depth) else { return nil }
            members.append(JSONValue.Member(key: key, value: value))
            skipSpace()
            if take("}") { return .object(members) }
            guard take(",") else { return nil }
        }
    }

    private mutating func array(_ depth: Int) -> JSONValue? {
        at += 1
        var items: [JSONValue] = []
        skipSpace()
        if take("]") { return .array([]) }
        while true {
            guard let value = value(depth) else { return nil }
            items.append(value)
            skipSpace()
            if take("]") { return .array(items) }
            guard take(",") else { return nil }
        }
    }

    private mutating func string() -> String? {
        at += 1
        var units: [UInt8] = []
        while let byte = next {
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: units, as: UTF8.self)
            case UInt8(ascii: "\\"):
                guard let kind = next else { return nil }
                at += 1
                switch kind {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): units.append(kind)
                case UInt8(ascii: "b"): units.append(8)
                case UInt8(ascii: "f"): units.append(12)
                case UInt8(ascii: "n"): units.append(10)
                case UInt8(ascii: "r"): units.append(13)
                case UInt8(ascii: "t"): units.append(9)
                case UInt8(ascii: "u"):
                    guard let code = hex() else { return nil }
                    // Halves of pairs stand for nothing here: no record of ours has one.
                    units += String(Unicode.Scalar(code) ?? "\u{FFFD}").utf8
                default: return nil
                }
            case ..<0x20: return nil
            default: units.append(byte)
            }
        }
        return nil
    }

    private mutating func hex() -> UInt32? {
        guard at + 4 <= bytes.count else { return nil }
        let digits = bytes[at..<(at + 4)]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else { return nil }
        at += 4
        return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
    }

    private mutating func number() -> String? {
        let start = at
        func digits(_ reader: inout JSONReader) -> Int {
            let before = reader.at
            while let byte = reader.next, (0x30...0x39).contains(byte) { reader.at += 1 }
            return reader.at - before
        }
        _ = take("-")
        let first = next
        let whole = digits(&self)
        guard whole > 0, whole == 1 || first != 0x30 else { return nil }
        if take("."), digits(&self) == 0 { return nil }
        if take("e") || take("E") {
            if !take("+") { _ = take("-") }
            if digits(&self) == 0 { return nil }
        }
        return String(decoding: bytes[start..<at], as: UTF8.self)
    }
}
