//  Output.swift
//  The handle that main holds: every call returns at once, answers come as replies.
//  Engine.swift is the thread behind it. Read after Records.swift.

import Glibc
import PanelindCore
import Synchronization

/// The output thread could not be made.
public struct OutputError: Error, Hashable, CustomStringConvertible {
    /// A sentence: `cannot X: why`.
    public var description: String

    init(_ description: String) { self.description = description }
}

/// What an errno means, in lower case.
func words(_ error: Int32) -> String {
    strerror(error).map { String(cString: $0).lowercased() } ?? "errno \(error)"
}

/// The worker's streams and panelind's records on their way to one sink, in a thread of their own (DESIGN section 3).
///
/// Whoever polls `wakeDescriptor` calls `takeReplies` when it is readable. Neither side wakes while nothing happens.
public final class Output: Sendable {
    /// As it was made.
    public let configuration: OutputConfiguration
    private let queue: OutputQueue
    private let thread = Mutex<pthread_t?>(nil)

    /// Makes the queues; nothing runs before `start`.
    ///
    /// Throws where no pipe can be made (EMFILE, ENFILE).
    public init(_ configuration: OutputConfiguration) throws(OutputError) {
        self.configuration = configuration
        queue = try OutputQueue()
    }

    deinit {
        // Not joined: the thread may be inside a write of a sink that takes nothing.
        let running = thread.withLock { $0 }
        if let running {
            queue.send(.quit)
            pthread_detach(running)
        }
    }

    /// Readable while replies wait; stays this object's.
    public var wakeDescriptor: Int32 { queue.repliesWaiting.reader }

    /// Starts the thread, with all its signals blocked; a second call does nothing.
    ///
    /// Throws what pthread_create(3) says, and ENOMEM where there is no memory for `log.buffer`.
    public func start() throws(OutputError) {
        let code = thread.withLock { thread in
            guard thread == nil else { return Int32(0) }
            // Here and not in the thread, which could tell nobody.
            guard let buffer = LogBuffer(configuration) else { return ENOMEM }
            let launch = Unmanaged.passRetained(Launch(queue: queue, configuration: configuration, buffer: buffer))
            var id = pthread_t()
            let code = pthread_create(&id, nil, runOutput, launch.toOpaque())
            if code == 0 {
                thread = id
            } else {
                launch.release()
                buffer.release()
            }
            return code
        }
        if code != 0 {
            throw OutputError("no thread, or no \(configuration.buffer) bytes, for the log: \(words(code))")
        }
    }

    /// Ends the thread and waits for it: flush first.
    ///
    /// Blocks while a blocking sink takes nothing.
    public func stop() {
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let running else { return }
        queue.send(.quit)
        pthread_join(running, nil)
    }

    /// Takes over the read end of a worker's pipe, which becomes non-blocking.
    ///
    /// `matching` is a POSIX extended expression searched in each line of this generation until the first match, which
    /// is answered by `.matched`; one that regcomp(3) refuses never matches (`expressionError` says why, beforehand).
    public func attach(generation: Int, stream: Stream, descriptor: Int32, matching: String? = nil) {
        queue.send(.attach(generation: generation, stream: stream, descriptor: descriptor, expression: matching))
    }

    /// Writes a record in order with the lines read so far, unless its severity is below the level.
    public func log(_ record: OwnRecord) {
        if record.severity >= configuration.level { queue.send(.log(record, time: wallClock())) }
    }

    /// Writes the record of a worker's end behind its last lines; answered by `.exitRecorded`, whatever the level.
    ///
    /// Adds `last_output`. With `refinesCause`, last lines that say EADDRINUSE make the field `cause` `port_in_use`.
    public func logExit(_ record: OwnRecord, generation: Int, refinesCause: Bool) {
        queue.send(
            .exit(
                record, time: wallClock(), generation: generation, refinesCause: refinesCause,
                isWritten: record.severity >= configuration.level))
    }

    /// Reads this generation's pipes a last time and closes them.
    public func detach(generation: Int) { queue.send(.detach(generation: generation)) }

    /// Brings everything to the sink; answered by `.flushed` when done, at this instant if the sink takes too long, or
    /// once it has taken nothing for a second (with `drop`).
    ///
    /// A thread inside a blocking write answers later still: main keeps its own deadline.
    public func flush(by deadline: Instant) { queue.send(.flush(by: deadline)) }

    /// Asks for the last lines after a sequence; answered by `.ring` with this id.
    ///
    /// With `waits` it comes once there is such a line, and has the first of them instead: to follow, ask again with the
    /// last sequence.
    public func lines(id: Int, last: Int, after: UInt64 = 0, waits: Bool = false) {
        queue.send(.lines(id: id, last: last, after: after, waits: waits))
    }

    /// Forgets a waiting `lines`.
    public func cancelLines(id: Int) { queue.send(.cancelLines(id: id)) }

    /// All replies so far, oldest first; makes `wakeDescriptor` quiet.
    public func takeReplies() -> [OutputReply] { queue.takeReplies() }

    /// What was counted since the start, as of the thread's last turn.
    public var counters: OutputCounters {
        OutputCounters(
            stdoutLines: queue.stdoutLines.load(ordering: .relaxed),
            stderrLines: queue.stderrLines.load(ordering: .relaxed),
            dropped: queue.dropped.load(ordering: .relaxed))
    }

    /// The errno for which the journal cannot be reached at this path, 0 where it can.
    public static func journalError(at path: String) -> Int32 { JournalSocket(path: path, sendLarge: nil).connect() }

    /// Why regcomp(3) refuses this expression, or nil where it does not.
    public static func expressionError(_ text: String) -> String? {
        let (expression, error) = compileExpression(text)
        freeExpression(expression)
        return error
    }
}

/// What the thread is born with.
private final class Launch: Sendable {
    let queue: OutputQueue
    let configuration: OutputConfiguration
    let buffer: LogBuffer

    init(queue: OutputQueue, configuration: OutputConfiguration, buffer: LogBuffer) {
        self.queue = queue
        self.configuration = configuration
        self.buffer = buffer
    }
}

private func runOutput(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    let launch = Unmanaged<Launch>.fromOpaque(argument).takeRetainedValue()
    // SIGPIPE too: EPIPE is the answer we read.
    var all = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, nil)
    let name = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
    if name >= 0 {
        _ = write(name, "output", 6)
        close(name)
    }
    var engine = Engine(launch.configuration, queue: launch.queue, buffer: launch.buffer)
    engine.run()
    return nil
}
