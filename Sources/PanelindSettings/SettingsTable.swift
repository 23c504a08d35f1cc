//  SettingsTable.swift
//  Every setting of CONTRACT section 2, declared once and in its order.
//  The list at the end is what everything else walks. Read after Setting.swift.

import PanelindCore

/// `worker.stdin`
public enum StandardInput: String, Hashable, Sendable, CaseIterable {
    case null, inherit
}

/// `log.format`
public enum LogFormat: String, Hashable, Sendable, CaseIterable {
    case text, json, journal, inherit
}

/// `log.level`
public enum LogLevel: String, Hashable, Sendable, CaseIterable {
    case debug, info, warning, error
}

/// `log.overflow`
public enum LogOverflow: String, Hashable, Sendable, CaseIterable {
    case drop, block
}

/// `log.access`
public enum AccessLog: String, Hashable, Sendable, CaseIterable {
    case errors, all, none
}

enum Table {
    static let platform = Setting(
        "platform", Kind<Platform>.choice, .local, described: "detected",
        "Where panelind runs; chooses the defaults of other settings.", example: "cloudrun")

    // MARK: worker

    static let command = Setting(
        "worker.command", Kind<[String]>.command, [], described: "required",
        "The worker and its arguments; `{socket}`, `{port}` or `{fd}` choose how it is served.",
        example: "[uvicorn, \"--uds\", \"{socket}\", \"api:app\"]")
    static let directory = Setting(
        "worker.directory", Kind<String>.path, ".", "The worker's working directory.", example: "/srv/app")
    static let environment = Setting(
        "worker.environment", Kind<[NamedText]>.variables("map of text", "{LOG_LEVEL: info}"), [], described: "none",
        "Variables added to those of panelind.", example: "{LOG_LEVEL: info}")
    static let secrets = Setting(
        "worker.secrets", Kind<[NamedText]>.variables("map of paths", "{API_KEY: /secrets/api-key}"), [],
        described: "none",
        "Variables read from files at every start of the worker; never logged, shown or put on a command line.",
        example: "{API_KEY: /secrets/api-key}")
    static let required = Setting(
        "worker.requiredEnvironment", Kind<[String]>.names, [], described: "none",
        "Names that must be set and not empty, or nothing starts.", example: "[API_KEY]")
    static let user = Setting(
        "worker.user", Kind<String>.text.optional(shown: "as panelind"), nil, described: "as panelind",
        "The user the worker runs as, with its supplementary groups.", example: "app")
    static let group = Setting(
        "worker.group", Kind<String>.text.optional(shown: "as panelind"), nil, described: "as panelind",
        "The group the worker runs as, instead of its user's.", example: "app")
    static let stdin = Setting(
        "worker.stdin", Kind<StandardInput>.choice, .null,
        "`inherit` shares panelind's terminal and process group with the worker, for a debugger.", example: "inherit")
    static let openFiles = rlimit("openFiles", Kind.integer(0...(1 << 30)), "open files (RLIMIT_NOFILE)", "65536")
    static let processes = rlimit("processes", Kind.integer(0...(1 << 30)), "processes (RLIMIT_NPROC)", "512")
    static let core = rlimit("core", Kind.size(0...(1 << 50)), "bytes of a core file (RLIMIT_CORE)", "0")
    static let addressSpace = rlimit("addressSpace", Kind.size(1...(1 << 50)), "bytes of memory (RLIMIT_AS)", "4GiB")
    static let watchdog = Setting(
        "worker.watchdog", Kind.duration(from: .milliseconds(100)).or("off"), nil,
        "The worker must notify WATCHDOG=1 this often; missed, it is a failure.", example: "30s")

    private static func rlimit(
        _ name: String, _ kind: Kind<Int>, _ what: String, _ example: String
    ) -> Setting<Int??> {
        Setting(
            "worker.limits.\(name)", kind.or("unlimited").optional(shown: "as panelind"), nil,
            described: "as panelind", "The worker's limit of \(what).", example: example)
    }

    // MARK: serve

    static let mode = Setting(
        "serve.mode", Kind<ServeMode>.choice, .direct, described: "from the command",
        "Who owns the port: panelind's proxy, a socket both share, or the worker alone.", example: "socket")
    static let listen = Setting(
        "serve.listen", Kind<ListenAddress>.address(systemd: true), .tcp(host: "0.0.0.0", port: 8080),
        described: "`0.0.0.0:${PORT:-8080}`; `systemd` when LISTEN_FDS is ours",
        "Where panelind listens, in front and socket mode: `HOST:PORT`, `[::]:PORT`, `unix:PATH`, `systemd`.",
        example: "\"[::]:8080\"")
    static let upstream = Setting(
        "serve.upstream", Kind<ListenAddress>.address(systemd: false).optional(shown: "from the placeholder"), nil,
        described: "from the placeholder",
        "Where a worker serves that cannot be told; means front mode.", example: "127.0.0.1:3000")
    static let healthPath = Setting(
        "serve.healthPath", Kind<String>.requestPath.or("none"), "/health",
        "Path of panelind's liveness on the front; `none` leaves it to the worker.", example: "/healthz")
    static let readyPath = Setting(
        "serve.readyPath", Kind<String>.requestPath.or("none"), "/ready",
        "Path of panelind's readiness on the front, and of the implied question to the worker.", example: "/readyz")
    static let hold = Setting(
        "serve.hold", Kind.duration(), .seconds(10),
        "Longest wait of a request for a worker.", example: "5s")
    static let heldRequests = Setting(
        "serve.heldRequests", Kind.integer(0...1_000_000), 128,
        "Most requests that wait at once; more are answered 503.", example: "64")
    static let concurrency = Setting(
        "serve.concurrency", Kind.integer(1...1_000_000), 1000,
        "Most requests in flight to the worker; more wait as held.", example: "80")
    static let bodyLimit = Setting(
        "serve.bodyLimit", Kind.size(1...(1 << 50)).or("none"), 32 << 20,
        "Larger request bodies are answered 413.", example: "8MiB")
    static let headerTimeout = Setting(
        "serve.headerTimeout", Kind<Duration>.positive, .seconds(15),
        "Longest wait for a whole request head.", example: "5s")
    static let idleTimeout = Setting(
        "serve.idleTimeout", Kind<Duration>.positive, .seconds(620),
        "How long a client's connection may be idle.", example: "75s")
    static let responseTimeout = Setting(
        "serve.responseTimeout", Kind<Duration>.positive.or("none"), nil,
        "Longest wait for the first byte of the worker's answer.", example: "60s")
    static let trustedProxies = Setting(
        "serve.trustedProxies", Kind<[TrustedProxy]>.proxies, [.loopback, .unix],
        on: [.cloudrun: [.all], .kubernetes: [.all]],
        "Whose `X-Forwarded-Proto` and `-Host` are kept: `loopback`, `unix`, `all`, addresses, CIDR blocks.",
        example: "[loopback, 10.0.0.0/8]")

    // MARK: sidecar, probes

    static let sidecar = Setting(
        "sidecar.listen", Kind<ListenAddress>.address(systemd: false).or("none"),
        .tcp(host: "127.0.0.1", port: 8081),
        described: "`127.0.0.1:8081`; `0.0.0.0:8081` on kubernetes, and on cloudrun in socket and direct mode",
        "Where /health, /ready and /metrics are served beside the front.", example: "127.0.0.1:9090")
    static let startup = ProbeTable(.startup)
    static let readiness = ProbeTable(.readiness)
    static let liveness = ProbeTable(.liveness)
    static let deadline = Setting(
        "probe.startup.deadline", Kind<Duration>.positive, .seconds(60), on: [.cloudrun: .seconds(240)],
        "Not ready by then: a failed start.", example: "90s")

    // MARK: restart

    static let policy = Setting(
        "restart.policy", Kind<RestartWhen>.choice, .always, "When a worker that ended is started again.",
        example: "on-failure")
    static let delay = Setting(
        "restart.delay", Kind.duration(), .milliseconds(250),
        "The wait before the first restart of a count.", example: "1s")
    static let factor = Setting(
        "restart.factor", Kind.decimal(1...100), 2, "By how much each further wait grows.", example: "1.5")
    static let maxDelay = Setting(
        "restart.maxDelay", Kind.duration(), .seconds(30), "The longest wait.", example: "10s")
    static let jitter = Setting(
        "restart.jitter", Kind.decimal(0...1), 0.2, "The random part of a wait, both ways.", example: "0.5")
    static let resetAfter = Setting(
        "restart.resetAfter", Kind.duration(), .seconds(60),
        "So long ready, and the count of failures returns to zero.", example: "5m")
    static let limit = Setting(
        "restart.limit", Kind.integer(0...1_000_000).or("none"), nil, on: [.cloudrun: 8],
        "More consecutive failures than this: give up.", example: "5")
    static let successCodes = Setting(
        "restart.successCodes", Kind<Set<Int32>>.codes, [0],
        "Ends after ready that are clean.", example: "[0, 143]")
    static let permanentExitCodes = Setting(
        "restart.permanentExitCodes", Kind<Set<Int32>>.codes, [126, 127],
        on: [.cloudrun: [3, 4, 126, 127], .local: [3, 4, 126, 127]],
        "Before first ready: give up at once instead of retrying.", example: "[2, 126, 127]")
    static let onGiveUp = Setting(
        "restart.onGiveUp", Kind<GiveUpAction>.choice, .exit,
        "`exit` with 70, or `hold`: stay, with `/health` 503.", example: "hold")

    // MARK: stop

    static let signal = Setting(
        "stop.signal", Kind<[StopStep]>.stopSteps, [StopStep(.terminate)],
        "The signal that asks the worker to stop, or a list that escalates within the grace.",
        example: "[{TERM: 5s}, {INT: 2s}]")
    static let target = Setting(
        "stop.target", Kind<SignalTarget>.choice, .group, "Who gets the signal.", example: "leader")
    static let budget = Setting(
        "stop.budget", Kind<Duration>.positive, .seconds(25), on: [.cloudrun: .seconds(9), .local: .seconds(9)],
        "From the stop request to panelind's exit, everything included.", example: "20s")
    static let stopDelay = Setting(
        "stop.delay", Kind.duration(), .zero, on: [.cloudrun: .seconds(1), .kubernetes: .seconds(5)],
        "Keep serving at least this long while `/ready` is 503 already.", example: "2s")
    static let drain = Setting(
        "stop.drain", Kind.duration(), .zero,
        described: "two thirds of budget − delay, less where a set grace needs it; `0s` in direct and socket mode",
        "Front mode: longest wait for requests in flight before the stop signal.", example: "4s")
    static let grace = Setting(
        "stop.grace", Kind.duration(), .zero,
        described: "what the budget leaves after delay and drain, less 500 ms",
        "From the stop signal to KILL.", example: "3s")

    // MARK: log, control

    static let format = Setting(
        "log.format", Kind<LogFormat>.choice, .json,
        described: "`journal` where stdout is the journal, `text` on a terminal, else `json`",
        "How lines are written; `inherit` leaves the worker's streams alone.", example: "text")
    static let level = Setting("log.level", Kind<LogLevel>.choice, .info, "Of panelind's own lines.", example: "debug")
    static let lineLimit = Setting(
        "log.lineLimit", Kind.size(256...(16 << 20)), 64 << 10, "Longer lines are cut and marked.", example: "16KiB")
    static let buffer = Setting(
        "log.buffer", Kind.size((64 << 10)...(1 << 30)), 8 << 20, "The buffer before the sink.", example: "32MiB")
    static let overflow = Setting(
        "log.overflow", Kind<LogOverflow>.choice, .drop,
        "When the sink takes nothing for a second: `drop` the oldest lines, or `block` the worker.", example: "block")
    static let access = Setting(
        "log.access", Kind<AccessLog>.choice, .errors,
        "Which requests are logged: `errors` (5xx and slow ones), `all` or `none`.", example: "all")
    static let slow = Setting(
        "log.slow", Kind<Duration>.positive, .seconds(2), "From here on a request is slow.", example: "500ms")
    static let project = Setting(
        "log.project", Kind<String>.text.optional(shown: "none"), nil,
        described: "`GOOGLE_CLOUD_PROJECT`, else the metadata server on cloudrun",
        "The Google Cloud project in the names of traces.", example: "my-project")
    static let control = Setting(
        "control.path", Kind<String>.path.or("none"), nil,
        described: "`control.sock` in `$RUNTIME_DIRECTORY`; on local `.panelind.sock`; "
            + "else below `/run/panelind`, `$XDG_RUNTIME_DIR`, `$TMPDIR`",
        "The control socket; `none` for no control.", example: "/run/panelind/control.sock")

    /// All of them, in the order of the reference.
    static let all: [any Declared] =
        [
            platform, command, directory, environment, secrets, required, user, group, stdin, openFiles, processes,
            core, addressSpace, watchdog, mode, listen, upstream, healthPath, readyPath, hold, heldRequests,
            concurrency, bodyLimit, headerTimeout, idleTimeout, responseTimeout, trustedProxies, sidecar, deadline,
        ] + startup.all + readiness.all + liveness.all + [
            policy, delay, factor, maxDelay, jitter, resetAfter, limit, successCodes, permanentExitCodes,
            onGiveUp, signal, target, budget, stopDelay, drain, grace, format, level, lineLimit, buffer, overflow,
            access, slow, project, control,
        ]

    static let byKey: [String: any Declared] = Dictionary(all.map { ($0.key, $0) }) { first, _ in first }
    static let keys: [String] = all.map(\.key)

    /// Keys that hold other keys: `stop`, `probe`, `probe.startup`, `worker.limits`.
    static let groups: Set<String> = {
        var groups: Set<String> = []
        for key in keys {
            var parts = key.split(separator: ".")
            while parts.count > 1 {
                parts.removeLast()
                groups.insert(parts.joined(separator: "."))
            }
        }
        return groups
    }()

    /// What can be written as a variable, with the key it stands for.
    static let byVariable: [String: String] =
        Dictionary((keys + groups).map { (variableName($0), $0) }) { first, _ in first }
}

/// The settings of one probe.
struct ProbeTable: Sendable {
    let kind: ProbeKind
    let http: Setting<String?>
    let tcp: Setting<String?>
    let exec: Setting<[String]?>
    let notify: Setting<Bool?>
    let log: Setting<String?>
    let descriptor: Setting<Int?>
    let period: Setting<Duration>
    let timeout: Setting<Duration>
    let failures: Setting<Int>
    let successes: Setting<Int>
    let delay: Setting<Duration>

    init(_ kind: ProbeKind) {
        self.kind = kind
        let name = "probe.\(kind.rawValue)"
        http = Setting(
            "\(name).http", Kind<String>.text.optional(), nil, described: "none",
            "A GET of this path or `http://` URL is answered 200–399.", example: "/ready")
        tcp = Setting(
            "\(name).tcp", Kind<String>.text.optional(), nil, described: "none",
            "A connection to the worker (`true`) or to `HOST:PORT` is accepted.", example: "true")
        exec = Setting(
            "\(name).exec", Kind<[String]>.command.optional(), nil, described: "none",
            "A command ends with 0.", example: "[/app/check, --fast]")
        notify = Setting(
            "\(name).notify", Kind<Bool>.yes.optional(), nil, described: "none",
            "The worker notifies READY=1.", example: "true")
        log = Setting(
            "\(name).log", Kind<String>.text.optional(), nil, described: "none",
            "A line of output matches this POSIX extended expression (startup only).", example: "\"listening on\"")
        descriptor = Setting(
            "\(name).fd", Kind.integer(3...1023).optional(), nil, described: "none",
            "A newline arrives on this descriptor of the worker.", example: "4")
        period = Setting(
            "\(name).period", Kind<Duration>.positive, .seconds(10), "Between two attempts once ready.", example: "5s")
        timeout = Setting(
            "\(name).timeout", Kind<Duration>.positive, .seconds(1), "Longest wait for one answer.", example: "2s")
        failures = Setting(
            "\(name).failures", Kind.integer(1...1000), 3, "Consecutive failures that count.", example: "5")
        successes = Setting(
            "\(name).successes", Kind.integer(1...1000), 1, "Consecutive successes that count.", example: "2")
        delay = Setting(
            "\(name).delay", Kind.duration(), .zero, "From the worker's start to the first attempt.", example: "3s")
    }

    /// The ways of asking; a probe has exactly one.
    var methods: [any Declared] { [http, tcp, exec, notify, log, descriptor] }
    var details: [any Declared] { [period, timeout, failures, successes, delay] }
    var all: [any Declared] { methods + details }
    var key: String { "probe.\(kind.rawValue)" }
}
