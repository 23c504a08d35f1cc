//  ThreadTests.swift
//  The thread against real pipes: exits, order, sinks that stall, close or fill, flushes, matches, the ring.
//  Read after LinesTests.swift.

import Glibc
import PanelindCore
import Testing

@testable import PanelindOutput

private func exitRecord(_ cause: String = "exit") -> OwnRecord {
    OwnRecord(.error, event: "worker_exited", message: "g1 ended", fields: [Field("cause", .string(cause))])
}

private func isExit(_ reply: OutputReply) -> Bool {
    if case .exitRecorded = reply { true } else { false }
}

@Suite("thread")
struct ThreadTests {
    @Test("20,000 lines and a death: all arrive in order, the last with no newline, before the exit's record")
    func burstThenDeath() throws {
        let rig = try Rig()
        let worker = rig.worker(7)
        worker.write((1..<20_000).map { "line \($0)\n" }.joined() + "line 20000")
        rig.output.logExit(exitRecord(), generation: 7, refinesCause: true)
        let reply = try #require(rig.reply(isExit))
        let wanted = (19_951...20_000).map { "line \($0)" }
        #expect(reply == .exitRecorded(generation: 7, cause: "exit", message: "g1 ended: line 20000", tail: wanted))
        // The pipe is still open here, as a descendant would hold it: nothing waited for it.
        let objects = try rig.flushedObjects()
        #expect(objects.count == 20_001)
        #expect(objects.dropLast().compactMap { $0["message"] as? String } == (1...20_000).map { "line \($0)" })
        #expect(objects.last?["last_output"] as? [String] == wanted)
        #expect(rig.output.counters == OutputCounters(stdoutLines: 20_000, stderrLines: 0, dropped: 0))
        rig.output.detach(generation: 7)
        worker.end()
    }

    @Test("an exit's record names a taken port only where asked to")
    func portInUse() throws {
        let rig = try Rig()
        let worker = rig.worker(1, .stderr)
        worker.write("starting\nERROR: [Errno 98] Address already in use\nbye\n")
        rig.output.logExit(exitRecord("requested"), generation: 1, refinesCause: false)
        rig.output.logExit(exitRecord(), generation: 1, refinesCause: true)
        var causes: [String] = []
        for _ in 0..<2 {
            if case .exitRecorded(_, let cause, _, _) = try #require(rig.reply(isExit)) { causes.append(cause) }
        }
        #expect(causes == ["requested", "port_in_use"])
        let last = try #require(try rig.flushedObjects().last)
        #expect(last["cause"] as? String == "port_in_use")
        #expect((last["message"] as? String ?? "").contains("Address already in use"))
        worker.end()
    }

    @Test("an exit below the level is answered and not written; one without output has an empty tail")
    func quietExit() throws {
        let rig = try Rig { $0.level = .critical }
        rig.output.logExit(exitRecord(), generation: 9, refinesCause: true)
        #expect(rig.reply(isExit) == .exitRecorded(generation: 9, cause: "exit", message: "g1 ended", tail: []))
        #expect(try rig.flushedLines().isEmpty)
    }

    @Test("a descendant that writes without end delays neither the exit's record nor a flush")
    func endlessDescendant() throws {
        let rig = try Rig()
        let worker = rig.worker()
        let descriptor = dup(worker.descriptor)
        let writer = Thread {
            let block = Array((String(repeating: "x", count: 1023) + "\n").utf8)
            while Glibc.write(descriptor, block, block.count) > 0 {}
            close(descriptor)
        }
        rig.output.logExit(exitRecord(), generation: 1, refinesCause: true)
        #expect(rig.reply(isExit) != nil)
        rig.output.detach(generation: 1)
        // Its next write fails: nobody reads any more.
        writer.join()
        worker.end()
        #expect(try rig.flushedLines().contains { $0.contains("worker_exited") })
    }

    @Test("each stream keeps its order however the two are interleaved, and the tail has both")
    func interleaved() throws {
        let rig = try Rig()
        let out = rig.worker(2, .stdout)
        let err = rig.worker(2, .stderr)
        for i in 0..<500 {
            out.write("o\(i)\n")
            err.write("e\(i)\n")
        }
        rig.output.logExit(exitRecord(), generation: 2, refinesCause: false)
        guard case .exitRecorded(_, _, _, let tail) = try #require(rig.reply(isExit)) else { return }
        #expect(tail.count == 50)
        let objects = try rig.flushedObjects()
        for (stream, letter) in [("stdout", "o"), ("stderr", "e")] {
            let messages = objects.filter { $0["stream"] as? String == stream }.compactMap { $0["message"] as? String }
            #expect(messages == (0..<500).map { "\(letter)\($0)" })
        }
        #expect(rig.output.counters.stderrLines == 500)
        out.end()
        err.end()
    }

    @Test("a busy stream does not starve a quiet one")
    func fairness() throws {
        let rig = try Rig(pipe: true)
        let busy = rig.worker(1, .stdout)
        let quiet = rig.worker(1, .stderr, matching: "^quiet$")
        let descriptor = dup(busy.descriptor)
        let writer = Thread {
            let block = Array(String(repeating: "busy line of a worker\n", count: 2000).utf8)
            while Glibc.write(descriptor, block, block.count) > 0 {}
            close(descriptor)
        }
        quiet.write("quiet\n")
        #expect(rig.reply { $0 == .matched(generation: 1) } == .matched(generation: 1))
        rig.output.detach(generation: 1)
        rig.output.lines(id: 1, last: 0)
        _ = rig.reply { if case .ring = $0 { true } else { false } }
        writer.join()
        busy.end()
        quiet.end()
    }

    @Test("a sink that takes nothing costs the oldest lines, counted and announced, never the worker's progress")
    func stalledSinkDrops() throws {
        let rig = try Rig(pipe: true) {
            $0.buffer = 256 << 10
            $0.stallLimit = .milliseconds(100)
        }
        let worker = rig.worker()
        rig.output.log(OwnRecord(.info, event: "worker_started", message: "g1 started"))
        let total = 60_000
        // Returns although nobody reads the sink: that is the assertion.
        worker.write((0..<total).map { "line \($0)\n" }.joined())
        worker.end()
        guard case .dropped(let first)? = rig.reply(reading: false, { if case .dropped = $0 { true } else { false } })
        else {
            Issue.record("nothing was dropped")
            return
        }
        #expect(first > 0)
        var objects = try rig.flushedObjects()
        // What the pipe still held when the sink was read again comes with a later flush.
        for _ in 0..<50 where !objects.contains(where: { $0["message"] as? String == "line \(total - 1)" }) {
            objects = try rig.flushedObjects()
        }
        let numbers = objects.compactMap { ($0["message"] as? String).flatMap { Int($0.dropFirst(5)) } }
        #expect(numbers == numbers.sorted())
        #expect(numbers.last == total - 1)
        #expect(numbers.count + rig.output.counters.dropped == total)
        let announced = objects.filter { $0["event"] as? String == "log_dropped" }
        #expect(announced.reduce(0) { $0 + ($1["count"] as? Int ?? 0) } == rig.output.counters.dropped)
        #expect(announced.count >= 1)
        #expect(objects.contains { $0["event"] as? String == "worker_started" })
    }

    @Test("with block a stalled sink stops the worker and nothing is lost")
    func stalledSinkBlocks() throws {
        let rig = try Rig(pipe: true) {
            $0.buffer = 64 << 10
            $0.stallLimit = .milliseconds(20)
            $0.overflow = .block
        }
        let worker = rig.worker()
        _ = fcntl(worker.descriptor, F_SETFL, O_NONBLOCK)
        var written = 0
        let line = Array("0123456789012345678901234567890123456789012345678\n".utf8)
        var isBlocked = false
        while !isBlocked {
            if Glibc.write(worker.descriptor, line, line.count) == line.count {
                written += 1
            } else {
                // Full: ten times the stall limit frees nothing.
                var ask = pollfd(fd: worker.descriptor, events: Int16(POLLOUT), revents: 0)
                isBlocked = poll(&ask, 1, 200) == 0
            }
        }
        worker.end()
        let objects = try rig.flushedObjects()
        #expect(objects.count == written)
        #expect(rig.output.counters.dropped == 0)
    }

    @Test("a sink that is slow but alive loses nothing")
    func slowReader() throws {
        let rig = try Rig(pipe: true) { $0.buffer = 64 << 10 }
        let worker = rig.worker()
        let descriptor = dup(worker.descriptor)
        worker.end()
        let total = 20_000
        let writer = Thread {
            let bytes = Array((0..<total).map { "line \($0)\n" }.joined().utf8)
            var at = 0
            while at < bytes.count {
                let count = bytes.withUnsafeBytes {
                    Glibc.write(descriptor, $0.baseAddress.map { $0 + at }, bytes.count - at)
                }
                if count <= 0 { break }
                at += count
            }
            close(descriptor)
        }
        let deadline = monotonicClock() + 20_000_000_000
        while rig.output.counters.stdoutLines < total, monotonicClock() < deadline {
            var ready = pollfd(fd: rig.sinkReader, events: Int16(POLLIN), revents: 0)
            poll(&ready, 1, 5)
            rig.readSink(atMost: 4096)
        }
        writer.join()
        let messages = try rig.flushedObjects().compactMap { $0["message"] as? String }
        #expect(messages == (0..<total).map { "line \($0)" })
    }

    @Test("a flush ends at its deadline although the sink takes nothing, and an exit is answered")
    func flushDeadline() throws {
        let rig = try Rig(pipe: true)
        let worker = rig.worker()
        worker.write(String(repeating: String(repeating: "x", count: 99) + "\n", count: 5000))
        rig.output.logExit(exitRecord(), generation: 1, refinesCause: false)
        #expect(rig.reply(reading: false, isExit) != nil)
        let begin = monotonicClock()
        rig.output.flush(by: Instant(nanoseconds: begin + 150_000_000))
        #expect(rig.reply(reading: false) { $0 == .flushed } == .flushed)
        #expect(monotonicClock() - begin >= 150_000_000)
        worker.end()
    }

    @Test("a sink whose reader is gone, that is closed or full costs lines and nothing else")
    func deadSinks() throws {
        let broken = makePipe()
        close(broken.reader)
        let full = open("/dev/full", O_WRONLY | O_CLOEXEC)
        // A descriptor opened read-only refuses writes with EBADF, as a closed one does, and no one else can reuse it.
        let unwritable = open("/dev/null", O_RDONLY | O_CLOEXEC)
        for sink in [broken.writer, full, unwritable] {
            let rig = try Rig(sink: sink)
            let worker = rig.worker()
            worker.write("a\nb\n")
            rig.output.logExit(exitRecord(), generation: 1, refinesCause: false)
            #expect(
                rig.reply(isExit) == .exitRecorded(generation: 1, cause: "exit", message: "g1 ended", tail: ["a", "b"]))
            rig.output.flush(by: Instant(nanoseconds: monotonicClock() + 5_000_000_000))
            #expect(rig.reply { $0 == .flushed } == .flushed)
            #expect(rig.output.counters.dropped == 3)
            worker.end()
        }
    }

    @Test("an inherited sink is never made non-blocking")
    func sinkFlags() throws {
        let ends = makePipe()
        let before = fcntl(ends.writer, F_GETFL)
        let rig = try Rig(sink: ends.writer)
        rig.output.log(OwnRecord(.info, event: "e", message: "m"))
        rig.output.flush(by: Instant(nanoseconds: monotonicClock() + 5_000_000_000))
        #expect(rig.reply { $0 == .flushed } == .flushed)
        #expect(fcntl(ends.writer, F_GETFL) == before)
        close(ends.reader)
    }

    @Test("a socket is a sink too")
    func socketSink() throws {
        var ends: [Int32] = [-1, -1]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let rig = try Rig(sink: ends[1])
        rig.output.log(OwnRecord(.info, event: "e", message: "m"))
        rig.output.flush(by: Instant(nanoseconds: monotonicClock() + 5_000_000_000))
        #expect(rig.reply { $0 == .flushed } == .flushed)
        var block = [UInt8](repeating: 0, count: 4096)
        let count = read(ends[0], &block, block.count)
        #expect(try parsed(String(decoding: block.prefix(max(count, 0)), as: UTF8.self))["event"] as? String == "e")
        close(ends[0])
    }

    @Test("the startup expression is answered once for a generation, whichever stream says it")
    func matching() throws {
        let rig = try Rig()
        let out = rig.worker(4, .stdout, matching: "listening on .*:[0-9]+")
        let err = rig.worker(4, .stderr, matching: "listening on .*:[0-9]+")
        err.write("not yet\nnow listening on 127.0.0.1:80!\nlistening on :1\n")
        out.write("listening on :2\n")
        out.end()
        err.end()
        #expect(rig.reply { $0 == .matched(generation: 4) } == .matched(generation: 4))
        _ = try rig.flushedLines()
        #expect(!rig.output.takeReplies().contains(.matched(generation: 4)))
        #expect(Output.expressionError("(") != nil)
        #expect(Output.expressionError("a|b") == nil)
    }

    @Test("the ring answers the last lines, and a follower as soon as there is one")
    func ring() throws {
        let rig = try Rig()
        let worker = rig.worker(5)
        rig.output.lines(id: 1, last: 10, waits: true)
        worker.write("one\n")
        guard case .ring(1, let first)? = rig.reply({ if case .ring(1, _) = $0 { true } else { false } }) else {
            Issue.record("no answer")
            return
        }
        #expect(first.map(\.text) == ["one"])
        #expect(first.first?.generation == 5)
        worker.write("two\nthree\n")
        _ = try rig.flushedLines()
        rig.output.lines(id: 2, last: 10, after: first.last?.sequence ?? 0)
        guard case .ring(_, let rest)? = rig.reply({ if case .ring(2, _) = $0 { true } else { false } }) else {
            Issue.record("no answer")
            return
        }
        #expect(rest.map(\.text) == ["two", "three"])
        worker.end()
    }

    @Test("records beyond the queue's bound cost the least severe, counted")
    func queueBound() throws {
        let queue = try OutputQueue()
        for i in 0..<OutputQueue.maxRecords {
            queue.send(.log(OwnRecord(i == 5 ? .debug : .info, event: "e", message: "\(i)"), time: 0))
        }
        queue.send(.log(OwnRecord(.error, event: "e", message: "important"), time: 0))
        queue.send(.log(OwnRecord(.debug, event: "e", message: "not"), time: 0))
        let (commands, dropped) = queue.takeCommands()
        #expect(dropped == 2)
        #expect(commands.count == OutputQueue.maxRecords)
        guard case .log(let last, _)? = commands.last else { return }
        #expect(last.message == "important")
    }
}

/// A plain thread that can be joined.
struct Thread {
    private let id: pthread_t

    init(_ body: @escaping @Sendable () -> Void) {
        final class Box: Sendable {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var id = pthread_t()
        pthread_create(
            &id, nil,
            { argument in
                var pipeSignal = sigset_t()
                sigemptyset(&pipeSignal)
                sigaddset(&pipeSignal, SIGPIPE)
                pthread_sigmask(SIG_BLOCK, &pipeSignal, nil)
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, Unmanaged.passRetained(Box(body)).toOpaque())
        self.id = id
    }

    func join() { pthread_join(id, nil) }
}
