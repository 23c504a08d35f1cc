//  ProbeRules.swift
//  The probes: exactly one way of asking each, targets that parse, and ways that can work where they are.
//  Read after Serving.swift.

import Glibc
import PanelindCore

extension Resolver {
    mutating func resolveProbes(
        _ serve: Settings.Serve, logFormat: LogFormat, _ check: CommandCheck
    ) -> Settings.Probes {
        Settings.Probes(
            startup: resolveProbe(Table.startup, serve, logFormat, check),
            readiness: resolveProbe(Table.readiness, serve, logFormat, check),
            liveness: resolveProbe(Table.liveness, serve, logFormat, check),
            startupDeadline: value(Table.deadline))
    }

    private mutating func resolveProbe(
        _ table: ProbeTable, _ serve: Settings.Serve, _ logFormat: LogFormat, _ check: CommandCheck
    ) -> ProbeSettings? {
        let methods = strongestMethods(table)
        guard let chosen = methods.first else {
            if let detail = table.details.first(where: { given[$0.key] != nil }) {
                report(detail, "\(table.key) has no method; write one of http, tcp, exec, notify, log, fd beside it")
            }
            return nil
        }
        guard methods.count == 1 else {
            let names = methods.compactMap { $0.key.split(separator: ".").last }.joined(separator: " and ")
            report(chosen, "\(table.key) has \(names) together; keep one")
            return nil
        }
        let before = problems.count
        guard let method = method(chosen.key, table), problems.count == before else { return nil }
        var probe = ProbeSettings(method)
        probe.period = value(table.period)
        probe.timeout = value(table.timeout)
        probe.failures = value(table.failures)
        probe.successes = value(table.successes)
        probe.delay = value(table.delay)
        judge(probe, chosen, table.kind, serve, logFormat, check)
        return probe
    }

    /// The given methods of the strongest source: a flag's method replaces the file's.
    private func strongestMethods(_ table: ProbeTable) -> [any Declared] {
        func rank(_ setting: any Declared) -> Int {
            switch given[setting.key]?.origin {
            case .flag: 3
            case .environment: 2
            case .file: 1
            case .default, .platform, nil: 0
            }
        }
        let strongest = table.methods.map(rank).max() ?? 0
        return strongest == 0 ? [] : table.methods.filter { rank($0) == strongest }
    }

    private mutating func method(_ key: String, _ table: ProbeTable) -> ProbeMethod? {
        switch key {
        case table.http.key: written(table.http).flatMap { $0.map { .http($0) } }
        case table.tcp.key: written(table.tcp).flatMap { $0.map { .tcp($0 == "true" ? "" : $0) } }
        case table.exec.key: written(table.exec).flatMap { $0.map { .exec($0) } }
        case table.notify.key: written(table.notify).flatMap { $0.map { _ in .notify } }
        case table.log.key: written(table.log).flatMap { $0.map { .log($0) } }
        case table.descriptor.key: written(table.descriptor).flatMap { $0.map { .descriptor(Int32($0)) } }
        default: nil
        }
    }

    private mutating func judge(
        _ probe: ProbeSettings, _ setting: any Declared, _ kind: ProbeKind, _ serve: Settings.Serve,
        _ logFormat: LogFormat, _ check: CommandCheck
    ) {
        let needsPort = serve.mode == .direct && serve.directPort == nil
        switch probe.method {
        case .http(let target):
            if let why = httpProblem(target) { report(setting, why) }
            if target.hasPrefix("/"), needsPort {
                report(setting, "in direct mode a path needs PORT, which is not set; write http://HOST:PORT\(target)")
            }
        case .tcp(let target):
            if target.isEmpty {
                if needsPort { report(setting, "in direct mode true needs PORT, which is not set; write HOST:PORT") }
            } else {
                do throws(BadValue) {
                    _ = try parseAddress(target, systemd: false, unix: false)
                } catch {
                    report(setting, error.why + ", or true")
                }
            }
        case .exec(let command):
            if let (_, why) = check.problem(command[0]) { report(setting, why) }
        case .notify, .descriptor:
            if kind == .liveness {
                report(setting, "the worker tells this once, so it cannot show that it lives; write http, tcp or exec")
            }
            if case .descriptor(3) = probe.method, serve.mode == .socket {
                report(setting, "3 is the listening socket in socket mode; write 4")
            }
        case .log(let pattern):
            if kind != .startup {
                report(setting, "a line of output tells of the start only; write it as probe.startup.log")
            } else if logFormat == .inherit {
                report(setting, "log.format inherit leaves the output unread; write another log.format or probe")
            }
            if let why = expressionProblem(pattern) { report(setting, why) }
        }
    }

    /// `/path` or `http://HOST[:PORT]/path`.
    private func httpProblem(_ target: String) -> String? {
        let hint = "write a path such as /ready, or http://HOST:PORT/PATH"
        guard target.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), !target.contains("#") else {
            return "a space, a fragment or a byte beyond ASCII; \(hint)"
        }
        if target.hasPrefix("/") { return nil }
        if target.hasPrefix("https://") { return "probes do not speak TLS; \(hint)" }
        guard target.hasPrefix("http://") else { return "neither a path nor an http:// URL; \(hint)" }
        let authority = target.dropFirst("http://".count).prefix { $0 != "/" && $0 != "?" }
        if authority.contains("@") { return "a user in the URL; \(hint)" }
        let hasPort = authority.hasSuffix("]") ? false : authority.contains(":")
        do throws(BadValue) {
            _ = try parseAddress(hasPort ? String(authority) : "\(authority):80", systemd: false, unix: false)
            return nil
        } catch {
            return error.why.isEmpty ? hint : "\(error.why); or \(hint)"
        }
    }
}

/// Why text is no POSIX extended expression (regcomp(3)), or nil.
func expressionProblem(_ pattern: String) -> String? {
    if pattern.utf8.count > 1024 { return "\(pattern.utf8.count) bytes are too long for an expression; at most 1024" }
    var expression = regex_t()
    let code = regcomp(&expression, pattern, REG_EXTENDED | REG_NOSUB)
    if code == 0 {
        regfree(&expression)
        return nil
    }
    var text = [CChar](repeating: 0, count: 128)
    regerror(code, &expression, &text, text.count)
    let why = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return "not a POSIX extended expression: \(why); write one such as \"listening on\""
}

extension Resolver {
    /// One line for each probe that is not given: what happens instead.
    mutating func showProbes(_ settings: Settings) {
        if settings.probe.startup == nil, !isNamed(Table.startup) { show(probe: Table.startup.key, "none", note: nil) }
        if settings.probe.liveness == nil, !isNamed(Table.liveness) {
            show(probe: Table.liveness.key, "none", note: nil)
        }
        guard settings.probe.readiness == nil, !isNamed(Table.readiness) else { return }
        let note: String
        switch settings.impliedReadiness {
        case .alive(let time): note = "\(time.text) of life, or READY=1"
        case .ask(let probe):
            if case .http(let path) = probe.method {
                note = "GET \(path) below 500, or READY=1"
            } else {
                note = "the worker's address accepts, or READY=1"
            }
        }
        show(probe: Table.readiness.key, "implied", note: note)
    }

    private func isNamed(_ table: ProbeTable) -> Bool { table.all.contains { given[$0.key] != nil } }
}
