//  Place.swift
//  The named worlds: what a terminal, Cloud Run, systemd and Kubernetes do to panelind, and with which settings it runs.
//  A seed draws its place; `wild` mixes everything, as no platform does. Read FaultPlan.swift and Platform.swift first.

import PanelindCore

/// Where a simulated panelind runs.
public enum Place: String, CaseIterable, Sendable {
    case terminal, cloudrun, systemd, kubernetes, wild

    /// The place of a seed: every second one is wild.
    static func draw(seed: UInt64) -> Place {
        var random = RandomNumbers(seed: seed ^ 0x91A_CE)
        return random.pick(.wild, .wild, .wild, .wild, .terminal, .cloudrun, .systemd, .kubernetes)
    }

    /// How a front is as likely as it is there; nil: any mode.
    func drawMode(_ random: inout RandomNumbers) -> ServeMode {
        switch self {
        case .cloudrun, .kubernetes: random.pick(.front, .front, .front, .front, .direct)
        case .systemd: random.pick(.front, .socket, .socket, .direct)
        case .terminal: random.pick(.front, .front, .direct)
        case .wild: random.pick(.front, .socket, .direct)
        }
    }

    /// The platform's profile (CONTRACT section 2) over drawn settings; now and then the user's own values stay.
    func shape(_ it: inout SupervisorSettings, _ random: inout RandomNumbers) {
        guard self != .wild else { return }
        if !random.chance(200) { it.stop = stop(it.mode) }
        it.restart.limit = self == .cloudrun ? 8 : random.chance(900) ? nil : 3
        switch self {
        case .terminal, .cloudrun: it.restart.permanentExitCodes = [3, 4, 126, 127]
        case .systemd, .kubernetes, .wild: it.restart.permanentExitCodes = [126, 127]
        }
        it.watchdogPing = self == .systemd ? .seconds(15) : nil
        if self == .cloudrun, random.chance(500) { it.worker.startupDeadline = .seconds(240) }
        it.hold = random.chance(800) ? .seconds(10) : it.hold
    }

    private func stop(_ mode: ServeMode) -> StopSettings {
        var it = StopSettings()
        switch self {
        case .terminal: it.budget = .seconds(9)
        case .cloudrun:
            it.budget = .seconds(9)
            it.delay = .seconds(1)
        case .kubernetes: it.delay = .seconds(5)
        case .systemd, .wild: break
        }
        it.drain = mode == .front ? (it.budget - it.delay) * 2 / 3 : .zero
        it.grace = it.budget - it.delay - it.drain - StopSettings.reserve
        return it
    }

    /// Whether descendants come to panelind: PID 1 and subreapers; gVisor may refuse.
    func adoptsOrphans(_ random: inout RandomNumbers) -> Bool { !random.chance(self == .cloudrun ? 500 : 250) }

    /// What happens there beyond what happens everywhere.
    func drawWishes(_ random: inout RandomNumbers, until end: Duration) -> [(at: Duration, wish: Wish)] {
        let endMs = Int(end.nanoseconds / 1_000_000)
        var wishes: [(at: Duration, wish: Wish)] = []
        func often(_ times: Int, _ wish: (inout RandomNumbers) -> Wish) {
            for _ in 0..<random.below(times + 1) { wishes.append((random.duration(0...endMs), wish(&random))) }
        }
        switch self {
        case .terminal:
            often(3) { _ in .tell(.suspend) }
            // A lid is closed.
            often(1) { .freeze(all: true, $0.duration(10_000...90_000)) }
            if random.chance(300) {
                let at = random.duration(0...endMs)
                wishes.append((at, .tell(.stop(by: "SIGINT"))))
                if random.chance(500) { wishes.append((at + random.duration(50...3000), .tell(.killNow))) }
            }
        case .cloudrun:
            // No CPU between two requests; the stop finds a frozen one as well.
            often(8) { .freeze(all: true, $0.duration($0.pick(100...3000, 1000...90_000))) }
            if random.chance(300) {
                let at = random.duration(0...endMs)
                wishes.append((at, .freeze(all: true, .seconds(30))))
                wishes.append((at + .milliseconds(random.below(30_000)), .tell(.stop(by: "SIGTERM"))))
            }
        case .systemd:
            often(2) { _ in .tell(.reloadRefused("cannot use restart.delay=1: a duration needs a unit")) }
            often(3) { .signal($0.pick(.terminate, .kill, .abort)) }
        case .kubernetes:
            often(2) { .freeze(all: false, $0.duration(100...5000)) }
            often(1) { _ in .signal(.kill) }
            guard random.chance(600) else { break }
            // A node stalls just behind a crash under load: the next worker is ready before anybody can tell.
            let at = random.duration(0...endMs)
            wishes.append((at, .signal(.kill)))
            wishes.append((at + random.duration(0...200), .burst(random.pick(30, 100, 300))))
            wishes.append((at + random.duration(200...1000), .freeze(all: false, random.duration(2000...15_000))))
        case .wild:
            often(1) { _ in .tell(.reloadRefused("the file is not there")) }
            // Nobody sends these out of turn; the machine must not mind.
            if random.chance(50) { often(1) { _ in .tell(.start) } }
            if random.chance(50) { often(1) { _ in .tell(.killNow) } }
        }
        return wishes
    }
}
