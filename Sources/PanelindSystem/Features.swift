//  Features.swift
//  What this kernel can do, asked once; the clock and the terminal.
//  An older gVisor has no pidfd_open, no children files and no close_range(~0U) (DESIGN section 3).

import CPanelindSystem
import Glibc
import PanelindCore

/// Kernel facilities with a fallback, and whether they are there.
public struct Features: Hashable, Sendable, CustomStringConvertible {
    /// pidfd_open(2) and pidfd_send_signal(2) work.
    public var pidfd: Bool
    /// close_range(2) takes `~0U`.
    public var closeRange: Bool
    /// /proc/self/task/*/children can be read.
    public var childrenFiles: Bool
    /// /proc shows this process under its own pid: it is mounted, and for our pid namespace.
    public var processTable: Bool

    /// Nothing but what every kernel has.
    public static let none = Features(pidfd: false, closeRange: false, childrenFiles: false, processTable: true)

    /// This kernel's, asked on first use.
    public static let current = Features.ask()

    /// `pidfd, close_range, children, proc`; one that is missing is written `no pidfd`.
    public var description: String {
        [("pidfd", pidfd), ("close_range", closeRange), ("children", childrenFiles), ("proc", processTable)]
            .map { $0.1 ? $0.0 : "no \($0.0)" }.joined(separator: ", ")
    }

    private static func ask() -> Features {
        var pidfd = false
        let descriptor = panelind_pidfd_open(getpid())
        if descriptor >= 0 {
            pidfd = panelind_pidfd_signal(descriptor, 0) == 0
            close(descriptor)
        }
        var own: Int32 = 0
        var name = [CChar](repeating: 0, count: 16)
        if readlink("/proc/self", &name, 15) > 0 { own = atoi(name) }
        return Features(
            pidfd: pidfd,
            closeRange: panelind_close_range_probe(UInt32.max) == 0,
            childrenFiles: panelind_own_children(nil, 0) >= 0,
            processTable: own == getpid())
    }
}

/// The clock of all deadlines.
public enum Clock {
    /// Now on CLOCK_MONOTONIC (clock_gettime(2)); it stands still while a virtual machine is suspended.
    public static func now() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    /// Nanoseconds since 1970 (CLOCK_REALTIME), for records only.
    public static func wallNanoseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}

/// What is at the other end of a standard stream.
public enum Terminal {
    /// stdin is a terminal (isatty(3)).
    public static var isInput: Bool { isatty(0) == 1 }
    /// stdout is a terminal.
    public static var isOutput: Bool { isatty(1) == 1 }
    /// The process group in the foreground of stdin's terminal (tcgetpgrp(3)); nil without a terminal.
    public static var foregroundGroup: Int32? {
        let group = tcgetpgrp(0)
        return group > 0 ? group : nil
    }
    /// panelind's own process group has the terminal.
    public static var isForeground: Bool { foregroundGroup == getpgrp() }
    /// The width of stdout's terminal in characters (TIOCGWINSZ); nil without one.
    public static var columns: Int? {
        let columns = panelind_terminal_columns(1)
        return columns > 0 ? Int(columns) : nil
    }
}
