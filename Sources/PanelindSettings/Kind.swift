//  Kind.swift
//  The kinds of values: how each is read from what was written, and how it is shown.
//  Every setting of SettingsTable.swift has one. Read after Quantities.swift and Addresses.swift.

import PanelindCore

/// How values of one type are written.
struct Kind<Value: Sendable>: Sendable {
    /// As the reference names it: `duration`, `list of text`.
    var name: String
    /// A list or a map: in the environment and in `--set` it is YAML flow.
    var shape: Shape = .scalar
    var read: @Sendable (Node) throws(BadValue) -> Value
    var show: @Sendable (Value) -> String
}

/// How text from the environment or `--set` is taken.
enum Shape: Sendable {
    /// As it is.
    case scalar
    /// As YAML flow.
    case structured
    /// As YAML flow where it begins with a bracket or brace.
    case either
}

/// The text of a scalar, or why there is none.
func scalar(_ node: Node, _ hint: String) throws(BadValue) -> String {
    if node.isAbsent { throw BadValue("no value; write \(hint), or remove the line") }
    guard let text = node.text else { throw BadValue("a list or map; write \(hint)", part: node) }
    return text
}

extension Kind where Value: Sendable {
    /// A kind read from one text.
    static func text(
        _ name: String, _ hint: String, read: @escaping @Sendable (String) throws(BadValue) -> Value,
        show: @escaping @Sendable (Value) -> String
    ) -> Kind {
        Kind(
            name: name,
            read: { (node: Node) throws(BadValue) -> Value in try read(try scalar(node, hint)) },
            show: show)
    }

    /// This kind, or a word that says there is none.
    func or(_ word: String) -> Kind<Value?> {
        let inner = self
        return Kind<Value?>(
            name: "\(name) or `\(word)`", shape: shape,
            read: { (node: Node) throws(BadValue) -> Value? in
                if node.text == word { return nil }
                do throws(BadValue) {
                    return try inner.read(node)
                } catch {
                    throw BadValue(error.why + ", or \(word)", part: error.part)
                }
            },
            show: { $0.map(inner.show) ?? word })
    }

    /// This kind, where absence has no word of its own.
    func optional(shown: String = "none") -> Kind<Value?> {
        let inner = self
        return Kind<Value?>(
            name: name, shape: shape,
            read: { (node: Node) throws(BadValue) -> Value? in try inner.read(node) },
            show: { $0.map(inner.show) ?? shown })
    }
}

extension Kind where Value == String {
    static let text = Kind.text("text", "text") { (text: String) throws(BadValue) -> String in
        if text.isEmpty { throw BadValue("empty; write a value") }
        return text
    } show: {
        $0
    }

    static let path = Kind.text("path", "a path") { (text: String) throws(BadValue) -> String in
        if text.isEmpty { throw BadValue("empty; write a path") }
        return text
    } show: {
        $0
    }

    /// A path of a URL as it stands in a request line, without a query (RFC 9112 section 3.2.1).
    static let requestPath = Kind.text("path", "a path such as /ready") { (text: String) throws(BadValue) -> String in
        guard text.hasPrefix("/") else { throw BadValue("does not begin with /; write a path such as /ready") }
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), !text.contains("?"), !text.contains("#") else {
            throw BadValue("a query, a fragment, a space or a byte beyond ASCII; write a path such as /ready")
        }
        return text
    } show: {
        $0
    }
}

extension Kind where Value == Duration {
    /// A duration, at least `least`.
    static func duration(from least: Duration = .zero) -> Kind {
        .text("duration", "a duration such as 8s") { (text: String) throws(BadValue) -> Duration in
            let duration = try parseDuration(text)
            if duration < least {
                throw BadValue(least == .nanoseconds(1) ? "must be more than 0s" : "must be at least \(least.text)")
            }
            return duration
        } show: {
            $0.text
        }
    }

    /// More than nothing.
    static let positive = duration(from: .nanoseconds(1))
}

extension Kind where Value == Int {
    static func integer(_ range: ClosedRange<Int>) -> Kind {
        .text("number", "a number") { (text: String) throws(BadValue) -> Int in
            try parseInteger(text, range)
        } show: {
            "\($0)"
        }
    }

    static func size(_ range: ClosedRange<Int>) -> Kind {
        .text("size", "a size such as 64KiB") { (text: String) throws(BadValue) -> Int in
            let size = try parseSize(text)
            guard range.contains(size) else {
                throw BadValue("out of range; write \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound))")
            }
            return size
        } show: {
            sizeText($0)
        }
    }
}

extension Kind where Value == Double {
    static func decimal(_ range: ClosedRange<Double>) -> Kind {
        .text("number", "a number") { (text: String) throws(BadValue) -> Double in
            try parseDecimal(text, range)
        } show: {
            decimalText($0)
        }
    }
}

extension Kind where Value == Bool {
    /// `true`: the key is given, or it is not.
    static let yes = Kind.text("`true`", "true") { (text: String) throws(BadValue) -> Bool in
        guard text == "true" else { throw BadValue("only true says something here; write true, or remove it") }
        return true
    } show: {
        "\($0)"
    }
}

extension Kind where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
    /// One of the words of an enum.
    static var choice: Kind {
        let words = Value.allCases.map(\.rawValue)
        // Of arrays: joined() of a slice is looked up by the runtime, at every start.
        let list = Array(words.dropLast()).joined(separator: ", ") + " or " + (words.last ?? "")
        return Kind(
            name: words.map { "`\($0)`" }.joined(separator: ", "),
            read: { (node: Node) throws(BadValue) -> Value in
                // `null` is a word of worker.stdin, so absence is only an empty one here.
                let text = try scalar(node, list)
                guard let value = Value(rawValue: text) else {
                    let near = nearest(to: text, in: words).map { "; did you mean \($0)?" } ?? ""
                    throw BadValue("write \(list)\(near)")
                }
                return value
            },
            show: { $0.rawValue })
    }
}

/// The items of a list, or why there are none.
func items(_ node: Node, _ example: String) throws(BadValue) -> [Node] {
    if node.isAbsent { throw BadValue("no value; write a list such as \(example), or remove the line") }
    guard case .list(let items) = node.content else { throw BadValue("not a list; write \(example)") }
    return items
}

extension Kind where Value == [String] {
    /// A list of text, each checked.
    static func list(
        _ example: String, check: @escaping @Sendable (String) throws(BadValue) -> Void = { _ in }
    ) -> Kind {
        Kind(
            name: "list of text", shape: .structured,
            read: { (node: Node) throws(BadValue) -> [String] in
                var texts: [String] = []
                for item in try items(node, example) {
                    guard let text = item.text else { throw BadValue("an item that is not text", part: item) }
                    try check(text)
                    texts.append(text)
                }
                return texts
            },
            show: { flowList($0) })
    }

    static let names = list("[API_KEY, DATABASE_URL]") { (text: String) throws(BadValue) in
        guard isVariableName(text) else { throw BadValue("\(shortened(text)) is not the name of a variable") }
    }

    /// A command: at least its name.
    static let command = Kind(
        name: "list of text", shape: .structured,
        read: { (node: Node) throws(BadValue) -> [String] in
            let example = "[NAME, ARGUMENT]"
            let texts = try list(example).read(node)
            guard let first = texts.first, !first.isEmpty else { throw BadValue("no command; write \(example)") }
            return texts
        },
        show: { flowList($0) })
}

/// A variable and its text.
public struct NamedText: Hashable, Sendable {
    public var name: String
    public var text: String

    /// Makes a pair.
    public init(_ name: String, _ text: String) {
        self.name = name
        self.text = text
    }
}

extension Kind where Value == [NamedText] {
    /// A map of variable names to text, in the order of the source.
    static func variables(_ name: String, _ example: String) -> Kind {
        Kind(
            name: name, shape: .structured,
            read: { (node: Node) throws(BadValue) -> [NamedText] in
                if node.isAbsent { throw BadValue("no value; write a map such as \(example), or remove the line") }
                guard case .map(let entries) = node.content else { throw BadValue("not a map; write \(example)") }
                var pairs: [NamedText] = []
                for entry in entries {
                    guard !entry.key.isEmpty, !entry.key.contains("=") else {
                        throw BadValue("\(shortened(entry.key)) is not the name of a variable", part: entry.value)
                    }
                    guard let text = entry.value.text else {
                        throw BadValue("\(entry.key) is not text; put quotes around it", part: entry.value)
                    }
                    pairs.append(NamedText(entry.key, text))
                }
                return pairs
            },
            show: { "{" + $0.map { "\($0.name): \(flowText($0.text))" }.joined(separator: ", ") + "}" })
    }
}

extension Kind where Value == Set<Int32> {
    /// Exit codes 0...255.
    static let codes = Kind(
        name: "list of numbers", shape: .structured,
        read: { (node: Node) throws(BadValue) -> Set<Int32> in
            var codes: Set<Int32> = []
            for item in try items(node, "[0, 143]") {
                let text = try scalar(item, "an exit code")
                do throws(BadValue) {
                    codes.insert(Int32(try parseInteger(text, 0...255)))
                } catch {
                    throw BadValue("\(shortened(text)): \(error.why)", part: item)
                }
            }
            return codes
        },
        show: { "[" + $0.sorted().map { "\($0)" }.joined(separator: ", ") + "]" })
}

extension Kind where Value == ListenAddress {
    static func address(systemd: Bool, unix: Bool = true) -> Kind {
        .text("address", "an address such as 0.0.0.0:8080") { (text: String) throws(BadValue) -> ListenAddress in
            try parseAddress(text, systemd: systemd, unix: unix)
        } show: {
            $0.description
        }
    }
}

extension Kind where Value == [TrustedProxy] {
    static let proxies = Kind(
        name: "list of addresses", shape: .either,
        read: { (node: Node) throws(BadValue) -> [TrustedProxy] in
            if let text = node.text, !node.isAbsent { return [try TrustedProxy.parse(text)] }
            var proxies: [TrustedProxy] = []
            for item in try items(node, "[loopback, unix, 10.0.0.0/8]") {
                do throws(BadValue) {
                    proxies.append(try TrustedProxy.parse(try scalar(item, "an address or block")))
                } catch {
                    throw BadValue(error.why, part: item)
                }
            }
            return proxies
        },
        show: { $0 == [.all] ? "all" : flowList($0.map(\.description)) })
}

extension Kind where Value == [StopStep] {
    /// `TERM`, or `[{TERM: 5s}, {INT: 2s}]`.
    static let stopSteps = Kind(
        name: "signal, or list", shape: .either,
        read: { (node: Node) throws(BadValue) -> [StopStep] in
            if let text = node.text { return [StopStep(try stopSignal(text))] }
            var steps: [StopStep] = []
            let all = try items(node, "TERM or [{TERM: 5s}, {INT: 2s}]")
            for (index, item) in all.enumerated() {
                let isLast = index == all.count - 1
                if let text = item.text {
                    guard isLast else { throw BadValue("\(shortened(text)) is not the last: write {\(text): 5s}") }
                    steps.append(StopStep(try stopSignal(text)))
                } else if case .map(let entries) = item.content, entries.count == 1, let entry = entries.first {
                    let signal = try stopSignal(entry.key)
                    let wait = try Kind<Duration>.positive.read(entry.value)
                    // The last has the rest of the grace, whatever is written.
                    steps.append(StopStep(signal, wait: isLast ? nil : wait))
                } else {
                    throw BadValue("an item that is neither a signal nor one signal with its wait: write {TERM: 5s}")
                }
            }
            if steps.isEmpty { throw BadValue("an empty list; write TERM") }
            return steps
        },
        show: { steps in
            if steps.count == 1, let step = steps.first { return step.signal.shortName }
            let shown = steps.map { step in
                step.wait.map { "{\(step.signal.shortName): \($0.text)}" } ?? step.signal.shortName
            }
            return "[" + shown.joined(separator: ", ") + "]"
        })

    private static func stopSignal(_ text: String) throws(BadValue) -> Signal {
        guard let signal = Signal(name: text) else {
            throw BadValue("\(shortened(text)) is no signal of Linux; write a name such as TERM, INT or QUIT")
        }
        if signal == .stop || signal == .terminalStop || signal == .continue {
            throw BadValue("\(signal.shortName) does not end a worker; write a name such as TERM, INT or QUIT")
        }
        return signal
    }
}

/// A list in YAML flow style that reads back as the same.
func flowList(_ texts: [String]) -> String { "[" + texts.map(flowText).joined(separator: ", ") + "]" }

/// Text in YAML flow style: quoted where it must be.
func flowText(_ text: String) -> String {
    let plain = text.utf8.allSatisfy { byte in
        (0x61...0x7A).contains(byte | 0x20) || (0x2D...0x3A).contains(byte) || byte == 0x5F || byte == 0x3D
    }
    if plain, !text.isEmpty, !text.hasPrefix("-"), !text.hasPrefix(":"), !text.hasSuffix(":") { return text }
    if plain, text.hasPrefix("-"), text.count > 1, !text.hasSuffix(":") { return text }
    return jsonString(text)
}
