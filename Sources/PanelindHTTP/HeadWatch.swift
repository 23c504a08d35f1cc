//  HeadWatch.swift
//  What NIO's decoder does not tell: whether a read ended between two messages or inside a head, and in which part.
//  The head's deadline, the choice between 414 and 431 and the quick path depend on it. Read before HTTPConnection.

import Glibc
import NIOCore

/// Follows the bytes of one connection beside the decoder.
struct HeadWatch {
    /// Surely nothing of a next message has reached the decoder.
    private(set) var isBetween = true
    /// Probably a part of a head has: its time runs.
    private(set) var isInsideHead = false
    /// Of that head the whole first line has come.
    private(set) var hasWholeLine = false
    /// A message has ended since the present read began.
    private var ended = false
    private var endedWithBody = false
    /// The last four bytes that were read, newest highest.
    private var tail: UInt32 = 0

    /// The decoder is about to get these bytes.
    mutating func willDecode(_ bytes: ByteBuffer) {
        ended = false
        if let last = bytes.getInteger(at: bytes.writerIndex - 4, endianness: .little, as: UInt32.self) {
            tail = last
        } else {
            for byte in bytes.readableBytesView { tail = tail >> 8 | UInt32(byte) << 24 }
        }
    }

    /// The decoder has told the end of a message.
    mutating func messageEnded(withBody: Bool) {
        ended = true
        endedWithBody = withBody
    }

    /// The decoder has had these bytes; `isInsideBody`: a head came without its end yet.
    mutating func didDecode(_ bytes: ByteBuffer, isInsideBody: Bool) {
        // CR LF CR LF: a partial head cannot end so, unless it is nothing but empty lines.
        let endsHead = tail == 0x0a0d_0a0d
        if ended {
            hasWholeLine = false
            // After a body the last bytes say nothing; the next read will.
            isBetween = !isInsideBody && !endedWithBody && endsHead
            isInsideHead = !isInsideBody && !endedWithBody && !endsHead
        } else {
            isBetween = false
            isInsideHead = !isInsideBody
            if isInsideHead && !hasWholeLine { hasWholeLine = Self.hasLineEnd(bytes) }
        }
    }

    private static func hasLineEnd(_ bytes: ByteBuffer) -> Bool {
        bytes.withUnsafeReadableBytes { raw in
            guard let start = raw.baseAddress else { return false }
            return memchr(start, 0x0a, raw.count) != nil
        }
    }
}
