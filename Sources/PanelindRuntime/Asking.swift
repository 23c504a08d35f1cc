//  Asking.swift
//  How status, why, logs, restart, reload and stop reach the running daemon: which socket, and what they print.
//  Read after PanelindControl/ControlClient.swift.

import PanelindControl
import PanelindSettings

/// What a command wants of the running panelind.
public struct Question: Sendable {
    public var method: String
    /// Path and query below /v1.
    public var target: String
    /// JSON instead of text.
    public var json: Bool

    /// Makes a question.
    public init(_ target: String, method: String = "GET", json: Bool = false) {
        self.method = method
        self.target = target
        self.json = json
    }
}

/// Where the daemon's socket may be: `--control`, else where the settings here put it.
public func controlPaths(_ given: String?) -> [String] {
    let surroundings = Surroundings.current
    if let given { return [surroundings.absolute(given.hasPrefix("unix:") ? String(given.dropFirst(5)) : given)] }
    // The worker's command is the daemon's matter; anything else that is wrong does not hide where the socket is.
    return loadSettings(SettingsRequest(command: ["true"]), surroundings, .real).control.candidates
}

/// Asks and blocks until the answer's end.
///
/// - Parameter onBody: each piece as it comes; false ends it early.
/// - Returns: an error for standard error where there is one, and the exit code: 0 or 1.
public func ask(
    _ question: Question, control: String?, onBody: ([UInt8]) -> Bool
) -> (message: String?, code: Int32) {
    do throws(ControlClientError) {
        var client = try ControlClient(paths: controlPaths(control))
        var controls = ControlFilter()
        let (status, body) = try client.ask(
            method: question.method, target: "/v1" + question.target,
            accept: question.json ? "application/json" : "text/plain",
            onBody: { onBody(question.json ? $0 : controls.pass($0)) })
        if status == 200 { return (nil, 0) }
        let detail = problemDetail(body).map { String(decoding: controls.pass(Array($0.utf8)), as: UTF8.self) }
        return ("panelind: \(detail ?? "HTTP \(status)")", 1)
    } catch {
        return ("\(error)", 1)
    }
}

/// Text without control characters but the newline and the tab: what steers a terminal does not come from a socket, even
/// where another than panelind answers, as in a directory of somebody else's.
struct ControlFilter {
    private var sawC2 = false

    mutating func pass(_ bytes: [UInt8]) -> [UInt8] {
        var passed: [UInt8] = []
        passed.reserveCapacity(bytes.count)
        for byte in bytes {
            // U+0080 to U+009F are C2 80 to C2 9F; without its second byte, C2 is no character.
            let isOld = sawC2 && byte < 0xA0
            if sawC2, !isOld { passed.append(0xC2) }
            sawC2 = byte == 0xC2
            if !isOld, !sawC2, byte >= 0x20 && byte != 0x7F || byte == 0x0A || byte == 0x09 { passed.append(byte) }
        }
        return passed
    }
}
