//  Judging.swift
//  The way from a pipe's bytes to records without the thread around it, and the encoders by themselves.
//  For the fuzzer. Read Source.swift and RecordSink.swift first.

import Glibc

/// A worker's pipe, played in pieces.
package struct LineJudging: ~Copyable {
    private var sink: RecordSink
    private var ring: Ring
    private let limit: Int

    /// Makes one that is used for many inputs.
    package init(_ format: OutputConfiguration.Format, lineLimit: Int) {
        limit = lineLimit
        let configuration = OutputConfiguration(format: format)
        let inner: RecordSink.Format =
            switch format {
            case .text(let colour): .text(colour: colour)
            case .journal: .journal
            case .json, .inherit: .json
            }
        guard let buffer = LogBuffer(configuration) else { fatalError("no memory for a fuzzer") }
        sink = RecordSink(configuration, format: inner, buffer: buffer)
        ring = Ring(bytes: 4096, lines: 20)
        sink.stamp.set(1_700_000_000_000_000_000)
    }

    private static let block = 4096

    /// The records that these pieces become when each is read by itself and the pipe ends behind the last.
    package mutating func records(_ pieces: [ArraySlice<UInt8>]) -> [UInt8] {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return [] }
        for end in ends { _ = fcntl(end, F_SETFL, O_NONBLOCK) }
        defer { close(ends[1]) }
        var source = Source(
            generation: 1, stream: .stderr, descriptor: ends[0], expression: nil, limit: limit, block: Self.block,
            format: sink.format)
        for piece in pieces {
            var left = piece
            while !left.isEmpty {
                let written = left.withUnsafeBytes { write(ends[1], $0.baseAddress, $0.count) }
                guard written > 0 else { return [] }
                left = left.dropFirst(written)
                var unread = written
                while unread > 0, case let count = source.fill(Self.block), count > 0 {
                    unread -= count
                    source.split(into: &sink, ring: &ring, now: 0)
                }
            }
        }
        source.settle(into: &sink, ring: &ring)
        return sink.bytes.takeAll()
    }

    /// What the ring holds.
    package var kept: [RingLine] { ring.lines(last: .max) }

    /// A record of panelind's own, as this sink gets it.
    package mutating func own(_ record: OwnRecord) -> [UInt8] {
        sink.own(record, time: 1_700_000_000_000_000_000)
        return sink.bytes.takeAll()
    }

    /// A record of the journal as its socket gets it.
    package static func entry(_ record: [UInt8]) -> [UInt8] {
        let room = MutableBytes.allocate(capacity: max(1, record.count))
        defer { room.deallocate() }
        return record.withUnsafeBufferPointer { given in
            guard let p = given.baseAddress else { return [] }
            return Array(UnsafeBufferPointer(start: room, count: journalUnescape(p, given.count, to: room)))
        }
    }

    /// What a dead worker's last lines say.
    package static func reason(_ lines: [String]) -> (port: Int?, line: String?) {
        (portInUseLine(lines), tellingLine(lines, orLast: true))
    }
}
