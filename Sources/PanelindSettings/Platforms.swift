//  Platforms.swift
//  Where panelind runs, and the defaults that follow from what surrounds it.
//  The plain defaults per platform are in SettingsTable.swift. Read after Resolver.swift.

import PanelindCore

/// The platform by evidence (CONTRACT section 2, `platform`), and what gave it away.
public func detectPlatform(_ surroundings: Surroundings) -> (Platform, evidence: String) {
    let environment = surroundings.environment
    func isSet(_ name: String) -> Bool { environment[name].map { !$0.isEmpty } ?? false }
    if isSet("KUBERNETES_SERVICE_HOST") { return (.kubernetes, "KUBERNETES_SERVICE_HOST is set") }
    if isSet("K_SERVICE") { return (.cloudrun, "K_SERVICE is set") }
    if isSet("NOTIFY_SOCKET") { return (.systemd, "NOTIFY_SOCKET is set") }
    if surroundings.stdoutIsJournal { return (.systemd, "stdout is the journal") }
    return (.local, "no sign of another platform")
}

/// Where the control socket may be, in the order to try (CONTRACT section 2, `control.path`).
///
/// Absolute paths that fit a socket address. For the daemon, and for commands that look for it.
public func controlCandidates(
    platform: Platform, configurationFile: String?, _ surroundings: Surroundings
) -> [String] {
    let environment = surroundings.environment
    var paths: [String] = []
    func add(_ variable: String, _ name: String) {
        // RUNTIME_DIRECTORY is a list with colons (systemd.exec(5)); the first is the unit's own.
        guard let value = environment[variable]?.split(separator: ":").first, value.hasPrefix("/") else { return }
        paths.append(join(String(value), name))
    }
    add("RUNTIME_DIRECTORY", "control.sock")
    if platform == .local {
        if let file = configurationFile {
            let path = surroundings.absolute(file)
            let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            paths.append(directory + "/.panelind.sock")
        } else {
            paths.append(surroundings.absolute(".panelind.sock"))
        }
    }
    paths.append("/run/panelind/control.sock")
    add("XDG_RUNTIME_DIR", "panelind.sock")
    add("TMPDIR", "panelind.sock")
    return paths.filter { $0.utf8.count <= ListenAddress.longestUnixPath }
}

/// The first path where a socket may be made, by the caller's judgement; nil is worth one warning.
public func chooseControlPath(_ candidates: [String], isWritable: (String) -> Bool) -> String? {
    candidates.first(where: isWritable)
}

extension Resolver {
    mutating func resolvePlatform(_ surroundings: Surroundings) -> Platform {
        let (detected, evidence) = detectPlatform(surroundings)
        platform = value(Table.platform, else: detected, note: evidence)
        return platform
    }

    mutating func resolveLog(_ surroundings: Surroundings) -> Settings.Log {
        let format: (LogFormat, String) =
            surroundings.stdoutIsJournal
            ? (.journal, "stdout is the journal")
            : surroundings.stdoutIsTerminal ? (.text, "stdout is a terminal") : (.json, "stdout is no terminal")
        let own = environment["GOOGLE_CLOUD_PROJECT"].flatMap { $0.isEmpty ? nil : $0 }
        let log = Settings.Log(
            format: value(Table.format, else: format.0, note: format.1),
            level: value(Table.level),
            lineLimit: value(Table.lineLimit),
            buffer: value(Table.buffer),
            overflow: value(Table.overflow),
            access: value(Table.access),
            slow: value(Table.slow),
            project: value(Table.project, else: own, note: own == nil ? nil : "GOOGLE_CLOUD_PROJECT"))
        if log.buffer < log.lineLimit {
            let limit = sizeText(log.lineLimit)
            report(Table.buffer, "less than log.lineLimit of \(limit); write \(limit) or more")
        }
        return log
    }

    mutating func resolveControl(_ file: String?, _ surroundings: Surroundings) -> Settings.Control {
        let candidates = controlCandidates(platform: platform, configurationFile: file, surroundings)
        let given = isGiven(Table.control)
        let path = value(Table.control, else: candidates.first, note: "the first of these that is writable")
        guard given, let path else { return Settings.Control(candidates: given ? [] : candidates, isGiven: given) }
        let absolute = surroundings.absolute(path)
        let limit = ListenAddress.longestUnixPath
        if absolute.utf8.count > limit {
            report(
                Table.control,
                "\(absolute.utf8.count) bytes do not fit a socket address; write a path of at most \(limit)")
        }
        return Settings.Control(candidates: [absolute], isGiven: true)
    }

    mutating func resolveRestart() -> RestartSettings {
        var restart = RestartSettings()
        restart.policy = value(Table.policy)
        restart.delay = value(Table.delay)
        restart.factor = value(Table.factor)
        restart.maxDelay = value(Table.maxDelay)
        restart.jitter = value(Table.jitter)
        restart.resetAfter = value(Table.resetAfter)
        restart.limit = value(Table.limit)
        restart.successCodes = value(Table.successCodes)
        restart.permanentExitCodes = value(Table.permanentExitCodes)
        restart.onGiveUp = value(Table.onGiveUp)
        if restart.maxDelay < restart.delay {
            let setting = isGiven(Table.maxDelay) ? Table.maxDelay : Table.delay
            let what = "restart.delay \(restart.delay.text) is more than restart.maxDelay \(restart.maxDelay.text)"
            report(setting, "\(what); write a smaller delay or a larger maxDelay")
        }
        return restart
    }
}
