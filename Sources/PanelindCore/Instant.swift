//  Instant.swift
//  A point on the monotonic clock, and how a duration is written.
//  Pure: who asks the machine brings the time. Read first.

/// A point in time: nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)).
public struct Instant: Hashable, Comparable, Sendable {
    /// Nanoseconds since the clock's own, arbitrary beginning.
    public var nanoseconds: Int64

    /// Makes an instant from nanoseconds of the monotonic clock.
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// The clock's beginning.
    public static let zero = Instant(nanoseconds: 0)

    public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    public static func + (a: Instant, d: Duration) -> Instant { Instant(nanoseconds: a.nanoseconds + d.nanoseconds) }
    public static func - (a: Instant, d: Duration) -> Instant { Instant(nanoseconds: a.nanoseconds - d.nanoseconds) }
    public static func - (a: Instant, b: Instant) -> Duration { .nanoseconds(a.nanoseconds - b.nanoseconds) }
}

extension Duration {
    /// The whole duration in nanoseconds; about 292 years fit.
    public var nanoseconds: Int64 {
        // One division, where `components` takes several, and for nine seconds one of 64 bits: every sum of an instant
        // comes here.
        if let few = Int64(exactly: attoseconds) { return few / 1_000_000_000 }
        return Int64(attoseconds / 1_000_000_000)
    }

    /// The duration in seconds, for records and metrics.
    public var seconds: Double { Double(nanoseconds) / 1e9 }

    /// As settings and messages write it: `250ms`, `8s`, `60s`, `2m`, `1.5s`. One minute is `60s`, as in the defaults.
    public var text: String {
        let n = nanoseconds
        if n == 0 { return "0s" }
        if n % 3_600_000_000_000 == 0 { return "\(n / 3_600_000_000_000)h" }
        if n % 60_000_000_000 == 0 && n > 60_000_000_000 { return "\(n / 60_000_000_000)m" }
        if n % 1_000_000_000 == 0 { return "\(n / 1_000_000_000)s" }
        if n < 1_000_000_000 && n > -1_000_000_000 {
            return n % 1_000_000 == 0 ? "\(n / 1_000_000)ms" : "\(Self.rounded(n / 1000))ms"
        }
        return "\(Self.rounded(n / 1_000_000))s"
    }

    /// Thousandths as a decimal without trailing zeros: 1500 is `1.5`.
    private static func rounded(_ thousandths: Int64) -> String {
        var digits = "\(abs(thousandths) % 1000 + 1000)".dropFirst()
        while digits.last == "0" { digits.removeLast() }
        let whole = (thousandths < 0 ? "-" : "") + "\(abs(thousandths) / 1000)"
        return digits.isEmpty ? whole : "\(whole).\(digits)"
    }
}
