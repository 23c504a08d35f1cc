//  Engine.swift
//  The output thread's loop: poll, read each pipe once, obey commands, write.
//  A value in the thread's frame: no locks, no reference counts between lines. Then read Engine+Commands.swift.

import Glibc
import PanelindCore

/// All that the output thread owns.
struct Engine: ~Copyable {
    /// Bytes of one read; a worker that writes more at once waits for the next turn, like the others.
    static let readBlock = 128 << 10
    /// Pipes at one time; two for each living generation, so this is never reached but by a bug.
    static let maxSources = 64

    /// How long a flush waits for a sink that takes nothing, in nanoseconds.
    static let flushPatience: Int64 = 1_000_000_000

    let queue: OutputQueue
    let lineLimit: Int
    let level: Severity
    var out: RecordSink
    var ring: Ring
    let sources: UnsafeMutablePointer<Source>
    var sourceCount = 0
    /// Unfinished flushes: when they were asked for, and when they must be answered (monotonic).
    var flushes: [(since: Int64, by: Int64)] = []
    /// Questions that wait for a line.
    var followers: [(id: Int, last: Int, after: UInt64)] = []
    var isQuitting = false
    private var reportedDropped = 0
    private var recordedDropped = 0
    private let polls: UnsafeMutablePointer<pollfd>
    private var pace = Pace()

    init(_ configuration: OutputConfiguration, queue: OutputQueue, buffer: LogBuffer) {
        let format: RecordSink.Format =
            switch configuration.format {
            case .text(let colour): .text(colour: colour)
            case .json: .json
            case .journal: .journal
            case .inherit: isatty(configuration.sink) == 1 ? .text(colour: true) : .json
            }
        self.queue = queue
        lineLimit = max(configuration.lineLimit, 1024)
        level = configuration.level
        out = RecordSink(configuration, format: format, buffer: buffer)
        ring = Ring(bytes: configuration.ringBytes, lines: configuration.ringLines)
        sources = .allocate(capacity: Self.maxSources)
        polls = .allocate(capacity: Self.maxSources + 2)
        polls.initialize(repeating: pollfd(), count: Self.maxSources + 2)
        tzset()
    }

    deinit {
        sources.deinitialize(count: sourceCount)
        sources.deallocate()
        polls.deallocate()
    }

    /// Turns until told to quit.
    mutating func run() {
        while !isQuitting { turn() }
    }

    private mutating func turn() {
        var now = monotonicClock()
        let mayRead = out.mayRead(now)
        polls[0] = pollfd(fd: queue.commandsWaiting.reader, events: Int16(POLLIN), revents: 0)
        polls[1] = pollfd(fd: out.bytes.isWaiting ? out.bytes.pollDescriptor : -1, events: Int16(POLLOUT), revents: 0)
        if pace.napsNow, sourceCount > 0, mayRead {
            // Many small writes: a millisecond lets the pipe fill, and one read takes what a hundred would.
            poll(polls, 2, 1)
            polls[0].revents = 0
        }
        let first = firstOwed
        for i in 0..<sourceCount {
            // What a gone generation left in its pipe comes before its successor's lines.
            let isTurn = mayRead && (first.map { $0 == sources[i].generation } ?? true)
            polls[i + 2] = pollfd(fd: isTurn ? sources[i].descriptor : -1, events: Int16(POLLIN), revents: 0)
        }
        let polled = sourceCount
        if poll(polls, nfds_t(polled + 2), timeout(now)) < 0 { return }
        now = monotonicClock()
        var amount = 0
        var isFull = false
        if polled > 0 {
            out.stamp.advance(to: wallClock())
            var isAnyEnded = false
            // stderr behind stdout: what was written last is then what usually tells why.
            for i in 0..<polled {
                if polls[i + 2].revents != 0 {
                    let limit = readLimit
                    let count = readOnce(i, now)
                    amount += max(count, 0)
                    if count == limit { isFull = true }
                    let wasOwed = sources[i].owed > 0
                    if wasOwed { sources[i].owed = count > 0 ? max(0, sources[i].owed - count) : 0 }
                    if count == 0 || (wasOwed && sources[i].owed == 0) {
                        polls[i + 2].events = 0
                        isAnyEnded = true
                    }
                } else if sources[i].deadline <= now {
                    // By pointer: under ThreadSanitizer the compiler takes `sources[i]` for an access to all of self.
                    let source = sources + i
                    source.pointee.closeTraceback(&out)
                }
            }
            if isAnyEnded {
                // Backwards: a pipe that ends is replaced by the last one.
                for i in (0..<polled).reversed() where polls[i + 2].events == 0 { end(i) }
            }
        }
        pace.note(amount: amount, isFull: isFull, now: now)
        if polls[0].revents != 0 { obey(now) }
        write(now)
        if !followers.isEmpty { answerFollowers() }
    }

    /// Milliseconds until something is due, rounded up, or -1.
    private func timeout(_ now: Int64) -> Int32 {
        var due = out.stallDeadline ?? .max
        for i in 0..<sourceCount { due = min(due, sources[i].deadline) }
        if let retry = out.bytes.retryDue { due = min(due, retry) }
        for flush in flushes { due = min(due, flushDue(flush)) }
        if due == .max { return -1 }
        return Int32(clamping: max(0, (due - now + 999_999) / 1_000_000))
    }

    /// The oldest gone generation whose pipe still holds what there was no room for.
    var firstOwed: Int? {
        var first: Int?
        for i in 0..<sourceCount where sources[i].owed > 0 { first = min(first ?? .max, sources[i].generation) }
        return first
    }

    /// Bytes of the next read, so that what becomes of them has room even if every byte is a line of its own: a record
    /// has some 120 bytes beside its message.
    var readLimit: Int { min(Self.readBlock, max(512, (out.bytes.room - 7 * lineLimit) / 128)) }

    /// Reads one pipe once and makes records; returns what `fill` said.
    @discardableResult
    mutating func readOnce(_ i: Int, _ now: Int64) -> Int {
        let count = sources[i].fill(readLimit)
        if count > 0 {
            let source = sources + i
            source.pointee.split(into: &out, ring: &ring, now: now)
            noteLines(i)
            out.trim(now)
        }
        return count
    }

    /// Counts new lines and tells of a match.
    private mutating func noteLines(_ i: Int) {
        let counter = sources[i].lines
        sources[i].lines = 0
        if sources[i].stream == .stdout {
            queue.stdoutLines.add(counter, ordering: .relaxed)
        } else {
            queue.stderrLines.add(counter, ordering: .relaxed)
        }
        if sources[i].hasMatched {
            let generation = sources[i].generation
            for other in 0..<sourceCount where sources[other].generation == generation {
                sources[other].disarm()
                sources[other].hasMatched = false
            }
            queue.reply(.matched(generation: generation))
        }
    }

    /// Writes what waits of a pipe: a line without newline, an open traceback.
    mutating func settle(_ i: Int) {
        let source = sources + i
        source.pointee.settle(into: &out, ring: &ring)
        noteLines(i)
    }

    /// The end of a pipe: nothing of it waits any more.
    mutating func end(_ i: Int) {
        settle(i)
        sourceCount -= 1
        let ended = (sources + i).move()
        if i != sourceCount { (sources + i).moveInitialize(from: sources + sourceCount, count: 1) }
        _ = consume ended
    }

    /// Gives the sink what it takes, reports what was dropped, ends flushes.
    mutating func write(_ now: Int64) {
        var progress = out.bytes.write(now: now)
        if progress, out.bytes.dropped > recordedDropped {
            recordDropped()
            progress = out.bytes.write(now: now)
        }
        let dropped = out.bytes.dropped
        if dropped > reportedDropped {
            queue.dropped.store(dropped, ordering: .relaxed)
            queue.reply(.dropped(count: dropped - reportedDropped))
            reportedDropped = dropped
        }
        if !flushes.isEmpty {
            let isDone = out.bytes.pending == 0 && firstOwed == nil
            let left = flushes.filter { !isDone && flushDue($0) > now }
            for _ in left.count..<flushes.count { queue.reply(.flushed) }
            flushes = left
        }
    }

    /// A sink that takes nothing is not waited for until the deadline, unless it may block.
    private func flushDue(_ flush: (since: Int64, by: Int64)) -> Int64 {
        out.blocks ? flush.by : min(flush.by, max(flush.since, out.bytes.lastProgress) + Self.flushPatience)
    }

    private mutating func recordDropped() {
        let count = out.bytes.dropped - recordedDropped
        recordedDropped = out.bytes.dropped
        guard level <= .warning else { return }
        let record = OwnRecord(
            .warning, event: "log_dropped",
            message: "dropped \(count) log \(count == 1 ? "record" : "records") that the sink did not take",
            fields: [Field("count", .int(Int64(count)))])
        out.own(record, time: wallClock())
    }

    private mutating func answerFollowers() {
        let newest = ring.sequence
        let ready = followers.filter { $0.after < newest }
        guard !ready.isEmpty else { return }
        followers.removeAll { $0.after < newest }
        for ask in ready { queue.reply(.ring(id: ask.id, lines: ring.lines(first: ask.last, after: ask.after))) }
    }
}

/// Whether small reads follow each other so fast that it pays to let the pipe fill.
struct Pace {
    private var naps = false
    private var wasFull = false
    private var quick = 0
    private var last: Int64 = 0

    /// Whether to wait for the pipe to fill; not while it still holds what one read could not take.
    var napsNow: Bool { naps && !wasFull }

    /// Notes one turn: bytes read, whether a read was as large as it could be.
    mutating func note(amount: Int, isFull: Bool, now: Int64) {
        if naps {
            if amount < 4096 { naps = false }
        } else if amount > 0, amount < 16 << 10, now - last < 200_000, !isFull {
            quick += 1
            if quick >= 8 { naps = true }
        } else {
            quick = 0
        }
        wasFull = isFull
        last = now
    }
}
