//  Platform.swift
//  What the operator and the platform do to a simulated panelind: stops, restarts, reloads, signals, frozen clocks.
//  Read FaultPlan.swift beside it.

import PanelindCore

/// Something that comes from outside at a planned time.
public enum Wish: Sendable {
    /// An operator's event reaches the machine.
    case tell(OperatorEvent)
    /// Nobody of panelind runs for so long; with `all`, no worker either (Cloud Run's CPU freeze).
    case freeze(all: Bool, Duration)
    /// Somebody else sends a signal to the leader.
    case signal(Signal)
    /// So many clients come at once.
    case burst(Int)
}

/// Who sends wishes.
enum Platform {
    /// Draws what happens between the start and the end of the safety phase.
    static func drawWishes(
        _ random: inout RandomNumbers, _ place: Place, of settings: SupervisorSettings, until end: Duration
    ) -> [(at: Duration, wish: Wish)] {
        let endMs = Int(end.nanoseconds / 1_000_000)
        var wishes: [(at: Duration, wish: Wish)] = []
        // Once in a while panelind is told to stop before it has begun.
        let start: Duration = random.chance(20) ? .milliseconds(5) : .zero
        wishes.append((start, .tell(.start)))
        let busy = random.pick(0, 2, 6, 15)
        for _ in 0..<random.below(busy + 1) {
            // Many come soon after the start, where most is under way at once.
            let at = random.duration(random.chance(400) ? 0...min(3000, endMs) : 0...endMs)
            switch random.below(10) {
            case 0, 1: wishes.append((at, .tell(.restart)))
            case 2, 3, 4:
                var new = FaultPlan.drawSettings(&random, place, running: settings)
                new.revision = wishes.count + 1
                wishes.append((at, .tell(.reload(new))))
                // A death in the middle of a trial, of either worker.
                if random.chance(300) { wishes.append((at + random.duration(0...1500), .signal(.kill))) }
            case 5: wishes.append((at, .tell(.pass(random.pick(.user1, .user2, .quit, .windowChange)))))
            case 6: wishes.append((at, .tell(.suspend)))
            case 7: wishes.append((at, .freeze(all: true, random.duration(random.pick(10...1500, 1500...90_000)))))
            case 8: wishes.append((at, .freeze(all: false, random.duration(random.pick(10...1500, 1500...30_000)))))
            default: wishes.append((at, .signal(random.pick(.terminate, .kill, .stop, .continue))))
            }
        }
        guard random.chance(350) else { return wishes }
        let stop = random.chance(300) ? random.duration(0...min(3000, endMs)) : random.duration(0...endMs)
        wishes.append((stop, .tell(.stop(by: "SIGTERM"))))
        // What comes into the stop: more stops, an impatient user, wishes that are too late, a frozen clock.
        let budgetMs = Int(settings.stop.budget.nanoseconds / 1_000_000)
        while random.chance(500) {
            let at = stop + random.duration(0...budgetMs)
            switch random.below(8) {
            case 7: wishes.append((at, .tell(.start)))
            case 0: wishes.append((at, .tell(.stop(by: "SIGTERM"))))
            case 1: wishes.append((at, .tell(.killNow)))
            case 2: wishes.append((at, .tell(.restart)))
            case 3:
                var new = FaultPlan.drawSettings(&random, place, running: settings)
                new.revision = wishes.count + 1
                wishes.append((at, .tell(.reload(new))))
            case 4: wishes.append((at, .tell(.resume)))
            case 5: wishes.append((at, .freeze(all: random.chance(500), random.duration(100...(2 * budgetMs)))))
            default: wishes.append((at, .tell(.suspend)))
            }
        }
        return wishes
    }
}
