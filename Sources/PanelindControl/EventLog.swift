//  EventLog.swift
//  panelind's own records of late, numbered, bounded, in memory: what /v1/events tells and follows.
//  Read after JSON.swift.

/// One record of panelind's own.
public struct LoggedEvent: Hashable, Sendable {
    /// Its place among all since the start, from 1; set by the log.
    public internal(set) var id: UInt64 = 0
    /// As CONTRACT section 8 names it: `worker_exited`.
    public var name: String
    /// As records write it: `WARNING`.
    public var severity: String
    /// Nanoseconds since 1970.
    public var time: Int64
    /// A sentence.
    public var message: String
    public var fields: [JSON.Member]

    /// Makes an event without a number.
    public init(name: String, severity: String, time: Int64, message: String, fields: [JSON.Member]) {
        self.name = name
        self.severity = severity
        self.time = time
        self.message = message
        self.fields = fields
    }

    /// Which worker it is about.
    var generation: Int? {
        for field in fields where field.name == "generation" {
            if case .int(let number) = field.value { return Int(number) }
        }
        return nil
    }

    /// Replaces a field where it stands, or adds it.
    mutating func set(_ name: String, _ value: JSON) {
        if let index = fields.firstIndex(where: { $0.name == name }) {
            fields[index].value = value
        } else {
            fields.append(JSON.Member(name, value))
        }
    }

    /// As an object with `id`, `time`, `severity`, `event`, `message` and the event's fields.
    var json: JSON { .object([JSON.Member("id", .int(Int64(id)))] + members) }

    /// The same without its number.
    var record: JSON { .object(members) }

    private var members: [JSON.Member] {
        [
            JSON.Member("time", .string(Times.utc(time))), JSON.Member("severity", .string(severity)),
            JSON.Member("event", .string(name)), JSON.Member("message", .string(message)),
        ] + fields
    }
}

/// The last events; on the main thread only.
public final class EventLog {
    /// How many are kept.
    static let capacity = 512

    private var ring: [LoggedEvent] = []
    private var head = 0
    /// The number of the newest event; 0 before the first.
    public private(set) var last: UInt64 = 0
    /// Called after each event.
    var onAppend: (() -> Void)?

    /// Makes an empty log.
    public init() {}

    /// Adds an event and gives it its number.
    public func append(_ event: LoggedEvent) {
        last += 1
        var event = event
        event.id = last
        if ring.count < Self.capacity {
            ring.append(event)
        } else {
            ring[head] = event
            head = (head + 1) % Self.capacity
        }
        onAppend?()
    }

    /// Those after this number, oldest first, at most so many.
    func events(after: UInt64, limit: Int = EventLog.capacity) -> [LoggedEvent] {
        var result: [LoggedEvent] = []
        for index in ring.indices {
            let event = ring[(head + index) % ring.count]
            if event.id > after { result.append(event) }
            if result.count == limit { break }
        }
        return result
    }

    /// The newest, oldest first.
    func newest(_ count: Int) -> [LoggedEvent] {
        events(after: last > UInt64(count) ? last - UInt64(count) : 0)
    }
}
