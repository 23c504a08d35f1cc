//  Sources.swift
//  What was written where: flags over environment over file, each key found or refused.
//  Only collects; Resolver.swift reads the values. Read after SettingsTable.swift and Surroundings.swift.

/// A value somebody wrote for a key.
struct Given: Hashable, Sendable {
    var node: Node
    var origin: Origin
}

/// Everything that was written, by key, the strongest source winning.
struct Sources {
    var given: [String: Given] = [:]
    /// As messages show it; nil without a file.
    var file: String?
    /// What a file says is not known: what is missing may be in it.
    var fileIsUnreadable = false
    var problems: [SettingsProblem] = []
    var warnings: [String] = []

    /// Variables that panelind gives its workers: a panelind below a panelind sees them (CONTRACT section 6).
    static let silent: Set<String> = ["PANELIND_SOCKET", "PANELIND_GENERATION", "PANELIND_STOP_SECONDS"]
    static let fileLimit = 1 << 20

    init(_ request: SettingsRequest, _ surroundings: Surroundings, _ world: World) {
        readFile(request.configPath, surroundings, world)
        readEnvironment(surroundings.environment)
        readFlags(request)
    }

    // MARK: file

    private mutating func readFile(_ configPath: String?, _ surroundings: Surroundings, _ world: World) {
        let candidates = configPath.map { [$0] } ?? ["panelind.yaml", "/etc/panelind/panelind.yaml"]
        for path in candidates {
            switch world.read(surroundings.absolute(path), Self.fileLimit) {
            case .failure(.missing) where configPath == nil:
                continue
            case .failure(let error):
                let next = configPath == nil ? "" : "; give the path of a file to --config"
                problems.append(SettingsProblem(message: "cannot read \(shortened(path)): \(error.text)\(next)"))
                fileIsUnreadable = true
                return
            case .success(let bytes):
                file = path
                readFile(path, bytes)
                return
            }
        }
    }

    private mutating func readFile(_ path: String, _ bytes: [UInt8]) {
        let yaml = parseYaml(bytes)
        for problem in yaml.problems {
            let place = "\(path):\(problem.mark.line):\(problem.mark.column)"
            problems.append(SettingsProblem(message: "cannot read \(place): \(problem.message)"))
        }
        guard let root = yaml.root, !root.isAbsent else { return }
        var found: [String: Given] = [:]
        distribute("", root, &found) { mark in .file(path, line: mark.line) }
        given = found
    }

    // MARK: environment

    private mutating func readEnvironment(_ environment: [String: String]) {
        var found: [String: Given] = [:]
        // Groups first: a single key is more exact than the map it is in.
        let names = environment.keys.filter { $0.hasPrefix("PANELIND_") }.sorted()
        let known = names.compactMap { name in Table.byVariable[name].map { (name, $0) } }
        for (name, key) in known.filter({ Table.groups.contains($0.1) }) + known.filter({ Table.byKey[$0.1] != nil }) {
            guard let text = environment[name] else { continue }
            var part: [String: Given] = [:]
            if let node = parse(text, for: key, .environment(name)) {
                distribute(key, node, &part) { _ in .environment(name) }
            }
            found.merge(part) { $1 }
        }
        for name in names where Table.byVariable[name] == nil && !Self.silent.contains(name) {
            let near = nearest(to: name, in: Table.byVariable.keys.sorted()).map { "; did you mean \($0)?" } ?? ""
            warnings.append("unknown variable \(shortened(name)) in the environment is ignored\(near)")
        }
        given.merge(found) { $1 }
    }

    // MARK: flags

    private mutating func readFlags(_ request: SettingsRequest) {
        var found: [String: Given] = [:]
        for text in request.overrides {
            guard let equals = text.firstIndex(of: "=") else {
                let message = "cannot use --set \(shortened(text)): no value; write --set KEY=VALUE"
                problems.append(SettingsProblem(message: message))
                continue
            }
            let key = String(text[..<equals])
            let origin = Origin.flag("--set \(shortened(key))")
            guard Table.byKey[key] != nil || Table.groups.contains(key) else {
                problems.append(unknown(key, String(text[text.index(after: equals)...]), origin))
                continue
            }
            guard let node = parse(String(text[text.index(after: equals)...]), for: key, origin) else { continue }
            var part: [String: Given] = [:]
            distribute(key, node, &part) { _ in origin }
            for (key, value) in part {
                if found[key] != nil {
                    problems.append(SettingsProblem(key, value.node.flow, "given twice; keep one", origin))
                } else {
                    found[key] = value
                }
            }
        }
        if !request.command.isEmpty {
            let key = Table.command.key
            if let other = found[key] {
                problems.append(SettingsProblem(key, other.node.flow, "given after -- too; keep one", other.origin))
            }
            found[key] = Given(node: Node(.list(request.command.map { Node(text: $0) })), origin: .flag("--"))
        }
        given.merge(found) { $1 }
    }

    // MARK: keys

    /// Text of a variable or a flag as a value: YAML flow for lists and maps, else as it is.
    private mutating func parse(_ text: String, for key: String, _ origin: Origin) -> Node? {
        let setting = Table.byKey[key]
        let begins = text.drop { $0 == " " }.first
        let isFlow = begins == "[" || begins == "{"
        // `[::]:8080` begins like a list too, so only keys that may hold one are read as YAML.
        guard setting?.mayBeStructured ?? true, isFlow else { return Node(text: text) }
        let yaml = parseYaml(text)
        for problem in yaml.problems {
            let why =
                "\(problem.message) (column \(problem.mark.column)); write YAML flow such as "
                + (setting?.example ?? "{KEY: VALUE}")
            problems.append(SettingsProblem(key, text, why, origin))
        }
        return yaml.problems.isEmpty ? yaml.root : nil
    }

    /// Hands the keys of a map to the settings they name, down to the leaves.
    private mutating func distribute(
        _ path: String, _ node: Node, _ found: inout [String: Given], _ origin: (Mark) -> Origin
    ) {
        if Table.byKey[path] != nil {
            if found[path] != nil {
                problems.append(SettingsProblem(path, node.flow, "given twice; keep one", origin(node.mark)))
            } else if node.content != .broken {
                found[path] = Given(node: node, origin: origin(node.mark))
            }
            return
        }
        switch node.content {
        case .broken: return
        case .map(let entries):
            for entry in entries {
                let key = path.isEmpty ? entry.key : "\(path).\(entry.key)"
                if Table.byKey[key] != nil || Table.groups.contains(key) {
                    // The line of the key: that of a value below it would be one further down.
                    distribute(key, entry.value, &found) { mark in
                        origin(mark.line > entry.keyMark.line && Table.byKey[key] != nil ? entry.keyMark : mark)
                    }
                } else {
                    problems.append(unknown(key, entry.value.flow, origin(entry.keyMark)))
                }
            }
        case .scalar, .list:
            // A key with everything below it commented out says nothing, and that is no error.
            if node.isAbsent || node.text == "null" { return }
            if path.isEmpty {
                let place = origin(node.mark).place ?? ""
                problems.append(SettingsProblem(message: "cannot read \(place): not a map; write KEY: VALUE lines"))
            } else {
                let keys = Table.keys.filter { $0.hasPrefix(path + ".") }.prefix(3).joined(separator: ", ")
                problems.append(
                    SettingsProblem(path, node.flow, "holds other keys; write \(keys) …", origin(node.mark)))
            }
        }
    }

    private func unknown(_ key: String, _ value: String, _ origin: Origin) -> SettingsProblem {
        var why = "unknown key"
        let parts = key.split(separator: ".")
        let parent = parts.dropLast().joined(separator: ".")
        if let setting = Table.byKey[parent] {
            why = "\(parent) is given whole; write \(parent)=\(setting.example)"
        } else if let near = Self.suggestion(key) {
            why += "; did you mean \(near)?"
        } else {
            why += "; `panelind check` lists the known ones"
        }
        // The value stays unsaid: under a wrong name it may be a secret.
        return SettingsProblem(shortened(key), value.utf8.count <= 40 && !looksSecret(key) ? value : nil, why, origin)
    }

    /// The key that was probably meant: spelt nearly so, or of the same last name.
    static func suggestion(_ key: String) -> String? {
        if let near = nearest(to: key, in: Table.keys + Table.groups.sorted()) { return near }
        guard let last = key.split(separator: ".").last else { return nil }
        let ends = Table.keys.filter { $0.hasSuffix("." + last) }
        return ends.count == 1 ? ends.first : nil
    }
}

/// A name under which people keep what nobody should see.
func looksSecret(_ name: String) -> Bool {
    let name = name.uppercased()
    return ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "CREDENTIAL", "APIKEY", "PRIVATE"].contains { name.contains($0) }
        || name == "KEY" || name.hasSuffix("_KEY") || name.hasSuffix(".KEY")
}
