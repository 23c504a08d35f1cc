//  OOMEvidence.swift
//  Whether the kernel killed for memory in our cgroup: a count to compare before and after a worker's KILL.
//  gVisor and some containers show no cgroup: then nothing is known, and nothing is claimed.

import Glibc
import PanelindCore

/// The counter of OOM kills in our own cgroup.
public struct OOMEvidence: Hashable, Sendable {
    /// The file that is read: memory.events (version 2) or memory.oom_control (version 1); nil where there is none.
    public let path: String?

    /// Finds the file of this process's cgroup.
    public init() {
        self.init(membership: readText("/proc/self/cgroup") ?? "", root: "/sys/fs/cgroup")
    }

    /// Finds the file for the lines of /proc/self/cgroup (cgroups(7)) below a mount point.
    init(membership: String, root: String) {
        path = Self.candidates(membership, root).first { Self.kills(in: $0) != nil }
    }

    /// OOM kills in our cgroup and below since it was made; nil when it cannot be read.
    ///
    /// More than before a worker's SIGKILL is evidence, not proof: a sibling in the same cgroup counts too.
    public func kills() -> UInt64? { path.flatMap(Self.kills) }

    private static func candidates(_ membership: String, _ root: String) -> [String] {
        var files: [String] = []
        for line in membership.split(separator: "\n") {
            // hierarchy:controllers:path
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let place = fields[2] == "/" ? "" : String(fields[2])
            // Without a cgroup namespace the path is the host's while only our part is mounted: then the root is us.
            if fields[0] == "0", fields[1].isEmpty {
                for mount in [root, root + "/unified"] {
                    files += [mount + place + "/memory.events", mount + "/memory.events"]
                }
            } else if fields[1].split(separator: ",").contains("memory") {
                files += [root + "/memory" + place + "/memory.oom_control", root + "/memory/memory.oom_control"]
            }
        }
        return files
    }

    /// Read at every start of a worker: bytes, no strings.
    private static func kills(in path: String) -> UInt64? {
        let descriptor = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            guard count > 0 else { return nil }
            for line in buffer[..<count].split(separator: UInt8(ascii: "\n")) where line.starts(with: "oom_kill ".utf8)
            {
                var value: UInt64 = 0
                for byte in line.dropFirst(9) {
                    guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
                    value = value &* 10 &+ UInt64(byte - UInt8(ascii: "0"))
                }
                return value
            }
            return nil
        }
    }
}
