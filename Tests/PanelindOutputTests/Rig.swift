//  Rig.swift
//  Real pipes around the real thread: a worker's end to write, a sink's end to read, replies awaited with a bound.
//  Read before the tests that use it.

import Foundation
import Glibc
import PanelindCore
import Testing

@testable import PanelindOutput

/// One output thread between a test's pipes.
final class Rig {
    let output: Output
    /// The sink's read end, or -1 where the sink is a file.
    let sinkReader: Int32
    private let sink: Int32
    private let isFile: Bool
    private(set) var received: [UInt8] = []
    private var replies: [OutputReply] = []

    /// A sink that is a pipe which nobody reads until the test does, or an unnamed file.
    init(
        _ format: OutputConfiguration.Format = .json, pipe usesPipe: Bool = false, sink given: Int32? = nil,
        adjust: (inout OutputConfiguration) -> Void = { _ in }
    ) throws {
        if let given {
            (sinkReader, sink, isFile) = (-1, given, false)
        } else if usesPipe {
            let ends = makePipe()
            _ = fcntl(ends.reader, F_SETFL, O_NONBLOCK)
            (sinkReader, sink, isFile) = (ends.reader, ends.writer, false)
        } else {
            var name = Array("/tmp/panelind-output-XXXXXX".utf8CString)
            sink = mkstemp(&name)
            unlink(name)
            (sinkReader, isFile) = (-1, true)
        }
        var configuration = OutputConfiguration(format: format)
        configuration.sink = sink
        adjust(&configuration)
        output = try Output(configuration)
        try output.start()
    }

    deinit {
        if sinkReader >= 0 { close(sinkReader) }
        output.stop()
        close(sink)
    }

    /// A pipe whose read end the thread owns; returns the worker's end.
    func worker(_ generation: Int = 1, _ stream: PanelindOutput.Stream = .stdout, matching: String? = nil) -> Worker {
        let ends = makePipe()
        output.attach(generation: generation, stream: stream, descriptor: ends.reader, matching: matching)
        return Worker(descriptor: ends.writer)
    }

    /// The first reply that fits, within 20 s; the sink's pipe is read meanwhile if `reading`.
    func reply(reading: Bool = true, _ fits: (OutputReply) -> Bool) -> OutputReply? {
        let deadline = monotonicClock() + 20_000_000_000
        while monotonicClock() < deadline {
            replies += output.takeReplies()
            if let index = replies.firstIndex(where: fits) { return replies.remove(at: index) }
            var polls = [
                pollfd(fd: output.wakeDescriptor, events: Int16(POLLIN), revents: 0),
                pollfd(fd: reading ? sinkReader : -1, events: Int16(POLLIN), revents: 0),
            ]
            poll(&polls, 2, 1000)
            if reading { readSink() }
        }
        return nil
    }

    /// Takes what is in the sink's pipe now.
    @discardableResult
    func readSink(atMost: Int = .max) -> Int {
        guard sinkReader >= 0 else { return 0 }
        var total = 0
        var block = [UInt8](repeating: 0, count: 65536)
        while total < atMost {
            let count = read(sinkReader, &block, min(block.count, atMost - total))
            if count <= 0 { break }
            received += block[..<count]
            total += count
        }
        return total
    }

    /// Brings everything to the sink and returns its lines.
    func flushedLines(within: Int64 = 20_000_000_000) throws -> [String] {
        output.flush(by: Instant(nanoseconds: monotonicClock() + within))
        _ = try #require(reply { $0 == .flushed })
        readSink()
        if isFile {
            var status = stat()
            fstat(sink, &status)
            received = [UInt8](repeating: 0, count: Int(status.st_size))
            #expect(pread(sink, &received, received.count, 0) == received.count)
        }
        var lines = String(decoding: received, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        if lines.last == "" { lines.removeLast() }
        return lines.map(String.init)
    }

    /// The same as parsed objects.
    func flushedObjects() throws -> [[String: Any]] { try flushedLines().map(parsed) }
}

/// The worker's end of a pipe.
struct Worker: ~Copyable {
    let descriptor: Int32

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Writes all of it, waiting as a worker would.
    func write(_ text: String) { write(Array(text.utf8)) }

    /// Writes all of it, waiting as a worker would.
    func write(_ bytes: [UInt8]) {
        var at = 0
        while at < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + at }, bytes.count - at)
            }
            if count <= 0 { break }
            at += count
        }
    }

    /// Dies: the write end closes.
    consuming func end() {}
}

/// A pipe whose ends no child inherits.
func makePipe() -> (reader: Int32, writer: Int32) {
    var ends: [Int32] = [-1, -1]
    #expect(pipe(&ends) == 0)
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
}

/// A line as JSON, by a parser that is not ours.
func parsed(_ line: String) throws -> [String: Any] {
    let object = try #require(
        try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "not a JSON object: \(line)")
    return object
}

/// Hands the bytes of a text to a function over pointers.
func onBytes<T>(_ bytes: [UInt8], _ body: (UnsafePointer<UInt8>, Int) -> T) -> T {
    let block = UnsafeMutablePointer<UInt8>.allocate(capacity: max(bytes.count, 1))
    defer { block.deallocate() }
    for (i, byte) in bytes.enumerated() { (block + i).initialize(to: byte) }
    return body(block, bytes.count)
}

/// The same for text.
func onBytes<T>(_ text: String, _ body: (UnsafePointer<UInt8>, Int) -> T) -> T { onBytes(Array(text.utf8), body) }
