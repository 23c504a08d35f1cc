//  AtTerminal.swift
//  What only a person at a terminal is told: how to look and how to stop, and how long a stop still takes.
//  Words only: nothing is decided here, and elsewhere than on a terminal there is none of it. Read after Daemon.swift.

import NIOCore
import PanelindCore
import PanelindOutput
import PanelindSettings
import PanelindSystem

extension Daemon {
    /// The lines below the first one of a run on a terminal.
    func welcome(_ settings: Settings, listens: String?, sidecar: String?) {
        guard performer.isAtTerminal else { return }
        var places: [String] = []
        if let listens { places.append("serving on \(Self.address(listens))") }
        if let sidecar { places.append("status page on \(Self.address(sidecar))") }
        if !places.isEmpty { performer.say(places.joined(separator: ", ")) }
        let asks = control.path == nil ? "" : "; `panelind status` and `panelind why` in another terminal tell more"
        performer.say("Ctrl-C stops within \(settings.stop.budget.text), twice at once\(asks)")
        if settings.worker.stdin == .inherit, settings.log.format != .inherit {
            performer.say(
                "a prompt without a newline shows late, as of breakpoint(); log.format=inherit shows it at once")
        }
    }

    /// What a browser takes, where it is one of loopback or of all addresses.
    private static func address(_ listens: String) -> String {
        for prefix in ["0.0.0.0:", "[::]:"] where listens.hasPrefix(prefix) {
            return "http://localhost:\(listens.dropFirst(prefix.count))"
        }
        return listens.hasPrefix("127.") || listens.hasPrefix("[::1]") ? "http://\(listens)/" : listens
    }
}

extension Performer {
    /// Standard output is a terminal, and lines on it are for people.
    var isAtTerminal: Bool {
        if case .text = output.configuration.format { return Terminal.isOutput }
        return false
    }

    /// A line that is no event.
    func say(_ text: String) { output.log(OwnRecord(.info, event: "", message: text)) }

    /// Counts a stop down, a line a second; the process ends before the count does.
    func countDown(_ step: Step) {
        guard isAtTerminal, step.rules.contains(where: { if case .stopRequested = $0 { true } else { false } }) else {
            return
        }
        let end = step.at + driver.supervisor.settings.stop.budget
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            let performer = bound.value
            let left = max(0, Int((end - Clock.now()).seconds.rounded()))
            let inFlight = performer.metrics.http.inFlight()
            let requests =
                inFlight == 0 ? "" : inFlight == 1 ? ", 1 request in flight" : ", \(inFlight) requests in flight"
            let key = Terminal.isInput ? "; Ctrl-C ends it now" : ""
            performer.say("stopping: at most \(left)s left\(requests)\(key)")
        }
    }
}
