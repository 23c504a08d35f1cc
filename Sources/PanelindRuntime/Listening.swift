//  Listening.swift
//  Every socket that panelind listens on, opened before anything starts; a port that cannot be bound is found here.
//  `check` opens and closes the same ones.

import PanelindCore
import PanelindSettings
import PanelindSystem

/// The sockets of one run.
struct Listening {
    /// The shared or public socket, in socket and front mode.
    var serve: Listener?
    /// /health and /ready; nil for `none`.
    var sidecar: Listener?
    /// Worth a record each.
    var warnings: [String] = []

    /// Opens what the settings name. The error is a whole sentence.
    static func open(_ settings: Settings) -> Result<Listening, ListenError> {
        var listening = Listening()
        switch settings.serve.mode {
        case .front, .socket:
            switch Listener.open(settings.serve.listen.asSystem) {
            case .success(let listener): listening.serve = listener
            case .failure(let error): return .failure(error)
            }
        case .direct:
            // The worker binds for itself: whether it can is found now, not after its import.
            if let port = settings.serve.directPort {
                switch Listener.open(.tcp(host: "0.0.0.0", port: UInt16(port))) {
                case .success(let trial): trial.close()
                case .failure(let error): return .failure(error)
                }
            }
        }
        if let address = settings.sidecar.listen {
            switch Listener.open(address.asSystem, nonBlocking: true) {
            case .success(let listener):
                listening.sidecar = listener
            case .failure(let error):
                guard settings.sidecar.isDefault, settings.platform == .local,
                    case .success(let free) = Listener.open(.tcp(host: "127.0.0.1", port: 0), nonBlocking: true)
                else { return .failure(error) }
                listening.sidecar = free
                listening.warnings.append("\(error); the sidecar listens on \(free.address) instead")
            }
        }
        return .success(listening)
    }
}

extension PanelindSettings.ListenAddress {
    /// The same address as the system module writes it.
    var asSystem: PanelindSystem.ListenAddress {
        switch self {
        case .tcp(let host, let port): .tcp(host: host, port: UInt16(clamping: port))
        case .unix(let path): .unix(path)
        case .systemd(let name): .inherited(name: name)
        }
    }
}
