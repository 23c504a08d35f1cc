//  ProcessTable.swift
//  What /proc says about processes at one moment: parents, groups, sessions, start times.
//  A pid alone names nobody for long; a pid with its start time does. Read before Children.swift.

import CPanelindSystem
import Glibc
import PanelindCore

/// One process, as long as the machine runs: a number that is used again has another start time.
struct ProcessIdentity: Hashable {
    var pid: Int32
    /// Clock ticks since boot, field 22 of /proc/PID/stat (proc(5)).
    var start: UInt64
}

/// One line of the table.
package struct ProcessEntry {
    package var pid: Int32
    package var parent: Int32
    package var group: Int32
    package var session: Int32
    package var start: UInt64
    package var isAlive: Bool
    /// State D: in uninterruptible sleep.
    package var isUninterruptible: Bool

    var identity: ProcessIdentity { ProcessIdentity(pid: pid, start: start) }

    /// Reads /proc/PID/stat; nil when there is no such process.
    package init?(pid: Int32) {
        var raw = panelind_process()
        guard pid > 0, panelind_process_read(pid, &raw) == 0 else { return nil }
        self.pid = pid
        parent = raw.parent
        group = raw.group
        session = raw.session
        start = raw.start
        let state = UInt8(bitPattern: raw.state)
        // A process whose first thread has ended shows as a zombie although its other threads run on.
        let dead =
            state == UInt8(ascii: "Z") ? raw.threads <= 1 : state == UInt8(ascii: "X") || state == UInt8(ascii: "x")
        isAlive = !dead
        isUninterruptible = state == UInt8(ascii: "D")
    }

    /// Whether this very process still runs; a zombie does not.
    static func isAlive(_ identity: ProcessIdentity) -> Bool {
        guard let entry = ProcessEntry(pid: identity.pid) else { return false }
        return entry.start == identity.start && entry.isAlive
    }
}

/// All processes that could be seen in one pass over /proc.
package struct ProcessTable {
    private(set) var entries: [Int32: ProcessEntry] = [:]

    /// Reads the table: some 15 microseconds for each process of the machine.
    static func read() -> ProcessTable {
        var table = ProcessTable()
        for pid in pids() {
            if let entry = ProcessEntry(pid: pid) { table.entries[pid] = entry }
        }
        return table
    }

    /// Reads one line again; its parent may have died and the process been adopted since.
    mutating func refresh(_ pid: Int32) -> ProcessEntry? {
        let entry = ProcessEntry(pid: pid)
        entries[pid] = entry
        return entry
    }

    static func pids() -> [Int32] {
        var capacity = 512
        while true {
            var found = 0
            let pids = [Int32](unsafeUninitializedCapacity: capacity) { buffer, count in
                found = panelind_process_list(buffer.baseAddress, capacity)
                count = min(capacity, max(0, found))
            }
            if found <= capacity { return pids }
            capacity = found * 2
        }
    }

    /// The direct children of this process, dead ones included; nil where the kernel has no such file.
    static func ownChildren() -> [Int32]? {
        var capacity = 64
        while true {
            var found = 0
            let pids = [Int32](unsafeUninitializedCapacity: capacity) { buffer, count in
                found = panelind_own_children(buffer.baseAddress, capacity)
                count = min(capacity, max(0, found))
            }
            if found < 0 { return nil }
            if found <= capacity { return pids }
            capacity = found * 2
        }
    }

    /// The command line with blanks between the arguments, at most 256 bytes; `[name]` where there is none.
    package static func command(of pid: Int32) -> String {
        if case .success(var bytes) = readFile("/proc/\(pid)/cmdline", limit: 256), !bytes.isEmpty {
            while bytes.last == 0 { bytes.removeLast() }
            return plain(bytes)
        }
        return name(of: pid).map { "[\($0)]" } ?? "?"
    }

    /// The name that a process has given itself (PR_SET_NAME of prctl(2)); nil where it is gone.
    package static func name(of pid: Int32) -> String? {
        guard case .success(var bytes) = readFile("/proc/\(pid)/comm", limit: 64) else { return nil }
        if bytes.last == 0x0A { bytes.removeLast() }
        return plain(bytes)
    }

    /// Control characters, those beyond ASCII too, have no place in a log line, and any process may have them in its
    /// name.
    private static func plain(_ bytes: [UInt8]) -> String {
        let scalars = String(decoding: bytes, as: UTF8.self).unicodeScalars.map { scalar in
            scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) ? " " : scalar
        }
        return String(String.UnicodeScalarView(scalars))
    }

    /// The value of a variable in the environment that the process was executed with; nil when unreadable or absent.
    static func environment(of pid: Int32, _ name: String) -> String? {
        let prefix = Array((name + "=").utf8)
        for attempt in 0..<20 {
            guard case .success(let bytes) = readFile("/proc/\(pid)/environ", limit: 262_144) else { return nil }
            for entry in bytes.split(separator: 0) where entry.starts(with: prefix) {
                return String(decoding: entry.dropFirst(prefix.count), as: UTF8.self)
            }
            if !bytes.isEmpty { return nil }
            // In the middle of exec there is neither environment nor command line for some hundred microseconds;
            // taken for a process without environment it would be somebody else's. A file opened just before exec
            // reads as empty too, with the command line there already: so the first empty answers do not count.
            guard ProcessEntry(pid: pid)?.isAlive == true else { return nil }
            if attempt >= 2, case .success(let line) = readFile("/proc/\(pid)/cmdline", limit: 1), !line.isEmpty {
                return nil
            }
            var pause = timespec(tv_sec: 0, tv_nsec: 50_000)
            nanosleep(&pause, nil)
        }
        return nil
    }
}
