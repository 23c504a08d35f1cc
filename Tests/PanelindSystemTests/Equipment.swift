//  Equipment.swift
//  Real processes for the tests of this folder, and bounded waits for what they do.
//  Whoever uses Children runs in a process of its own (exit tests): it reaps every child there is.

import CPanelindSystem
import Glibc
import PanelindCore
import Testing

@testable import PanelindSystem

let g1 = Generation(1)
let g2 = Generation(2)
let python = "/usr/bin/python3"
let hasPython = access(python, X_OK) == 0
let isRoot = getuid() == 0

/// Ends a test's own process if it hangs.
func bound() { alarm(60) }

func shell(_ script: String, output: Int32? = nil) -> SpawnRequest {
    var request = SpawnRequest(
        executable: "/bin/sh", arguments: ["sh", "-c", script], environment: ["PATH=/usr/bin:/bin"])
    request.standardOutput = output
    return request
}

func pythonScript(_ script: String, output: Int32? = nil) -> SpawnRequest {
    var request = SpawnRequest(executable: python, arguments: ["python3", "-SEc", script])
    request.standardOutput = output
    return request
}

/// The output of children, line by line.
final class Output {
    let reading: Int32
    let writing: Int32
    private var rest: [UInt8] = []

    init() throws {
        (reading, writing) = try Pipes.makePipe().get().release()
    }

    deinit {
        close(reading)
        close(writing)
    }

    /// The next line, waiting at most ten seconds.
    func line() throws -> String {
        while true {
            if let end = rest.firstIndex(of: 0x0A) {
                defer { rest.removeSubrange(...end) }
                return String(decoding: rest[..<end], as: UTF8.self)
            }
            try #require(Descriptors.waitReadable(reading, for: .seconds(10)), "no line within 10 s")
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = read(reading, &buffer, buffer.count)
            try #require(count > 0)
            rest += buffer[..<count]
        }
    }

    func pid() throws -> Int32 { try #require(Int32(line())) }
}

/// Waits at most ten seconds until a process has ended (a zombie counts); any process, not only a child.
func ends(_ pid: Int32) -> Bool {
    let pidfd = panelind_pidfd_open(pid)
    guard pidfd >= 0 else { return pidfd == -ESRCH }
    defer { close(pidfd) }
    return Descriptors.waitReadable(pidfd, for: .seconds(10))
}

func lives(_ pid: Int32) -> Bool { ProcessEntry(pid: pid)?.isAlive ?? false }

extension Children {
    /// Reaps until the condition holds, sleeping until another child dies.
    func collect(until done: ([ChildEvent]) -> Bool) -> [ChildEvent] {
        var events: [ChildEvent] = []
        while true {
            reap { events.append($0) }
            if done(events) { return events }
            var info = siginfo_t()
            if waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) != 0 { return events }
        }
    }

    /// Kills and reaps passes long, until nothing of the generation lives: how many passes it took.
    func clear(_ generation: Generation, atMost passes: Int = 50) -> Int? {
        for pass in 1...passes {
            let left = sweep(generation, signal: .kill).left
            if left.isEmpty { return pass }
            for survivor in left { _ = ends(survivor.pid) }
            reap { _ in }
        }
        return nil
    }
}

extension ChildEvent {
    var isLeaderExit: Bool { if case .leaderExited = self { true } else { false } }
    var orphans: Int { if case .orphanReaped(let count) = self { count } else { 0 } }
}
