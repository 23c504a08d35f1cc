//  Loader.swift
//  Settings from everything that was said: the one entrance of this module.
//  The order of the steps is the order of dependence. Read Sources, Resolver, then this.

import PanelindCore

/// What loading found: settings, or every error.
public struct SettingsReport: Sendable {
    /// Nil where there is any problem.
    public var settings: Settings?
    /// Where the control socket may be; also where something else is wrong, for the commands that look for it.
    public var control: Settings.Control
    /// The configuration file as it was named; nil without one.
    public var file: String?
    /// What `check` lists, in the order of the reference.
    public var effective: [EffectiveSetting]
    /// All errors, the file's first.
    public var problems: [SettingsProblem]
    /// What would be better; never an error.
    public var advice: [String]
    /// Worth a line in the log.
    public var warnings: [String]

    /// What `run` exits with: 0, 78, or 127, 126 and 71 where the command or an address alone is wrong.
    public var runExitCode: Int32 {
        if problems.isEmpty { return 0 }
        if problems.allSatisfy({ $0.kind == .commandMissing }) { return 127 }
        if problems.allSatisfy({ $0.kind == .commandNotExecutable }) { return 126 }
        if problems.allSatisfy({ $0.kind == .cannotBind }) { return 71 }
        return 78
    }
}

/// Reads, expands, checks and resolves all settings (CONTRACT sections 1 and 2).
///
/// Never fails as such: every error is in the report. Blocks as long as the world's answers take.
public func loadSettings(
    _ request: SettingsRequest, _ surroundings: Surroundings, _ world: World
) -> SettingsReport {
    let sources = Sources(request, surroundings, world)
    var resolver = Resolver(sources, environment: surroundings.environment)
    let platform = resolver.resolvePlatform(surroundings)

    let command = resolver.resolveCommandText()
    let environment = resolver.resolveEnvironment()
    let directory = resolver.resolveDirectory(surroundings, world)
    let secrets = resolver.resolveSecrets(environment, surroundings, world)
    let required = resolver.value(Table.required)
    resolver.checkRequired(required, environment, secrets)
    let identity = resolver.resolveIdentity(world)

    let serve = resolver.resolveServe(command?.placeholders ?? [], worker: environment, surroundings, world)
    let sidecar = resolver.resolveSidecar(serve, surroundings, world)
    let check = CommandCheck(
        directory: directory, environment: workerEnvironment(surroundings.environment, adding: environment),
        world: world)
    var arguments: [CommandArgument] = []
    if let texts = command?.texts {
        let before = resolver.problems.count
        arguments = resolver.resolveArguments(texts, serve: serve, environment: environment, secrets: secrets)
        if resolver.problems.count == before, let first = arguments.first {
            resolver.checkExecutable(first, check)
        }
    }

    if request.bindsPorts { resolver.checkBinding(serve, sidecar, world) }
    let log = resolver.resolveLog(surroundings)
    let settings = Settings(
        platform: platform,
        worker: Settings.WorkerProcess(
            command: arguments, directory: directory, environment: environment, secrets: secrets,
            requiredEnvironment: required, identity: identity, stdin: resolver.value(Table.stdin),
            limits: resolver.resolveLimits(), watchdog: resolver.value(Table.watchdog)),
        serve: serve, sidecar: sidecar,
        probe: resolver.resolveProbes(serve, logFormat: log.format, check),
        restart: resolver.resolveRestart(),
        stop: resolver.resolveStop(mode: serve.mode),
        log: log,
        control: resolver.resolveControl(sources.file, surroundings))
    resolver.showProbes(settings)
    return SettingsReport(
        settings: resolver.problems.isEmpty ? settings : nil,
        control: settings.control,
        file: sources.file,
        effective: resolver.lines,
        problems: resolver.problems,
        advice: resolver.advice(settings, environmentNames: environment),
        warnings: sources.warnings)
}

extension Settings {
    /// The keys that differ and that a reload cannot change: "needs a restart of panelind" (CONTRACT section 5).
    public func keysNeedingRestart(comparedTo new: Settings) -> [String] {
        var keys: [String] = []
        if platform != new.platform { keys.append(Table.platform.key) }
        if serve.listen != new.serve.listen { keys.append(Table.listen.key) }
        if sidecar.listen != new.sidecar.listen { keys.append(Table.sidecar.key) }
        if control != new.control { keys.append(Table.control.key) }
        return keys
    }
}
