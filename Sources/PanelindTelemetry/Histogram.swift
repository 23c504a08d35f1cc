//  Histogram.swift
//  A distribution of durations over fixed buckets: one array, no allocation when something is observed.
//  Read before Exposition.swift.

import PanelindCore

/// Counts of durations below fixed bounds, as Prometheus wants them.
public struct Histogram: Sendable {
    /// Upper bounds in nanoseconds, ascending; the last bucket, without a bound, is not among them.
    let bounds: [Int64]
    /// Not cumulative; one more than the bounds.
    private(set) var counts: [Int]
    private(set) var sum: Double = 0

    /// Makes an empty histogram.
    ///
    /// - Parameter milliseconds: the buckets' upper bounds, ascending.
    public init(milliseconds: [Int64]) {
        bounds = milliseconds.map { $0 * 1_000_000 }
        counts = Array(repeating: 0, count: milliseconds.count + 1)
    }

    /// Counts one duration in nanoseconds; a negative one, as a clock error may give, counts as nothing.
    public mutating func observe(_ nanoseconds: Int64) {
        let value = max(0, nanoseconds)
        var index = 0
        while index < bounds.count, value > bounds[index] { index += 1 }
        counts[index] += 1
        sum += Double(value) / 1e9
    }

    /// All that were observed.
    public var count: Int { counts.reduce(0, +) }

    /// The duration in seconds below which this share lies, by linear interpolation inside its bucket; nil when empty.
    ///
    /// What lies beyond the last bound counts as that bound.
    public func quantile(_ share: Double) -> Double? {
        let all = count
        guard all > 0 else { return nil }
        let rank = share * Double(all)
        var below = 0
        for (index, bound) in bounds.enumerated() {
            let here = counts[index]
            if here > 0, Double(below + here) >= rank {
                let low = index == 0 ? 0 : Double(bounds[index - 1])
                return (low + (Double(bound) - low) * (rank - Double(below)) / Double(here)) / 1e9
            }
            below += here
        }
        return bounds.last.map { Double($0) / 1e9 }
    }
}
