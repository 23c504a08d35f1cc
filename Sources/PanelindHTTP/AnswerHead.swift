//  AnswerHead.swift
//  Whether the beginning of a server's answer is an HTTP/1 head, and which status it says: all that a probe wants.
//  Pure and bounded; interim answers (1xx) are skipped. Read before Prober.swift and ProbeOnce.swift.

/// Collects the bytes of an answer up to the end of its head.
public struct AnswerHead: Sendable {
    /// What is known so far.
    public enum Verdict: Hashable, Sendable {
        /// The head is not whole yet.
        case more
        /// A final status, 200...599.
        case status(Int)
        /// Not HTTP/1, or a head beyond the bound.
        case invalid
    }

    /// A head may not be longer, in bytes.
    public static let limit = 64 * 1024

    private var bytes: [UInt8] = []
    private var skipped = 0
    /// Bytes of the present head that were searched already.
    private var searched = 0

    /// Makes an empty head.
    public init() {}

    /// Nothing has come yet.
    public var isEmpty: Bool { bytes.isEmpty && skipped == 0 }

    /// Takes more bytes and judges all of them.
    public mutating func take<Bytes: Sequence<UInt8>>(_ more: Bytes) -> Verdict {
        bytes.append(contentsOf: more)
        while true {
            guard looksLikeHTTP else { return .invalid }
            guard let end = headEnd() else { return bytes.count + skipped > Self.limit ? .invalid : .more }
            if end + skipped > Self.limit { return .invalid }
            guard let status else { return .invalid }
            if status >= 200 { return .status(status) }
            // 101 was not asked for: an answer that switches protocols is none to a probe.
            if status == 101 { return .invalid }
            skipped += end
            bytes.removeFirst(end)
            searched = 0
        }
    }

    /// As far as it has come, the line starts as `HTTP/1.` does: a server of another protocol is known at once.
    private var looksLikeHTTP: Bool {
        zip(bytes, "HTTP/1.".utf8).allSatisfy { $0 == $1 }
    }

    /// The index after the empty line, or nil.
    private mutating func headEnd() -> Int? {
        var index = max(searched, 3)
        while index < bytes.count {
            if bytes[index] == 0x0a && bytes[(index - 3)..<index].elementsEqual([0x0d, 0x0a, 0x0d]) {
                return index + 1
            }
            index += 1
        }
        searched = bytes.count
        return nil
    }

    /// `HTTP/1.x NNN`, then a space or the end of the line (RFC 9112 section 4).
    private var status: Int? {
        guard bytes.count > 13, bytes[7] == 0x30 || bytes[7] == 0x31, bytes[8] == 0x20 else { return nil }
        guard bytes[12] == 0x20 || bytes[12] == 0x0d else { return nil }
        var number = 0
        for byte in bytes[9..<12] {
            guard byte >= 0x30 && byte <= 0x39 else { return nil }
            number = number * 10 + Int(byte - 0x30)
        }
        return (100...599).contains(number) ? number : nil
    }
}
