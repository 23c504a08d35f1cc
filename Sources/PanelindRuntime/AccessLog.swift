//  AccessLog.swift
//  Which finished requests are worth a record, and what it says: httpRequest objects with their trace (CONTRACT 8).
//  No field that could carry a credential is ever asked for. Read Serving.swift first.

import PanelindCore
import PanelindFront
import PanelindOutput
import PanelindSettings
import PanelindTelemetry

extension Performer {
    /// A request is over.
    func finished(_ request: FinishedRequest) {
        let method = request.withMethod { HTTPMetrics.Method($0) }
        // A stream's length says nothing about how fast the worker answers.
        let time = request.isLasting ? request.untilHead ?? request.duration : request.duration
        metrics.http.finished(method: method, status: request.status, nanoseconds: time.nanoseconds)
        guard let log = settings[driver.supervisor.settings.revision]?.log else { return }
        let hasFailed = request.status >= 500 || request.status == 0 || request.isCut
        switch log.access {
        case .none: return
        case .errors: guard hasFailed || time > log.slow else { return }
        case .all: break
        }
        output.log(AccessLog.record(request, project: log.project ?? project))
    }

    /// A connection's request was refused before it was one.
    func refused(_ request: RefusedRequest) {
        metrics.http.refused(status: request.status)
        var fields = [
            Field("status", .int(Int64(request.status))), Field("reason", .string(request.detail)),
            Field("remote_ip", .string(request.peer)),
        ]
        if request.untold > 0 { fields.append(Field("untold", .int(Int64(request.untold)))) }
        output.log(
            OwnRecord(
                .warning, event: "request_refused",
                message: "refused a request of \(request.peer) with \(request.status): \(request.detail)",
                fields: fields))
    }
}

/// The form of access records.
enum AccessLog {
    /// One record; `httpRequest` as Cloud Logging's HttpRequest (sizes are text there, for they are 64 bits wide).
    static func record(_ request: FinishedRequest, project: String?) -> OwnRecord {
        let (method, target) = request.methodAndTarget
        var http = [
            Field("requestMethod", .string(method)), Field("requestUrl", .string(target)),
            Field("status", .int(Int64(request.status))), Field("requestSize", .string("\(request.requestBytes)")),
            Field("responseSize", .string("\(request.responseBytes)")), Field("remoteIp", .string(request.peer)),
            Field("latency", .string(seconds(request.duration) + "s")),
            Field("protocol", .string(request.isHTTP10 ? "HTTP/1.0" : "HTTP/1.1")),
        ]
        if let agent = request.field("user-agent") { http.append(Field("userAgent", .string(agent))) }
        var fields = [Field("httpRequest", .object(http))]
        if let reason = request.reason { fields.append(Field("reason", .string(reason))) }
        if let id = request.field("x-request-id") { fields.append(Field("request_id", .string(id))) }
        fields += trace(request, project)
        var message = "\(method) \(target) \(request.status) in \(seconds(request.duration))s"
        if let reason = request.reason { message += ": \(reason)" }
        let failed = request.status >= 500 || request.status == 0 || request.isCut
        let severity: Severity = failed ? .error : request.status >= 400 ? .warning : .info
        return OwnRecord(severity, event: "request", message: message, fields: fields)
    }

    /// `1.234567`: seconds with microseconds.
    private static func seconds(_ duration: Duration) -> String {
        let micros = max(0, duration.nanoseconds / 1000)
        let fraction = String(micros % 1_000_000)
        return "\(micros / 1_000_000)." + String(repeating: "0", count: 6 - fraction.utf8.count) + fraction
    }

    /// The fields by which Cloud Logging finds a trace; a malformed header gives none.
    private static func trace(_ request: FinishedRequest, _ project: String?) -> [Field] {
        guard
            let context = request.field("traceparent").flatMap(TraceContext.init(traceparent:))
                ?? request.field("x-cloud-trace-context").flatMap(TraceContext.init(cloudTrace:))
        else { return [] }
        var fields: [Field] = []
        if let project {
            fields.append(
                Field("logging.googleapis.com/trace", .string("projects/\(project)/traces/\(context.trace)")))
        }
        if let span = context.span { fields.append(Field("logging.googleapis.com/spanId", .string(span))) }
        fields.append(Field("logging.googleapis.com/trace_sampled", .bool(context.isSampled)))
        return fields
    }
}

/// A trace and a span, as their headers name them.
struct TraceContext: Hashable {
    /// 32 hexadecimal digits in lower case.
    var trace: String
    /// 16 hexadecimal digits.
    var span: String?
    var isSampled: Bool

    /// `00-TRACE-SPAN-FLAGS` (W3C Trace Context, section 3.2).
    init?(traceparent: String) {
        let parts = traceparent.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].utf8.count == 2, Self.isHex(parts[0], 2), parts[0] != "ff",
            Self.isHex(parts[1], 32), Self.isHex(parts[2], 16), Self.isHex(parts[3], 2),
            let flags = UInt8(parts[3], radix: 16), parts[0] != "00" || parts.count == 4
        else { return nil }
        trace = parts[1].lowercased()
        span = parts[2].lowercased()
        isSampled = flags & 1 == 1
    }

    /// `TRACE/SPAN;o=1`, where the span is decimal and may be missing (Cloud Trace).
    init?(cloudTrace: String) {
        let parts = cloudTrace.split(separator: ";", maxSplits: 1)
        guard let first = parts.first else { return nil }
        let ids = first.split(separator: "/", maxSplits: 1)
        guard let id = ids.first, Self.isHex(id, 32) else { return nil }
        trace = id.lowercased()
        if ids.count == 2, let number = UInt64(ids[1]), number > 0 {
            let hex = String(number, radix: 16)
            span = String(repeating: "0", count: 16 - hex.utf8.count) + hex
        }
        isSampled = parts.count == 2 && parts[1] == "o=1"
    }

    /// So many hexadecimal digits, not all of them 0 where they name something.
    private static func isHex(_ text: Substring, _ count: Int) -> Bool {
        guard text.utf8.count == count,
            text.utf8.allSatisfy({
                UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 || UInt8(ascii: "a")...UInt8(ascii: "f") ~= $0 | 0x20
            })
        else { return false }
        return count == 2 || text.utf8.contains { $0 != UInt8(ascii: "0") }
    }
}
