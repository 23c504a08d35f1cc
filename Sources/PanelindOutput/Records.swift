//  Records.swift
//  The words of a log record: severity, event, fields; and the configuration, the replies, the lines kept.
//  CONTRACT section 8 names the fields. Read first; then Output.swift.

import Glibc

/// How bad, in the words of Cloud Logging's LogSeverity.
public enum Severity: UInt8, Hashable, Comparable, CaseIterable, Sendable {
    case debug, info, notice, warning, error, critical, alert, emergency

    /// As records write it: `WARNING`.
    public var name: StaticString {
        switch self {
        case .debug: "DEBUG"
        case .info: "INFO"
        case .notice: "NOTICE"
        case .warning: "WARNING"
        case .error: "ERROR"
        case .critical: "CRITICAL"
        case .alert: "ALERT"
        case .emergency: "EMERGENCY"
        }
    }

    /// Less bad.
    public static func < (a: Severity, b: Severity) -> Bool { a.rawValue < b.rawValue }
}

/// One value in a record of panelind's own.
public enum FieldValue: Hashable, Sendable {
    case string(String)
    case int(Int64)
    /// Not finite is written as null: JSON has no such numbers (RFC 8259 section 6).
    case double(Double)
    case bool(Bool)
    case null
    case strings([String])
    case ints([Int64])
    /// A nested object, such as `httpRequest`.
    indirect case object([Field])
}

/// One field of a record: the key as JSON writes it, and its value.
public struct Field: Hashable, Sendable {
    /// The key, unique in its record.
    public var key: String
    /// The value.
    public var value: FieldValue

    /// Makes a field.
    public init(_ key: String, _ value: FieldValue) {
        self.key = key
        self.value = value
    }
}

/// A record of panelind's own (CONTRACT section 8).
public struct OwnRecord: Hashable, Sendable {
    /// How bad.
    public var severity: Severity
    /// The event's name, such as `worker_exited`; empty for none (access lines).
    public var event: String
    /// A sentence for people.
    public var message: String
    /// In the order they are written, after `severity`, `time`, `message` and `event`.
    public var fields: [Field]

    /// Makes a record.
    public init(_ severity: Severity, event: String, message: String, fields: [Field] = []) {
        self.severity = severity
        self.event = event
        self.message = message
        self.fields = fields
    }

    /// The string under this key, or nil.
    public func string(_ key: String) -> String? {
        for field in fields where field.key == key {
            if case .string(let text) = field.value { return text }
        }
        return nil
    }

    /// Replaces the field of this key where it stands, or adds it.
    public mutating func set(_ key: String, _ value: FieldValue) {
        if let index = fields.firstIndex(where: { $0.key == key }) {
            fields[index].value = value
        } else {
            fields.append(Field(key, value))
        }
    }
}

/// A stream of the worker.
public enum Stream: UInt8, Hashable, CaseIterable, Sendable {
    case stdout, stderr

    /// As records write it.
    public var name: StaticString { self == .stdout ? "stdout" : "stderr" }
}

/// How `log.*` says records are written.
public struct OutputConfiguration: Sendable {
    /// The values of `log.format`.
    public enum Format: Hashable, Sendable {
        /// For people. With colour the worker's own terminal escapes pass too; without there is none at all.
        case text(colour: Bool)
        /// One object a line.
        case json
        /// The worker's streams are not attached; own records are text on a terminal, else json.
        case inherit
        /// An entry of the journal for each, by its own protocol; `journalPath` instead of `sink`.
        case journal
    }

    /// The values of `log.overflow`.
    public enum Overflow: Hashable, Sendable { case drop, block }

    /// How records look.
    public var format: Format
    /// The least severity of own records that is written.
    public var level: Severity = .info
    /// Longest line in bytes before it is cut, at least 1 KiB.
    public var lineLimit: Int = 64 << 10
    /// Bytes kept before the sink, at least 64 KiB.
    public var buffer: Int = 8 << 20
    /// What happens when that is full and the sink has taken nothing for `stallLimit`.
    public var overflow: Overflow = .drop
    /// How long the sink may take nothing.
    public var stallLimit: Duration = .seconds(1)
    /// The descriptor records go to; it stays the caller's and is never made non-blocking.
    public var sink: Int32 = 1
    /// Where journald listens; a log namespace has it at the same place (systemd-journald.service(8)).
    public var journalPath = "/run/systemd/journal/socket"
    /// Passes an entry that is too large for a datagram, as fields `NAME=value`; 0 or an errno.
    public typealias LargeEntrySender = @Sendable (UnsafeBufferPointer<iovec>) -> Int32
    /// Without one such entries are dropped and counted.
    public var largeEntrySender: LargeEntrySender?
    /// Bytes of worker output kept in memory.
    public var ringBytes: Int = 1 << 20
    /// Lines of worker output kept in memory, whichever bound comes first.
    public var ringLines: Int = 10_000

    /// Makes the defaults of CONTRACT section 2 for this format.
    public init(format: Format) { self.format = format }
}

/// A line of the worker, as the ring keeps it.
public struct RingLine: Hashable, Sendable {
    /// Counts all lines since the start, from 1; gaps mean that lines were overwritten.
    public var sequence: UInt64
    /// Which worker.
    public var generation: Int
    /// Which of its streams.
    public var stream: Stream
    /// Nanoseconds since 1970, UTC.
    public var time: Int64
    /// Without the newline; invalid UTF-8 is U+FFFD; long lines are cut to an eighth of the ring.
    public var text: String

    /// Makes a line.
    public init(sequence: UInt64, generation: Int, stream: Stream, time: Int64, text: String) {
        self.sequence = sequence
        self.generation = generation
        self.stream = stream
        self.time = time
        self.text = text
    }
}

/// What the output thread answers.
public enum OutputReply: Hashable, Sendable {
    /// The exit record of this generation is on its way to the sink; the cause and message it has, and the last lines.
    case exitRecorded(generation: Int, cause: String, message: String, tail: [String])
    /// A line of this generation matched its expression; said once for a generation.
    case matched(generation: Int)
    /// Everything reached the sink, or the flush's deadline passed.
    case flushed
    /// So many records did not reach the sink since the last such reply.
    case dropped(count: Int)
    /// The answer to `lines`.
    case ring(id: Int, lines: [RingLine])
}

/// What the output thread counted since its start.
public struct OutputCounters: Hashable, Sendable {
    /// Lines read from the workers' stdout.
    public var stdoutLines: Int
    /// Lines read from the workers' stderr.
    public var stderrLines: Int
    /// Records that did not reach the sink.
    public var dropped: Int
}
