//  Daemon+Metrics.swift
//  /metrics of the sidecar: what was counted, and what only this moment knows.
//  Read after Daemon.swift.

import PanelindHTTP
import PanelindTelemetry

extension Daemon {
    /// The page of a scrape.
    func metricsPage() -> Page {
        let counters = output.counters
        let present = Metrics.Present(
            health: performer.board.snapshot, stdoutLines: counters.stdoutLines, stderrLines: counters.stderrLines,
            linesDropped: counters.dropped)
        return Page(contentType: Metrics.contentType, body: Array(performer.metrics.page(present).utf8))
    }
}
