//  Inheritance.swift
//  What the process was given at its start, and that as JSON for tests to read.
//  Read proc(5) on status, fd and limits; main.swift takes the picture before anything is opened.

import Glibc

/// What was there before our first step.
struct Inheritance {
    /// Open descriptors with their targets as /proc shows them.
    let descriptors: [(number: Int32, target: String)]
    /// /proc/self/status then: masks and dispositions as they came.
    let status: [String: String]

    /// The picture of this moment.
    static func now() -> Inheritance {
        var descriptors: [(Int32, String)] = []
        if let folder = opendir("/proc/self/fd") {
            let own = dirfd(folder)
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                guard let number = Int32(name), number != own else { continue }
                descriptors.append((number, target(of: "/proc/self/fd/\(number)") ?? "?"))
            }
            closedir(folder)
        }
        var status: [String: String] = [:]
        let text = String(decoding: contents("/proc/self/status") ?? [], as: UTF8.self)
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == "\t" || $0 == " " }
            status[String(line[..<colon])] = String(value)
        }
        return Inheritance(descriptors: descriptors.sorted { $0.0 < $1.0 }, status: status)
    }

    /// Writes the JSON so that the file appears whole: a test may wait for it to exist.
    func write(to path: String) {
        let temporary = "\(path).\(getpid()).tmp"
        unlink(temporary)
        append(json + "\n", to: temporary)
        if rename(temporary, path) != 0 { complain("cannot write \(path): \(reason())") }
    }

    private var json: String {
        let variables = Self.variables()
        let shown = variables.filter { name, _ in
            ["PORT", "FORWARDED_ALLOW_IPS"].contains(name)
                || ["LISTEN_", "NOTIFY_", "PANELIND_", "WATCHDOG_", "TEST_"].contains { name.hasPrefix($0) }
        }
        let fields: [(String, String)] = [
            ("pid", "\(getpid())"), ("ppid", "\(getppid())"), ("pgid", "\(getpgrp())"), ("sid", "\(getsid(0))"),
            ("uid", "\(getuid())"), ("euid", "\(geteuid())"), ("gid", "\(getgid())"),
            ("groups", "[" + (status["Groups"] ?? "").split(separator: " ").joined(separator: ", ") + "]"),
            ("umask", Self.quoted(status["Umask"] ?? "")),
            ("no_new_privs", status["NoNewPrivs"] ?? "null"),
            ("sig_blk", Self.quoted(status["SigBlk"] ?? "")), ("sig_ign", Self.quoted(status["SigIgn"] ?? "")),
            ("cwd", Self.quoted(target(of: "/proc/self/cwd") ?? "")),
            ("argv", "[" + CommandLine.arguments.map(Self.quoted).joined(separator: ", ") + "]"),
            ("fds", Self.object(descriptors.map { ("\($0.number)", Self.quoted($0.target)) })),
            ("limits", Self.object(Self.limits())),
            ("environment", Self.object(shown.map { ($0, Self.quoted($1)) })),
            ("environment_names", "[" + variables.map { Self.quoted($0.0) }.joined(separator: ", ") + "]"),
        ]
        return Self.object(fields)
    }

    private static func variables() -> [(String, String)] {
        var variables: [(String, String)] = []
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            variables.append((String(parts[0]), parts.count > 1 ? String(parts[1]) : ""))
            entry += 1
        }
        return variables
    }

    private static func limits() -> [(String, String)] {
        // The numbers of <bits/resource.h> on Linux.
        let kinds: [(String, UInt32)] = [("core", 4), ("processes", 6), ("open_files", 7), ("address_space", 9)]
        return kinds.map { name, number in
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(number), &limit)
            let values = [limit.rlim_cur, limit.rlim_max].map { $0 == .max ? "null" : "\($0)" }
            return (name, "{\"soft\": \(values[0]), \"hard\": \(values[1])}")
        }
    }

    private static func object(_ fields: [(String, String)]) -> String {
        "{" + fields.map { "\(quoted($0)): \($1)" }.joined(separator: ", ") + "}"
    }

    /// A JSON string.
    static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": out += "\\\(scalar)"
            case _ where scalar.value < 32:
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
