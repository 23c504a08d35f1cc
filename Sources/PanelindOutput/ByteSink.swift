//  ByteSink.swift
//  The bounded buffer before the sink, and how the sink is written so that it never blocks us for ever.
//  Back-pressure first; only a sink that takes nothing loses the oldest whole records. Read after Stamp.swift.

import Glibc

/// The memory of the bounded buffer, made before the thread that uses it.
struct LogBuffer: Sendable {
    private let address: UInt
    let size: Int
    /// Beyond it the pipes are not read.
    let soft: Int

    /// Maps it; nil where there is no memory. Untouched pages cost nothing, so the reserve is generous.
    init?(_ configuration: OutputConfiguration) {
        // A third of the bound is left for one read, and for what has been written and not yet moved away.
        soft = max(configuration.buffer, 64 << 10) / 3 * 2
        let limit = max(configuration.lineLimit, 1024)
        // A read that begins just below `soft` may escape to six times its size; an exit's last read is a pipe more.
        let reserve = 8 * (Engine.readBlock + limit) + (4 << 20)
        size = (soft + reserve + 4095) & ~4095
        let block = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let block, block != MAP_FAILED else { return nil }
        address = UInt(bitPattern: block)
    }

    var base: MutableBytes? { MutableBytes(bitPattern: address) }

    /// Gives it back.
    func release() { munmap(base, size) }
}

/// Bytes on their way to a descriptor.
struct ByteSink: ~Copyable {
    /// How a descriptor is written.
    enum Way {
        /// A file or /dev/null: a write ends when it ends.
        case plain
        /// Our own non-blocking description of the same pipe or terminal.
        case nonBlocking
        /// MSG_DONTWAIT.
        case socket
        /// A pipe or terminal that cannot be opened again: poll, then at most PIPE_BUF, which then does not block.
        case cautious
        /// Each record is an entry of the journal.
        case entries(JournalSocket)
    }

    private let descriptor: Int32
    private let ownsDescriptor: Bool
    let way: Way
    private let base: MutableBytes
    /// Beyond `soft` the pipes are not read; up to `hard` there is room for what must not wait.
    let soft: Int
    private let hard: Int
    private var head = 0
    private var tail = 0
    /// The record at `head` was begun: its rest must go out, or a newline in its place.
    private var isTorn = false
    /// A record was begun before an error: a newline must come before the next.
    private var owesNewline = false
    private var highWater = 0
    /// Own records in the buffer (offset, length): they are kept when lines are dropped.
    private var kept: [(at: Int, length: Int)] = []
    private static let maxKept = 256

    /// The last write said EAGAIN: poll for POLLOUT.
    private(set) var isWaiting = false
    /// When the sink last took bytes or had none to take (monotonic).
    private(set) var lastProgress: Int64 = 0
    /// After an error nothing is tried until then (monotonic), and records are counted as dropped.
    private var retryAt: Int64 = 0
    private(set) var dropped = 0

    init(descriptor: Int32, buffer: LogBuffer, journal: JournalSocket? = nil) {
        var status = stat()
        var way = Way.plain
        var own: Int32 = -1
        if let journal {
            way = .entries(journal)
        } else if fstat(descriptor, &status) == 0 {
            switch status.st_mode & S_IFMT {
            case S_IFSOCK: way = .socket
            case S_IFIFO: way = .cautious
            case S_IFCHR: way = isatty(descriptor) == 1 ? .cautious : .plain
            default: way = .plain
            }
        }
        if case .cautious = way {
            // A new description of the same pipe: O_NONBLOCK there is ours alone, not the shell's.
            own = open("/proc/self/fd/\(descriptor)", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
            if own >= 0 { way = .nonBlocking }
        }
        self.way = way
        self.descriptor = own >= 0 ? own : descriptor
        ownsDescriptor = own >= 0
        soft = buffer.soft
        guard let base = buffer.base else { fatalError("a mapping is never at 0") }
        self.base = base
        hard = buffer.size
        kept.reserveCapacity(Self.maxKept)
    }

    deinit {
        munmap(base, hard)
        if ownsDescriptor { close(descriptor) }
    }

    /// The descriptor to poll for POLLOUT.
    var pollDescriptor: Int32 { if case .entries(let journal) = way { journal.descriptor } else { descriptor } }
    /// When a journal that is gone is looked for again, where something waits for it.
    var retryDue: Int64? { if case .entries = way, pending > 0, isWaiting, retryAt > 0 { retryAt } else { nil } }
    /// Bytes that the sink has not taken.
    var pending: Int { tail - head }
    /// Bytes that fit beyond all bounds but the last.
    var room: Int { hard - pending }

    /// Room for so many bytes, or nil where even the reserve is used up; `commit` says how many were written.
    @inline(__always)
    mutating func reserve(_ count: Int) -> MutableBytes? {
        // Early too: pages beyond the bound stay untouched, and at most eight bytes move for one that was freed.
        if tail > soft, head > soft / 8 { compact() }
        if hard - tail < count {
            compact()
            if hard - tail < count { return nil }
        }
        return base + tail
    }

    /// Ends a record of so many bytes at the place that `reserve` gave.
    @inline(__always)
    mutating func commit(_ end: MutableBytes) { tail = end - base }

    /// The same, for a record that is dropped last.
    mutating func commitKept(_ end: MutableBytes) {
        let at = tail
        tail = end - base
        if kept.count < Self.maxKept { kept.append((at, tail - at)) }
    }

    /// Takes everything out, as if the sink had: for `LineJudging`.
    mutating func takeAll() -> [UInt8] {
        defer { empty() }
        return Array(UnsafeBufferPointer(start: base + head, count: pending))
    }

    /// Counts records that could not even be buffered.
    mutating func countDropped(_ count: Int) { dropped += count }

    private mutating func compact() {
        guard head > 0 else { return }
        base.update(from: base + head, count: tail - head)
        for i in kept.indices { kept[i].at -= head }
        tail -= head
        head = 0
    }

    /// Drops the oldest whole records until at least so many bytes are free; own records and a torn one stay.
    mutating func dropOldest(_ count: Int) {
        let goal = min(tail, head + max(count, soft / 8))
        guard goal > head, let newline = memchr(base + goal - 1, 10, tail - goal + 1) else { return }
        let cut = newline.assumingMemoryBound(to: UInt8.self) - base + 1
        var lines = newlines(head, cut)
        var at = cut
        var keptBytes = 0
        for i in kept.indices where kept[i].at < cut { keptBytes += kept[i].length }
        // Where own records alone fill the buffer, the oldest of them go too.
        let keepsOwn = keptBytes < soft / 2
        for i in kept.indices.reversed() where kept[i].at < cut {
            guard keepsOwn else { continue }
            lines -= newlines(kept[i].at, kept[i].at + kept[i].length)
            at -= kept[i].length
            memmove(base + at, base + kept[i].at, kept[i].length)
            kept[i].at = at
        }
        if !keepsOwn { kept.removeAll { $0.at < cut } }
        if isTorn, let newline = memchr(base + head, 10, cut - head) {
            // Its beginning is in the sink already: the rest follows, so that every line there is whole.
            let length = newline.assumingMemoryBound(to: UInt8.self) - (base + head) + 1
            lines -= 1
            at -= length
            memmove(base + at, base + head, length)
        }
        head = at
        dropped += lines
    }

    private func newlines(_ from: Int, _ to: Int) -> Int {
        var count = 0
        var at = from
        while at < to, let hit = memchr(base + at, 10, to - at) {
            count += 1
            at = hit.assumingMemoryBound(to: UInt8.self) - base + 1
        }
        return count
    }

    /// Writes as much as the sink takes now; returns whether it took anything.
    @discardableResult
    mutating func write(now: Int64) -> Bool {
        if head == tail { return false }
        if case .entries(let journal) = way { return write(to: journal, now) }
        if now < retryAt {
            discard()
            return false
        }
        if !isWaiting, pending > highWater { highWater = pending }
        var progress = false
        if owesNewline, Glibc.write(descriptor, "\n", 1) == 1 { owesNewline = false }
        while head < tail {
            var count = tail - head
            let written: Int
            switch way {
            case .plain, .nonBlocking, .entries:
                written = Glibc.write(descriptor, base + head, count)
            case .socket:
                written = send(descriptor, base + head, count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            case .cautious:
                var ask = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                if poll(&ask, 1, 0) <= 0 {
                    pause(now, progress)
                    return progress
                }
                count = min(count, 4096)
                written = Glibc.write(descriptor, base + head, count)
            }
            if written > 0 {
                head += written
                progress = true
                continue
            }
            let error = errno
            if written < 0, error == EINTR { continue }
            if written < 0, error == EAGAIN {
                pause(now, progress)
                return progress
            }
            fail(now)
            return progress
        }
        isWaiting = false
        isTorn = false
        lastProgress = now
        empty()
        return progress
    }

    /// Entry by entry. While the journal is gone they wait, within the bound: it comes back after its restart.
    private mutating func write(to journal: JournalSocket, _ now: Int64) -> Bool {
        if now < retryAt { return false }
        retryAt = 0
        if !isWaiting, pending > highWater { highWater = pending }
        var progress = false
        while head < tail, let hit = memchr(base + head, 10, tail - head) {
            let length = hit.assumingMemoryBound(to: UInt8.self) - (base + head)
            switch journal.send(base + head, length) {
            case .taken: progress = true
            case .refused: dropped += 1
            case .gone:
                retryAt = now + 1_000_000_000
                fallthrough
            case .full:
                pause(now, progress)
                return progress
            }
            head += length + 1
        }
        isWaiting = false
        lastProgress = now
        empty()
        return progress
    }

    private mutating func pause(_ now: Int64, _ progress: Bool) {
        if progress {
            isTorn = base[head - 1] != 10
            forgetWritten()
        }
        if progress || !isWaiting { lastProgress = now }
        isWaiting = true
    }

    private mutating func forgetWritten() {
        guard let first = kept.first, first.at < head else { return }
        kept.removeAll { $0.at < head }
    }

    private mutating func empty() {
        head = 0
        tail = 0
        if !kept.isEmpty { kept.removeAll(keepingCapacity: true) }
        // A long stall has touched many pages: give them back once it is over.
        if highWater > 2 << 20 {
            madvise(base, hard, Int32(MADV_DONTNEED))
            highWater = 0
        }
    }

    /// EPIPE, EBADF, ENOSPC, EIO…: nobody takes this; try again with later records.
    private mutating func fail(_ now: Int64) {
        if head > 0 ? base[head - 1] != 10 : isTorn { owesNewline = true }
        retryAt = now + 1_000_000_000
        isWaiting = false
        discard()
        lastProgress = now
    }

    private mutating func discard() {
        dropped += newlines(head, tail)
        isTorn = false
        empty()
    }
}
