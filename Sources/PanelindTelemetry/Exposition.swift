//  Exposition.swift
//  The Prometheus text format, version 0.0.4: HELP, TYPE, samples, escaped label values.
//  Pure; made at a scrape only. Read before Metrics.swift.

/// A page of metrics in the making.
struct Exposition {
    /// What `TYPE` says.
    enum Kind: String { case counter, gauge, histogram }

    private(set) var text = ""

    init() { text.reserveCapacity(16 << 10) }

    /// Begins a family; its samples follow.
    mutating func family(_ name: StaticString, _ kind: Kind, _ help: StaticString) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    mutating func sample(_ name: StaticString, _ labels: [(StaticString, String)], _ value: Int) {
        begin("\(name)", labels)
        text += "\(value)\n"
    }

    mutating func sample(_ name: StaticString, _ labels: [(StaticString, String)], _ value: Double) {
        begin("\(name)", labels)
        text += "\(Self.number(value))\n"
    }

    /// A family of one sample without labels.
    mutating func single(_ name: StaticString, _ kind: Kind, _ help: StaticString, _ value: Int) {
        family(name, kind, help)
        sample(name, [], value)
    }

    mutating func single(_ name: StaticString, _ kind: Kind, _ help: StaticString, _ value: Double) {
        family(name, kind, help)
        sample(name, [], value)
    }

    mutating func histogram(_ name: StaticString, _ help: StaticString, _ histogram: Histogram) {
        family(name, .histogram, help)
        var below = 0
        for (index, bound) in histogram.bounds.enumerated() {
            below += histogram.counts[index]
            text += "\(name)_bucket{le=\"\(Self.number(Double(bound) / 1e9))\"} \(below)\n"
        }
        let all = histogram.count
        text += "\(name)_bucket{le=\"+Inf\"} \(all)\n"
        text += "\(name)_sum \(Self.number(histogram.sum))\n\(name)_count \(all)\n"
    }

    private mutating func begin(_ name: String, _ labels: [(StaticString, String)]) {
        text += name
        if !labels.isEmpty {
            text += "{" + labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",") + "}"
        }
        text += " "
    }

    /// Without `.0` where it is whole, so that bounds read `1` and not `1.0`.
    static func number(_ value: Double) -> String {
        if value == value.rounded(), abs(value) < 1e15 { return "\(Int64(value))" }
        return "\(value)"
    }

    /// Backslash, quote and newline are written with a backslash.
    static func escaped(_ value: String) -> String {
        var result = ""
        for character in value.unicodeScalars {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}
