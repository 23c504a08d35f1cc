//  Reader.swift
//  Reads messages the slow and simple way, apart from the front's own code: heads, bodies, and whose bytes they are.
//  Read before Client.swift and Worker.swift.

/// A head as text.
struct Head {
    let line: String
    let fields: [(name: String, value: String)]

    func all(_ name: String) -> [String] { fields.filter { $0.name == name }.map(\.value) }
    func first(_ name: String) -> String? { all(name).first }
    /// `X-Tag`
    var tag: Int? { first("x-tag").flatMap { Int($0) } }
}

/// Takes messages off a stream of bytes.
struct Reader {
    enum Framing: Hashable {
        case none, untilClose
        case length(Int)
        case size
        case chunk(Int)
        case chunkEnd
        case trailers
        case done
    }

    private var bytes: [UInt8] = []
    private var start = 0
    private(set) var isBroken = false

    var rest: ArraySlice<UInt8> { bytes[start...] }
    var isEmpty: Bool { start == bytes.count }

    mutating func feed(_ more: [UInt8]) {
        if start > 65_536 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes += more
    }

    /// Takes a line with its CR LF off; nil while it is not whole.
    private mutating func line() -> String? {
        var index = start
        while index + 1 < bytes.count {
            if bytes[index] == 0x0d, bytes[index + 1] == 0x0a {
                let text = String(decoding: bytes[start..<index], as: UTF8.self)
                start = index + 2
                return text
            }
            index += 1
        }
        return nil
    }

    /// Takes a head off; nil while it is not whole.
    mutating func head() -> Head? {
        let before = start
        var lines: [String] = []
        while let text = line() {
            if text.isEmpty, let first = lines.first {
                let fields = lines.dropFirst().map { line -> (String, String) in
                    let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                    let value = parts.count > 1 ? parts[1].drop { $0 == " " } : ""
                    return (parts[0].lowercased(), String(value))
                }
                return Head(line: first, fields: fields)
            }
            lines.append(text)
        }
        start = before
        return nil
    }

    /// Takes what there is of a body off.
    mutating func body(_ framing: inout Framing) -> [UInt8] {
        var out: [UInt8] = []
        while true {
            switch framing {
            case .none: framing = .done
            case .done: return out
            case .untilClose:
                out += rest
                start = bytes.count
                return out
            case .length(let left), .chunk(let left):
                let count = min(left, bytes.count - start)
                out += bytes[start..<(start + count)]
                start += count
                guard count == left else {
                    if case .length = framing {
                        framing = .length(left - count)
                    } else {
                        framing = .chunk(left - count)
                    }
                    return out
                }
                if case .length = framing { framing = .done } else { framing = .chunkEnd }
            case .size:
                guard let text = line() else { return out }
                guard let size = Int(text.prefix { $0 != ";" }, radix: 16) else {
                    isBroken = true
                    return out
                }
                framing = size > 0 ? .chunk(size) : .trailers
            case .chunkEnd:
                guard let text = line() else { return out }
                if !text.isEmpty { isBroken = true }
                framing = .size
            case .trailers:
                guard let text = line() else { return out }
                if text.isEmpty { framing = .done }
            }
        }
    }
}

/// Bytes that tell whose they are wherever they turn up.
enum Mark {
    /// `<u00042>` again and again; `u` goes up to the worker, `d` comes down, `t` is in a tunnel.
    static func bytes(_ direction: Character, _ tag: Int, count: Int) -> [UInt8] {
        let unit = unit(direction, tag)
        return (0..<count).map { unit[$0 & 7] }
    }

    /// Whether these bytes are those at this place.
    static func holds(_ bytes: [UInt8], _ direction: Character, _ tag: Int, at offset: Int) -> Bool {
        let unit = unit(direction, tag)
        for index in bytes.indices where bytes[index] != unit[(offset + index) & 7] { return false }
        return true
    }

    private static func unit(_ direction: Character, _ tag: Int) -> [UInt8] {
        let digits = String(tag % 100_000)
        return Array("<\(direction)\(String(repeating: "0", count: 5 - digits.count))\(digits)>".utf8)
    }
}
