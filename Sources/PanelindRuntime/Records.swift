//  Records.swift
//  A record of panelind's own goes to the log, and is remembered for those who ask.
//  Read before Performer+Reports.swift.

import PanelindControl
import PanelindOutput
import PanelindSystem

extension Performer {
    /// Writes a record of panelind's own; what is worth the log's usual level is an event too.
    func log(_ record: OwnRecord) {
        if record.severity >= .info, !record.event.isEmpty {
            room.record(record.logged(at: Clock.wallNanoseconds()))
        }
        output.log(record)
    }

    /// The log's sink did not take so many records: the output thread has logged it, it is an event too.
    func noteDropped(_ count: Int) {
        room.record(
            LoggedEvent(
                name: "log_dropped", severity: "WARNING", time: Clock.wallNanoseconds(),
                message: "dropped \(count) log records that the sink did not take",
                fields: [JSON.Member("count", .int(Int64(count)))]))
    }
}

extension OwnRecord {
    /// The record as /v1/events has it.
    func logged(at wall: Int64) -> LoggedEvent {
        LoggedEvent(
            name: event, severity: "\(severity.name)", time: wall, message: message,
            fields: fields.map { JSON.Member($0.key, $0.value.json) })
    }
}

extension FieldValue {
    fileprivate var json: JSON {
        switch self {
        case .string(let text): .string(text)
        case .int(let number): .int(number)
        case .double(let number): .double(number)
        case .bool(let flag): .bool(flag)
        case .null: .null
        case .strings(let texts): .strings(texts)
        case .ints(let numbers): .array(numbers.map(JSON.int))
        case .object(let fields): .object(fields.map { JSON.Member($0.key, $0.value.json) })
        }
    }
}
