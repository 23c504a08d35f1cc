//  OutputQueue.swift
//  What main and the output thread share: commands one way, replies the other, each with a descriptor that wakes.
//  The only file of the module that both threads run. A lock held for a few assignments; nobody waits under it.

import Glibc
import PanelindCore
import Synchronization

/// What main asks of the output thread.
enum OutputCommand: Sendable {
    case attach(generation: Int, stream: Stream, descriptor: Int32, expression: String?)
    case log(OwnRecord, time: Int64)
    case exit(OwnRecord, time: Int64, generation: Int, refinesCause: Bool, isWritten: Bool)
    case detach(generation: Int)
    case flush(by: Instant)
    case lines(id: Int, last: Int, after: UInt64, waits: Bool)
    case cancelLines(id: Int)
    case quit
}

/// A pipe that wakes a poll: readable while there is news.
struct WakePipe: ~Copyable, Sendable {
    let reader: Int32
    private let writer: Int32

    init() throws(OutputError) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw OutputError("no pipe to wake the log: \(words(errno))") }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        (reader, writer) = (ends[0], ends[1])
    }

    deinit {
        close(reader)
        close(writer)
    }

    /// Makes the reader readable, as a full pipe is already.
    func wake() { while write(writer, "!", 1) < 0 && errno == EINTR {} }

    /// Makes the reader quiet again.
    func drain() {
        withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { bytes in
            while read(reader, bytes.baseAddress, 64) > 0 {}
        }
    }
}

/// The two queues and the counters.
final class OutputQueue: Sendable {
    /// Own records that may wait; commands have no bound, main sends few.
    static let maxRecords = 1024

    private struct Shared: Sendable {
        var commands: [OutputCommand] = []
        var records = 0
        var droppedRecords = 0
        var replies: [OutputReply] = []
    }

    private let shared = Mutex(Shared())
    let commandsWaiting: WakePipe
    let repliesWaiting: WakePipe
    let stdoutLines = Atomic<Int>(0)
    let stderrLines = Atomic<Int>(0)
    let dropped = Atomic<Int>(0)

    init() throws(OutputError) {
        commandsWaiting = try WakePipe()
        repliesWaiting = try WakePipe()
    }

    /// Adds a command and wakes the output thread if it may sleep.
    func send(_ command: OutputCommand) {
        let wasEmpty = shared.withLock { shared in
            let wasEmpty = shared.commands.isEmpty
            if case .log(let record, _) = command {
                if shared.records >= Self.maxRecords {
                    shared.droppedRecords += 1
                    guard let index = Self.least(shared.commands, below: record.severity) else { return false }
                    shared.commands.remove(at: index)
                } else {
                    shared.records += 1
                }
            }
            shared.commands.append(command)
            return wasEmpty
        }
        if wasEmpty { commandsWaiting.wake() }
    }

    /// The oldest record of the least severity that is below this one.
    private static func least(_ commands: [OutputCommand], below severity: Severity) -> Int? {
        var found: (index: Int, severity: Severity)?
        for (index, command) in commands.enumerated() {
            guard case .log(let record, _) = command, record.severity < (found?.severity ?? severity) else { continue }
            found = (index, record.severity)
        }
        return found?.index
    }

    /// All commands so far, and how many records were dropped before them.
    func takeCommands() -> (commands: [OutputCommand], droppedRecords: Int) {
        commandsWaiting.drain()
        return shared.withLock { shared in
            let result = (shared.commands, shared.droppedRecords)
            shared.commands = []
            shared.records = 0
            shared.droppedRecords = 0
            return result
        }
    }

    /// Adds a reply and wakes main.
    ///
    /// Counts of dropped records that main has not read yet are added up.
    func reply(_ reply: OutputReply) {
        let wasEmpty = shared.withLock { shared in
            let wasEmpty = shared.replies.isEmpty
            if case .dropped(let more) = reply, case .dropped(let count) = shared.replies.last {
                shared.replies[shared.replies.count - 1] = .dropped(count: count + more)
            } else {
                shared.replies.append(reply)
            }
            return wasEmpty
        }
        if wasEmpty { repliesWaiting.wake() }
    }

    /// All replies so far.
    func takeReplies() -> [OutputReply] {
        repliesWaiting.drain()
        return shared.withLock { shared in
            let replies = shared.replies
            shared.replies = []
            return replies
        }
    }
}
