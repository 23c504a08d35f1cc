//  Engine+Commands.swift
//  What the output thread does when main asks: attach, log, the record of an exit, flush, lines.
//  The last read of a dead worker's pipe is here. Read after Engine.swift.

import Glibc
import PanelindCore

extension Engine {
    /// Obeys all commands so far, in their order.
    mutating func obey(_ now: Int64) {
        let (commands, droppedRecords) = queue.takeCommands()
        if droppedRecords > 0 { out.bytes.countDropped(droppedRecords) }
        for command in commands {
            switch command {
            case .attach(let generation, let stream, let descriptor, let expression):
                attach(generation, stream, descriptor, expression)
            case .log(let record, let time):
                out.own(record, time: time)
            case .exit(let record, let time, let generation, let refinesCause, let isWritten):
                recordExit(record, time, generation, refinesCause, isWritten, now)
            case .detach(let generation):
                readOut(generation: generation, now)
                for i in (0..<sourceCount).reversed() where sources[i].generation == generation {
                    // Closed now, what a slow sink left no room for would be lost; it is read as room comes.
                    if out.bytes.room < Self.margin(lineLimit) { sources[i].owed = sources[i].waiting() }
                    if sources[i].owed == 0 { end(i) }
                }
            case .flush(let deadline):
                readOut(generation: nil, now)
                flushes.append((since: now, by: deadline.nanoseconds))
            case .lines(let id, let last, let after, let waits):
                if !waits {
                    queue.reply(.ring(id: id, lines: ring.lines(last: last, after: after)))
                } else if ring.sequence <= after {
                    followers.append((id, last, after))
                } else {
                    queue.reply(.ring(id: id, lines: ring.lines(first: last, after: after)))
                }
            case .cancelLines(let id):
                followers.removeAll { $0.id == id }
            case .quit:
                isQuitting = true
            }
        }
    }

    private mutating func attach(_ generation: Int, _ stream: Stream, _ descriptor: Int32, _ expression: String?) {
        if sourceCount == Self.maxSources, let oldest = (0..<sourceCount).first(where: { sources[$0].owed > 0 }) {
            out.bytes.countDropped(1)
            end(oldest)
        }
        guard sourceCount < Self.maxSources else {
            close(descriptor)
            out.bytes.countDropped(1)
            return
        }
        // The read end is ours alone; the worker's end keeps its own flags.
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        // F_SETPIPE_SZ of fcntl(2), which the C module does not export. Refused beyond a user's share: then as it is.
        _ = fcntl(descriptor, 1031, 1 << 20)
        (sources + sourceCount).initialize(
            to: Source(
                generation: generation, stream: stream, descriptor: descriptor,
                expression: expression.flatMap { compileExpression($0).0 },
                limit: lineLimit, block: Self.readBlock, format: out.format))
        sourceCount += 1
    }

    /// Reads what is in the pipes of this generation (nil: of all) now, and settles it.
    ///
    /// To EAGAIN, but no more than was there at the beginning: a descendant may hold the pipe open and keep writing.
    /// A sink that takes something is waited for, for so long in all; what there is no room for then stays in the pipe.
    private mutating func readOut(generation: Int?, patience: Int64 = 0, _ now: Int64) {
        let margin = Self.margin(lineLimit)
        var until = patience == 0 ? 0 : now + patience
        withUnsafeTemporaryAllocation(of: Int.self, capacity: Self.maxSources) { left in
            for i in 0..<sourceCount {
                left[i] = generation == nil || sources[i].generation == generation ? max(1, sources[i].waiting()) : 0
            }
            out.stamp.advance(to: wallClock())
            var isAnyLeft = true
            while isAnyLeft {
                isAnyLeft = false
                for i in 0..<sourceCount where left[i] > 0 {
                    // As long as the sink takes, it makes the room.
                    if out.bytes.room < margin { out.bytes.write(now: now) }
                    while out.bytes.room < margin, out.bytes.isWaiting, until > 0 {
                        let left = until - monotonicClock()
                        var ask = pollfd(fd: out.bytes.pollDescriptor, events: Int16(POLLOUT), revents: 0)
                        if left <= 0 || poll(&ask, 1, Int32(clamping: left / 1_000_000)) <= 0 { until = 0 }
                        out.bytes.write(now: now)
                    }
                    if out.bytes.room < margin {
                        // The rest stays in the pipe, and a line begun must not be torn from it.
                        left[i] = -1
                        continue
                    }
                    let count = readOnce(i, now)
                    left[i] = count > 0 ? max(0, left[i] - count) : 0
                    if sources[i].owed > 0 { sources[i].owed = max(1, sources[i].owed - max(0, count)) }
                    if left[i] > 0 { isAnyLeft = true }
                }
            }
            for i in (0..<sourceCount).reversed() where generation == nil || sources[i].generation == generation {
                guard left[i] == 0 else { continue }
                if sources[i].owed > 0 { end(i) } else { settle(i) }
            }
        }
    }

    /// Room that one more read and its escapes may need.
    private static func margin(_ lineLimit: Int) -> Int { 7 * (readBlock + lineLimit) }

    private mutating func recordExit(
        _ given: OwnRecord, _ time: Int64, _ generation: Int, _ refinesCause: Bool, _ isWritten: Bool, _ now: Int64
    ) {
        // The record waits for the last lines, at most so long (DESIGN section 3).
        readOut(generation: generation, patience: 250_000_000, now)
        var record = given
        let tail = ring.lastOutput(generation: generation)
        record.set("last_output", .strings(tail))
        if refinesCause, let line = portInUseLine(tail) {
            record.set("cause", .string("port_in_use"))
            record.message += "; its port is in use: \(tail[line].prefix(200))"
        } else if record.severity >= .error, let line = tellingLine(tail, orLast: refinesCause) {
            record.message += ": \(line)"
        }
        if isWritten { out.own(record, time: time) }
        queue.reply(
            .exitRecorded(
                generation: generation, cause: record.string("cause") ?? "", message: record.message, tail: tail))
    }
}
