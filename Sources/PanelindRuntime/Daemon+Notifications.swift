//  Daemon+Notifications.swift
//  What workers tell on the notify socket: only members of a worker's tree are heard (CONTRACT section 6).
//  A flood of it, by whomever, gets its turn and no more. Read after PanelindSystem/NotifySocket.swift.

import NIOCore
import PanelindCore
import PanelindOutput
import PanelindSystem

/// What is remembered between two looks at the notify socket.
struct NotificationIntake {
    /// More waits there: it will be looked at again.
    var isResting = false
    /// When a stranger's message was last told, and how many were not told since.
    var toldAt: Instant?
    var untold = 0
}

extension Daemon {
    /// Takes what has come, of a flood a portion or some; after a rest of as long the next.
    ///
    /// - Parameter beforeReaping: a sender that has ended is known no more once it is reaped, so its last words are read
    ///   now: 16 portions are twice what systemd lets such a queue hold (net.unix.max_dgram_qlen 512).
    func receiveNotifications(beforeReaping: Bool = false) {
        guard let notifySocket, beforeReaping || !notifications.isResting else { return }
        let began = Clock.now()
        for _ in 0..<16 where beforeReaping || Clock.now() - began < .milliseconds(2) {
            let messages = notifySocket.receive()
            // Whose a process is takes some reads of /proc: once for each sender in a portion.
            var owners: [Int32: Generation?] = [:]
            for message in messages {
                let owner = owners[message.pid] ?? children.owner(of: message.pid)
                owners[message.pid] = .some(owner)
                guard let owner, driver.supervisor.generations.contains(owner) else {
                    ignored(message.pid)
                    continue
                }
                for assignment in Self.known(message.assignments) { take(assignment.meaning, owner) }
            }
            if messages.count < NotifySocket.bound { return }
        }
        guard !notifications.isResting else { return }
        notifications.isResting = true
        // A task for now would come before the other descriptors.
        performer.loop.assumeIsolatedUnsafeUnchecked().scheduleTask(in: .milliseconds(2)) { [unowned self] in
            notifications.isResting = false
            receiveNotifications()
            turn()
        }
    }

    /// At most one record a second: who floods the socket shall not flood the log.
    private func ignored(_ pid: Int32) {
        let now = Clock.now()
        if let toldAt = notifications.toldAt, now - toldAt < .seconds(1) {
            notifications.untold += 1
            return
        }
        let others = notifications.untold > 0 ? "; \(notifications.untold) others since the last such record" : ""
        notifications.toldAt = now
        notifications.untold = 0
        output.log(
            OwnRecord(
                .warning, event: "notification_ignored",
                message: "a notification of pid \(pid), which is no worker's, is ignored\(others)"))
    }

    /// The assignments that mean something here, the last of each key (sd_notify(3): unknown ones are ignored).
    private static func known(_ assignments: [NotifyMessage.Assignment]) -> [NotifyMessage.Assignment] {
        var last: [String: Int] = [:]
        for (index, one) in assignments.enumerated() where keys.contains(one.key) { last[one.key] = index }
        return last.values.sorted().map { assignments[$0] }
    }

    private static let keys: Set<String> = [
        "READY", "RELOADING", "STOPPING", "STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "MAINPID",
    ]

    private func take(_ meaning: NotifyMessage.Assignment.Meaning?, _ generation: Generation) {
        switch meaning {
        case .news(let news):
            if case .status(let text) = news { performer.kept[generation]?.status = text }
            performer.tell(generation, .notified(news))
        case .mainPID(let main): _ = children.adoptMainPID(generation, main)
        case nil: break
        }
    }
}
