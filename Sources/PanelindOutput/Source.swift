//  Source.swift
//  One pipe of a worker: bytes to lines, lines to records, one traceback to one record.
//  Lines are processed where they were read; only a rest moves. Read after RecordSink.swift and Tracebacks.swift.

import Glibc

/// One pipe of one generation, with what was read and not yet ended by a newline.
struct Source: ~Copyable {
    let generation: Int
    let stream: Stream
    /// Ours, non-blocking; closed with this value.
    let descriptor: Int32
    /// Lines since this was last set to zero.
    var lines = 0
    /// Its generation is gone, and so many bytes are still to be read; 0 for a living one.
    var owed = 0
    /// Its expression has matched since the flag was last cleared.
    var hasMatched = false
    /// When an open traceback is written as it is (monotonic); `.max` where none is open.
    private(set) var deadline = Int64.max

    private let origin: LineOrigin
    private let limit: Int
    private let block: Int
    private let buffer: MutableBytes
    private let capacity: Int
    /// What was read and not processed; before `scanned` there is no newline.
    private var start = 0
    private var end = 0
    private var scanned = 0
    /// The beginning of the current line has been written already, with this severity.
    private var isCut = false
    private var cutSeverity = Severity.info
    private var expression: UnsafeMutablePointer<regex_t>?

    private var phase = TracebackPhase.none
    private var held: MutableBytes?
    private var heldCount = 0
    /// Lines among them: a first one may be empty.
    private var heldLines = 0
    /// Its beginning has been written already, as a part.
    private var isHeldCut = false

    init(
        generation: Int, stream: Stream, descriptor: Int32, expression: UnsafeMutablePointer<regex_t>?,
        limit: Int, block: Int, format: RecordSink.Format
    ) {
        self.generation = generation
        self.stream = stream
        self.descriptor = descriptor
        self.expression = expression
        self.limit = limit
        self.block = block
        origin = LineOrigin(generation: generation, stream: stream, format: format)
        capacity = limit + block
        buffer = .allocate(capacity: capacity)
    }

    deinit {
        close(descriptor)
        freeExpression(expression)
        buffer.deallocate()
        held?.deallocate()
    }

    /// Stops looking for the expression.
    mutating func disarm() {
        freeExpression(expression)
        expression = nil
    }

    /// Bytes in the pipe now (FIONREAD of ioctl_tty(2)); 0 where that cannot be asked.
    func waiting() -> Int {
        var count: Int32 = 0
        return ioctl(descriptor, UInt(FIONREAD), &count) == 0 ? Int(count) : 0
    }

    /// Reads once, at most so many bytes.
    ///
    /// Positive: so many bytes; 0: the end; negative: nothing there now.
    mutating func fill(_ most: Int) -> Int {
        if capacity - end < block, start > 0 {
            buffer.update(from: buffer + start, count: end - start)
            end -= start
            scanned -= start
            start = 0
        }
        while true {
            let count = read(descriptor, buffer + end, min(most, block, capacity - end))
            if count > 0 {
                end += count
                return count
            }
            if count == 0 { return 0 }
            if errno == EINTR { continue }
            // Any other error of a pipe is its end.
            return errno == EAGAIN ? -1 : 0
        }
    }

    /// Makes records of all whole lines, and of what is too long to wait.
    mutating func split(into sink: inout RecordSink, ring: inout Ring, now: Int64) {
        while scanned < end, let hit = memchr(buffer + scanned, 10, end - scanned) {
            let at = hit.assumingMemoryBound(to: UInt8.self) - buffer
            take(start, at, &sink, &ring)
            start = at + 1
            scanned = start
        }
        scanned = end
        // One byte beyond the limit may still be the CR of a CRLF.
        while end - start > limit + 1 { start = cut(start, &sink, &ring) }
        if start == end {
            start = 0
            end = 0
            scanned = 0
        }
        if phase != .none {
            deadline = now + (phase == .ended || phase == .blank ? 50_000_000 : 1_000_000_000)
        }
    }

    /// Writes what waits: the rest as a line, an open traceback as it is.
    mutating func settle(into sink: inout RecordSink, ring: inout Ring) {
        if start < end || isCut { take(start, end, &sink, &ring) }
        start = 0
        end = 0
        scanned = 0
        closeTraceback(&sink)
    }

    /// Writes an open traceback as it is.
    mutating func closeTraceback(_ sink: inout RecordSink) {
        guard phase != .none else { return }
        let blank = phase == .blank
        phase = .none
        deadline = .max
        if let held, heldLines > 0 || isHeldCut { sink.line(held, heldCount, .error, origin, partial: false) }
        heldCount = 0
        heldLines = 0
        isHeldCut = false
        // The blank line behind the error was not part of a chain after all.
        if blank { sink.line(buffer, 0, .info, origin, partial: false) }
    }

    /// Writes the first part of a line that is longer than the limit; returns where its rest begins.
    private mutating func cut(_ from: Int, _ sink: inout RecordSink, _ ring: inout Ring) -> Int {
        let length = utf8Cut(buffer + from, limit)
        if !isCut {
            closeTraceback(&sink)
            cutSeverity = linePrefix(buffer + from, length).severity
        }
        var begin = from
        if !isCut { begin += linePrefix(buffer + from, length).drop }
        isCut = true
        ring.append(buffer + from, length, generation: generation, stream: stream, time: sink.stamp.nanoseconds)
        look(buffer + from, length)
        sink.line(buffer + begin, from + length - begin, cutSeverity, origin, partial: true)
        return from + length
    }

    /// One whole line, or the last part of one.
    @inline(__always)
    private mutating func take(_ from: Int, _ to: Int, _ sink: inout RecordSink, _ ring: inout Ring) {
        var from = from
        var to = to
        if to > from, buffer[to - 1] == 0x0D { to -= 1 }
        while to - from > limit { from = cut(from, &sink, &ring) }
        let p = Bytes(buffer + from)
        let count = to - from
        lines += 1
        ring.append(p, count, generation: generation, stream: stream, time: sink.stamp.nanoseconds)
        if expression != nil { look(p, count) }
        if isCut {
            isCut = false
            sink.line(p, count, cutSeverity, origin, partial: false)
            return
        }
        if case .text = sink.format {
            sink.line(p, count, .info, origin, partial: false)
            return
        }
        if phase != .none, continues(p, count, &sink) { return }
        let begins = tracebackBegins(p, count)
        if begins != .none {
            phase = begins
            hold(p, count, &sink)
            return
        }
        if count > 1, p[count - 1] == 0x7D || p[count - 1] <= 0x20, isJSONObject(p, count) {
            sink.pass(p, count, origin)
            return
        }
        let prefix = linePrefix(p, count)
        sink.line(p + prefix.drop, count - prefix.drop, prefix.severity, origin, partial: false)
    }

    /// Whether the open traceback took this line; else it has been written.
    private mutating func continues(_ p: Bytes, _ count: Int, _ sink: inout RecordSink) -> Bool {
        let next = tracebackContinues(phase, p, count)
        if next == .none {
            closeTraceback(&sink)
            return false
        }
        let wasBlank = phase == .blank
        phase = next
        // A blank is kept back until it is known to stand before a chain.
        if next == .blank { return true }
        if wasBlank { hold(p, 0, &sink) }
        hold(p, count, &sink)
        return true
    }

    /// Adds a line to the open traceback; one that would grow beyond the limit is written in parts.
    private mutating func hold(_ p: Bytes, _ count: Int, _ sink: inout RecordSink) {
        let block = held ?? .allocate(capacity: limit + 1)
        held = block
        if heldLines > 0, heldCount + 1 + count > limit {
            sink.line(block, heldCount, .error, origin, partial: true)
            heldCount = 0
            heldLines = 0
            isHeldCut = true
        } else if heldLines > 0 {
            block[heldCount] = 10
            heldCount += 1
        }
        (block + heldCount).update(from: p, count: count)
        heldCount += count
        heldLines += 1
    }

    /// Asks the expression (regexec with REG_STARTEND: no terminating NUL needed).
    private mutating func look(_ p: Bytes, _ count: Int) {
        guard let expression else { return }
        var range = regmatch_t(rm_so: 0, rm_eo: regoff_t(count))
        let text = UnsafeRawPointer(p).assumingMemoryBound(to: CChar.self)
        if regexec(expression, text, 1, &range, REG_STARTEND) == 0 {
            hasMatched = true
            disarm()
        }
    }
}

/// Frees a compiled expression.
func freeExpression(_ expression: UnsafeMutablePointer<regex_t>?) {
    guard let expression else { return }
    regfree(expression)
    expression.deallocate()
}

/// Compiles a POSIX extended expression (regcomp(3)), or says why not: `cannot use "(": Unmatched ( or \(`.
func compileExpression(_ text: String) -> (UnsafeMutablePointer<regex_t>?, String?) {
    let expression = UnsafeMutablePointer<regex_t>.allocate(capacity: 1)
    expression.initialize(to: regex_t())
    let code = regcomp(expression, text, REG_EXTENDED)
    if code == 0 { return (expression, nil) }
    var message = [CChar](repeating: 0, count: 256)
    regerror(code, expression, &message, message.count)
    expression.deallocate()
    let bytes = message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    return (nil, "cannot use \"\(text)\": \(String(decoding: bytes, as: UTF8.self))")
}
