//  RecordSink.swift
//  Lines and own records become bytes in the sink's buffer, in the order they are given.
//  The seam for other formats: each has its `line` and `own`. Read after ByteSink.swift.

/// Where a worker's line comes from: the constant ends of its records, made once for each pipe.
struct LineOrigin: ~Copyable {
    /// `","stream":"stdout","generation":3}` and a newline; in text the tag `g3 out`, padded, coloured.
    let tail: MutableBytes
    let tailLength: Int
    /// The same with `"partial":true`.
    let partialTail: MutableBytes
    let partialTailLength: Int

    init(generation: Int, stream: Stream, format: RecordSink.Format) {
        func store(_ text: String) -> (MutableBytes, Int) {
            let utf8 = Array(text.utf8)
            let block = MutableBytes.allocate(capacity: utf8.count)
            for (i, byte) in utf8.enumerated() { (block + i).initialize(to: byte) }
            return (block, utf8.count)
        }
        switch format {
        case .json:
            let end = "\",\"stream\":\"\(stream.name)\",\"generation\":\(generation)"
            (tail, tailLength) = store(end + "}\n")
            (partialTail, partialTailLength) = store(end + ",\"partial\":true}\n")
        case .text(let colour):
            var tag = "g\(generation) \(stream == .stdout ? "out" : "err")"
            while tag.utf8.count < 8 { tag += " " }
            let toned = colour ? "\u{1B}[\(stream == .stdout ? 36 : 33)m\(tag)\u{1B}[0m" : tag
            (tail, tailLength) = store(" \(toned)  ")
            (partialTail, partialTailLength) = store("…\n")
        case .journal:
            let fields =
                "SYSLOG_IDENTIFIER=panelind\nPANELIND_STREAM=\(stream.name)\nPANELIND_GENERATION=\(generation)\n"
            (tail, tailLength) = store(journalEscaped(fields))
            (partialTail, partialTailLength) = store(journalEscaped(fields + "PANELIND_PARTIAL=1\n"))
        }
    }

    /// Bytes of `tail`, or of `partialTail`.
    func length(partial: Bool) -> Int { partial ? partialTailLength : tailLength }

    deinit {
        tail.deallocate()
        partialTail.deallocate()
    }
}

/// Encodes records into the sink's buffer.
struct RecordSink: ~Copyable {
    /// What is written; inherit is resolved before this.
    enum Format: Equatable {
        case json
        case journal
        case text(colour: Bool)
    }

    let format: Format
    var bytes: ByteSink
    var stamp = Stamp()
    /// Nothing is given up for a sink that takes nothing.
    let blocks: Bool
    private let stallLimit: Int64
    /// `{"severity":"INFO","time":"…","message":"` of each severity, 96 bytes apart; the time is filled in.
    private let heads: MutableBytes
    /// Where the time stands in each, and the whole length.
    private let headLengths: UnsafeMutablePointer<(time: Int, all: Int)>
    private static let headStride = 96

    init(_ configuration: OutputConfiguration, format: Format, buffer: LogBuffer) {
        self.format = format
        bytes = ByteSink(
            descriptor: configuration.sink, buffer: buffer,
            journal: format == .journal
                ? JournalSocket(path: configuration.journalPath, sendLarge: configuration.largeEntrySender) : nil)
        blocks = configuration.overflow == .block
        stallLimit = configuration.stallLimit.nanoseconds
        heads = .allocate(capacity: Self.headStride * Severity.allCases.count)
        headLengths = .allocate(capacity: Severity.allCases.count)
        for severity in Severity.allCases {
            let head = heads + Int(severity.rawValue) * Self.headStride
            var end = copy("{\"severity\":\"", to: head)
            end = copy(severity.name, to: end)
            end = copy("\",\"time\":\"", to: end)
            let time = end - head
            end += Stamp.length
            end = copy("\",\"message\":\"", to: end)
            (headLengths + Int(severity.rawValue)).initialize(to: (time, end - head))
        }
    }

    deinit {
        heads.deallocate()
        headLengths.deallocate()
    }

    /// The sink has taken nothing for the stall limit although there is something to take.
    func isStalled(_ now: Int64) -> Bool { bytes.isWaiting && now - bytes.lastProgress >= stallLimit }

    /// Whether the pipes may be read: below the bound, or where the oldest may be dropped.
    func mayRead(_ now: Int64) -> Bool { bytes.pending < bytes.soft || (!blocks && isStalled(now)) }

    /// When that will change without the sink's help, or nil.
    var stallDeadline: Int64? {
        !blocks && bytes.isWaiting && bytes.pending >= bytes.soft ? bytes.lastProgress + stallLimit : nil
    }

    /// Makes the bound hold again after a read.
    mutating func trim(_ now: Int64) {
        if bytes.pending > bytes.soft, !blocks, isStalled(now) { bytes.dropOldest(bytes.pending - bytes.soft) }
    }

    /// Room for a record, or nil where it must be counted as dropped.
    @inline(__always)
    private mutating func room(_ count: Int) -> MutableBytes? {
        if let place = bytes.reserve(count) { return place }
        if !blocks { bytes.dropOldest(count) }
        if let place = bytes.reserve(count) { return place }
        bytes.countDropped(1)
        return nil
    }

    /// A line that is not JSON: wrapped, or with time and source before it.
    mutating func line(
        _ p: Bytes, _ count: Int, _ severity: Severity, _ origin: borrowing LineOrigin, partial: Bool
    ) {
        switch format {
        case .json:
            guard let place = room(escapedRoom(count) + 256) else { return }
            let index = Int(severity.rawValue)
            let (time, all) = headLengths[index]
            place.update(from: heads + index * Self.headStride, count: all)
            (place + time).update(from: stamp.text, count: Stamp.length)
            stamp.bump()
            let end = escapeJSON(p, count, to: place + all)
            if partial {
                end.update(from: origin.partialTail, count: origin.partialTailLength)
                bytes.commit(end + origin.partialTailLength)
            } else {
                end.update(from: origin.tail, count: origin.tailLength)
                bytes.commit(end + origin.tailLength)
            }
        case .journal:
            guard let place = room(journalRoom(count) + 256) else { return }
            var end = copy("PRIORITY=", to: place)
            end[0] = 0x30 + journalPriority(severity)
            end = copy("\u{10}n", to: end + 1)
            end.update(from: partial ? origin.partialTail : origin.tail, count: origin.length(partial: partial))
            end = journalField("MESSAGE", p, count, to: end + origin.length(partial: partial))
            end[0] = 10
            bytes.commit(end + 1)
        case .text(let colour):
            guard let place = room(textRoom(count) + 256) else { return }
            var end = place
            if colour { end = copy("\u{1B}[2m", to: end) }
            stamp.updateLocal()
            end.update(from: stamp.local, count: Stamp.localLength)
            end += Stamp.localLength
            if colour { end = copy("\u{1B}[0m", to: end) }
            end.update(from: origin.tail, count: origin.tailLength)
            end = encodeText(p, count, toTerminal: colour, to: end + origin.tailLength)
            if partial {
                end.update(from: origin.partialTail, count: origin.partialTailLength)
                bytes.commit(end + origin.partialTailLength)
            } else {
                end[0] = 10
                bytes.commit(end + 1)
            }
        }
    }

    /// A line that is a JSON object: byte for byte, where no person reads it.
    mutating func pass(_ p: Bytes, _ count: Int, _ origin: borrowing LineOrigin) {
        if format == .journal { return line(p, count, jsonSeverity(p, count), origin, partial: false) }
        if case .text(let colour) = format {
            guard let place = room(textRoom(count) + 1) else { return }
            let end = encodeText(p, count, toTerminal: colour, to: place)
            end[0] = 10
            return bytes.commit(end + 1)
        }
        guard let place = room(count + 1) else { return }
        place.update(from: p, count: count)
        place[count] = 10
        bytes.commit(place + count + 1)
    }

    /// A record of panelind's own; `time` is when it was made, nanoseconds since 1970.
    mutating func own(_ record: OwnRecord, time: Int64) {
        let saved = stamp.nanoseconds
        stamp.set(time)
        let encoded: [UInt8]
        switch format {
        case .json:
            let text = UnsafeBufferPointer(start: stamp.text, count: Stamp.length)
            encoded = jsonRecord(record, time: String(decoding: text, as: UTF8.self))
        case .journal: encoded = journalRecord(record) + [10]
        case .text(let colour):
            stamp.updateLocal()
            let text = UnsafeBufferPointer(start: stamp.local, count: Stamp.localLength)
            encoded = textRecord(record, time: String(decoding: text, as: UTF8.self), colour: colour)
        }
        stamp.set(saved)
        guard let place = room(encoded.count) else { return }
        encoded.withUnsafeBufferPointer { source in
            guard let p = source.baseAddress else { return }
            place.update(from: p, count: source.count)
        }
        bytes.commitKept(place + encoded.count)
    }
}
