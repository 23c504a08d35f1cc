//  HeadScanner.swift
//  Bytes to the lines of a head, by RFC 9112 to the letter: what is ambiguous is a fault, nothing is repaired.
//  Works on the bytes where they lie; nothing is copied or decoded. NIO's decoder is its oracle in the tests.

import Glibc

/// What is wrong with a head, as far as its bytes go.
enum HeadFault: Error, Hashable {
    /// A line that does not end in CR LF, or a CR elsewhere.
    case lineEnd
    /// The first line is not what it must be.
    case startLine
    /// A field line without a name, with a space before its colon, or a byte that a name must not have.
    case fieldName
    /// A control character in a value.
    case fieldValue
    /// A line that continues the one before (obsolete since RFC 7230).
    case folded
    /// More than `Heads.fields`.
    case tooManyFields
    /// More than `Heads.bytes`.
    case tooLong
}

/// The bounds of every head (CONTRACT section 5).
enum Heads {
    /// Of the whole head, the empty line included.
    static let bytes = 64 * 1024
    static let fields = 100
    static let target = 16 * 1024
    static let method = 32
}

/// One field line, as offsets from the beginning of the head.
struct FieldLine {
    var start: Int32
    /// Of the colon.
    var nameEnd: Int32
    var valueStart: Int32
    var valueEnd: Int32
    /// After CR LF.
    var end: Int32
    var name: FieldName
}

/// Looks for the end of a head that comes in pieces; a byte is looked at once.
struct HeadEnd {
    private var searched = 0

    /// The length of the head with its empty line, nil while it is not whole.
    ///
    /// - Errors: `lineEnd` for a bare LF, `tooLong`.
    mutating func find(in bytes: UnsafeRawBufferPointer) throws(HeadFault) -> Int? {
        guard let base = bytes.baseAddress else { return nil }
        var index = searched
        let count = min(bytes.count, Heads.bytes)
        while index < count, let found = memchr(base + index, 0x0a, count - index) {
            let at = base.distance(to: UnsafeRawPointer(found))
            guard at > 0, bytes[at - 1] == 0x0d else { throw .lineEnd }
            if at >= 3, bytes[at - 2] == 0x0a { return at + 1 }
            index = at + 1
        }
        searched = count
        if bytes.count >= Heads.bytes { throw .tooLong }
        return nil
    }

    /// A whole first line has come.
    static func hasFirstLine(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return false }
        return memchr(base, 0x0a, bytes.count) != nil
    }
}

/// A head cut into lines.
struct HeadLines {
    /// Where the first line ends, without CR LF.
    private(set) var startLineEnd = 0
    private(set) var fields: [FieldLine] = []

    init() { fields.reserveCapacity(Heads.fields) }

    /// Cuts a whole head. The storage of the last one is used again.
    mutating func cut(_ head: UnsafeRawBufferPointer) throws(HeadFault) {
        fields.removeAll(keepingCapacity: true)
        var index = try Self.lineEnd(head, 0)
        startLineEnd = index
        index += 2
        try cutFields(head, from: index)
    }

    /// Cuts a trailer section, which has no first line but ends in an empty line too.
    mutating func cutTrailers(_ section: UnsafeRawBufferPointer) throws(HeadFault) {
        fields.removeAll(keepingCapacity: true)
        startLineEnd = 0
        try cutFields(section, from: 0)
    }

    private mutating func cutFields(_ head: UnsafeRawBufferPointer, from first: Int) throws(HeadFault) {
        var index = first
        while index + 2 < head.count {
            if fields.count == Heads.fields { throw .tooManyFields }
            let start = index
            while index < head.count, Bytes.isToken(head[index]) { index += 1 }
            let nameEnd = index
            if nameEnd == start { throw head[start] == 0x20 || head[start] == 0x09 ? .folded : .fieldName }
            guard index < head.count, head[index] == 0x3a else { throw .fieldName }
            index += 1
            while index < head.count, head[index] == 0x20 || head[index] == 0x09 { index += 1 }
            let valueStart = index
            while index < head.count, Bytes.isValue(head[index]) { index += 1 }
            guard index + 1 < head.count, head[index] == 0x0d, head[index + 1] == 0x0a else {
                throw index < head.count && (head[index] == 0x0d || head[index] == 0x0a) ? .lineEnd : .fieldValue
            }
            var valueEnd = index
            while valueEnd > valueStart, head[valueEnd - 1] == 0x20 || head[valueEnd - 1] == 0x09 { valueEnd -= 1 }
            index += 2
            fields.append(
                FieldLine(
                    start: Int32(start), nameEnd: Int32(nameEnd), valueStart: Int32(valueStart),
                    valueEnd: Int32(valueEnd), end: Int32(index),
                    name: .of(UnsafeRawBufferPointer(rebasing: head[start..<nameEnd]))))
        }
    }

    /// The value's bytes.
    static func value(_ line: FieldLine, _ head: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: head[Int(line.valueStart)..<Int(line.valueEnd)])
    }

    /// The name's bytes.
    static func name(_ line: FieldLine, _ head: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: head[Int(line.start)..<Int(line.nameEnd)])
    }

    /// Where the line that begins here ends, without CR LF; controls in it are faults.
    private static func lineEnd(_ head: UnsafeRawBufferPointer, _ start: Int) throws(HeadFault) -> Int {
        var index = start
        while index < head.count, head[index] >= 0x20 || head[index] == 0x09 { index += 1 }
        guard index + 1 < head.count, head[index] == 0x0d, head[index + 1] == 0x0a else {
            throw index < head.count && head[index] == 0x0d ? .lineEnd : .startLine
        }
        return index
    }
}

/// Classes of bytes.
enum Bytes {
    /// A byte of a token: name of a field, method (RFC 9110 section 5.6.2).
    @inline(__always)
    static func isToken(_ byte: UInt8) -> Bool {
        guard byte < 128 else { return false }
        // Bit n stands for byte n: ! # $ % & ' * + - . ^ _ ` | ~, digits and letters.
        let low: UInt64 = 0x03ff_6cfa_0000_0000
        let high: UInt64 = 0x57ff_ffff_c7ff_fffe
        return (byte < 64 ? low : high) >> UInt64(byte & 63) & 1 == 1
    }

    /// A byte of a field's value: visible, space, tab, or beyond ASCII (RFC 9110 section 5.5).
    @inline(__always)
    static func isValue(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7f || byte == 0x09 }

    /// The elements of a comma-separated list, without the space around them; empty ones are left out.
    static func forEachElement(_ list: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void) {
        var start = 0
        while start <= list.count {
            var end = start
            while end < list.count, list[end] != 0x2c { end += 1 }
            let element = trimmed(UnsafeRawBufferPointer(rebasing: list[start..<end]))
            if !element.isEmpty { body(element) }
            start = end + 1
        }
    }

    /// Without spaces and tabs at both ends.
    static func trimmed(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var first = 0
        var last = bytes.count
        while first < last, bytes[first] == 0x20 || bytes[first] == 0x09 { first += 1 }
        while last > first, bytes[last - 1] == 0x20 || bytes[last - 1] == 0x09 { last -= 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[first..<last])
    }

    /// A number of digits only, at most 18 of them; nil for anything else.
    static func decimal(_ bytes: UnsafeRawBufferPointer) -> Int? {
        guard !bytes.isEmpty, bytes.count <= 18 else { return nil }
        var number = 0
        for byte in bytes {
            guard byte &- 0x30 < 10 else { return nil }
            number = number * 10 + Int(byte &- 0x30)
        }
        return number
    }
}
