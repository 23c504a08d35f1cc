//  Simulation.swift
//  From a seed to a verdict. The same seed gives the same transcript, byte for byte.
//  Read last but Shrink.swift.

import PanelindCore

/// How one world ended.
public struct Verdict: Sendable {
    /// The plan's.
    public let seed: UInt64
    /// The first law that was broken; nil: all held.
    public let violation: Violation?
    /// Steps the machine took.
    public let steps: Int
    /// Virtual time that passed.
    public let simulated: Duration
    /// panelind's, if it exited.
    public let exitCode: Int32?
    /// One line a step, if they were asked for.
    public let transcript: [String]
}

/// Runs worlds.
public enum Simulation {
    /// Runs the world of a seed.
    /// - Parameters:
    ///   - transcript: whether to keep a line for each step.
    ///   - actions: whether the lines include the actions.
    ///   - place: nil: the seed's own.
    public static func run(
        seed: UInt64, place: Place? = nil, transcript: Bool = false, actions: Bool = false
    ) -> Verdict {
        run(FaultPlan.draw(seed: seed, place: place), transcript: transcript, actions: actions)
    }

    /// Runs the world of a plan.
    public static func run(
        _ plan: FaultPlan, transcript: Bool = false, actions: Bool = false, coverage: Coverage? = nil
    ) -> Verdict {
        World(plan, transcript: transcript, actions: actions, coverage: coverage).play()
    }

    /// Runs the worlds of these seeds and returns those that broke a law, and what was done in all.
    /// - Parameters:
    ///   - place: nil: each seed's own.
    ///   - coverage: where to count what was reached.
    ///   - stopsAtFirst: one broken law is enough.
    public static func run(
        seeds: Range<UInt64>, place: Place? = nil, coverage: Coverage? = nil, stopsAtFirst: Bool = false
    ) -> (broken: [Verdict], steps: Int, simulated: Duration) {
        var broken: [Verdict] = []
        var steps = 0
        var simulated = Duration.zero
        for seed in seeds {
            let verdict = run(FaultPlan.draw(seed: seed, place: place), coverage: coverage)
            steps += verdict.steps
            simulated += verdict.simulated
            guard verdict.violation != nil else { continue }
            broken.append(verdict)
            if stopsAtFirst { break }
        }
        return (broken, steps, simulated)
    }
}
