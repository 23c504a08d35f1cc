//  Front.swift
//  The front on a bench: requests in, what became of them kept, time moved by hand.
//  Read before AdmissionTests.swift.

import Testing

@testable import PanelindCore

/// A front, its clock, and what became of every request.
struct Front {
    var admission: Admission
    var now = Instant.zero + .seconds(1000)
    var log: [AdmissionAction] = []
    static let g1 = Generation(1), g2 = Generation(2)

    init(_ route: Route = .forward(g1), _ change: (inout AdmissionSettings) -> Void = { _ in }) {
        var settings = AdmissionSettings()
        change(&settings)
        admission = Admission(settings)
        note(admission.take(route, at: now))
    }

    mutating func note(_ actions: [AdmissionAction]) { log += actions }

    /// A request comes. The result is its id and what was done with it; nothing: it waits.
    mutating func get(canRetry: Bool = true, bytes: Int = 100) -> RequestID {
        let (id, actions) = admission.arrive(bytes: bytes, canRetry: canRetry, at: now)
        note(actions)
        return id
    }

    mutating func post() -> RequestID { get(canRetry: false) }

    mutating func route(_ route: Route) { note(admission.take(route, at: now)) }
    mutating func lose(_ id: RequestID, unsent: Bool = false) { note(admission.lost(id, unsent: unsent, at: now)) }
    mutating func end(_ id: RequestID) { note(admission.ended(id, at: now)) }
    mutating func answer(_ id: RequestID, _ part: AnswerPart) { note(admission.answered(id, part, at: now)) }

    /// Moves the time through every deadline.
    mutating func pass(_ duration: Duration) {
        let end = now + duration
        var steps = 0
        while let next = admission.deadline, next <= end, steps < 10_000 {
            now = max(now, next)
            note(admission.time(at: now))
            steps += 1
        }
        #expect(steps < 10_000)
        now = end
    }

    /// What was done with this request, in order.
    func fate(_ id: RequestID) -> [AdmissionAction] {
        log.filter { action in
            switch action {
            case .forward(id, _), .refuse(id, _, _), .fail(id), .timeOut(id), .abort(id): true
            case .forward, .refuse, .fail, .timeOut, .abort, .tell: false
            }
        }
    }

    var told: [FrontEvent] {
        log.compactMap { if case .tell(let event) = $0 { event } else { nil } }
    }
}
