//  LinesTests.swift
//  From a pipe to records, through the real thread: wrapping, cutting, tracebacks, text.
//  Read after Rig.swift.

import Glibc
import PanelindCore
import Testing

@testable import PanelindOutput

@Suite("lines")
struct LinesTests {
    @Test("a JSON object passes byte for byte, any other line is wrapped")
    func wrapping() throws {
        let rig = try Rig()
        let worker = rig.worker(3, .stderr)
        let object = #"  {"severity":"ERROR","message":"mine", "n":1.0}"#
        worker.write(object + "\n<4>careful\r\nplain \"x\"\n[1]\n\n")
        worker.end()
        let lines = try rig.flushedLines()
        try #require(lines.count == 5)
        #expect(lines[0] == object)
        let second = try parsed(lines[1])
        #expect(second["severity"] as? String == "WARNING")
        #expect(second["message"] as? String == "careful")
        #expect(second["stream"] as? String == "stderr")
        #expect(second["generation"] as? Int == 3)
        let time = try #require(second["time"] as? String)
        #expect(time.utf8.count == 30 && time.hasSuffix("Z"))
        #expect(try parsed(lines[2])["message"] as? String == "plain \"x\"")
        #expect(try parsed(lines[4])["message"] as? String == "")
    }

    @Test(
        "the line that says why is found among the last ones",
        arguments: [
            (
                [
                    "Traceback (most recent call last):", "  File \"a.py\"", "ModuleNotFoundError: No module named 'x'",
                    "",
                ],
                "ModuleNotFoundError: No module named 'x'"
            ),
            (["starting", "  boom  ", ""], "boom"),
            (
                ["ERROR:    Error loading ASGI app. Could not import module \"api\".", "bye"],
                "ERROR:    Error loading ASGI app. Could not import module \"api\"."
            ),
            (["sh: 1: uvicornn: not found"], "sh: 1: uvicornn: not found"),
        ])
    func tellingLines(_ lines: [String], _ found: String) { #expect(tellingLine(lines, orLast: true) == found) }

    @Test("no line says why where there is none")
    func noTellingLine() {
        #expect(tellingLine([], orLast: true) == nil)
        #expect(tellingLine(["", "  "], orLast: true) == nil)
        #expect(tellingLine(["GET / 200"], orLast: false) == nil)
    }

    @Test(
        "a line over the limit is cut at characters, partial on all but the last", arguments: [1023, 1024, 1025, 5000])
    func cutting(_ length: Int) throws {
        let rig = try Rig { $0.lineLimit = 1024 }
        let worker = rig.worker()
        let line = String(("ERROR: " + String(repeating: "añ日🚀", count: length)).unicodeScalars.prefix(length))
        worker.write(line + "\r\nnext\n")
        worker.end()
        let objects = try rig.flushedObjects()
        #expect(objects.last?["message"] as? String == "next")
        #expect(objects.last?["severity"] as? String == "INFO")
        let parts = objects.dropLast()
        #expect(parts.compactMap { $0["message"] as? String }.joined() == line)
        #expect(parts.allSatisfy { ($0["message"] as? String ?? "").utf8.count <= 1024 })
        #expect(parts.allSatisfy { $0["severity"] as? String == "ERROR" })
        #expect(parts.dropLast().allSatisfy { $0["partial"] as? Bool == true })
        #expect(parts.last?["partial"] == nil)
    }

    @Test("a line of exactly the limit is whole, also with CRLF", arguments: ["\n", "\r\n", ""])
    func exactLimit(_ ending: String) throws {
        let rig = try Rig { $0.lineLimit = 1024 }
        let worker = rig.worker()
        worker.write(String(repeating: "x", count: 1024) + ending)
        worker.end()
        let objects = try rig.flushedObjects()
        #expect(objects.count == 1)
        #expect(objects.first?["partial"] == nil)
    }

    @Test("a line of 1 MiB without a newline, and binary bytes, become valid JSON without loss")
    func hugeAndBinary() throws {
        let rig = try Rig()
        let worker = rig.worker()
        var bytes = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) }
        for i in bytes.indices where bytes[i] == 10 || bytes[i] == 13 { bytes[i] = 0 }
        let half = bytes.count / 2
        worker.write(Array(bytes[..<half]))
        worker.write(Array(bytes[half...]))
        worker.end()
        let objects = try rig.flushedObjects()
        #expect(objects.count >= 16)
        #expect(objects.dropLast().allSatisfy { $0["partial"] as? Bool == true })
        let zeros = objects.reduce(0) { $0 + ($1["message"] as? String ?? "").utf8.filter { $0 == 0 }.count }
        #expect(zeros == bytes.filter { $0 == 0 }.count)
    }

    @Test("a chained traceback is one ERROR entry, and what surrounds it is not in it")
    func chainedTraceback() throws {
        let rig = try Rig()
        let worker = rig.worker(1, .stderr)
        let traceback = """
            Traceback (most recent call last):
              File "a.py", line 1, in f
                x()
                ^^^
            app.errors.KeyError: 'a'

            During handling of the above exception, another exception occurred:

            Traceback (most recent call last):
              File "a.py", line 3, in <module>

            > File "b.py", line 4, in caught
            ValueError: two
              lines
            """
        worker.write("ERROR:    Exception in ASGI application\n" + traceback + "\n\nINFO: after\n")
        worker.end()
        let objects = try rig.flushedObjects()
        let messages = objects.compactMap { $0["message"] as? String }
        #expect(messages == ["ERROR:    Exception in ASGI application", traceback, "", "INFO: after"])
        #expect(objects.compactMap { $0["severity"] as? String } == ["ERROR", "ERROR", "INFO", "INFO"])
    }

    @Test("a traceback torn by another logger's line ends there; a group of exceptions is one entry")
    func tornTracebackAndGroup() throws {
        let rig = try Rig()
        let worker = rig.worker()
        let group = """
              + Exception Group Traceback (most recent call last):
              |   File "x", line 1
              | ExceptionGroup: two (2 sub-exceptions)
              +-+---------------- 1 ----------------
                | ValueError: a
                +---------------- 2 ----------------
                | TypeError: b
                +------------------------------------
            """
        worker.write("Traceback (most recent call last):\n  File \"a\"\nINFO: torn\n" + group + "\n{\"a\":1}\n")
        worker.end()
        let objects = try rig.flushedObjects()
        #expect(
            objects.compactMap { $0["message"] as? String } == [
                "Traceback (most recent call last):\n  File \"a\"", "INFO: torn", group,
            ])
        #expect(objects.last?["a"] as? Int == 1)
    }

    @Test("a traceback that nothing follows is written although the worker stays silent")
    func idleTraceback() throws {
        let rig = try Rig(pipe: true)
        let worker = rig.worker()
        worker.write("Traceback (most recent call last):\n  File \"a\"\nValueError: x\n")
        var ready = pollfd(fd: rig.sinkReader, events: Int16(POLLIN), revents: 0)
        #expect(poll(&ready, 1, 10_000) == 1)
        rig.readSink()
        #expect(String(decoding: rig.received, as: UTF8.self).contains("ValueError: x"))
        worker.end()
    }

    @Test("a blank line where a long traceback is cut is in one of its parts")
    func blankAtCut() throws {
        let rig = try Rig { $0.lineLimit = 1024 }
        let worker = rig.worker()
        let lines = [
            "Traceback (most recent call last):", "  " + String(repeating: "a", count: 987), "", "  b", "E: x",
        ]
        worker.write(lines.joined(separator: "\n") + "\n")
        worker.end()
        let messages = try rig.flushedObjects().compactMap { $0["message"] as? String }
        #expect(messages.count == 2)
        #expect(messages.joined(separator: "\n") == lines.joined(separator: "\n"))
    }

    @Test("a traceback over the limit is cut like a line")
    func longTraceback() throws {
        let rig = try Rig { $0.lineLimit = 1024 }
        let worker = rig.worker()
        let frames = (0..<200).map { "  File \"f\($0).py\", line \($0)" }
        worker.write("Traceback (most recent call last):\n" + frames.joined(separator: "\n") + "\nE: x\nnext\n")
        worker.end()
        let objects = try rig.flushedObjects()
        let parts = objects.dropLast()
        #expect(parts.count > 3)
        #expect(parts.allSatisfy { ($0["message"] as? String ?? "").utf8.count <= 1024 })
        #expect(parts.dropLast().allSatisfy { $0["partial"] as? Bool == true })
        #expect(parts.last?["partial"] == nil)
        #expect(objects.last?["message"] as? String == "next")
    }

    @Test("text without colour has no escape, names the source, and keeps one line a line")
    func text() throws {
        let rig = try Rig(.text(colour: false))
        let worker = rig.worker(3, .stderr)
        rig.output.log(OwnRecord(.warning, event: "probe_failed", message: "not ready"))
        worker.write("\u{1B}[31mred\u{1B}[0m\nTraceback (most recent call last):\n  File\n")
        worker.end()
        let lines = try rig.flushedLines()
        #expect(!lines.joined().contains("\u{1B}"))
        let shapes = Set(lines.map { String($0.dropFirst(13)) })
        #expect(
            shapes == [
                "panelind  WARNING: not ready", "g3 err    red", "g3 err    Traceback (most recent call last):",
                "g3 err      File",
            ])
    }

    @Test("text with colour passes the worker's own colours and dims the time")
    func colouredText() throws {
        let rig = try Rig(.text(colour: true))
        let worker = rig.worker(1)
        worker.write("\u{1B}[31mred\n")
        worker.end()
        let line = try #require(try rig.flushedLines().first)
        #expect(line.hasPrefix("\u{1B}[2m"))
        #expect(line.hasSuffix("\u{1B}[31mred\u{1B}[0m"))
    }

    @Test("records below the level are not written")
    func level() throws {
        let rig = try Rig { $0.level = .warning }
        rig.output.log(OwnRecord(.info, event: "a", message: "a"))
        rig.output.log(OwnRecord(.error, event: "b", message: "b"))
        #expect(try rig.flushedObjects().compactMap { $0["event"] as? String } == ["b"])
    }
}
