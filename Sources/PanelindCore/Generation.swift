//  Generation.swift
//  The ordinal of a worker since panelind started.
//  Every event about a worker carries it, so that news of a dead one cannot touch a live one.

/// Which worker: `g1` is the first that panelind prepared.
public struct Generation: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// One for the first worker; zero before it.
    public var number: Int

    /// Makes the generation with this ordinal.
    public init(_ number: Int) { self.number = number }

    /// The generation after this one.
    public var next: Generation { Generation(number + 1) }

    public var description: String { "g\(number)" }
    public static func < (a: Generation, b: Generation) -> Bool { a.number < b.number }
}
