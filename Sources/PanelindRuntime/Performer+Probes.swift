//  Performer+Probes.swift
//  One attempt of a probe: by HTTP, by a connection, by a command, by the front. Its timeout is the machine's.
//  Read after Performer.swift.

import Glibc
import NIOCore
import PanelindCore
import PanelindHTTP
import PanelindSettings
import PanelindSystem

extension Performer {
    func ask(_ generation: Generation, _ kind: ProbeKind, _ attempt: Int, _ probe: ProbeSettings) {
        guard let settings = settings(of: generation) else { return }
        if kind == .connection, let front {
            return front.tryConnection(to: generation) { [unowned self] outcome in
                tell(generation, .answered(kind, attempt: attempt, outcome))
                // From inside a step this does nothing: the driver takes the answer next.
                driver.run()
            }
        }
        switch probe.method {
        case .exec(let command):
            run(command, generation, kind, attempt, settings)
        case .http, .tcp:
            guard let target = target(probe, settings, generation) else {
                return tell(generation, .answered(kind, attempt: attempt, .failed("there is no address to ask")))
            }
            let question = prober.ask(target) { [unowned self] outcome in
                kept[generation]?.attempts[kind] = nil
                tell(generation, .answered(kind, attempt: attempt, Self.translated(outcome)))
                driver.run()
            }
            kept[generation]?.attempts[kind] = .asked(number: attempt, question)
        case .notify, .log, .descriptor:
            break  // The worker tells these by itself; the machine never asks.
        }
    }

    func abandon(_ generation: Generation, _ kind: ProbeKind, _ attempt: Int) {
        guard let under = kept[generation]?.attempts[kind] else { return }
        switch under {
        case .asked(attempt, let question): question.cancel()
        case .command(attempt, let id): _ = children.killProbe(generation, id: id)
        case .asked, .command: return  // A newer attempt.
        }
        kept[generation]?.attempts[kind] = nil
    }

    /// An exec probe's command ended.
    func commandEnded(_ generation: Generation, _ id: Int, _ status: ExitStatus) {
        guard let attempts = kept[generation]?.attempts else { return }
        for case (let kind, .command(let attempt, id)) in attempts {
            kept[generation]?.attempts[kind] = nil
            tell(
                generation,
                .answered(kind, attempt: attempt, status == .code(0) ? .passed : .failed("\(status)")))
        }
    }

    private func run(
        _ command: [String], _ generation: Generation, _ kind: ProbeKind, _ attempt: Int, _ settings: Settings
    ) {
        let variables = settings.workerEnvironment(
            from: environment.filter { !Launch.systemdVariables.contains($0.key) })
        let searchPath = variables["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
        let name = command.first ?? ""
        let executable: String
        switch SpawnRequest.resolve(name, searchPath: searchPath, directory: settings.worker.directory) {
        case .found(let path): executable = path
        case .failed(let failure):
            return tell(generation, .answered(kind, attempt: attempt, .failed(failure.message)))
        }
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { if null >= 0 { close(null) } }
        var request = SpawnRequest(
            executable: executable, arguments: command, environment: variables.map { "\($0)=\($1)" },
            directory: settings.worker.directory)
        if null >= 0 {
            // What a probe prints is nobody's log.
            request.standardOutput = null
            request.standardError = null
        }
        request.credentials = settings.worker.identity.credentials
        nextCommand += 1
        let id = nextCommand
        switch children.spawn(request, role: .probe(generation, id: id)) {
        case .success: kept[generation]?.attempts[kind] = .command(number: attempt, id: id)
        case .failure(let error):
            tell(generation, .answered(kind, attempt: attempt, .failed(error.startFailure(of: request).message)))
        }
    }

    private static func translated(_ outcome: PanelindHTTP.ProbeOutcome) -> PanelindCore.ProbeOutcome {
        switch outcome {
        case .passed: .passed
        case .failed(let reason): .failed(reason)
        }
    }

    /// Where a probe asks (CONTRACT section 2): a full URL, or a path at the worker's own address.
    private func target(
        _ probe: ProbeSettings, _ settings: Settings, _ generation: Generation
    ) -> ProbeTarget? {
        do throws(ProbeTarget.Invalid) {
            switch probe.method {
            case .http(let text):
                if text.hasPrefix("/") {
                    switch ownAddress(settings, generation) {
                    case .unix(let path):
                        return try .http(unix: path, path: text, passesBelow500: probe.passesBelow500)
                    case .tcp(let host, let port):
                        return try .http(
                            host: host, port: port, path: text, passesBelow500: probe.passesBelow500)
                    case .systemd:
                        return nil
                    }
                }
                let url = try ProbeURL(text)
                switch url.place {
                case .tcp(let host, let port): return try .http(host: host, port: port, path: url.path)
                case .unix(let socket): return try .http(unix: socket, path: url.path)
                }
            case .tcp(let text):
                let address: PanelindSettings.ListenAddress
                if text.isEmpty {
                    address = ownAddress(settings, generation)
                } else if let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) {
                    var host = String(text[..<colon])
                    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
                    address = .tcp(host: host, port: port)
                } else {
                    address = .unix(text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text)
                }
                switch address {
                case .unix(let path): return try .unix(path)
                case .tcp(let host, let port): return try .tcp(host: host, port: port)
                case .systemd: return nil
                }
            case .exec, .notify, .log, .descriptor:
                return nil
            }
        } catch {
            return nil
        }
    }

    /// The worker's own address: the upstream, the shared socket, or 127.0.0.1:$PORT.
    private func ownAddress(_ settings: Settings, _ generation: Generation) -> PanelindSettings.ListenAddress {
        switch settings.serve.mode {
        case .front:
            return kept[generation]?.upstream ?? .systemd(nil)
        case .socket:
            guard let address = listening.serve?.address else { return .systemd(nil) }
            switch address {
            case .unix(let path): return .unix(path)
            case .tcp(let host, let port):
                let everywhere = ["0.0.0.0": "127.0.0.1", "::": "::1"]
                return .tcp(host: everywhere[host] ?? host, port: Int(port))
            case .inherited: return .systemd(nil)
            }
        case .direct:
            return settings.serve.directPort.map { .tcp(host: "127.0.0.1", port: $0) } ?? .systemd(nil)
        }
    }
}
