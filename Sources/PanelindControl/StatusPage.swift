//  StatusPage.swift
//  The status page as HTML: complete by itself, every text escaped, no asset from elsewhere (CONTRACT 2, sidecar.listen).
//  Pure. Read StatusReport.swift and Why.swift first; PageServer.swift serves it.

import PanelindCore

/// The page of one moment.
struct StatusPage {
    let facts: Facts
    let room: ControlRoom
    let lines: [WorkerLine]

    /// Lines of output and events shown.
    static let shownLines = 40
    static let shownEvents = 15

    /// The whole document; `nonce` lets its own style and script through its policy, and nothing else.
    func document(nonce: String) -> String {
        """
        <!doctype html>
        <html lang="en"><head><meta charset="utf-8"><title>panelind: \(facts.health.state.rawValue)</title>
        <meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
        <style nonce="\(nonce)">\(Self.style)</style></head>
        <body><main>
        \(main)</main>
        <footer>panelind \(facts.version.escaped) · <a href="/metrics">metrics</a> · <a href="/health">health</a> ·
        <a href="/ready">ready</a><span id="live"></span></footer>
        <script nonce="\(nonce)">\(Self.script)</script></body></html>

        """
    }

    /// What changes: the whole of `main`.
    var main: String {
        let report = StatusReport(facts, room)
        let recent = lines.filter { $0.generation == facts.serving }.map(\.text)
        let why = Why(facts, room, recent: recent)
        let state = facts.health.state.rawValue
        var html = "<h1 class=\"\(state)\">\(state)</h1>\n<p class=\"why\">\(why.summary.escaped)</p>\n"
        if let advice = why.advice { html += "<p class=\"advice\">What may help: \(advice.escaped)</p>\n" }
        html += strip
        html += "<h2>Now</h2><table class=\"now\">\n"
        for (name, value) in report.rows where name != "state" {
            html += "<tr><th scope=\"row\">\(name.escaped)</th><td>\(value.escaped)</td></tr>\n"
        }
        html += requestRows + "</table>\n"
        html += chain(why)
        html += events + output
        return html
    }

    private var requestRows: String {
        guard let requests = facts.requests else { return "" }
        func milliseconds(_ seconds: Double?) -> String {
            seconds.map { "\(Int(($0 * 1000).rounded())) ms" } ?? "none yet"
        }
        return
            "<tr><th scope=\"row\">answered</th><td>\(requests.finished), of them \(requests.serverErrors) with 5xx; "
            + "median about \(milliseconds(requests.median)), 95% within about \(milliseconds(requests.p95))</td></tr>\n"
    }

    private func chain(_ why: Why) -> String {
        var html = "<h2>Why</h2><ol class=\"chain\">\n"
        for (index, link) in why.chain.enumerated() {
            html += "<li><time>\(Times.local(link.moment.wall, now: facts.wall).escaped)</time> "
            html += link.sentence.text.escaped
            if let setting = link.sentence.setting { html += " <code>\(setting.escaped)</code>" }
            html += "</li>\n"
            if index == 0, why.omitted > 0 { html += "<li>… \(why.omitted) more steps …</li>\n" }
        }
        return html + "</ol>\n"
    }

    private var events: String {
        var html = "<h2>Last events</h2><table class=\"events\">\n"
        for event in room.events.newest(Self.shownEvents).reversed() {
            html += "<tr class=\"\(event.severity.lowercased().escaped)\"><td><time>"
            html += "\(Times.local(event.time, now: facts.wall).escaped)</time></td>"
            html += "<td>\(event.name.escaped)</td><td>\(event.message.escaped)</td></tr>\n"
        }
        return html + "</table>\n"
    }

    private var output: String {
        var html = "<h2>Last output</h2>"
        if lines.isEmpty { return html + "<p>none yet</p>\n" }
        html += "<pre tabindex=\"0\">"
        for line in lines.suffix(Self.shownLines) {
            // A line of a megabyte is no page; what is cut is in the log.
            let text = String(line.text.prefix(2000)).escaped
            html += "<span class=\"\(line.stream == "stderr" ? "err" : "out")\">g\(line.generation)</span> \(text)\n"
        }
        return html + "</pre>\n"
    }

    /// The last hour as a picture: a band of states, a line for each end that nobody asked for.
    private var strip: String {
        // Of a panelind younger than an hour its whole life, but never less than a minute.
        let age = (facts.now - facts.startedAt).nanoseconds
        let shown = min(StateHistory.span, max(age, 60_000_000_000))
        let from = facts.wall - shown
        let changes = room.history.changes
        func x(_ wall: Int64) -> Int64 { min(3600, max(0, (wall - from) / (shown / 3600))) }
        var picture = ""
        var words: [String] = []
        for (index, change) in changes.enumerated() {
            let end = index + 1 < changes.count ? changes[index + 1].wall : facts.wall
            guard end > from else { continue }
            let left = x(change.wall)
            // Also what lasted a moment only is seen.
            let width = max(4, x(end) - left)
            let span = Times.span(.nanoseconds(end - max(change.wall, from)))
            picture += "<rect class=\"\(change.state.rawValue)\" x=\"\(left)\" width=\"\(width)\" height=\"60\">"
            picture +=
                "<title>\(change.state.rawValue) for \(span), from \(Times.local(change.wall, now: facts.wall))</title></rect>"
            words.append("\(change.state.rawValue) \(span)")
        }
        let ends = room.history.ends.filter { $0 > from }
        for end in ends { picture += "<path class=\"end\" d=\"M\(x(end)) 0V80\"/>" }
        let told = words.count > 12 ? ["…"] + words.suffix(12) : words[...]
        let restarts =
            ends.isEmpty
            ? "no worker ended unasked"
            : ends.count == 1 ? "one worker ended unasked" : "\(ends.count) workers ended unasked"
        return """
            <figure><svg viewBox="0 0 3600 80" preserveAspectRatio="none" role="img" aria-label="The states since then">\
            \(picture)</svg><figcaption>The last \(Times.span(.nanoseconds(shown / 1_000_000_000 * 1_000_000_000))), \(restarts): \(told.joined(separator: ", "))</figcaption></figure>

            """
    }
}

extension String {
    /// Safe between tags and inside a quoted attribute; without controls, which a page would not show anyway.
    var escaped: String {
        var result = ""
        for scalar in withoutControls.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            // Marks that turn the direction of text could show another text than there is.
            case "\u{202A}"..."\u{202E}", "\u{2066}"..."\u{2069}": result += "\u{FFFD}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

extension StatusPage {
    static let style = """
        :root{color-scheme:light dark;--ok:#1a7f37;--bad:#cf222e;--wait:#9a6700;--off:#6e7781}
        body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
        h1{font-size:2rem;margin:0}h1::before{content:"";display:inline-block;width:.7em;height:.7em;border-radius:50%;
        margin-right:.4em;background:currentColor}h2{font-size:1rem;margin:1.5rem 0 .3rem}
        .ready{color:var(--ok);fill:var(--ok)}.failed,.backoff{color:var(--bad);fill:var(--bad)}
        .starting,.unready,.draining{color:var(--wait);fill:var(--wait)}.stopping,.stopped{color:var(--off);fill:var(--off)}
        .why{font-size:1.15rem;margin:.2rem 0}.advice{border-left:4px solid var(--wait);padding-left:.8rem}
        figure{margin:1rem 0}svg{width:100%;height:3rem;background:#8882}.end{stroke:var(--bad);stroke-width:6}
        figcaption{font-size:.85rem;color:var(--off)}table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;
        padding:.1rem 1rem .1rem 0}th{font-weight:600;white-space:nowrap}td{overflow-wrap:anywhere}
        .error td,.critical td{color:var(--bad)}.warning td{color:var(--wait)}.chain{padding-left:1.2rem}
        time,pre,code{font-family:ui-monospace,monospace;font-size:.85rem}time,.events td:nth-child(2){white-space:nowrap}
        pre{background:#8881;padding:.7rem;overflow:auto;max-height:28rem;white-space:pre-wrap;overflow-wrap:anywhere}
        .out{color:var(--off)}.err{color:var(--wait)}footer{margin-top:2rem;color:var(--off);font-size:.85rem}
        """

    static let script = """
        const m=document.querySelector("main"),l=document.getElementById("live"),s=new EventSource("/live");
        s.onopen=()=>{l.textContent=" · live"};s.onerror=()=>{l.textContent=" · not connected"};
        s.onmessage=e=>{m.innerHTML=JSON.parse(e.data);
        document.title="panelind: "+m.querySelector("h1").textContent};
        """
}
