//  Signals.swift
//  What each signal to panelind means (CONTRACT section 3).
//  Read after Daemon.swift.

import PanelindCore
import PanelindSystem

extension Daemon {
    /// Takes every signal that came; the caller runs the driver.
    func handle(_ received: [ReceivedSignal]) {
        for one in received {
            switch one.signal {
            case .child:
                // A sender that has ended is still known by its pid until it is reaped: its last word comes first.
                receiveNotifications(beforeReaping: true)
                performer.reap()
            case .terminate:
                driver.enqueue(.operator(.stop(by: "SIGTERM")))
            case .interrupt:
                interrupts += 1
                if one.isFromTerminal, sharesTerminal, interrupts == 1 { performer.terminalHasInterrupted = true }
                if interrupts > 1, Terminal.isInput {
                    driver.enqueue(.operator(.killNow))
                } else {
                    driver.enqueue(.operator(.stop(by: "SIGINT")))
                }
            case .hangup:
                // The terminal is gone, or an operator asks for a reload.
                if hadTerminal { driver.enqueue(.operator(.stop(by: "SIGHUP"))) } else { reload() }
            case .terminalStop:
                driver.enqueue(.operator(.suspend))
            case .continue:
                driver.enqueue(.operator(.resume))
            case .user1, .user2, .windowChange, .quit:
                // A key of the shared terminal, or its new size, has reached the worker already.
                if one.isFromTerminal, sharesTerminal { continue }
                driver.enqueue(.operator(.pass(one.signal)))
            case .inputReady:
                receiveNotifications()
            default:
                break  // Nothing else is read from the descriptor.
            }
        }
    }
}
