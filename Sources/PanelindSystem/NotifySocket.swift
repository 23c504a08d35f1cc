//  NotifySocket.swift
//  What workers tell: READY=1 and its relatives on a private datagram socket, with the kernel's word for who says it.
//  Whether a sender may be believed is decided by its owner (Children.owner). Read after PrivateDirectory.swift.

import CPanelindSystem
import Glibc
import PanelindCore

/// One datagram (sd_notify(3)).
public struct NotifyMessage: Hashable, Sendable {
    /// The sender, by the kernel (SCM_CREDENTIALS of unix(7)).
    public var pid: Int32
    public var uid: UInt32
    /// `READY` and `1`, in their order; lines without `=` are left out.
    public var assignments: [Assignment]

    /// One line of a message.
    public struct Assignment: Hashable, Sendable {
        public var key: String
        public var value: String

        /// Makes one line.
        public init(_ key: String, _ value: String) {
            self.key = key
            self.value = value
        }
    }

    /// Makes a message.
    public init(pid: Int32, uid: UInt32, assignments: [Assignment]) {
        self.pid = pid
        self.uid = uid
        self.assignments = assignments
    }

    /// The last value of a key, nil where it is not said.
    public subscript(key: String) -> String? { assignments.last { $0.key == key }?.value }
}

/// The NOTIFY_SOCKET of all our workers.
///
/// Anyone who may pass through its directory can send: the directory is 0700, or 0711 with a random name where the
/// worker drops to another user. Senders are told apart by pid, never trusted by path.
public final class NotifySocket {
    /// Readable while a message waits.
    public let descriptor: Int32
    /// The value of NOTIFY_SOCKET.
    public let path: String
    /// Messages that were cut, not UTF-8, or from nobody.
    public private(set) var droppedTotal = 0

    private let directory: PrivateDirectory
    private var buffer = [UInt8](repeating: 0, count: limit)

    /// The longest message in bytes; longer ones are dropped.
    public static let limit = 4096
    /// Messages of one call, so that a flood cannot hold the loop.
    public static let bound = 64
    /// Lines of one message that are looked at; nobody has more to say than the seven keys that mean something.
    static let lines = 64

    /// Binds the socket; it and its directory go with the value.
    ///
    /// - Parameter sharedWithOtherUsers: the worker drops to another user.
    public init(sharedWithOtherUsers: Bool = false) throws(SystemError) {
        directory = try PrivateDirectory.make(access: sharedWithOtherUsers ? .searchable : .own).get()
        path = directory.path + "/notify"
        guard let address = SocketAddress.unix(path) else { throw SystemError(ENAMETOOLONG) }
        let number = socket(
            AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        if number < 0 { throw SystemError.last }
        var on: Int32 = 1
        // Before bind: no message may come without its sender.
        guard setsockopt(number, SOL_SOCKET, SO_PASSCRED, &on, socklen_t(MemoryLayout<Int32>.size)) == 0,
            SocketAddress.bind(number, address),
            // To connect is to write to the file; who may reach it is the directory's affair.
            chmod(path, sharedWithOtherUsers ? 0o666 : 0o600) == 0
        else {
            let error = SystemError.last
            close(number)
            throw error
        }
        descriptor = number
    }

    deinit { close(descriptor) }

    /// Removes directories like ours that killed ones have left, as far as it gets within a few milliseconds.
    public func removeAbandoned() { directory.removeAbandonedBeside(within: .milliseconds(5)) }

    /// Removes the socket's path and directory, before an exit that runs no deinit.
    public func remove() { directory.remove() }

    /// Takes at most `bound` messages; call again while it returns as many, or while the descriptor is readable.
    ///
    /// Descriptors that come along are closed, which is the answer that BARRIER=1 waits for: what was sent before it
    /// has been received. Identify the sender at once: it may end as soon as it has its answer.
    public func receive() -> [NotifyMessage] {
        var messages: [NotifyMessage] = []
        for _ in 0..<Self.bound {
            var pid: pid_t = 0
            var uid: uid_t = 0
            var truncated: Int32 = 0
            let count = panelind_receive(descriptor, &buffer, buffer.count, &pid, &uid, &truncated)
            if count < 0 { break }
            // A sender outside our pid namespace has pid 0.
            guard truncated == 0, pid > 0, let assignments = Self.parse(buffer[0..<count]) else {
                droppedTotal += 1
                continue
            }
            messages.append(NotifyMessage(pid: pid, uid: uid, assignments: assignments))
        }
        return messages
    }

    /// The lines of a message; nil for text that is not UTF-8 or contains NUL before its end.
    ///
    /// By bytes: CR LF is one character of Swift's, and a sign may join itself to the `=`. A CR ends a line as in
    /// systemd itself.
    package static func parse(_ bytes: ArraySlice<UInt8>) -> [NotifyMessage.Assignment]? {
        var bytes = bytes
        // Some senders count the terminating NUL of C.
        if bytes.last == 0 { bytes.removeLast() }
        guard !bytes.contains(0), String(validating: bytes, as: UTF8.self) != nil else { return nil }
        let lines = bytes.split(maxSplits: Self.lines) { $0 == 0x0A || $0 == 0x0D }
        return lines.prefix(Self.lines).compactMap { line in
            guard let equals = line.firstIndex(of: 0x3D), equals > line.startIndex else { return nil }
            return NotifyMessage.Assignment(
                String(decoding: line[..<equals], as: UTF8.self),
                String(decoding: line[(equals + 1)...], as: UTF8.self))
        }
    }
}

extension NotifyMessage.Assignment {
    /// What a line asks of panelind.
    public enum Meaning: Hashable, Sendable {
        /// News for the machine.
        case news(PanelindCore.Notification)
        /// The leader is another process from now on.
        case mainPID(Int32)
    }

    /// Nil for what is not understood: unknown assignments are ignored (sd_notify(3)).
    public var meaning: Meaning? {
        switch (key, value) {
        case ("READY", "1"): return .news(.ready)
        case ("RELOADING", "1"): return .news(.reloading)
        case ("STOPPING", "1"): return .news(.stopping)
        case ("STATUS", _): return .news(.status(value))
        case ("WATCHDOG", "1"): return .news(.watchdog)
        case ("WATCHDOG", "trigger"): return .news(.watchdogTrigger)
        case ("EXTEND_TIMEOUT_USEC", _):
            guard let microseconds = Int64(value), microseconds > 0 else { return nil }
            // An hour at most: a worker cannot put off its own deadline for ever by one message.
            return .news(.extendTimeout(.microseconds(min(microseconds, 3_600_000_000))))
        case ("MAINPID", _):
            guard let main = Int32(value), main > 0 else { return nil }
            return .mainPID(main)
        default: return nil
        }
    }
}
