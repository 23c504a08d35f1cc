//  Advice.swift
//  What a person on call may do about an end or a state: from its cause and the worker's last lines.
//  Pure; says nothing where it knows nothing. Read after Sentences.swift.

import PanelindCore

/// One piece of advice, or nil where nothing is known that would help.
enum Advice {
    /// About a worker's end.
    static func about(_ ending: Ending, lines: [String], facts: Facts) -> String? {
        if let failure = ending.failure { return about(failure, facts) }
        switch ending.cause {
        case .portInUse: return aboutPort(facts)
        case .oom:
            return
                "the worker's peak was \(Times.size(ending.use.maxRSSBytes)) of resident memory. Give the container or "
                + "unit more memory, or the worker less to do at once (fewer worker processes, smaller batches)."
        case .startupDeadline: return aboutSlowStart(facts)
        case .liveness:
            return
                "the process lived but did not answer: look for a blocked event loop or a deadlock (py-spy dump --pid "
                + "PID shows where a Python process is). If it is only slow, raise probe.liveness.timeout or failures."
        case .watchdog:
            return "the worker did not send WATCHDOG=1 in time: it hangs, or worker.watchdog is too short for its work."
        case .exit, .signal, .notFound, .permanent: return aboutOutput(ending, lines, facts)
        case .requested: return nil
        }
    }

    /// About a worker that runs and is not ready.
    static func aboutStart(facts: Facts) -> String {
        switch facts.mode {
        case .front:
            "panelind asks the worker at the address it was given ({socket} or {port}): does the worker bind exactly "
                + "that one? Its own output says where it listens."
        case .socket:
            "panelind asks through the socket that the worker inherits as descriptor 3: does the worker accept on it "
                + "(--fd {fd}, or LISTEN_FDS)?"
        case .direct:
            facts.listen.map { "panelind asks the worker's PORT (\($0)): does the worker bind that port?" }
                ?? "the last output below may say what it waits for; is it ready in the way that probe.readiness asks?"
        }
    }

    /// About a worker that was ready, runs, and is not ready now.
    static func aboutUnready(_ what: Moment.What?, facts: Facts) -> String {
        switch what {
        case .unready("permission denied", isRefused: true):
            return "panelind may not connect to the worker's address: does its socket's mode keep panelind's user out, "
                + "or does another user than worker.user listen there? `ls -l` and `ss -xlp` say whose it is."
        case .unready(_, isRefused: true):
            return "the process runs but nobody listens at its address: did it close its listener or remove its socket "
                + "(a server that shuts down and hangs in that)? panelind restarts nothing for this without a "
                + "probe.liveness that asks there; `panelind restart` replaces the worker."
        case .unready(let reason, _) where reason.has("HTTP") || reason.has("said"):
            return "the process runs and answers that it cannot serve: look at what its readiness depends on "
                + "(a database, another service). panelind restarts nothing for this, and asks every second."
        default:
            return "the process runs but its readiness probe gets no good answer: is it overloaded or blocked? "
                + "panelind restarts nothing for this, and asks every second; a probe.liveness would."
        }
    }

    private static func about(_ failure: StartFailure, _ facts: Facts) -> String? {
        switch failure.kind {
        case .notFound:
            return
                "correct worker.command: is the program installed, is its path right, and does the interpreter that its "
                + "first line (#!) names exist?"
        case .notExecutable:
            return "the file is there but cannot be executed: it needs its x bit (chmod +x), and a valid first line or "
                + "binary format. panelind never runs a file through a shell."
        case .noProcess: return "the limit of processes or memory is reached: see ulimit -u, pids.max and free memory."
        case .other: return nil
        }
    }

    private static func aboutPort(_ facts: Facts) -> String {
        let port = facts.listen?.split(whereSeparator: { $0 == ":" || $0 == " " }).last.flatMap { Int($0) }
        let who = port.map { "`ss -ltnp 'sport = :\($0)'` names the process that holds it" } ?? "`ss -ltnp` names it"
        switch facts.mode {
        case .direct:
            return "another process holds the port: \(who). End it, or give the worker another port; with {fd} or "
                + "{port} in worker.command panelind keeps the port itself, and this cannot happen."
        case .front, .socket:
            return "the worker binds a port of its own instead of the address that panelind gives it: "
                + "pass {fd}, {port} or {socket} on in worker.command."
        }
    }

    private static func aboutSlowStart(_ facts: Facts) -> String {
        aboutStart(facts: facts) + " If it only needs longer than \(Times.span(facts.startupDeadline)), raise "
            + "probe.startup.deadline."
    }

    private static func aboutOutput(_ ending: Ending, _ lines: [String], _ facts: Facts) -> String? {
        for line in lines.reversed() {
            let line = line.withoutControls
            if let name = quoted(in: line, after: "No module named ") {
                return "the Python that runs the worker has no module \(name): install it into the environment that "
                    + "worker.command uses, or correct the name."
            }
            if line.has("Could not import module") || line.has("Attribute \"") && line.has("not found") {
                return
                    "the application named in worker.command cannot be imported: is the name right (module:attribute), "
                    + "and is worker.directory the directory that has it?"
            }
            if line.has("SyntaxError:") || line.has("IndentationError:") {
                let place = place(of: lines)
                return "correct the source\(place.map { " at \($0)" } ?? ""); until then every start ends like this."
            }
            if line.has("ImportError:") {
                return "an import fails at start: see the traceback below for the module, and install or correct it."
            }
            if line.has("Permission denied") || line.has("PermissionError") {
                return
                    "the worker lacks a permission: see the last lines for the file, and worker.user for who it runs as."
            }
            if line.has("KeyError:") || line.has("environment variable") {
                return
                    "a variable may be missing in the worker's environment: name it in worker.requiredEnvironment, and "
                    + "panelind refuses to start without it."
            }
        }
        return aboutStatus(ending)
    }

    private static func aboutStatus(_ ending: Ending) -> String? {
        switch ending.status {
        // SIGILL, SIGBUS, SIGSEGV.
        case .signal(let signal, let core) where [4, 7, 11].contains(signal.number):
            "a crash in native code, not an exception: suspect a C extension or the interpreter itself. "
                + (core
                    ? "A core was written: see coredumpctl, or /proc/sys/kernel/core_pattern for where."
                    : "For a core set worker.limits.core; PYTHONFAULTHANDLER=1 makes Python print where it was.")
        case .signal(.kill, _):
            "something outside of panelind sent SIGKILL: an operator, or a memory limit that panelind cannot see (dmesg)."
        case .code(0) where !ending.wasReady:
            "the command ended by itself and without an error: does it put itself into the background (a --daemon "
                + "option)? It must stay in the foreground. Is it the right command, and not one that only prints?"
        case .code, .signal, nil: nil
        }
    }

    /// What stands in quotes behind these words.
    private static func quoted(in line: String, after words: String) -> String? {
        guard let start = line.range(of: words)?.upperBound else { return nil }
        let name = line[start...].prefix { $0 != " " && $0 != "," && $0 != ";" }
        return name.isEmpty ? nil : String(name.prefix(120))
    }

    /// `/app/api.py line 12`, from the last `File "…", line N` of a traceback.
    private static func place(of lines: [String]) -> String? {
        for line in lines.reversed() {
            guard let start = line.range(of: "File \"")?.upperBound else { continue }
            let rest = line[start...]
            guard let end = rest.firstIndex(of: "\"") else { continue }
            let number = rest[end...].drop { !$0.isNumber }.prefix { $0.isNumber }
            return number.isEmpty ? String(rest[..<end]) : "\(rest[..<end]) line \(number)"
        }
        return nil
    }
}

extension String {
    /// Where this text first is, byte by byte, or nil; the standard library's own would bring in its regular expressions.
    func range(of text: String) -> Range<Index>? {
        var start = utf8.startIndex
        while start != utf8.endIndex {
            if utf8[start...].starts(with: text.utf8) {
                return start..<utf8.index(start, offsetBy: text.utf8.count)
            }
            utf8.formIndex(after: &start)
        }
        return nil
    }

    /// Whether this text is in it.
    func has(_ text: String) -> Bool { range(of: text) != nil }
}
