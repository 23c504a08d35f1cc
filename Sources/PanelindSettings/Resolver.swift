//  Resolver.swift
//  The effective value of each setting and its origin: given over profile over default.
//  Expands what was given, reads it by its kind, collects every error. Read after Sources.swift.

import PanelindCore

/// One line of `panelind check`.
public struct EffectiveSetting: Hashable, Sendable {
    public var key: String
    /// As the file would write it; for `worker.environment` what looks secret is masked.
    public var value: String
    public var origin: Origin
    /// Why a default is what it is: `stdout is a terminal`.
    public var note: String?
}

struct Resolver {
    let given: [String: Given]
    let environment: [String: String]
    let fileIsUnreadable: Bool
    var platform: Platform = .local
    var problems: [SettingsProblem]
    private(set) var effective: [String: EffectiveSetting] = [:]

    init(_ sources: Sources, environment: [String: String]) {
        given = sources.given
        problems = sources.problems
        fileIsUnreadable = sources.fileIsUnreadable
        self.environment = environment
    }

    func isGiven(_ setting: some Declared) -> Bool { given[setting.key] != nil }

    func origin(_ setting: some Declared) -> Origin { effective[setting.key]?.origin ?? .default }

    /// The value, or the default of the platform; a bad one is reported and the default stands in.
    mutating func value<V>(_ setting: Setting<V>) -> V {
        if let value = self.written(setting) { return value }
        if let value = setting.profile[platform] { return record(setting, value, .platform) }
        return record(setting, setting.base, .default)
    }

    /// The value, or a default that depends on other settings.
    mutating func value<V>(
        _ setting: Setting<V>, else computed: @autoclosure () -> V, _ origin: Origin = .default, note: String? = nil
    ) -> V {
        if let value = self.written(setting) { return value }
        return record(setting, computed(), origin, note: note)
    }

    /// The value if somebody wrote a good one.
    mutating func written<V>(_ setting: Setting<V>) -> V? {
        guard let given = given[setting.key] else { return nil }
        do {
            let node = try given.node.mapTexts { (text: String) throws(BadValue) in try expandOwn(text) }
            let value = try setting.kind.read(node)
            return record(setting, value, given.origin)
        } catch {
            report(setting, error)
            return nil
        }
    }

    /// Expands text from panelind's own environment.
    func expandOwn(_ text: String) throws(BadValue) -> String {
        let environment = environment
        let pieces = try expand(text, placeholders: false) { name in
            environment[name].map { .text($0) } ?? .unset
        }
        return pieces.literal ?? text
    }

    @discardableResult
    mutating func record<V>(_ setting: Setting<V>, _ value: V, _ origin: Origin, note: String? = nil) -> V {
        show(setting, setting.kind.show(value), origin, note: note)
        return value
    }

    /// Says what `check` shows for a setting.
    mutating func show(_ setting: some Declared, _ value: String, _ origin: Origin, note: String? = nil) {
        effective[setting.key] = EffectiveSetting(key: setting.key, value: value, origin: origin, note: note)
    }

    /// Says for a whole probe what `check` shows.
    mutating func show(probe key: String, _ value: String, note: String?) {
        effective[key] = EffectiveSetting(key: key, value: value, origin: .default, note: note)
    }

    /// An error about a setting as it was written, or as it is by default.
    mutating func report(_ setting: some Declared, _ bad: BadValue, kind: SettingsProblem.Kind = .configuration) {
        report(setting, bad.why, part: bad.part, kind: kind)
    }

    mutating func report(
        _ setting: some Declared, _ why: String, part: Node? = nil, kind: SettingsProblem.Kind = .configuration
    ) {
        guard let given = given[setting.key] else {
            let shown = effective[setting.key]
            problems.append(SettingsProblem(setting.key, shown?.value, why, shown?.origin ?? .default, kind: kind))
            return
        }
        var origin = given.origin
        // The line of the part that is wrong, where the value spans several.
        if case .file(let path, _) = origin, let part { origin = .file(path, line: part.mark.line) }
        problems.append(SettingsProblem(setting.key, given.node.flow, why, origin, kind: kind))
    }

    /// Every setting in the order of the table; probes that are not given are one line.
    var lines: [EffectiveSetting] {
        var lines: [EffectiveSetting] = []
        for setting in Table.all {
            if let line = effective[setting.key] { lines.append(line) }
            // A probe without a method has one line, where its first key would stand.
            if setting.key.hasSuffix(".http"), let line = effective[String(setting.key.dropLast(5))] {
                lines.append(line)
            }
        }
        return lines
    }
}
