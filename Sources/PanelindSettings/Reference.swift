//  Reference.swift
//  The reference that follows from the table: Markdown for the README, a commented file, names in the environment.
//  Tests compare README.md and etc/panelind.yaml with it. Read after SettingsTable.swift.

import PanelindCore

/// One row of the reference.
public struct SettingReference: Hashable, Sendable {
    /// `probe.NAME.http` stands for all three probes.
    public var key: String
    public var variable: String
    public var kind: String
    /// In Markdown.
    public var defaultText: String
    /// One sentence, in Markdown.
    public var doc: String
    /// As the file writes it.
    public var example: String
    public var needsRestart: Bool
}

/// Every setting, in order; the probes' once.
public func settingsReference() -> [SettingReference] {
    Table.all.compactMap { setting in
        var key = setting.key
        let variable: String
        if let method = probeDetail(key) {
            // The rows of `startup` speak for the other two.
            guard key.hasPrefix("probe.startup.") else { return nil }
            key = "probe.NAME.\(method)"
            variable = variableName("probe.startup.\(method)").replacingFirst("STARTUP", by: "NAME")
        } else {
            variable = setting.variable
        }
        return SettingReference(
            key: key, variable: variable, kind: setting.kindName, defaultText: setting.defaultText, doc: setting.doc,
            example: setting.example, needsRestart: setting.needsRestart)
    }
}

/// The last part of a key that all three probes have.
private func probeDetail(_ key: String) -> String? {
    guard key.hasPrefix("probe."), key != Table.deadline.key else { return nil }
    return key.split(separator: ".").last.map(String.init)
}

extension String {
    fileprivate func replacingFirst(_ part: String, by other: String) -> String {
        var words = split(separator: "_", omittingEmptySubsequences: false).map(String.init)
        if let index = words.firstIndex(of: part) { words[index] = other }
        return words.joined(separator: "_")
    }
}

/// The table of settings for README.md and the reference, in Markdown.
public func settingsMarkdown() -> String {
    var lines = ["| key | kind | default | meaning |", "|---|---|---|---|"]
    for row in settingsReference() {
        let restart = row.needsRestart ? " A change needs a restart of panelind." : ""
        let cells = ["`\(row.key)`", row.kind, row.defaultText, row.doc + restart]
        // A bar would end the cell.
        lines.append("| " + cells.map { $0.replacingBars() }.joined(separator: " | ") + " |")
    }
    return lines.map { $0 + "\n" }.joined()
}

extension String {
    fileprivate func replacingBars() -> String {
        split(separator: "|", omittingEmptySubsequences: false).joined(separator: "\\|")
    }
}

/// A configuration with every key commented out, each with its sentence, its default and an example.
public func settingsTemplate() -> String {
    var out = """
        ---
        # panelind.yaml: every setting of panelind, commented out.
        #
        # Searched as ./panelind.yaml, then /etc/panelind/panelind.yaml, or given by --config.
        # Every key also as a variable: stop.budget is PANELIND_STOP_BUDGET; and by --set stop.budget=9s.
        # `panelind check` shows what holds, and where it comes from.
        # The values below are examples; remove `# ` before a line and the keys it is in.
        # Generated from the settings table; a test compares them.

        """
    var open: [String] = []
    for setting in Table.all {
        // One probe in full is enough to read; the other two take the same keys.
        if let detail = probeDetail(setting.key), !setting.key.hasPrefix("probe.readiness.") {
            if detail == "http" {
                (out, open) = heading(Array(setting.key.split(separator: ".").map(String.init)[..<2]), open, out)
                out += "#     # the same keys as readiness\n"
            }
            continue
        }
        let parts = setting.key.split(separator: ".").map(String.init)
        (out, open) = heading(Array(parts.dropLast()), open, out)
        let start = "# " + String(repeating: "  ", count: parts.count - 1)
        let words = "\(start)# \(setting.doc)"
        let word = "Default: \(setting.defaultText)."
        // One line where it fits.
        out += words.count + word.count < 120 ? "\(words) \(word)\n" : "\(words)\n\(start)# \(word)\n"
        out += "\(start)\(parts.last ?? ""): \(setting.example)\n"
    }
    return out
}

/// Writes the groups that the next key is in, those that are not open yet.
private func heading(_ groups: [String], _ open: [String], _ text: String) -> (String, [String]) {
    var text = text
    for (depth, group) in groups.enumerated() where open.count <= depth || open[...depth] != groups[...depth] {
        if depth == 0 { text += "\n" }
        text += "# " + String(repeating: "  ", count: depth) + "\(group):\n"
    }
    if groups.isEmpty { text += "\n" }
    return (text, groups)
}
