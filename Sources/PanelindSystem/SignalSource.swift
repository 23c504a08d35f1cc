//  SignalSource.swift
//  panelind's own signals, read from a descriptor instead of interrupting (CONTRACT section 3).
//  Blocked on the first line of main; children start with an empty mask and default dispositions all the same.

import CPanelindSystem
import Glibc
import PanelindCore

/// One signal that arrived.
public struct ReceivedSignal: Hashable, Sendable {
    /// Which.
    public var signal: Signal
    /// Who sent it; 0 for the kernel or a process outside our pid namespace. For SIGCHLD the child.
    public var senderPID: Int32
    /// si_code is SI_KERNEL: a key of the terminal (Ctrl-C, Ctrl-Z, Ctrl-\) or its hangup.
    public var isFromTerminal: Bool

    /// Makes a record of one signal.
    public init(signal: Signal, senderPID: Int32, isFromTerminal: Bool) {
        self.signal = signal
        self.senderPID = senderPID
        self.isFromTerminal = isFromTerminal
    }
}

/// The signals of CONTRACT section 3 through signalfd(2).
public final class SignalSource {
    /// What is blocked and read here.
    public static let handled: [Signal] = [
        .terminate, .interrupt, .hangup, .terminalStop, .continue, .user1, .user2, .windowChange, .quit, .child,
        .inputReady,
    ]

    /// Readable while a signal waits.
    public let descriptor: Int32

    /// Blocks the handled signals in the calling thread, ignores SIGPIPE; first line of `main`, before any thread.
    @discardableResult
    public static func blockAll() -> SystemError? {
        let numbers = handled.map(\.number)
        let result = panelind_signals_block(numbers, numbers.count)
        return result < 0 ? SystemError(result) : nil
    }

    /// Takes `blockAll` back in the calling thread: for commands that a signal shall end.
    public static func unblockAll() {
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
    }

    /// Opens the descriptor; signals must be blocked already. EMFILE, ENFILE, ENOMEM.
    public init() throws(SystemError) {
        let numbers = Self.handled.map(\.number)
        let result = panelind_signalfd(numbers, numbers.count)
        if result < 0 { throw SystemError(result) }
        descriptor = result
    }

    deinit { close(descriptor) }

    /// Takes every signal that waits. Equal ones may have been merged: a SIGCHLD says "look", not "one died".
    public func read() -> [ReceivedSignal] {
        var received: [ReceivedSignal] = []
        var number: Int32 = 0
        var sender: Int32 = 0
        var fromKernel: Int32 = 0
        // Each standard signal is queued once; a bound all the same, so that a flood cannot hold the loop.
        while received.count < 64, panelind_signalfd_read(descriptor, &number, &sender, &fromKernel) == 1 {
            received.append(
                ReceivedSignal(
                    signal: Signal(number: number), senderPID: number == SIGCHLD || fromKernel == 0 ? sender : 0,
                    isFromTerminal: fromKernel != 0))
        }
        return received
    }

    /// Reads signals from bytes that somebody else took from the descriptor: whole records of signalfd_siginfo.
    ///
    /// Layout of signalfd(2): number, errno, code, pid, each four bytes, in a record of 128.
    public static func parse(_ bytes: some RandomAccessCollection<UInt8>) -> [ReceivedSignal] {
        let record = 128
        var received: [ReceivedSignal] = []
        var rest = bytes[...]
        func word(_ record: some RandomAccessCollection<UInt8>, _ index: Int) -> Int32 {
            var value: UInt32 = 0
            for (shift, byte) in record.dropFirst(index * 4).prefix(4).enumerated() {
                value |= UInt32(byte) << (8 * UInt32(shift))
            }
            return Int32(bitPattern: value)
        }
        while rest.count >= record {
            let number = word(rest, 0)
            // SI_KERNEL: a key of the terminal (sigaction(2)).
            let fromKernel = word(rest, 2) == 0x80
            received.append(
                ReceivedSignal(
                    signal: Signal(number: number), senderPID: fromKernel ? 0 : word(rest, 3),
                    isFromTerminal: fromKernel))
            rest = rest.dropFirst(record)
        }
        return received
    }

    /// Asks the kernel to raise SIGIO, which is read here as any signal, whenever this socket has something.
    ///
    /// For a socket whose messages carry credentials: NIO would read it without them (fcntl(2), F_SETOWN, O_ASYNC).
    @discardableResult
    public static func announceInput(of descriptor: Int32) -> SystemError? {
        let flags = fcntl(descriptor, F_GETFL)
        guard fcntl(descriptor, F_SETOWN, getpid()) == 0,
            fcntl(descriptor, F_SETFL, flags | O_ASYNC) == 0
        else { return .last }
        return nil
    }

    /// Stops this process as its SIGTSTP would have (SIGSTOP); returns once continued.
    public static func suspendSelf() { raise(SIGSTOP) }
}

extension Signal {
    /// SIGCHLD.
    public static let child = Signal(number: SIGCHLD)
    /// SIGIO: a socket given to `announceInput` has something.
    public static let inputReady = Signal(number: SIGIO)
}
