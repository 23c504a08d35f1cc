//  Advice.swift
//  What works but is probably not meant: advice of `check`, and warnings.
//  Never an error. Read after Settings.swift.

import PanelindCore

extension Resolver {
    /// One sentence each, without a full stop.
    func advice(_ settings: Settings, environmentNames: [NamedText]) -> [String] {
        var advice: [String] = []
        let mode = settings.serve.mode
        if mode == .direct, platform == .cloudrun || platform == .kubernetes {
            advice.append(
                "serve.mode: direct mode on \(platform.rawValue) refuses requests while the worker is away; "
                    + "use {socket} or {port} in worker.command")
        }
        if mode == .socket, platform == .cloudrun {
            advice.append(
                "serve.mode: in socket mode on cloudrun /health and /ready are only on the sidecar, not on $PORT, and a "
                    + "TCP startup probe passes without a worker; use {socket}, or HTTP probes on the sidecar's port")
        }
        advice += commandAdvice(settings.worker.command)
        if let limit = Self.platformBudget[platform], settings.stop.budget > limit {
            advice.append(
                "stop.budget: \(settings.stop.budget.text) is beyond the \(limit.text) after which "
                    + "\(platform.rawValue) kills\(platform == .kubernetes ? " by default" : ""); "
                    + (platform == .kubernetes
                        ? "raise terminationGracePeriodSeconds too" : "write less than \(limit.text)"))
        }
        if mode != .front, isGiven(Table.drain) {
            advice.append(
                "stop.drain: has no effect in \(mode.rawValue) mode, where the worker drains itself; remove it")
        }
        if mode == .direct, isGiven(Table.listen) {
            advice.append(
                "serve.listen: has no effect in direct mode, where the worker listens; "
                    + "use {socket}, {port} or {fd} in worker.command")
        }
        for variable in environmentNames where looksSecret(variable.name) {
            advice.append(
                "worker.environment: \(variable.name) looks like a secret; give its file in worker.secrets")
        }
        return advice
    }

    /// When the platform itself kills.
    private static let platformBudget: [Platform: Duration] = [.cloudrun: .seconds(10), .kubernetes: .seconds(30)]

    private static let shells: Set<String> = ["sh", "bash", "dash", "ash", "ksh", "zsh"]

    private func commandAdvice(_ command: [CommandArgument]) -> [String] {
        var advice: [String] = []
        let texts = command.map(\.description)
        if let script = shellScript(texts), !isExecScript(script) {
            advice.append(
                "worker.command: \(texts.first ?? "sh") -c without exec keeps a shell between panelind and the worker; "
                    + "write the command itself, or exec before it")
        }
        let words = texts + (shellScript(texts)?.split(separator: " ").map(String.init) ?? [])
        if words.contains(where: { $0 == "--reload" || $0.hasPrefix("--reload=") }) {
            advice.append(
                "worker.command: --reload restarts the worker behind panelind's back; remove it under a supervisor")
        }
        return advice
    }

    /// The script of `sh -c SCRIPT`, also behind `env`.
    private func shellScript(_ texts: [String]) -> String? {
        var rest = texts[...]
        func name(_ text: String) -> String { String(text.split(separator: "/").last ?? "") }
        if let first = rest.first, name(first) == "env" {
            rest = rest.dropFirst().drop { $0.contains("=") || $0.hasPrefix("-") }
        }
        guard let shell = rest.popFirst(), Self.shells.contains(name(shell)) else { return nil }
        while let option = rest.popFirst() {
            guard option.hasPrefix("-") || option.hasPrefix("+") else { return nil }
            // `-c`, `-ec`, `-lc`; not `--rcfile`.
            if !option.hasPrefix("--"), option.hasPrefix("-"), option.hasSuffix("c") { return rest.first }
            // `-o pipefail` takes a word.
            if option == "-o" || option == "+o" { _ = rest.popFirst() }
        }
        return nil
    }

    /// The last command of the script replaces the shell.
    private func isExecScript(_ script: String) -> Bool {
        let commands = script.split { $0 == ";" || $0 == "&" || $0 == "|" || $0.isNewline }
        guard let last = commands.last(where: { !$0.allSatisfy(\.isWhitespace) }) else { return false }
        return last.split(whereSeparator: \.isWhitespace).first { !$0.contains("=") } == "exec"
    }
}
