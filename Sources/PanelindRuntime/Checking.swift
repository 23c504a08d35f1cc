//  Checking.swift
//  What `panelind check` and `panelind probe` do, for the commands of the executable.
//  Read after Listening.swift.

import PanelindCore
import PanelindHTTP
import PanelindSettings

/// What the command line says of the settings.
public typealias RunRequest = SettingsRequest

/// Loads the settings as `run` would, and tries every port; starts nothing and keeps nothing open.
public func checkSettings(_ request: RunRequest) -> SettingsReport {
    var report = loadSettings(request, .current, .real)
    guard let settings = report.settings else { return report }
    switch Listening.open(settings) {
    case .success(let listening):
        report.warnings += listening.warnings
        listening.serve?.close()
        listening.sidecar?.close()
    case .failure(let error):
        report.settings = nil
        report.problems.append(SettingsProblem(message: "\(error)"))
    }
    return report
}

/// One GET: a line for standard error, if there is something to say, and the exit code 0, 1 or 64.
public func askOnce(_ url: String, timeout text: String) -> (message: String?, code: Int32) {
    guard let timeout = duration(from: text), timeout > .zero else {
        return ("cannot use --timeout \(text): write a duration such as 2s or 500ms", 64)
    }
    let verdict = probeOnce(url: url, timeout: timeout, version: panelindVersion)
    return (verdict.message, verdict.exitCode)
}
