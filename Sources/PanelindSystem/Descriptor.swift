//  Descriptor.swift
//  Who owns a descriptor: one value, which closes it when it goes; pipes and event descriptors.
//  Read after SystemError.swift.

import CPanelindSystem
import Glibc
import PanelindCore

/// The one owner of an open descriptor; it is closed when the value goes.
public struct Descriptor: ~Copyable {
    /// The number as the kernel knows it.
    public let number: Int32

    /// Takes over an open descriptor.
    public init(owning number: Int32) { self.number = number }

    deinit { close(number) }

    /// Gives the descriptor away: the caller closes it.
    public consuming func release() -> Int32 {
        let number = self.number
        discard self
        return number
    }

    /// A second descriptor of the same file description, with CLOEXEC (fcntl(2), F_DUPFD_CLOEXEC).
    public func duplicate() -> Result<Int32, SystemError> { Descriptors.duplicate(number) }
}

/// Calls on plain descriptor numbers.
public enum Descriptors {
    /// Another number for the same file description, with CLOEXEC; EMFILE when none is free.
    public static func duplicate(_ number: Int32) -> Result<Int32, SystemError> {
        let copy = fcntl(number, F_DUPFD_CLOEXEC, 3)
        return copy < 0 ? .failure(.last) : .success(copy)
    }

    /// Closes it on exec, or no longer (FD_CLOEXEC).
    @discardableResult
    public static func setCloseOnExec(_ number: Int32, _ on: Bool) -> Bool {
        let flags = fcntl(number, F_GETFD)
        return flags >= 0 && fcntl(number, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC) == 0
    }

    /// Sets O_NONBLOCK of the file description, which all who share it see: never on an inherited stdout.
    @discardableResult
    public static func setNonBlocking(_ number: Int32, _ on: Bool) -> Bool {
        let flags = fcntl(number, F_GETFL)
        return flags >= 0 && fcntl(number, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0
    }

    /// Whether the number is an open descriptor.
    public static func isOpen(_ number: Int32) -> Bool { fcntl(number, F_GETFD) >= 0 }

    /// Opens /dev/null on each of 0, 1, 2 that is closed, so that no other file lands there; first thing in `main`.
    public static func ensureStandard() {
        for number: Int32 in 0...2 where !isOpen(number) {
            // The lowest free number is the one that was found closed.
            _ = open("/dev/null", number == 0 ? O_RDONLY : O_WRONLY)
        }
    }

    /// Raises our soft limit towards the hard one (getrlimit(2)): a front needs two for each request. Children start
    /// with the limit of before.
    public static func raiseLimit(to most: UInt64 = 16384) { panelind_raise_descriptors(most) }

    /// What a start needs at most besides its listeners, the loop, and the first client.
    public static let neededForStart = 24

    /// Whether an event loop and the rest of a start would find what they need; NIO ends the process where they do not.
    ///
    /// - Returns: the sentence to print, or nil.
    public static func shortage() -> String? {
        let result = panelind_loop_trial(Int32(neededForStart))
        guard result < 0 else { return nil }
        let error = SystemError(result)
        var limit = rlimit()
        guard error.number == EMFILE, getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return "cannot make the event loop: \(error)"
        }
        return "cannot start: \(error), the limit is \(limit.rlim_cur); raise it (ulimit -n)"
    }

    /// Waits until one is readable or the time is over (poll(2)): true when readable or at its end.
    public static func waitReadable(_ number: Int32, for limit: Duration) -> Bool {
        var entry = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
        let end = Clock.now() + limit
        while true {
            let left = max(0, (end - Clock.now()).nanoseconds)
            let result = poll(&entry, 1, Int32(min(Int64(Int32.max), (left + 999_999) / 1_000_000)))
            if result > 0 { return true }
            if result == 0 || errno != EINTR { return false }
        }
    }
}

/// A counter that wakes a loop (eventfd(2)), non-blocking.
public struct EventDescriptor: ~Copyable {
    /// Readable while the counter is not zero.
    public let descriptor: Descriptor

    /// Makes one; EMFILE or ENFILE when none is free.
    public init() throws(SystemError) {
        let number = panelind_eventfd()
        if number < 0 { throw SystemError(number) }
        self.descriptor = Descriptor(owning: number)
    }

    /// Wakes who watches; may be called on any thread.
    public func signal() {
        var one: UInt64 = 1
        // A full counter (EAGAIN) is readable already.
        _ = write(descriptor.number, &one, 8)
    }

    /// Takes all signals so far: true when there was one.
    @discardableResult
    public func drain() -> Bool {
        var count: UInt64 = 0
        return read(descriptor.number, &count, 8) == 8
    }
}

/// Both ends of a pipe, CLOEXEC and blocking.
public struct Pipe: ~Copyable {
    /// What is written to the other end arrives here.
    public let reading: Descriptor
    /// The end to give to a child.
    public let writing: Descriptor

    /// Takes the pipe apart: the caller owns both numbers.
    public consuming func release() -> (reading: Int32, writing: Int32) {
        (reading.release(), writing.release())
    }
}

/// Makes pipes.
public enum Pipes {
    /// A pipe (pipe2(2)) of `bytes` capacity, 0 for the kernel's default; a refused size gives the default, no error.
    public static func makePipe(bytes: Int = 0) -> Result<Pipe, SystemError> {
        var numbers: [Int32] = [-1, -1]
        let result = panelind_pipe(&numbers, Int32(clamping: bytes))
        if result < 0 { return .failure(SystemError(result)) }
        return .success(Pipe(reading: Descriptor(owning: numbers[0]), writing: Descriptor(owning: numbers[1])))
    }
}
