//  Body.swift
//  Where a body ends, byte by byte: a length, chunks with trailers, or the end of the connection.
//  Pure. Chunk extensions are dropped, bad chunks are faults (RFC 9112 section 7.1). Read RequestHead.swift first.

import NIOCore

/// What is wrong with a body.
enum BodyFault: Error, Hashable {
    /// A chunk's size, extension or end, or a trailer.
    case chunk
    /// A trailer section beyond the bounds of a head.
    case trailersTooLong
}

/// Cuts a body out of what a connection brings.
struct BodyDecoder {
    /// What came.
    enum Piece {
        /// Bytes of the body, at least one; they share the storage of what was read.
        case data(ByteBuffer)
        /// The body is whole; `trailers` are known.
        case end
        /// Nothing before more is read.
        case more
    }

    private enum State {
        case length(Int)
        case untilClose
        case size
        case data(Int)
        case dataEnd
        case trailers
        case done
    }

    /// Longest chunk extension, in bytes, and most digits of a size.
    private static let extensionBytes = 256
    private static let sizeDigits = 15

    private var state: State
    private var trailerEnd = HeadEnd()
    /// The trailer section with its empty line; empty where there are none.
    private(set) var trailers = ByteBuffer()

    init(_ framing: BodyFraming) {
        switch framing {
        case .none: state = .done
        case .length(let count): state = .length(count)
        case .chunked: state = .size
        case .untilClose: state = .untilClose
        }
    }

    /// Nothing is missing.
    var isWhole: Bool { if case .done = state { true } else { false } }
    /// It ends with the connection, and only so.
    var endsWithConnection: Bool { if case .untilClose = state { true } else { false } }

    /// Takes the next piece off the front of `bytes`.
    mutating func next(_ bytes: inout ByteBuffer) throws(BodyFault) -> Piece {
        while true {
            switch state {
            case .done: return .end
            case .untilClose:
                guard bytes.readableBytes > 0, let all = bytes.readSlice(length: bytes.readableBytes) else {
                    return .more
                }
                return .data(all)
            case .length(let left):
                guard let slice = Self.slice(&bytes, upTo: left) else { return .more }
                state = slice.readableBytes == left ? .done : .length(left - slice.readableBytes)
                return .data(slice)
            case .size:
                guard let size = try readSize(&bytes) else { return .more }
                state = size > 0 ? .data(size) : .trailers
            case .data(let left):
                guard let slice = Self.slice(&bytes, upTo: left) else { return .more }
                state = slice.readableBytes == left ? .dataEnd : .data(left - slice.readableBytes)
                return .data(slice)
            case .dataEnd:
                guard try Self.skipLineEnd(&bytes) else { return .more }
                state = .size
            case .trailers:
                guard try readTrailers(&bytes) else { return .more }
                state = .done
            }
        }
    }

    private static func slice(_ bytes: inout ByteBuffer, upTo left: Int) -> ByteBuffer? {
        let count = min(left, bytes.readableBytes)
        return count > 0 ? bytes.readSlice(length: count) : nil
    }

    /// CR LF and nothing else; false while it is not whole.
    private static func skipLineEnd(_ bytes: inout ByteBuffer) throws(BodyFault) -> Bool {
        guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) else { return false }
        guard first == 0x0d else { throw .chunk }
        guard let second = bytes.getInteger(at: bytes.readerIndex + 1, as: UInt8.self) else { return false }
        guard second == 0x0a else { throw .chunk }
        bytes.moveReaderIndex(forwardBy: 2)
        return true
    }

    /// The line before a chunk; nil while it is not whole.
    private func readSize(_ bytes: inout ByteBuffer) throws(BodyFault) -> Int? {
        let (line, size) = bytes.withUnsafeReadableBytes { Self.parseSize($0) }
        guard let size else { throw .chunk }
        guard let line else { return nil }
        bytes.moveReaderIndex(forwardBy: line)
        return size
    }

    /// The length of the line, nil while it is not whole, and its number, nil where it is none.
    private static func parseSize(_ bytes: UnsafeRawBufferPointer) -> (line: Int?, size: Int?) {
        var size = 0
        var index = 0
        while index < bytes.count, let digit = hexDigit(bytes[index]) {
            if index == sizeDigits { return (nil, nil) }
            size = size << 4 | digit
            index += 1
        }
        if index == bytes.count { return (nil, size) }
        if index == 0 { return (nil, nil) }
        if bytes[index] == 0x3b {
            let start = index
            while index < bytes.count, Bytes.isValue(bytes[index]) { index += 1 }
            if index - start > extensionBytes { return (nil, nil) }
            if index == bytes.count { return (nil, size) }
        }
        guard bytes[index] == 0x0d else { return (nil, nil) }
        if index + 1 == bytes.count { return (nil, size) }
        return bytes[index + 1] == 0x0a ? (index + 2, size) : (nil, nil)
    }

    private static func hexDigit(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte) - 0x30
        case 0x41...0x46, 0x61...0x66: Int(byte | 0x20) - 0x61 + 10
        default: nil
        }
    }

    /// The section after the last chunk; false while it is not whole.
    private mutating func readTrailers(_ bytes: inout ByteBuffer) throws(BodyFault) -> Bool {
        guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) else { return false }
        if first == 0x0d { return try Self.skipLineEnd(&bytes) }
        var end = trailerEnd
        let found: Result<Int?, HeadFault> = bytes.withUnsafeReadableBytes { raw in
            do throws(HeadFault) { return .success(try end.find(in: raw)) } catch { return .failure(error) }
        }
        trailerEnd = end
        switch found {
        case .failure(.tooLong): throw .trailersTooLong
        case .failure: throw .chunk
        case .success(nil): return false
        case .success(let count?):
            guard let section = bytes.readSlice(length: count) else { return false }
            trailers = section
            return true
        }
    }
}
