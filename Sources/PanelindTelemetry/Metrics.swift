//  Metrics.swift
//  The metrics of CONTRACT section 8: counted from the machine's steps, written at a scrape.
//  Fixed sizes and fixed label sets; nothing here wakes or allocates between scrapes. Read after HTTPMetrics.swift.

import PanelindCore

/// Everything that is counted; on the main thread only.
public final class Metrics {
    /// Of the front; stays at nothing in socket and direct mode.
    public let http = HTTPMetrics()

    private var starts = 0
    private var exits = [Int](repeating: 0, count: ExitCause.allCases.count)
    private var probeFailures = [Int](repeating: 0, count: ProbeKind.allCases.count)
    private var startSeconds = Histogram(
        milliseconds: [100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 240_000])
    private var survivorsKilled = 0
    private var reaped = 0
    /// The newest worker whose first readiness was observed: later ones of the same are no starts.
    private var observed = Generation(0)
    /// Ends whose cause the output thread has yet to tell.
    private var undecided: [Generation] = []
    /// The wait before the next start, in all.
    private var delay: Duration = .zero

    private let build: [(StaticString, String)]

    /// Makes empty metrics.
    ///
    /// - Parameters:
    ///   - version: of panelind.
    ///   - revision: K_REVISION; empty for none.
    public init(version: String, revision: String) {
        build = [("version", version), ("revision", revision)]
    }

    /// Counts what a step decided. Ends that may yet turn out to be `port_in_use` wait for `exitRecorded`.
    public func take(_ step: Step) {
        if step.to != .backoff { delay = .zero }
        for case .report(let report) in step.actions {
            switch report {
            case .workerStarted: starts += 1
            case .workerReady(let generation, let after):
                guard generation > observed else { continue }
                observed = generation
                startSeconds.observe(after.nanoseconds)
            case .workerExited(let generation, let ending, _):
                if Self.isRefined(ending) { wait(for: generation) } else { count(ending.cause) }
            case .workerBackoff(_, let wait, _): delay = wait
            case .probeFailed(_, let kind, _, _, _):
                probeFailures[ProbeKind.allCases.firstIndex(of: kind) ?? 0] += 1
            case .survivorsKilled(_, let survivors): survivorsKilled += survivors.count
            case .workerUnready, .workerFailed, .survivorsLeft, .drainBegin, .drainEnd, .reloadBegin, .reloadEnd,
                .clockGap, .panelindStopped:
                break
            }
        }
    }

    /// Whether the worker's last output decides about the cause of this end.
    private static func isRefined(_ ending: Ending) -> Bool {
        ending.pid != 0 && ending.cause == .exit && !ending.wasReady && !ending.requested
    }

    private func wait(for generation: Generation) {
        if undecided.count >= 64 {
            // The log takes nothing for so long that its word is no longer waited for.
            undecided.removeFirst()
            count(.exit)
        }
        undecided.append(generation)
    }

    /// Counts an end that waited for its cause; others were counted already. Unknown words count as `exit`.
    public func exitRecorded(_ generation: Generation, cause: String) {
        guard let index = undecided.firstIndex(of: generation) else { return }
        undecided.remove(at: index)
        count(ExitCause(rawValue: cause) ?? .exit)
    }

    private func count(_ cause: ExitCause) { exits[ExitCause.allCases.firstIndex(of: cause) ?? 0] += 1 }

    /// So many children were reaped, whoever they were.
    public func countReaped(_ count: Int) { reaped += count }

    /// What only the moment of a scrape knows.
    public struct Present {
        public var health: HealthSnapshot
        public var stdoutLines: Int
        public var stderrLines: Int
        public var linesDropped: Int

        /// Makes a reading.
        public init(health: HealthSnapshot, stdoutLines: Int, stderrLines: Int, linesDropped: Int) {
            self.health = health
            self.stdoutLines = stdoutLines
            self.stderrLines = stderrLines
            self.linesDropped = linesDropped
        }
    }

    /// What `Content-Type` says of the page.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// The whole page in the Prometheus text format.
    public func page(_ present: Present) -> String {
        var page = Exposition()
        writeWorker(present.health, to: &page)
        writeHTTP(to: &page)
        page.family("panelind_log_lines_total", .counter, "Lines read from the workers, by stream.")
        page.sample("panelind_log_lines_total", [("stream", "stdout")], present.stdoutLines)
        page.sample("panelind_log_lines_total", [("stream", "stderr")], present.stderrLines)
        page.single(
            "panelind_log_dropped_total", .counter, "Records that the log's sink did not take.", present.linesDropped)
        page.single(
            "panelind_reaped_total", .counter, "Processes reaped: workers, probes and adopted orphans.", reaped)
        page.single(
            "panelind_survivors_killed_total", .counter, "Processes that outlived their worker and were killed.",
            survivorsKilled)
        page.family("panelind_build_info", .gauge, "Always 1; the labels say what runs.")
        page.sample("panelind_build_info", build, 1)
        ProcessStatistics.current().write(to: &page)
        return page.text
    }

    private func writeWorker(_ health: HealthSnapshot, to page: inout Exposition) {
        page.single("panelind_worker_starts_total", .counter, "Processes started as workers.", starts)
        page.family("panelind_worker_exits_total", .counter, "Workers' ends, by cause.")
        for (cause, count) in zip(ExitCause.allCases, exits) {
            page.sample("panelind_worker_exits_total", [("cause", cause.rawValue)], count)
        }
        page.single(
            "panelind_worker_restarts_total", .counter, "Workers that replaced one which ended unasked.",
            health.restarts)
        page.family("panelind_state", .gauge, "1 for the present state, 0 for all others.")
        for state in State.allCases {
            page.sample("panelind_state", [("state", state.rawValue)], state == health.state ? 1 : 0)
        }
        page.single("panelind_ready", .gauge, "1 where /ready is 200.", health.isReady ? 1 : 0)
        page.histogram(
            "panelind_worker_start_seconds", "From a worker's start to its first readiness.", startSeconds)
        page.single(
            "panelind_restart_delay_seconds", .gauge, "The backoff before the next start; 0 where none is waited for.",
            delay.seconds)
        page.family(
            "panelind_probe_failures_total", .counter,
            "Failed attempts of probes, by probe; of connection the first of each time.")
        for (kind, count) in zip(ProbeKind.allCases, probeFailures) {
            page.sample("panelind_probe_failures_total", [("probe", kind.rawValue)], count)
        }
    }

    private func writeHTTP(to page: inout Exposition) {
        page.family(
            "panelind_http_requests_total", .counter,
            "Requests of the front that are over, by method and code; 0 where the client was gone first.")
        http.forEach { method, code, count in
            page.sample("panelind_http_requests_total", [("method", "\(method.label)"), ("code", "\(code)")], count)
        }
        page.histogram(
            "panelind_http_request_duration_seconds", "From a request's head to its answer's end.", http.durations)
        page.single("panelind_http_in_flight", .gauge, "Requests in flight to the worker.", http.inFlight())
        page.single("panelind_http_held", .gauge, "Requests that wait for a worker.", http.held())
    }
}
