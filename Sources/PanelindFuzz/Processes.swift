//  Processes.swift
//  The process table of /proc while a process has a hostile name: this one's own.
//  Read PanelindSystem/ProcessTable.swift first.

import Glibc
import PanelindSystem

/// Names of processes, up to 15 bytes of anything.
public final class ProcessTarget: FuzzTarget {
    public static let name = "processes"
    public static let words = [
        ") Z 1 1 1", ") R 0 0 0 ", "(", ")", " ", "\n", "\r", "\u{1b}[2J", "\u{7f}", "\\", "\t", "\u{e9}",
    ]

    public init() {}

    public func make(_ dice: inout Dice) -> [UInt8] { Array(dice.some(Self.words + ["a", "1 "], upTo: 6).utf8) }

    public func judge(_ input: [UInt8], _ dice: inout Dice) -> String? {
        let name = Array(input.prefix { $0 != 0 }.prefix(15))
        // As PR_SET_NAME of the first thread (proc(5), /proc/PID/comm).
        guard Corpus.write(name, to: "/proc/self/comm") else { return nil }
        guard let entry = ProcessEntry(pid: getpid()) else { return "no entry" }
        if entry.pid != getpid() || entry.parent != getppid() || entry.group != getpgrp() || entry.session != getsid(0)
            || !entry.isAlive || entry.start == 0
        {
            return "another process: \(entry)"
        }
        guard let said = ProcessTable.name(of: getpid()) else { return "no name" }
        if holdsControls(Array(said.utf8)) || said.utf8.contains(0x0a) || said.utf8.contains(0x09) {
            return "a control character in the name \(said.debugDescription)"
        }
        return nil
    }
}
