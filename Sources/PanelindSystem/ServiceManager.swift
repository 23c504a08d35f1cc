//  ServiceManager.swift
//  systemd, as a service speaks with it: notifications, its watchdog, and libsystemd loaded when that is needed.
//  Nothing here waits for systemd but the barrier, which is bounded. Read after ListenAddress.swift.

import CPanelindSystem
import Glibc
import PanelindCore

/// libsystemd.so.0, loaded on first use and kept.
public enum SystemdLibrary {
    /// Why it is not there, in dlopen's words; nil where it is.
    public static let problem: String? = {
        var why = [CChar](repeating: 0, count: 512)
        guard panelind_systemd_load(&why, why.count) < 0 else { return nil }
        return String(decoding: why.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }()

    /// The machine was booted by systemd (sd_booted(3)); false without the library.
    public static var isBooted: Bool { problem == nil && panelind_systemd_booted() > 0 }

    /// Gives one journal entry to sd_journal_sendv(3), which passes a large one by a sealed file.
    ///
    /// Fields are `NAME=value`. 0, or an errno; ENOSYS without the library. May block while the journal takes nothing.
    public static func sendToJournal(_ fields: UnsafeBufferPointer<iovec>) -> Int32 {
        guard problem == nil else { return ENOSYS }
        return -min(0, panelind_systemd_journal(fields.baseAddress, Int32(fields.count)))
    }
}

/// The receiver at NOTIFY_SOCKET (sd_notify(3)).
public final class ServiceManager {
    /// What became of a message.
    public enum Sent: Hashable, Sendable {
        case sent
        /// Its queue is full: later.
        case busy
        /// Why not: `no such file (ENOENT)`.
        case failed(String)
    }

    /// The value of NOTIFY_SOCKET.
    public let path: String
    private let address: [UInt8]?

    /// Nil without NOTIFY_SOCKET. Nothing is opened or loaded yet.
    public init?(environment: [String: String]) {
        guard let path = environment["NOTIFY_SOCKET"], !path.isEmpty else { return nil }
        self.path = path
        address = Self.address(path)
    }

    /// Sends one message: lines of `NAME=value`.
    ///
    /// By sd_notify(3) only where that does not block: a socket of our own looks first whether there is room, and tells
    /// more exactly why not. Without the library that socket sends.
    public func send(_ text: String) -> Sent {
        guard let address else {
            if path.first == "/" || path.first == "@" {
                return .failed("its \(path.utf8.count) bytes are more than the \(SocketAddress.pathLimit) of a socket")
            }
            // An address of a kind that is newer than this program (vsock); the library may know it.
            guard SystemdLibrary.problem == nil else { return .failed("it is neither a path nor an abstract name") }
            return Self.result(panelind_systemd_notify(text))
        }
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        if descriptor < 0 { return .failed("\(SystemError.last)") }
        defer { close(descriptor) }
        guard SocketAddress.connect(descriptor, address) else { return .failed("\(SystemError.last)") }
        if SystemdLibrary.problem == nil {
            var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&room, 1, 0) == 1 else { return .busy }
            return Self.result(panelind_systemd_notify(text))
        }
        var text = text
        let count = text.withUTF8 { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if count >= 0 { return .sent }
        return errno == EAGAIN ? .busy : .failed("\(SystemError.last)")
    }

    /// Waits until systemd has taken what was sent, at most so long: it knows a sender that is gone no more.
    public func waitUntilReceived(atMost limit: Duration) {
        guard SystemdLibrary.problem == nil else { return }
        _ = panelind_systemd_barrier(UInt64(max(0, limit.nanoseconds / 1000)))
    }

    private static func result(_ answer: Int32) -> Sent {
        answer > 0 ? .sent : answer == -EAGAIN ? .busy : .failed("\(SystemError(answer))")
    }

    /// A path, or a name of the abstract namespace behind `@` (unix(7)); nil where it does not fit or is neither.
    static func address(_ path: String) -> [UInt8]? {
        if path.first == "/" { return SocketAddress.unix(path) }
        let name = Array(path.utf8.dropFirst())
        guard path.first == "@", !name.isEmpty, name.count <= SocketAddress.pathLimit else { return nil }
        // Without a terminating NUL: every byte of an abstract name counts.
        return withUnsafeBytes(of: sa_family_t(AF_UNIX)) { Array($0) } + [0] + name
    }
}

/// What WATCHDOG_USEC asks of us (sd_watchdog_enabled(3)).
public struct WatchdogRequest: Hashable, Sendable {
    /// Nil where nothing is asked for.
    public var timeout: Duration?
    /// Why a value is not followed.
    public var warning: String?

    /// Reads the two variables; the library has the last word where it is there.
    public init(environment: [String: String], pid: Int32 = getpid()) {
        guard let text = environment["WATCHDOG_USEC"] else { return }
        let owner = environment["WATCHDOG_PID"]
        if let owner, Int32(owner) != pid {
            warning = "WATCHDOG_USEC=\(text) is not followed: it is meant for pid \(owner), and this is \(pid)"
            return
        }
        var microseconds: UInt64 = 0
        var isGood = false
        // The library reads the environment and the pid of this process: what was passed here, but in tests.
        if pid == getpid(), SystemdLibrary.problem == nil {
            isGood = panelind_systemd_watchdog(&microseconds) > 0
        } else if let number = UInt64(text), number > 0, number < UInt64.max {
            microseconds = number
            isGood = true
        }
        guard isGood, let amount = Int64(exactly: microseconds), amount <= 1_000_000_000_000 else {
            warning = "cannot use WATCHDOG_USEC=\(text): not a number of microseconds; systemd is sent no WATCHDOG=1"
            return
        }
        timeout = .microseconds(amount)
    }
}

/// What is wrong with LISTEN_FDS where it looks like ours and is not; nil where nothing is (sd_listen_fds(3)).
public func listenVariablesProblem(_ environment: [String: String], pid: Int32 = getpid()) -> String? {
    guard let count = environment["LISTEN_FDS"] else { return nil }
    guard let owner = environment["LISTEN_PID"] else {
        return "LISTEN_FDS=\(count) is not followed: LISTEN_PID does not say for which process it is"
    }
    guard Int32(owner) == pid else {
        return "LISTEN_FDS=\(count) is not followed: it is meant for pid \(owner), and this is \(pid)"
    }
    guard let number = Int(count), (0...1024).contains(number) else {
        return "cannot use LISTEN_FDS=\(count): not a number from 0 to 1024; no socket is taken over"
    }
    return nil
}
