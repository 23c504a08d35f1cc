//  Performer+Reports.swift
//  The machine's reports as records: the events, fields and severities of CONTRACT section 8.
//  Read after Performer.swift.

import PanelindCore
import PanelindFront
import PanelindOutput
import PanelindSystem

extension Performer {
    func write(_ report: Report) {
        switch report {
        case .workerStarted(let generation, let pid):
            log(
                OwnRecord(
                    .info, event: "worker_started", message: "worker \(generation) started as pid \(pid)",
                    fields: [number(generation), Field("pid", .int(Int64(pid)))]))
        case .workerReady(let generation, let after):
            log(
                OwnRecord(
                    .info, event: "worker_ready", message: "worker \(generation) is ready after \(after.rounded.text)",
                    fields: [number(generation), Field("after_seconds", .double(after.seconds))]))
        case .workerUnready(let generation, let reason):
            log(
                OwnRecord(
                    .warning, event: "worker_unready", message: "worker \(generation) is not ready: \(reason)",
                    fields: [number(generation), Field("reason", .string(reason))]))
        case .workerExited(let generation, let ending, let restartIn):
            writeExit(generation, ending, restartIn)
        case .workerBackoff(let generation, let delay, let rule):
            log(
                OwnRecord(
                    .warning, event: "worker_backoff",
                    message: "the next start is in \(delay.rounded.text) because \(rule.text)",
                    fields: [
                        number(generation), Field("delay_seconds", .double(delay.seconds)),
                        Field("because", .string(rule.text)),
                    ]))
        case .workerFailed(let generation, let rule):
            log(
                OwnRecord(
                    .critical, event: "worker_failed", message: "gave up after worker \(generation): \(rule.text)",
                    fields: [number(generation), Field("because", .string(rule.text))]))
        case .survivorsKilled(let generation, let survivors):
            log(
                OwnRecord(
                    .warning, event: "worker_killed_survivors",
                    message: "killed \(survivors.count) that worker \(generation) left running: "
                        + Self.listed(survivors),
                    fields: [number(generation)] + Self.fields(survivors)))
        case .survivorsLeft(let generation, let survivors):
            log(
                OwnRecord(
                    .error, event: "worker_survivors_left",
                    message: "cannot end \(survivors.count) of worker \(generation), \(Survivor.whyLeft(survivors)): "
                        + Self.listed(survivors),
                    fields: [number(generation)] + Self.fields(survivors)))
        case .probeFailed(let generation, let kind, let reason, let consecutive, let beforeReady):
            log(
                OwnRecord(
                    // Before first ready a failing attempt is the normal case.
                    beforeReady ? .debug : .warning, event: "probe_failed",
                    message: "\(kind) probe of worker \(generation) failed: \(reason)",
                    fields: [
                        number(generation), Field("probe", .string(kind.rawValue)),
                        Field("reason", .string(reason)), Field("consecutive", .int(Int64(consecutive))),
                    ]))
        case .drainBegin(let generation, let budget):
            log(
                OwnRecord(
                    .info, event: "drain_begin",
                    message: "stopping within \(budget.text): worker \(generation) finishes its requests",
                    fields: [number(generation), Field("budget_seconds", .double(budget.seconds))]))
        case .drainEnd(let generation, let rule):
            log(
                OwnRecord(
                    .info, event: "drain_end", message: "the drain of worker \(generation) ended: \(rule.text)",
                    fields: [number(generation), Field("because", .string(rule.text))]))
        case .reloadBegin(let generation):
            log(
                OwnRecord(
                    .info, event: "reload_begin", message: "reload: worker \(generation) is to take over",
                    fields: [number(generation)]))
        case .reloadEnd(let generation, let failure):
            if failure == nil, let settings = settings[driver.supervisor.settings.revision] {
                front?.use(FrontSettings(settings))
            }
            log(
                OwnRecord(
                    failure == nil ? .info : .error, event: "reload_end",
                    message: failure.map { "cannot reload: \($0)" } ?? "reload: worker \(generation) has taken over",
                    fields: [number(generation), Field("error", failure.map { .string($0) } ?? .null)]))
        case .clockGap(let gap):
            log(
                OwnRecord(
                    .notice, event: "clock_gap",
                    message: gap == .zero
                        ? "panelind was continued (SIGCONT): probes and watchdogs begin anew"
                        : "panelind did not run for \(gap.rounded.text): CPU freeze, suspension or overload",
                    fields: [Field("gap_seconds", .double(gap.seconds))]))
        case .panelindStopped(let code):
            let code = exitCode(code)
            log(
                OwnRecord(
                    code == 0 ? .info : .error, event: "panelind_stopped", message: "panelind stops with code \(code)",
                    fields: [Field("exit_code", .int(Int64(code)))]))
        }
    }

    private func writeExit(_ generation: Generation, _ ending: Ending, _ restartIn: Duration?) {
        let pid = mainPIDs.removeValue(forKey: generation) ?? ending.pid
        var fields = [number(generation), Field("pid", pid == 0 ? .null : .int(Int64(pid)))]
        var dumped = false
        switch ending.status {
        case .code(let code)?: fields.append(Field("exit_code", .int(Int64(code))))
        case .signal(let signal, let core)?:
            fields.append(Field("exit_signal", .string("\(signal)")))
            dumped = core
        case nil: fields.append(Field("exit_code", .null))
        }
        fields.append(Field("core_dumped", .bool(dumped)))
        if let failure = ending.failure { fields.append(Field("error", .string(failure.message))) }
        fields.append(Field("cause", .string(ending.cause.rawValue)))
        fields.append(Field("uptime_seconds", .double(ending.uptime.seconds)))
        fields.append(Field("restart_in_seconds", restartIn.map { .double($0.seconds) } ?? .null))
        fields.append(Field("max_rss_bytes", .int(Int64(ending.use.maxRSSBytes))))
        fields.append(Field("user_cpu_seconds", .double(ending.use.userCPU.seconds)))
        fields.append(Field("system_cpu_seconds", .double(ending.use.systemCPU.seconds)))
        // Where no process was made nothing was said, and nothing is waited for.
        if ending.pid == 0 { fields.append(Field("last_output", .strings([]))) }
        let record = OwnRecord(
            severity(of: ending), event: "worker_exited", message: sentence(generation, ending), fields: fields)
        guard ending.pid != 0 else { return log(record) }
        room.record(record.logged(at: Clock.wallNanoseconds()), awaitingLastLinesOf: generation.number)
        output.logExit(
            record, generation: generation.number, refinesCause: !ending.wasReady && !ending.requested)
    }

    /// What a person on call reads first.
    private func sentence(_ generation: Generation, _ ending: Ending) -> String {
        if let failure = ending.failure { return failure.message }
        let what: String =
            switch ending.cause {
            case .requested: "worker \(generation) ended as requested"
            case .oom: "worker \(generation) was killed by the kernel: out of memory"
            case .startupDeadline: "worker \(generation) was stopped: not ready within its startup deadline"
            case .liveness: "worker \(generation) was stopped: its liveness probe failed"
            case .watchdog: "worker \(generation) was stopped: it missed its watchdog"
            case .permanent: "worker \(generation) cannot start, and a restart cannot help"
            case .exit, .signal, .portInUse, .notFound:
                ending.wasReady ? "worker \(generation) ended" : "worker \(generation) ended before it was ready"
            }
        return "\(what) (\(ending.text)) after \(ending.uptime.rounded.text)"
    }

    private func severity(of ending: Ending) -> Severity {
        switch ending.cause {
        case .requested: .info
        case .exit: isClean(ending) ? .notice : .error
        case .signal, .oom, .portInUse, .notFound, .startupDeadline, .liveness, .watchdog, .permanent: .error
        }
    }

    /// An end that `restart.successCodes` calls no failure.
    private func isClean(_ ending: Ending) -> Bool {
        guard ending.wasReady, case .code(let code)? = ending.status else { return false }
        return driver.supervisor.settings.restart.successCodes.contains(code)
    }

    private func number(_ generation: Generation) -> Field { Field("generation", .int(Int64(generation.number))) }

    private static func listed(_ survivors: [Survivor]) -> String {
        survivors.prefix(8).map { "\($0.pid) (\($0.command))" }.joined(separator: ", ")
            + (survivors.count > 8 ? " and \(survivors.count - 8) more" : "")
    }

    private static func fields(_ survivors: [Survivor]) -> [Field] {
        [
            Field("pids", .ints(survivors.map { Int64($0.pid) })),
            Field("commands", .strings(survivors.map(\.command))),
        ]
    }
}

extension Duration {
    /// To the millisecond, as people read it.
    var rounded: Duration { .milliseconds((nanoseconds + 500_000) / 1_000_000) }
}
