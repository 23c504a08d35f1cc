//  StatesTests.swift
//  Every place of the machine crossed with every kind of event: the next state, and what is asked for.
//  The expected rows are in StateTable*.swift. Read Setups.swift first.

import Testing

@testable import PanelindCore

@Suite("States and events")
struct StatesTests {
    @Test("the setups reach every life of a worker and every public state")
    func coverage() {
        var states: Set<State> = []
        var lives: Set<String> = []
        for setup in Setup.allCases {
            let machine = setup.machine
            states.insert(machine.state)
            if let life = machine.life { lives.insert(Self.name(life)) }
        }
        #expect(states == Set(State.allCases))
        #expect(lives.count == 10, "\(lives)")
    }

    /// One name for each life, and for each phase of leaving; `gone` is never seen after a step.
    static func name(_ life: Worker.Life) -> String {
        switch life {
        case .preparing: "preparing"
        case .spawning(leave: nil): "spawning"
        case .spawning: "spawning to leave"
        case .starting: "starting"
        case .ready: "ready"
        case .unready: "unready"
        case .leaving(let plan):
            switch plan.phase {
            case .delay, .drain, .lastDrain: "draining"
            case .signalled: "signalled"
            case .killing: "killing"
            }
        case .sweeping: "sweeping"
        case .gone: "gone"
        }
    }

    @Test("a sample is of the kind it stands for", arguments: EventKind.allCases)
    func samples(kind: EventKind) {
        #expect(EventKind(kind.sample(for: Setup.ready.machine)) == kind)
    }

    @Test("every event in every state leads where the table says", arguments: Setup.allCases)
    func table(setup: Setup) {
        let expected = StateTable.rows[setup] ?? [:]
        for kind in EventKind.allCases {
            var machine = setup.machine
            // Behind a stop or a reload of the same moment SIGCONT by itself is nothing.
            if kind == .resume { machine.send(.suspend) }
            let before = machine.state
            let rules = machine.rules.count
            let actions = machine.send(kind.sample(for: machine))
            let row = Self.row(from: before, to: machine.state, actions)
            #expect(row == expected[kind, default: ""], "\(setup), \(kind)")
            if machine.state != before, kind != .flushed, machine.state != .stopped {
                #expect(machine.rules.count > rules, "\(setup), \(kind): a step without a rule")
            }
        }
    }

    static func row(from: State, to: State, _ actions: [Action]) -> String {
        let parts = [from == to ? nil : "-> \(to):", actions.brief.isEmpty ? nil : actions.brief]
        return parts.compactMap { $0 }.joined(separator: " ")
    }

    @Test("news of a generation that is gone, or never was, change nothing", arguments: Setup.allCases)
    func strangers(setup: Setup) {
        for generation in [Generation(0), Generation(99)] {
            for kind in EventKind.allCases {
                var machine = setup.machine
                guard case .worker(_, let news) = kind.sample(for: machine) else { continue }
                let before = machine.supervisor.deadline
                #expect(machine.send(news, of: generation).isEmpty, "\(setup), \(kind)")
                #expect(machine.supervisor.deadline == before, "\(setup), \(kind)")
            }
        }
    }

    @Test("every state that is not final has a deadline or an answer to come", arguments: Setup.allCases)
    func liveness(setup: Setup) {
        let machine = setup.machine
        switch setup {
        case .waiting, .failed, .exited: #expect(machine.supervisor.deadline == nil)
        case .spawning, .spawningToLeave: break  // `spawned` or `spawnFailed` must come.
        case .preparing, .starting, .ready, .doubted, .refusing, .unready, .delay, .drain, .lastDrain, .signalled,
            .killing, .sweepingInGrace, .stopSweep, .crashed, .livenessFailed, .backoff, .restarting, .trial,
            .predecessor,
            .policyEnd, .flushing:
            #expect(machine.supervisor.deadline != nil)
        }
    }
}
