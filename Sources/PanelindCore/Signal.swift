//  Signal.swift
//  Signals by name, as settings and records write them.
//  Numbers are those of Linux on x86-64 and arm64 (signal(7)).

/// A signal of Linux.
public struct Signal: Hashable, Sendable, CustomStringConvertible {
    /// The number as kill(2) takes it, 1...64.
    public var number: Int32

    /// Makes the signal with this number.
    public init(number: Int32) { self.number = number }

    public static let hangup = Signal(number: 1)
    public static let interrupt = Signal(number: 2)
    public static let quit = Signal(number: 3)
    public static let abort = Signal(number: 6)
    public static let kill = Signal(number: 9)
    public static let user1 = Signal(number: 10)
    public static let user2 = Signal(number: 12)
    public static let terminate = Signal(number: 15)
    public static let `continue` = Signal(number: 18)
    public static let stop = Signal(number: 19)
    public static let terminalStop = Signal(number: 20)
    public static let windowChange = Signal(number: 28)

    private static let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ]

    /// Takes `TERM`, `SIGTERM`, `term` or `RTMIN+1`; nil for anything else.
    public init?(name: String) {
        var name = name.uppercased()
        if name.hasPrefix("SIG") { name.removeFirst(3) }
        if let index = Self.names.firstIndex(of: name) {
            self.number = Int32(index + 1)
        } else if name == "RTMIN" {
            self.number = 34
        } else if name.hasPrefix("RTMIN+"), let n = Int32(name.dropFirst(6)), (0...30).contains(n) {
            self.number = 34 + n
        } else {
            return nil
        }
    }

    /// The name with its prefix, as records carry it: `SIGSEGV`, `SIGRTMIN+2`, or `signal 33`.
    public var description: String {
        let index = Int(number) - 1
        if Self.names.indices.contains(index) { return "SIG" + Self.names[index] }
        if (34...64).contains(number) { return number == 34 ? "SIGRTMIN" : "SIGRTMIN+\(number - 34)" }
        return "signal \(number)"
    }

    /// The name without its prefix, as settings write it: `TERM`.
    public var shortName: String {
        let name = description
        return name.hasPrefix("SIG") ? String(name.dropFirst(3)) : name
    }
}
