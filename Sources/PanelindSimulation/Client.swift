//  Client.swift
//  The clients of a simulated front: requests and streams in flight to each generation, by the published route.
//  They know whether a request would have succeeded. Read before World.swift.

import PanelindCore

/// What the clients see, and what they have in flight.
struct Clients {
    /// What was published last.
    var route = Route.hold
    var snapshot: HealthSnapshot?
    /// Requests in flight, by generation.
    private var plain: [Generation: Int] = [:]
    private var streams: [Generation: Int] = [:]
    /// Generations of which the front was asked to report the drain.
    private var reporting: Set<Generation> = []
    private var saidOnlyStreams: Set<Generation> = []

    /// Where a request that is sent now goes, or nil where it is held or refused.
    var target: Generation? {
        switch route {
        case .forward(let generation), .lastCall(let generation): generation
        case .hold, .refuse: nil
        }
    }

    mutating func begin(_ generation: Generation, isStream: Bool) {
        if isStream { streams[generation, default: 0] += 1 } else { plain[generation, default: 0] += 1 }
    }

    mutating func end(_ generation: Generation, isStream: Bool) {
        if isStream {
            streams[generation] = max(0, streams[generation, default: 0] - 1)
        } else {
            plain[generation] = max(0, plain[generation, default: 0] - 1)
        }
    }

    /// Its connections are gone: it died, or the front cut them.
    mutating func drop(_ generation: Generation) {
        plain[generation] = nil
        streams[generation] = nil
    }

    mutating func report(_ generation: Generation) { reporting.insert(generation) }

    /// The edges that are true now and were not told yet.
    mutating func news(of generation: Generation) -> FrontEvent? {
        guard reporting.contains(generation), plain[generation, default: 0] == 0 else { return nil }
        if streams[generation, default: 0] == 0 {
            reporting.remove(generation)
            return .drained(generation)
        }
        guard saidOnlyStreams.insert(generation).inserted else { return nil }
        return .onlyStreamsLeft(generation)
    }
}
