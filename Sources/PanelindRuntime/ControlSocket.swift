//  ControlSocket.swift
//  Where the control socket is made: the first of the places that `control.path` allows.
//  A living panelind on one of them is never harmed: it is found by connecting. Read after Listening.swift.

import Glibc
import PanelindSettings
import PanelindSystem

/// The control socket of one run.
struct ControlSocket {
    /// Nil where there is none, by the settings or because no place is writable.
    var listener: Listener?
    /// Worth a record.
    var warning: String?

    /// Opens it, mode 0600. The error is a whole sentence: a living process accepts on the socket (71).
    static func open(_ control: Settings.Control) -> Result<ControlSocket, ListenError> {
        var reasons: [String] = []
        for path in control.candidates {
            if path == "/run/panelind/control.sock" { mkdir("/run/panelind", 0o755) }
            switch Listener.open(.unix(path), nonBlocking: true, mode: 0o600) {
            case .success(let listener): return .success(ControlSocket(listener: listener))
            case .failure(let error):
                if error.error?.number == EADDRINUSE {
                    return .failure(
                        ListenError(
                            error.address, error.error,
                            "cannot use the control socket \(path): another panelind lives there; stop it, or set "
                                + "control.path to another place or none"))
                }
                reasons.append("\(error)")
            }
        }
        guard let first = reasons.first else { return .success(ControlSocket()) }
        let more = reasons.count > 1 ? " (and at \(reasons.count - 1) more places)" : ""
        return .success(
            ControlSocket(
                warning: "cannot make a control socket: \(first)\(more); status, why, logs, restart, reload and stop "
                    + "will not work; set control.path to a writable place"))
    }

    /// The path it is at.
    var path: String? {
        if case .unix(let path)? = listener?.address { return path }
        return nil
    }
}
