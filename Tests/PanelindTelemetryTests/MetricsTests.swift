//  MetricsTests.swift
//  What is counted, and how the page says it.
//  promtool judges the page of the built daemon in Tests/EndToEnd/test_metrics.py.

import Testing

@testable import PanelindCore
@testable import PanelindTelemetry

private let g1 = Generation(1)

private func step(_ reports: [Report], to state: State = .starting) -> Step {
    Step(at: .zero, event: .time, from: .starting, to: state, rules: [], actions: reports.map { .report($0) })
}

private func ending(
    _ cause: ExitCause, pid: Int32 = 7, wasReady: Bool = false, requested: Bool = false
) -> Ending {
    Ending(
        pid: pid, status: .code(1), cause: cause, failure: nil, use: ResourceUse(), uptime: .zero, wasReady: wasReady,
        readyFor: .zero, requested: requested)
}

private func lines(_ metrics: Metrics, state: State = .ready) -> [String] {
    let health = HealthSnapshot(state: state, generation: 1, restarts: 2, retryAfter: .seconds(1))
    let present = Metrics.Present(health: health, stdoutLines: 3, stderrLines: 4, linesDropped: 5)
    return metrics.page(present).split(separator: "\n").map(String.init)
}

@Suite("metrics")
struct MetricsTests {
    @Test("every metric of the contract has HELP, TYPE and its type, also before anything happened")
    func complete() {
        let page = lines(Metrics(version: "1", revision: ""))
        let types = [
            "panelind_worker_starts_total counter", "panelind_worker_exits_total counter",
            "panelind_worker_restarts_total counter", "panelind_state gauge", "panelind_ready gauge",
            "panelind_worker_start_seconds histogram", "panelind_restart_delay_seconds gauge",
            "panelind_probe_failures_total counter", "panelind_http_requests_total counter",
            "panelind_http_request_duration_seconds histogram", "panelind_http_in_flight gauge",
            "panelind_http_held gauge", "panelind_log_lines_total counter", "panelind_log_dropped_total counter",
            "panelind_reaped_total counter", "panelind_survivors_killed_total counter", "panelind_build_info gauge",
            "process_cpu_seconds_total counter", "process_resident_memory_bytes gauge",
            "process_start_time_seconds gauge", "process_open_fds gauge",
        ]
        for type in types {
            let name = type.split(separator: " ")[0]
            #expect(page.filter { $0 == "# TYPE \(type)" }.count == 1, "\(type)")
            #expect(page.filter { $0.hasPrefix("# HELP \(name) ") }.count == 1, "\(type)")
        }
    }

    @Test("exactly one state is 1")
    func states() {
        for state in State.allCases {
            let page = lines(Metrics(version: "1", revision: ""), state: state)
            #expect(
                page.filter { $0.hasPrefix("panelind_state{") && $0.hasSuffix(" 1") }
                    == ["panelind_state{state=\"\(state.rawValue)\"} 1"])
            #expect(page.contains("panelind_ready \(state == .ready ? 1 : 0)"))
        }
    }

    @Test("an end counts once: at its report, or with the cause its last output gives it")
    func exits() {
        let metrics = Metrics(version: "1", revision: "")
        metrics.take(step([.workerExited(g1, ending(.signal), restartIn: nil)]))
        metrics.take(step([.workerExited(g1, ending(.exit), restartIn: nil)]))
        #expect(lines(metrics).contains("panelind_worker_exits_total{cause=\"signal\"} 1"))
        #expect(lines(metrics).contains("panelind_worker_exits_total{cause=\"exit\"} 0"))
        metrics.exitRecorded(g1, cause: "port_in_use")
        metrics.exitRecorded(g1, cause: "port_in_use")
        #expect(lines(metrics).contains("panelind_worker_exits_total{cause=\"port_in_use\"} 1"))
        metrics.take(step([.workerExited(g1, ending(.exit, pid: 0), restartIn: nil)]))
        metrics.take(step([.workerExited(g1, ending(.exit, wasReady: true), restartIn: nil)]))
        #expect(lines(metrics).contains("panelind_worker_exits_total{cause=\"exit\"} 2"))
    }

    @Test("a start is observed once, at the first readiness")
    func starts() {
        let metrics = Metrics(version: "1", revision: "")
        metrics.take(step([.workerStarted(g1, pid: 7), .workerReady(g1, after: .milliseconds(300))]))
        metrics.take(step([.workerReady(g1, after: .seconds(90))]))
        let page = lines(metrics)
        #expect(page.contains("panelind_worker_starts_total 1"))
        #expect(page.contains("panelind_worker_start_seconds_count 1"))
        #expect(page.contains("panelind_worker_start_seconds_bucket{le=\"0.25\"} 0"))
        #expect(page.contains("panelind_worker_start_seconds_bucket{le=\"0.5\"} 1"))
        #expect(page.contains("panelind_worker_start_seconds_sum 0.3"))
    }

    @Test("the delay is that of the backoff, and nothing outside of it")
    func delay() {
        let metrics = Metrics(version: "1", revision: "")
        metrics.take(
            step([.workerBackoff(g1, delay: .milliseconds(1500), .backoff(failures: 3, delay: .zero))], to: .backoff))
        #expect(lines(metrics).contains("panelind_restart_delay_seconds 1.5"))
        metrics.take(step([], to: .backoff))
        #expect(lines(metrics).contains("panelind_restart_delay_seconds 1.5"))
        metrics.take(step([], to: .starting))
        #expect(lines(metrics).contains("panelind_restart_delay_seconds 0"))
    }

    @Test("requests are counted by method and code; what a client invents has no label of its own")
    func requests() {
        let metrics = Metrics(version: "1", revision: "")
        metrics.http.finished(method: .get, status: 200, nanoseconds: 7_000_000)
        metrics.http.finished(method: .get, status: 200, nanoseconds: 70_000_000_000)
        metrics.http.finished(method: .other, status: 1000, nanoseconds: -5)
        metrics.http.finished(method: .post, status: 503, nanoseconds: 0)
        let page = lines(metrics)
        #expect(page.filter { $0.hasPrefix("panelind_http_requests_total{") }.count == 3)
        #expect(page.contains("panelind_http_requests_total{method=\"GET\",code=\"200\"} 2"))
        #expect(page.contains("panelind_http_requests_total{method=\"other\",code=\"0\"} 1"))
        #expect(page.contains("panelind_http_request_duration_seconds_bucket{le=\"60\"} 3"))
        #expect(page.contains("panelind_http_request_duration_seconds_bucket{le=\"+Inf\"} 4"))
        #expect(metrics.http.serverErrors == 1)
    }

    @Test("buckets grow: each holds what those before it hold")
    func cumulative() {
        var histogram = Histogram(milliseconds: [1, 2, 4])
        for milliseconds in [0, 1, 1, 2, 3, 4, 5] as [Int64] { histogram.observe(milliseconds * 1_000_000) }
        var page = Exposition()
        page.histogram("h", "Help.", histogram)
        let counts = page.text.split(separator: "\n").filter { $0.contains("_bucket") }.map {
            $0.split(separator: " ")[1]
        }
        #expect(counts == ["3", "4", "6", "7"])
        #expect(histogram.quantile(0.5) ?? 0 <= 0.002)
        #expect(Histogram(milliseconds: [1]).quantile(0.5) == nil)
    }

    @Test("label values cannot break out of their quotes")
    func escaping() {
        let page = lines(Metrics(version: "1\"} 7\nx", revision: "a\\b"))
        #expect(page.contains("panelind_build_info{version=\"1\\\"} 7\\nx\",revision=\"a\\\\b\"} 1"))
    }
}
