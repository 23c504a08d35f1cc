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
        let (status, body) = try client.ask(
            method: question.method, target: "/v1" + question.target,
            accept: question.json ? "application/json" : "text/plain", onBody: onBody)
        if status == 200 { return (nil, 0) }
        return ("panelind: \(problemDetail(body) ?? "HTTP \(status)")", 1)
    } catch {
        return ("\(error)", 1)
    }
}
