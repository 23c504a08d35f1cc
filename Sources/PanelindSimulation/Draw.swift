//  Draw.swift
//  How plans and worlds draw from a seed: chances, choices, durations.
//  Read RandomNumbers.swift of the core first.

import PanelindCore

extension RandomNumbers {
    /// True in so many of a thousand cases.
    mutating func chance(_ perMille: Int) -> Bool { below(1000) < perMille }

    /// A number in 0..<bound; zero for a bound below one.
    mutating func below(_ bound: Int) -> Int { bound < 1 ? 0 : Int(next() % UInt64(bound)) }

    /// A number of milliseconds in the range, drawn in microseconds, so that instants seldom coincide.
    mutating func duration(_ range: ClosedRange<Int>) -> Duration {
        .microseconds(range.lowerBound * 1000 + below((range.upperBound - range.lowerBound) * 1000 + 1))
    }

    /// One of these, which must not be empty.
    mutating func pick<T>(_ first: T, _ others: T...) -> T {
        let index = below(others.count + 1)
        return index == 0 ? first : others[index - 1]
    }
}
