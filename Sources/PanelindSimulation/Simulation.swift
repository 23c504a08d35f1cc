//  Simulation.swift
//  From a seed to a verdict. The same seed gives the same transcript, byte for byte.
//  Read last; shrinking a failing plan would begin here.

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
    public static func run(seed: UInt64, transcript: Bool = false, actions: Bool = false) -> Verdict {
        run(FaultPlan.draw(seed: seed), transcript: transcript, actions: actions)
    }

    /// Runs the world of a plan.
    public static func run(_ plan: FaultPlan, transcript: Bool = false, actions: Bool = false) -> Verdict {
        World(plan, transcript: transcript, actions: actions).play()
    }

    /// Runs the worlds of these seeds and returns those that broke a law, and what was done in all.
    public static func run(seeds: Range<UInt64>) -> (broken: [Verdict], steps: Int, simulated: Duration) {
        var broken: [Verdict] = []
        var steps = 0
        var simulated = Duration.zero
        for seed in seeds {
            let verdict = run(seed: seed)
            steps += verdict.steps
            simulated += verdict.simulated
            if verdict.violation != nil { broken.append(verdict) }
        }
        return (broken, steps, simulated)
    }
}
