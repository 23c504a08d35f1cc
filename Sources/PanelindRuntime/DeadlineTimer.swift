//  DeadlineTimer.swift
//  The one timer of the machine, and of the daemon: nothing else wakes by the clock.
//  Armed for `Supervisor.deadline` after every turn, silent where there is none.

import NIOCore
import PanelindCore

/// One scheduled task of the loop, moved when the deadline moves.
final class DeadlineTimer {
    private let loop: any EventLoop
    private let fire: () -> Void
    private var armed: Instant?
    private var task: Scheduled<Void>?

    init(loop: any EventLoop, fire: @escaping () -> Void) {
        self.loop = loop
        self.fire = fire
    }

    /// Fires at this instant instead of any other; never for nil.
    func arm(_ deadline: Instant?) {
        guard deadline != armed else { return }
        task?.cancel()
        task = nil
        armed = deadline
        guard let deadline else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        // NIO takes every task that is due before it looks at a descriptor again: a deadline that is over whenever it
        // is armed, as where one pass of a sweep takes longer than the wait for the next, would hide each SIGCHLD.
        let soonest = NIODeadline.now() + .milliseconds(1)
        // NIO's deadlines count CLOCK_MONOTONIC too.
        let wanted = NIODeadline.uptimeNanoseconds(UInt64(max(0, deadline.nanoseconds)))
        task = loop.scheduleTask(deadline: max(wanted, soonest)) {
            let timer = bound.value
            timer.armed = nil
            timer.task = nil
            timer.fire()
        }
    }
}
