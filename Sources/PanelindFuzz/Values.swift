//  Values.swift
//  Texts that stand in settings, URLs and queries: each reader against one that is slow and simple.
//  Read PanelindSettings/Judging.swift, PanelindHTTP/ProbeTarget.swift and PanelindControl/Query.swift first.

import NIOCore
import PanelindControl
import PanelindCore
import PanelindFront
import PanelindHTTP
import PanelindSettings

/// Expansions, durations, sizes, addresses, URLs, queries: one text for all of them.
public final class ValueTarget: FuzzTarget {
    public static let name = "values"
    public static let words = [
        "${A}", "${B:-", "${EMPTY:-x}", "${", "$$", "$", "{{", "}}", "{", "}", ":-", "{socket}", "{port}", "{fd}",
        "\u{301}",
        "\u{200d}", "\r\n", "9s", "1.5s", "250ms", "1h", "2m", ".", "9223372036854775807", "KiB", "MiB", "GiB", "B",
        "-", "+",
        "unix:", "systemd:", "http://", "HTTP://", "[::1]", "[", "]", ":", ":80", "127.0.0.1", "localhost", "/", "?",
        "#", "@",
        "%41", "%", "%zz", "&", "=", "after=5", "follow=true", "\u{e9}", "\0", " ", "0", "1", "65535", "65536",
        "\"detail\":\"", "\\u", "\\",
    ]
    private static let variables = ["A": "a${B}$${port}", "EMPTY": "", "_x1": "\u{301}y"]

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] {
        let text =
            switch dice.roll(7) {
            case 0:
                dice.some(
                    ["${A}", "${B:-b}", "${_x1:-${A}}", "x", "$$", "{port}", "{socket}", "{{", "${EMPTY:-${Q}}"],
                    upTo: 6)
            case 1: dice.some(["1h", "30m", "9s", "1.5s", "250ms", "0.000000001s"], upTo: 3)
            case 2: dice.some(["32", "64", "1"], upTo: 1) + dice.some(["KiB", "MiB", "GiB", "B"], upTo: 1)
            case 3:
                dice.pick(["127.0.0.1:80", "[::]:8080", "unix:/run/x", "systemd:http", "localhost:1", "0.0.0.0:65535"])
            case 4:
                dice.pick(["http://127.0.0.1:80/a?b#c", "http://[::1]/", "unix:/run/x:/ready", "http://localhost?q"])
            case 5: dice.some(["after=5", "follow=true", "lines=%31", "a+b=%41"], upTo: 4, "&")
            default: dice.some(Self.words, upTo: 8)
            }
        return Array(text.utf8)
    }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let text = String(decoding: input, as: UTF8.self)
        return Self.expansion(text) ?? Self.duration(text) ?? Self.size(text) ?? Self.address(text) ?? Self.probe(text)
            ?? Self.query(text) ?? Self.host(text) ?? Self.flow(text)
    }

    // MARK: expansion

    private static func expansion(_ text: String) -> String? {
        for placeholders in [true, false] {
            let found = SettingsJudging.expand(text, placeholders: placeholders, variables)
            var pieces: [CommandArgument.Piece] = []
            let isSet = expand(Array(text.unicodeScalars)[...], placeholders, &pieces)
            if found != (isSet ? .pieces(pieces) : .unset) { return "expanded to \(found), not \(pieces) (\(isSet))" }
        }
        return nil
    }

    /// By recursion over scalars; false where a variable is not set.
    private static func expand(
        _ text: ArraySlice<Unicode.Scalar>, _ placeholders: Bool, _ pieces: inout [CommandArgument.Piece]
    ) -> Bool {
        func add(_ text: String) {
            if text.isEmpty { return }
            if case .text(let before)? = pieces.last {
                pieces[pieces.count - 1] = .text(before + text)
            } else {
                pieces.append(.text(text))
            }
        }
        func starts(_ rest: ArraySlice<Unicode.Scalar>, _ word: String) -> Bool {
            rest.starts(with: word.unicodeScalars)
        }
        var rest = text
        scanning: while let first = rest.first {
            for double in ["$$", "{{", "}}"] where starts(rest, double) {
                add(String(first))
                rest = rest.dropFirst(2)
                continue scanning
            }
            if let (name, fallback, length) = reference(rest) {
                rest = rest.dropFirst(length)
                let value = variables[name]
                if let value, !value.isEmpty || fallback == nil {
                    add(value)
                } else if let fallback {
                    guard expand(fallback, false, &pieces) else { return false }
                } else {
                    return false
                }
                continue
            }
            if placeholders {
                for (word, piece) in [
                    ("{socket}", CommandArgument.Piece.socket), ("{port}", .port), ("{fd}", .descriptor),
                ]
                where starts(rest, word) {
                    pieces.append(piece)
                    rest = rest.dropFirst(word.utf8.count)
                    continue scanning
                }
            }
            add(String(first))
            rest = rest.dropFirst()
        }
        return true
    }

    private static func reference(
        _ text: ArraySlice<Unicode.Scalar>
    ) -> (String, ArraySlice<Unicode.Scalar>?, Int)? {
        guard text.starts(with: "${".unicodeScalars) else { return nil }
        let name = text.dropFirst(2).prefix {
            $0.isASCII && ($0 == "_" || $0.properties.isAlphabetic || ("0"..."9").contains($0))
        }
        guard let first = name.first, !("0"..."9").contains(first) else { return nil }
        let after = text[name.endIndex...]
        let word = String(String.UnicodeScalarView(name))
        if after.first == "}" { return (word, nil, name.count + 3) }
        guard after.starts(with: ":-".unicodeScalars) else { return nil }
        let start = after.startIndex + 2
        var depth = 0
        for index in start..<text.endIndex {
            if text[index] == "}" {
                if depth == 0 { return (word, text[start..<index], index + 1 - text.startIndex) }
                depth -= 1
            } else if text[index] == "{", index > start, text[index - 1] == "$" {
                depth += 1
                if depth > 8 { return nil }
            }
        }
        return nil
    }

    // MARK: quantities

    private static func duration(_ text: String) -> String? {
        let found = PanelindSettings.duration(from: text)
        let expected = nanoseconds(Array(text.utf8))
        if found?.nanoseconds != expected {
            return "the duration \(found.map { "\($0)" } ?? "nothing"), not \(expected ?? -1) ns"
        }
        return nil
    }

    private static func nanoseconds(_ text: [UInt8]) -> Int64? {
        let year: Int128 = 366 * 24 * 3600 * 1_000_000_000
        let units: [(String, Int128)] = [
            ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
        ]
        var total: Int128 = 0
        var last = -1
        var rest = text[...]
        if rest.isEmpty { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { (0x30...0x39).contains($0) }
            rest = rest.dropFirst(digits.count)
            var fraction = rest.prefix(0)
            if rest.first == 0x2e {
                fraction = rest.dropFirst().prefix { (0x30...0x39).contains($0) }
                rest = rest.dropFirst(fraction.count + 1)
                if !(1...9).contains(fraction.count) { return nil }
            }
            let word = rest.prefix { (0x61...0x7a).contains($0 | 0x20) }
            rest = rest.dropFirst(word.count)
            guard let unit = units.firstIndex(where: { word.elementsEqual($0.0.utf8) }), unit > last,
                let whole = Int128(String(decoding: digits, as: UTF8.self))
            else { return nil }
            last = unit
            var divisor: Int128 = 1
            for _ in fraction { divisor *= 10 }
            let part = Int128(String(decoding: fraction, as: UTF8.self)) ?? 0
            guard whole <= year else { return nil }
            total += whole * units[unit].1 + units[unit].1 * part / divisor
            if whole > year / units[unit].1 || total > year { return nil }
        }
        return Int64(total)
    }

    private static func size(_ text: String) -> String? {
        let found = SettingsJudging.size(text)
        let bytes = Array(text.utf8)
        let digits = bytes.prefix { (0x30...0x39).contains($0) }
        let units: [String: Int128] = ["": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30]
        var expected: Int?
        let unit = String(decoding: bytes.dropFirst(digits.count), as: UTF8.self)
        if digits.count < 30, let number = Int128(String(decoding: digits, as: UTF8.self)), let scale = units[unit],
            number * scale <= 1 << 50
        {
            expected = Int(number * scale)
        }
        // Zeros before a number do no harm, however many.
        if digits.count >= 30 { return nil }
        return found == expected ? nil : "the size \(found ?? -1), not \(expected ?? -1)"
    }

    // MARK: addresses, URLs, queries

    private static func address(_ text: String) -> String? {
        guard let address = SettingsJudging.address(text) else { return nil }
        if SettingsJudging.address(address.description) != address { return "\(address) reads back as another" }
        if case .tcp(let host, let port) = address {
            if !(1...65535).contains(port) { return "port \(port)" }
            if host.utf8.contains(where: { $0 <= 0x20 || $0 >= 0x7f }) { return "the host \(host.debugDescription)" }
        }
        return nil
    }

    private static func probe(_ text: String) -> String? {
        guard let url = try? ProbeURL(text) else { return nil }
        let target: ProbeTarget?
        switch url.place {
        case .tcp(let host, let port):
            if !(1...65535).contains(port) || host.contains("@") { return "the URL of \(url)" }
            target = try? ProbeTarget.http(host: host, port: port, path: url.path)
        case .unix(let socket): target = try? ProbeTarget.http(unix: socket, path: url.path)
        }
        guard let target else { return nil }
        let request = Array(target.request(version: "1").readableBytesView)
        // The judge of the front says whether this is one request, and which.
        switch Judging.request(request, trusted: false) {
        case .accepted(let mine):
            if mine.count != request.count { return "a request that is two: \(shown(request))" }
            if !mine.target.elementsEqual(url.path.utf8) { return "another target is asked for: \(shown(request))" }
        case .refused(414, _): break
        default: return "a request that is none: \(shown(request))"
        }
        return nil
    }

    private static func query(_ text: String) -> String? {
        _ = problemDetail(Array(text.utf8))
        // Targets hold no other bytes.
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else { return nil }
        var found = "refused"
        if let number = try? Query(text[...]).number("after", in: 0...1000).map({ "\($0)" }) ?? "absent" {
            found = number
        }
        let values = text.utf8.split(separator: 0x26).compactMap { pair -> [UInt8]? in
            let parts = pair.split(separator: 0x3d, maxSplits: 1, omittingEmptySubsequences: false)
            guard decoded(parts[0]).elementsEqual("after".utf8) else { return nil }
            return parts.count > 1 ? decoded(parts[1]) : []
        }
        var expected = values.isEmpty ? "absent" : "refused"
        if values.count == 1, !values[0].isEmpty, values[0].allSatisfy({ (48...57).contains($0) }) {
            let value = values[0].reduce(UInt64(0)) { min(1_000_000, $0 * 10 + UInt64($1 - 48)) }
            if value <= 1000 { expected = "\(value)" }
        }
        return found == expected ? nil : "after is \(found), not \(expected)"
    }

    private static func decoded(_ text: Substring.UTF8View) -> [UInt8] {
        var bytes = Array(text)[...]
        var out: [UInt8] = []
        while let byte = bytes.popFirst() {
            let pair = bytes.prefix(2)
            let isHex = pair.count == 2 && pair.allSatisfy { Character(Unicode.Scalar($0)).isHexDigit && $0 < 0x80 }
            if byte == 0x25, isHex, let value = UInt8(String(decoding: pair, as: UTF8.self), radix: 16) {
                out.append(value)
                bytes = bytes.dropFirst(2)
            } else {
                out.append(byte == 0x2b ? 0x20 : byte)
            }
        }
        return out
    }

    /// Who may see the status page: a name that a browser looks up elsewhere is none of this machine's.
    private static func host(_ text: String) -> String? {
        guard PageServer.namesThisMachine(text) else { return nil }
        var name = text.lowercased()
        if let colon = name.lastIndex(of: ":"), !name.hasPrefix("[") { name = String(name[..<colon]) }
        if name == "localhost" || name.hasSuffix(".localhost") || name.hasPrefix("[") { return nil }
        let parts = name.utf8.split(separator: 0x2e, omittingEmptySubsequences: false)
        let isAddress = parts.count == 4 && parts.allSatisfy { !$0.isEmpty && $0.allSatisfy { (48...57).contains($0) } }
        return isAddress && name.hasPrefix("127.") ? nil : "\(text.debugDescription) is taken for this machine"
    }

    /// A list in flow style reads back as it was.
    private static func flow(_ text: String) -> String? {
        let texts = text.unicodeScalars.split(separator: ":", omittingEmptySubsequences: false).map { String($0) }
        // NUL is in no setting.
        if text.unicodeScalars.contains("\0") { return nil }
        guard let back = SettingsJudging.flowAndBack(texts) else { return "a list that is none" }
        let isSame =
            back.count == texts.count && zip(back, texts).allSatisfy { $0.0.map { Array($0.utf8) } == Array($0.1.utf8) }
        return isSame ? nil : "a list comes back as \(back)"
    }
}
