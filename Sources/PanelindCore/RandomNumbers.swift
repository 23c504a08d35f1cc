//  RandomNumbers.swift
//  A seeded generator: the same seed gives the same jitter on every machine.
//  SplitMix64, Steele, Lea and Flood, OOPSLA 2014.

/// Reproducible random numbers; not for secrets.
public struct RandomNumbers: RandomNumberGenerator, Sendable, Equatable {
    private var state: UInt64

    /// Makes the generator of this seed.
    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number in 0..<1.
    public mutating func fraction() -> Double { Double(next() >> 11) * 0x1p-53 }
}
