//  AnswerText.swift
//  How an answer is written: status line, fields and body in one buffer, so that sending is one write.
//  No header collection is ever built. Read before HealthBoard.swift and Exchange.swift.

import NIOCore

/// What an answer says about its connection (RFC 9112 section 9.3).
public enum Persistence: Int, Hashable, Sendable, CaseIterable {
    /// HTTP/1.1 keeps the connection unless told otherwise: nothing is said.
    case keep
    /// HTTP/1.0 must be told.
    case keepAndSay
    /// `Connection: close`.
    case close

    var field: StaticString {
        switch self {
        case .keep: ""
        case .keepAndSay: "Connection: keep-alive\r\n"
        case .close: "Connection: close\r\n"
        }
    }
}

/// The writer of answers.
public enum AnswerText {
    /// Writes a whole answer.
    ///
    /// - Parameters:
    ///   - fields: more fields, each already as `Name: value` without line end.
    ///   - headOnly: for HEAD: `Content-Length` of the body, but not the body (RFC 9110 section 9.3.2).
    public static func whole(
        status: Int, contentType: String, fields: [String] = [], body: [UInt8], headOnly: Bool = false,
        persistence: Persistence
    ) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(192 + contentType.utf8.count + (headOnly ? 0 : body.count))
        writeStart(status, contentType, fields, persistence, into: &buffer)
        buffer.writeString("Content-Length: \(body.count)\r\n\r\n")
        if !headOnly { buffer.writeBytes(body) }
        return buffer
    }

    /// Writes the head of an answer whose body follows in pieces: chunked, or up to the end of the connection.
    public static func streamHead(
        status: Int, contentType: String, fields: [String] = [], chunked: Bool, persistence: Persistence
    ) -> ByteBuffer {
        var buffer = ByteBuffer()
        writeStart(status, contentType, fields, persistence, into: &buffer)
        buffer.writeStaticString(chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n")
        return buffer
    }

    /// Writes an error as problem details (RFC 9457).
    public static func problem(
        status: Int, detail: String, fields: [String] = [], headOnly: Bool = false, persistence: Persistence
    ) -> ByteBuffer {
        var text = "{\"type\":\"about:blank\",\"title\":\"\(reason(status))\",\"status\":\(status)"
        if !detail.isEmpty { text += ",\"detail\":\(quoted(detail))" }
        text += "}\n"
        return whole(
            status: status, contentType: "application/problem+json", fields: ["Cache-Control: no-store"] + fields,
            body: Array(text.utf8), headOnly: headOnly, persistence: persistence)
    }

    private static func writeStart(
        _ status: Int, _ contentType: String, _ fields: [String], _ persistence: Persistence,
        into buffer: inout ByteBuffer
    ) {
        buffer.writeString("HTTP/1.1 \(status) \(reason(status))\r\n")
        if !contentType.isEmpty { buffer.writeString("Content-Type: \(contentType)\r\n") }
        for field in fields { buffer.writeString("\(field)\r\n") }
        buffer.writeStaticString(persistence.field)
    }

    /// `100 Continue`, the only interim answer of our own.
    static let goOn = ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n")

    /// A JSON string with its quotes (RFC 8259 section 7).
    public static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }

    /// The reason phrase of a status (RFC 9110 section 15); empty for one we never send.
    public static func reason(_ status: Int) -> String {
        switch status {
        case 200: "OK"
        case 202: "Accepted"
        case 204: "No Content"
        case 303: "See Other"
        case 400: "Bad Request"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 417: "Expectation Failed"
        case 422: "Unprocessable Content"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        default: ""
        }
    }
}
