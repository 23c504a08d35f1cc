//  Serving.swift
//  The worker's command with its placeholders, the mode that follows from it, and who listens where.
//  Contradictions are errors that say what would be right (CONTRACT section 1). Read after Resolver.swift.

import PanelindCore

/// The command and what it says about serving.
struct Command {
    var arguments: [CommandArgument]
    var placeholders: Set<Settings.Placeholder>
}

extension Resolver {
    /// The command with its placeholders found; expansion comes when the mode is known.
    mutating func resolveCommandText() -> (texts: [String], placeholders: Set<Settings.Placeholder>)? {
        guard let given = given[Table.command.key] else {
            show(Table.command, "none", .default)
            if fileIsUnreadable { return nil }
            problems.append(
                SettingsProblem(
                    message: "cannot start a worker: worker.command is not set; "
                        + "write it in panelind.yaml, or after --: panelind run -- COMMAND ARG",
                    key: Table.command.key))
            return nil
        }
        do throws(BadValue) {
            let texts = try Table.command.kind.read(Self.withBracePlaceholders(given.node))
            if let bad = texts.first(where: { $0.utf8.contains(0) }) {
                throw BadValue("\(shortened(bad)) holds a NUL character; no argument can")
            }
            var found: Set<Settings.Placeholder> = []
            for text in texts {
                // The names do not matter yet, only where the placeholders are.
                let pieces = try expand(text, placeholders: true) { _ in .text("") }.pieces
                for piece in pieces {
                    switch piece {
                    case .text: break
                    case .socket: found.insert(.socket)
                    case .port: found.insert(.port)
                    case .descriptor: found.insert(.descriptor)
                    }
                }
            }
            show(Table.command, flowList(texts), given.origin)
            return (texts, found)
        } catch {
            report(Table.command, error)
            return nil
        }
    }

    /// Expands the arguments from the worker's environment.
    mutating func resolveArguments(
        _ texts: [String], serve: Settings.Serve, environment: [NamedText], secrets: [NamedText]
    ) -> [CommandArgument] {
        let own = workerEnvironment(self.environment, adding: environment)
        let added = Set(environment.map(\.name))
        let secret = Set(secrets.map(\.name))
        func lookup(_ name: String) -> Lookup {
            if secret.contains(name) {
                return .refused(
                    "\(name) is one of worker.secrets, and every process can read a command line; "
                        + "let the worker read it from its environment")
            }
            // PORT is what panelind tells the worker (CONTRACT section 6), not what panelind itself was told.
            if name == "PORT", !added.contains("PORT"), serve.mode != .direct {
                if serve.placeholder == .port { return .piece(.port) }
                if let port = serve.upstream?.port { return .text("\(port)") }
                return .refused("PORT is not set for the worker in \(serve.mode.rawValue) mode; write {port}")
            }
            if name == "PANELIND_SOCKET", serve.placeholder == .socket { return .piece(.socket) }
            return own[name].map { .text($0) } ?? .unset
        }
        var arguments: [CommandArgument] = []
        for text in texts {
            do throws(BadValue) {
                arguments.append(try expand(text, placeholders: true, lookup))
            } catch {
                report(Table.command, "in \(shortened(text)), \(error.why)")
            }
        }
        if !arguments.isEmpty {
            let shown = arguments.map { argument in flowText(argument.description) }.joined(separator: ", ")
            show(Table.command, "[\(shown)]", origin(Table.command))
        }
        return arguments
    }

    /// In YAML `- {socket}` without quotes is a map; nobody means that here.
    private static func withBracePlaceholders(_ node: Node) -> Node {
        guard case .list(let items) = node.content else { return node }
        let changed = items.map { item in
            if case .map(let entries) = item.content, entries.count == 1, let entry = entries.first,
                entry.value.isAbsent, Settings.Placeholder(rawValue: entry.key) != nil
            {
                return Node(.scalar("{\(entry.key)}", quoted: true), at: item.mark)
            }
            return item
        }
        return Node(.list(changed), at: node.mark)
    }

    /// Mode and addresses (CONTRACT section 1, placeholders; section 2, `serve.*`).
    mutating func resolveServe(
        _ placeholders: Set<Settings.Placeholder>, worker environment: [NamedText], _ surroundings: Surroundings,
        _ world: World
    ) -> Settings.Serve {
        let upstream = resolved(Table.upstream, value(Table.upstream), surroundings, world)
        let mode = resolveMode(placeholders, hasUpstream: upstream != nil)
        let placeholder = placeholders.count == 1 ? placeholders.first : nil
        let listen = resolveListen(mode, surroundings, world)
        let serve = Settings.Serve(
            mode: mode, placeholder: placeholder, listen: listen, upstream: upstream,
            directPort: mode == .direct ? directPort(environment) : nil,
            healthPath: value(Table.healthPath), readyPath: value(Table.readyPath), hold: value(Table.hold),
            heldRequests: value(Table.heldRequests), concurrency: value(Table.concurrency),
            bodyLimit: value(Table.bodyLimit), headerTimeout: value(Table.headerTimeout),
            idleTimeout: value(Table.idleTimeout), responseTimeout: value(Table.responseTimeout),
            trustedProxies: value(Table.trustedProxies))
        if let path = serve.healthPath, path == serve.readyPath {
            let setting = isGiven(Table.readyPath) ? Table.readyPath : Table.healthPath
            report(setting, "serve.healthPath and serve.readyPath are both \(path); write two paths, or none")
        }
        if mode == .front, let upstream, upstream == listen {
            report(Table.upstream, "panelind itself listens there; write where the worker serves")
        }
        return serve
    }

    private mutating func resolveMode(_ placeholders: Set<Settings.Placeholder>, hasUpstream: Bool) -> ServeMode {
        let shown = placeholders.map { "{\($0.rawValue)}" }.sorted()
        if shown.count > 1 {
            let list = shown.joined(separator: " and ")
            report(Table.command, "\(list) together; keep one: {socket} or {port} for front, {fd} for socket mode")
        }
        let isFront = placeholders.contains(.socket) || placeholders.contains(.port)
        let isSocket = placeholders.contains(.descriptor)
        if hasUpstream, let first = shown.first {
            report(Table.upstream, "worker.command has \(first), which says where the worker serves; remove one")
        }
        let implied: (ServeMode, String) =
            isFront
            ? (.front, "from \(shown.first ?? "") in worker.command")
            : isSocket
                ? (.socket, "from {fd} in worker.command")
                : hasUpstream ? (.front, "from serve.upstream") : (.direct, "no placeholder in worker.command")
        let mode = value(Table.mode, else: implied.0, note: implied.1)
        guard shown.count < 2, isGiven(Table.mode), mode != implied.0 else { return mode }
        switch mode {
        case .front where isSocket:
            report(Table.mode, "worker.command has {fd}, which is socket mode; write {socket} or {port} instead")
        case .front:
            report(
                Table.mode,
                "a front needs an address for the worker; write {socket} or {port} in worker.command, or serve.upstream"
            )
        case .socket where isFront:
            let first = shown.first ?? ""
            report(Table.mode, "worker.command has \(first), which is front mode; write {fd} instead, or none")
        case .socket where hasUpstream:
            report(Table.mode, "serve.upstream means front mode; remove one of them")
        case .direct where !shown.isEmpty:
            let first = shown.first ?? ""
            report(Table.mode, "worker.command has \(first), which is \(implied.0.rawValue) mode; remove one of them")
        case .direct where hasUpstream:
            report(Table.mode, "serve.upstream means front mode; remove one of them")
        case .socket, .direct:
            break
        }
        return mode
    }

    // MARK: addresses

    private mutating func resolveListen(
        _ mode: ServeMode, _ surroundings: Surroundings, _ world: World
    ) -> ListenAddress {
        let fallback = Table.listen.base
        if given[Table.listen.key] == nil {
            if !surroundings.inheritedSockets.isEmpty {
                return record(Table.listen, .systemd(nil), .platform, note: "LISTEN_FDS is ours")
            }
            guard mode != .direct else {
                show(Table.listen, "none", .default, note: "the worker listens in direct mode")
                return fallback
            }
            // As `${PORT:-8080}` says: an empty one is none.
            guard let port = environment["PORT"], !port.isEmpty else { return record(Table.listen, fallback, .default) }
            let note = "from PORT"
            do throws(BadValue) {
                return record(
                    Table.listen, .tcp(host: "0.0.0.0", port: try parsePort(port)), .default, note: note)
            } catch {
                show(Table.listen, "0.0.0.0:\(port)", .default, note: note)
                report(Table.listen, "PORT: \(error.why)")
                return fallback
            }
        }
        let before = problems.count
        let address = value(Table.listen)
        if problems.count > before, let text = given[Table.listen.key]?.node.text, text.contains("${PORT"),
            let port = environment["PORT"]
        {
            report(Table.listen, "PORT is \"\(shortened(port))\" in the environment; set it to a port")
        }
        if case .systemd(let name) = address, problems.count == before {
            let sockets = surroundings.inheritedSockets
            if sockets.isEmpty {
                report(Table.listen, "no socket was inherited (LISTEN_FDS); start panelind from its socket unit")
            } else if let name, !sockets.contains(name) {
                let names = sockets.joined(separator: ", ")
                report(Table.listen, "no inherited socket has that name; write one of \(names)")
            }
        }
        return resolved(Table.listen, address, surroundings, world) ?? fallback
    }

    /// Host names become numbers, unix paths absolute.
    private mutating func resolved(
        _ setting: some Declared, _ address: ListenAddress?, _ surroundings: Surroundings, _ world: World
    ) -> ListenAddress? {
        switch address {
        case nil, .systemd: return address
        case .tcp(let host, let port):
            if numericAddress(host) != nil { return address }
            if let number = world.address(host) { return .tcp(host: number, port: port) }
            report(setting, "no host \(host) is known; write an address")
            return address
        case .unix(let path):
            let absolute = surroundings.absolute(path)
            let limit = ListenAddress.longestUnixPath
            if absolute.utf8.count > limit {
                report(setting, "\(absolute) does not fit a socket address of \(limit) bytes; write a shorter path")
            }
            return .unix(absolute)
        }
    }

    /// The worker's PORT in direct mode: its own, else panelind's.
    private mutating func directPort(_ environment: [NamedText]) -> Int? {
        let own = environment.last { $0.name == "PORT" }?.text
        guard let text = own ?? self.environment["PORT"], own != nil || !text.isEmpty else { return nil }
        do throws(BadValue) {
            return try parsePort(text)
        } catch {
            let name = own == nil ? "PORT" : "worker.environment.PORT"
            let next = text.isEmpty ? "unset it, or set a port from 1 to 65535" : error.why
            let key = own == nil ? nil : Table.environment.key
            problems.append(SettingsProblem(message: "cannot use \(name)=\(shortened(text)): \(next)", key: key))
            return nil
        }
    }

    mutating func resolveSidecar(
        _ serve: Settings.Serve, _ surroundings: Surroundings, _ world: World
    ) -> Settings.Sidecar {
        let isOpen = platform == .kubernetes || (platform == .cloudrun && serve.mode != .front)
        let base = ListenAddress.tcp(host: isOpen ? "0.0.0.0" : "127.0.0.1", port: 8081)
        let address = value(Table.sidecar, else: base, isOpen ? .platform : .default)
        let isDefault = !isGiven(Table.sidecar)
        let listen = resolved(Table.sidecar, address, surroundings, world)
        let other = serve.mode == .direct ? serve.directPort : serve.listen.port
        // A taken default is replaced on local, so only elsewhere is it an error.
        if let port = listen?.port, port == other, !(isDefault && platform == .local) {
            report(Table.sidecar, "port \(port) is that of the front or the worker; write another, or none")
        }
        return Settings.Sidecar(listen: listen, isDefault: isDefault)
    }
}

extension Resolver {
    /// Addresses that cannot be bound (CONTRACT section 2: `run` says 71).
    mutating func checkBinding(_ serve: Settings.Serve, _ sidecar: Settings.Sidecar, _ world: World) {
        if serve.mode != .direct, let why = world.bindProblem(serve.listen) {
            report(Table.listen, "it cannot be bound: \(why); write a free port", kind: .cannotBind)
        }
        // A taken default gives way on local.
        if let listen = sidecar.listen, !(sidecar.isDefault && platform == .local),
            let why = world.bindProblem(listen)
        {
            report(Table.sidecar, "it cannot be bound: \(why); write a free port, or none", kind: .cannotBind)
        }
    }
}
