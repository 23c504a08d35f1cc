//  Ring.swift
//  The worker's last lines in memory, bounded in bytes and lines; also each generation's tail.
//  One block, oldest entries overwritten; adding a line allocates nothing. Read after Records.swift.

/// The last lines of all workers, oldest first.
struct Ring: ~Copyable {
    private struct Header {
        var sequence: UInt64
        var time: Int64
        var length: Int32
        var generation: Int32
        var stream: UInt8
    }

    private static let headerSize = 32
    private let base: UnsafeMutableRawPointer
    private let capacity: Int
    private let maxLines: Int
    /// Longer lines are cut to this in the ring.
    private let longest: Int
    /// Offset of the oldest entry; of the next one; and where entries stop before the block's end.
    private var head = 0
    private var tail = 0
    private var wrap: Int
    private(set) var count = 0
    /// The number of the newest line; 0 before the first.
    private(set) var sequence: UInt64 = 0

    init(bytes: Int, lines: Int) {
        capacity = max(bytes, 4096) & ~7
        maxLines = max(lines, 1)
        longest = capacity / 8 - Self.headerSize
        wrap = capacity
        base = .allocate(byteCount: capacity, alignment: 8)
    }

    deinit { base.deallocate() }

    /// Adds a line; overwrites the oldest where there is no room.
    mutating func append(_ p: Bytes, _ length: Int, generation: Int, stream: Stream, time: Int64) {
        var length = length
        if length > longest { length = utf8Cut(p, longest) }
        let size = Self.headerSize + (length + 7) & ~7
        if tail + size > capacity {
            while count > 0, head >= tail { evict() }
            wrap = tail
            tail = 0
            if count == 0 { head = 0 }
        }
        while count > 0, count >= maxLines || (head >= tail && head < tail + size) { evict() }
        if count == 0 {
            head = tail
        }
        sequence += 1
        let header = Header(
            sequence: sequence, time: time, length: Int32(truncatingIfNeeded: length),
            generation: Int32(truncatingIfNeeded: generation), stream: stream.rawValue)
        (base + tail).storeBytes(of: header, as: Header.self)
        (base + tail + Self.headerSize).copyMemory(from: p, byteCount: length)
        tail += size
        if tail > wrap { wrap = capacity }
        count += 1
    }

    @inline(__always)
    private mutating func evict() {
        head = next(head)
        count -= 1
    }

    @inline(__always)
    private func next(_ offset: Int) -> Int {
        let length = (base + offset).load(as: Header.self).length
        let end = offset + Self.headerSize + (Int(length) + 7) & ~7
        return end >= wrap ? 0 : end
    }

    /// The last lines after this sequence, at most so many, of one generation or of all.
    func lines(last limit: Int, after: UInt64 = 0, generation: Int? = nil) -> [RingLine] {
        var offsets: [Int] = []
        var offset = head
        for _ in 0..<count {
            let header = (base + offset).load(as: Header.self)
            if header.sequence > after, generation == nil || Int(header.generation) == generation {
                offsets.append(offset)
            }
            offset = next(offset)
        }
        return offsets.suffix(max(0, limit)).map { line($0) }
    }

    /// The first lines after this sequence, at most so many.
    func lines(first limit: Int, after: UInt64) -> [RingLine] {
        var result: [RingLine] = []
        var offset = head
        for _ in 0..<count where result.count < limit {
            if (base + offset).load(as: Header.self).sequence > after { result.append(line(offset)) }
            offset = next(offset)
        }
        return result
    }

    private func line(_ offset: Int) -> RingLine {
        let header = (base + offset).load(as: Header.self)
        return RingLine(
            sequence: header.sequence, generation: Int(header.generation),
            stream: Stream(rawValue: header.stream) ?? .stdout, time: header.time,
            text: text(offset, Int(header.length)))
    }

    /// The last lines of this generation as text, bounded for a record: 50 lines, 2 KiB each, 64 KiB in all.
    func lastOutput(generation: Int) -> [String] {
        var room = 64 << 10
        var result: [String] = []
        for line in lines(last: 50, generation: generation).reversed() {
            var text = line.text
            if text.utf8.count > 2048 {
                var cut = text.utf8.index(text.startIndex, offsetBy: 2048)
                while cut.samePosition(in: text.unicodeScalars) == nil { cut = text.utf8.index(before: cut) }
                text = String(text[..<cut]) + "…"
            }
            room -= text.utf8.count
            if room < 0 { break }
            result.append(text)
        }
        return result.reversed()
    }

    private func text(_ offset: Int, _ length: Int) -> String {
        let bytes = UnsafeRawBufferPointer(start: base + offset + Self.headerSize, count: length)
        return String(decoding: bytes, as: UTF8.self)
    }
}
