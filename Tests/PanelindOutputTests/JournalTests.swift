//  JournalTests.swift
//  Entries of the journal, received by a socket of the test's own: fields, severities, lines kept together, a journal
//  that is behind, gone, or given an entry that is too large. Read after Rig.swift.

import Foundation
import Glibc
import PanelindCore
import Synchronization
import Testing

@testable import PanelindOutput

/// A socket where journald would listen.
private final class FakeJournal {
    let directory: String
    let path: String
    private(set) var descriptor: Int32 = -1

    init() {
        var name = Array("/tmp/panelind-journal-XXXXXX".utf8CString)
        directory = mkdtemp(&name).map { String(cString: $0) } ?? ""
        path = directory + "/socket"
        listen()
    }

    deinit {
        leave()
        rmdir(directory)
    }

    func listen() {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(bound == 0)
    }

    func leave() {
        close(descriptor)
        unlink(path)
    }

    /// The next entry, within 20 s; nil: none came.
    func next(within milliseconds: Int32 = 20_000) -> [String: [String]]? {
        var ask = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&ask, 1, milliseconds) == 1 else { return nil }
        var block = [UInt8](repeating: 0, count: 1 << 20)
        let count = recv(descriptor, &block, block.count, 0)
        return count < 0 ? nil : Self.fields(Array(block[..<count]))
    }

    /// As systemd.io/JOURNAL_NATIVE_PROTOCOL says.
    static func fields(_ bytes: [UInt8]) -> [String: [String]] {
        var fields: [String: [String]] = [:]
        var at = 0
        while at < bytes.count, let end = bytes[at...].firstIndex(where: { $0 == 0x3D || $0 == 0x0A }) {
            let name = String(decoding: bytes[at..<end], as: UTF8.self)
            var value = bytes[(end + 1)...]
            if bytes[end] == 0x3D {
                value = value.prefix { $0 != 0x0A }
            } else {
                var size = 0
                for i in (0..<8).reversed() { size = size << 8 | Int(value[value.startIndex + i]) }
                value = value.dropFirst(8).prefix(size)
            }
            #expect(value.endIndex < bytes.count && bytes[value.endIndex] == 0x0A)
            fields[name, default: []].append(String(decoding: value, as: UTF8.self))
            at = value.endIndex + 1
        }
        return fields
    }

    func rig(adjust: (inout OutputConfiguration) -> Void = { _ in }) throws -> Rig {
        try Rig(.journal) {
            $0.journalPath = self.path
            adjust(&$0)
        }
    }
}

@Suite("journal")
struct JournalTests {
    @Test("a line is an entry with its stream, generation and priority, and <N> is taken off")
    func lines() throws {
        let journal = FakeJournal()
        let rig = try journal.rig()
        let worker = rig.worker(3, .stderr)
        worker.write(
            "plain \u{10} text\n<4>careful\r\nERROR: bad\n{\"level\":\"warning\",\"a\":{\"severity\":\"error\"}}\n")
        let expected = [
            ("6", "plain \u{10} text"), ("4", "careful"), ("3", "ERROR: bad"),
            ("4", "{\"level\":\"warning\",\"a\":{\"severity\":\"error\"}}"),
        ]
        for (priority, message) in expected {
            let entry = try #require(journal.next())
            #expect(
                entry == [
                    "PRIORITY": [priority], "SYSLOG_IDENTIFIER": ["panelind"], "PANELIND_STREAM": ["stderr"],
                    "PANELIND_GENERATION": ["3"], "MESSAGE": [message],
                ])
        }
        worker.end()
    }

    @Test("a traceback is one entry with its lines, and bytes that are no text become U+FFFD")
    func together() throws {
        let journal = FakeJournal()
        let rig = try journal.rig()
        let worker = rig.worker()
        let traceback = "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: \u{E9}"
        worker.write(Array((traceback + " ").utf8) + [0xFF, 0x0A] + Array("next\n".utf8))
        let entry = try #require(journal.next())
        #expect(entry["MESSAGE"] == [traceback + " \u{FFFD}"])
        #expect(entry["PRIORITY"] == ["3"])
        #expect(journal.next()?["MESSAGE"] == ["next"])
        worker.end()
    }

    @Test("a line over the limit is parts, each but the last marked")
    func parts() throws {
        let journal = FakeJournal()
        let rig = try journal.rig { $0.lineLimit = 1024 }
        let worker = rig.worker()
        worker.write(String(repeating: "x", count: 2500) + "\n")
        let entries = try (0..<3).map { _ in try #require(journal.next()) }
        #expect(entries.map { $0["PANELIND_PARTIAL"] } == [["1"], ["1"], nil])
        #expect(entries.map { $0["MESSAGE"]?.first?.count } == [1024, 1024, 452])
        worker.end()
    }

    @Test("a record of panelind's own has its event and a field for each of its own")
    func own() throws {
        let journal = FakeJournal()
        let rig = try journal.rig()
        rig.output.log(
            OwnRecord(
                .critical, event: "worker_exited", message: "two\nlines",
                fields: [
                    Field("generation", .int(2)), Field("exit_code", .null), Field("core_dumped", .bool(false)),
                    Field("pids", .ints([7, 8])), Field("last_output", .strings(["a", "b"])),
                    Field("httpRequest", .object([Field("remoteIp", .string("::1"))])),
                    Field("logging.googleapis.com/trace", .string("t")), Field("uptime_seconds", .double(1.5)),
                ]))
        #expect(
            try #require(journal.next()) == [
                "PRIORITY": ["2"], "SYSLOG_IDENTIFIER": ["panelind"], "MESSAGE": ["two\nlines"],
                "PANELIND_EVENT": ["worker_exited"], "PANELIND_GENERATION": ["2"], "PANELIND_CORE_DUMPED": ["false"],
                "PANELIND_PIDS": ["7", "8"], "PANELIND_LAST_OUTPUT": ["a\nb"],
                "PANELIND_HTTP_REQUEST_REMOTE_IP": ["::1"], "PANELIND_LOGGING_GOOGLEAPIS_COM_TRACE": ["t"],
                "PANELIND_UPTIME_SECONDS": ["1.5"],
            ])
    }

    @Test("a journal that is behind is waited for, in order, and nothing is lost")
    func behind() throws {
        let journal = FakeJournal()
        let rig = try journal.rig()
        let worker = rig.worker()
        worker.write((1...2000).map { "line \($0)\n" }.joined())
        let messages = try (0..<2000).map { _ in try #require(journal.next()?["MESSAGE"]?.first) }
        #expect(messages == (1...2000).map { "line \($0)" })
        #expect(rig.output.counters.dropped == 0)
        worker.end()
    }

    @Test("a journal that takes nothing costs the oldest entries, counted; the worker never waits for it")
    func stuck() throws {
        let journal = FakeJournal()
        let rig = try journal.rig {
            $0.buffer = 64 << 10
            $0.stallLimit = .milliseconds(50)
        }
        let worker = rig.worker()
        // More than pipe and buffer hold: it goes through only because the oldest are given up.
        let line = String(repeating: "y", count: 1000) + "\n"
        for _ in 0..<4000 { worker.write(line) }
        worker.write("last\n")
        var messages: [String] = []
        var told: [String: [String]]?
        while messages.last != "last" || told == nil, let entry = journal.next() {
            if entry["PANELIND_EVENT"] == ["log_dropped"] { told = entry }
            messages += entry["PANELIND_EVENT"] == nil ? entry["MESSAGE"] ?? [] : []
        }
        #expect(messages.last == "last")
        let count = try #require(told?["PANELIND_COUNT"]?.first.flatMap { Int($0) })
        #expect(count > 0 && count <= 4001 - messages.count)
        #expect(rig.output.counters.dropped == 4001 - messages.count)
        worker.end()
    }

    @Test("while the journal is gone entries wait, and go to the one that comes")
    func gone() throws {
        let journal = FakeJournal()
        let rig = try journal.rig()
        let worker = rig.worker()
        worker.write("one\n")
        #expect(journal.next()?["MESSAGE"] == ["one"])
        journal.leave()
        worker.write("two\n")
        // Its first try has failed once a flush has waited for the journal in vain.
        rig.output.flush(by: Instant(nanoseconds: monotonicClock() + 100_000_000))
        #expect(rig.reply { $0 == .flushed } != nil)
        journal.listen()
        worker.write("three\n")
        #expect(journal.next()?["MESSAGE"] == ["two"])
        #expect(journal.next()?["MESSAGE"] == ["three"])
        worker.end()
    }

    @Test("an entry that no datagram holds goes the other way, whole; without one it is dropped and counted")
    func large() throws {
        let journal = FakeJournal()
        let taken = Taken()
        let text = String(repeating: "long\n", count: 400_000)
        for sender in [nil, { @Sendable in taken.take($0) }] as [OutputConfiguration.LargeEntrySender?] {
            let rig = try journal.rig { $0.largeEntrySender = sender }
            rig.output.log(OwnRecord(.info, event: "big", message: text, fields: [Field("n", .int(1))]))
            rig.output.flush(by: Instant(nanoseconds: monotonicClock() + 20_000_000_000))
            #expect(rig.reply { $0 == .flushed } != nil)
            #expect(rig.output.counters.dropped == (sender == nil ? 1 : 0))
        }
        let fields = taken.fields.withLock { $0 }
        #expect(fields.count == 5 && fields.filter { $0.count < 100 }.count == 4)
        #expect(fields.first == "PRIORITY=6" && fields.last == "PANELIND_N=1")
        let message = try #require(fields.first { $0.hasPrefix("MESSAGE=") })
        #expect(message.dropFirst(8) == text[...], "another text of \(message.count) bytes")
    }
}

/// What was given to the other way.
private final class Taken: Sendable {
    let fields = Mutex<[String]>([])

    func take(_ entry: UnsafeBufferPointer<iovec>) -> Int32 {
        let texts = entry.map { field in
            String(decoding: UnsafeRawBufferPointer(start: field.iov_base, count: field.iov_len), as: UTF8.self)
        }
        fields.withLock { $0 += texts }
        return 0
    }
}
