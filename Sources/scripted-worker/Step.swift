//  Step.swift
//  The steps of a script as values, and the names of signals.
//  Language.swift says what each does; Parser.swift makes them; Worker.swift obeys.

/// Nanoseconds of CLOCK_MONOTONIC, or a span of them.
typealias Nanoseconds = Int64

/// What a worker does next.
indirect enum Step {
    case nothing
    case group([Step])
    case after(Nanoseconds, Step)
    case every(Nanoseconds, for: Nanoseconds?, Step)
    case again(Nanoseconds, until: Nanoseconds?, Step)

    case boot(Nanoseconds)
    case sleep(Nanoseconds)
    case waitFile(String)
    case drain

    case exit(Int32)
    case signalSelf(Int32)
    case ignore(Int32)
    case on(Int32, Step)
    case recordSignals(String)

    case listen(Address)
    case stopListening
    case health(Health)
    case hang

    case notify(String)
    case barrier
    case mainPidChild
    case writeDescriptor(Int32, String, close: Bool)

    case print(String, to: Int32)
    case lines(Int, bytes: Int, to: Int32)
    case binary
    case flood(bytes: Int?, to: Int32)
    case closeOutput

    case spawn(Descendant, count: Int, script: [String])
    case forkBomb(Int)
    case hop(Int, Nanoseconds)
    case zombie

    case spin(Nanoseconds?)
    case allocate(Int)
    case record(file: String, text: String)
    case dumpState(String)
}

/// Where a worker listens.
enum Address {
    case tcp(host: String, port: UInt16)
    case environment(String)
    case descriptor(Int32)
    case unix(String)
    case activated
}

/// How GET /ready answers.
enum Health {
    case code(Int)
    case hang
    case statusFile(String)
}

/// How a descendant stands to us and what it holds.
enum Descendant {
    case child
    case session
    case orphan
    case daemon
    case holdingStdout
    case holdingListener
}

/// Names of signals (signal(7)), without SIG.
enum Signals {
    static let names: [(name: String, number: Int32)] = [
        ("HUP", 1), ("INT", 2), ("QUIT", 3), ("ILL", 4), ("TRAP", 5), ("ABRT", 6), ("BUS", 7), ("FPE", 8),
        ("KILL", 9), ("USR1", 10), ("SEGV", 11), ("USR2", 12), ("PIPE", 13), ("ALRM", 14), ("TERM", 15),
        ("STKFLT", 16), ("CHLD", 17), ("CONT", 18), ("STOP", 19), ("TSTP", 20), ("TTIN", 21), ("TTOU", 22),
        ("URG", 23), ("XCPU", 24), ("XFSZ", 25), ("VTALRM", 26), ("PROF", 27), ("WINCH", 28), ("IO", 29),
        ("PWR", 30), ("SYS", 31), ("RTMIN", 34), ("RTMAX", 64),
    ]

    /// The number of `TERM`, `SIGTERM` or `15`; nil if there is none.
    static func number(_ text: String) -> Int32? {
        if let number = Int32(text) { return (1...64).contains(number) ? number : nil }
        let short = text.hasPrefix("SIG") ? String(text.dropFirst(3)) : text
        return names.first { $0.name == short }?.number
    }

    /// The name with SIG, or the number.
    static func name(_ number: Int32) -> String {
        names.first { $0.number == number }.map { "SIG" + $0.name } ?? "\(number)"
    }
}
