//  Yaml.swift
//  Which YAML is accepted: one document of maps, lists and text; no anchors, aliases, tags, duplicates.
//  Everything else is refused with line and column. Read after Node.swift.

import CYaml

/// What YAML text says, and what is wrong with it.
struct YamlResult {
    /// Nil for an empty document, or where nothing could be read.
    var root: Node?
    var problems: [YamlProblem] = []
}

/// One thing wrong with YAML text.
struct YamlProblem: Hashable, Sendable {
    var mark: Mark
    /// A clause without a full stop: `duplicate key budget, first at line 3`.
    var message: String
}

/// Reads YAML text by libyaml's event interface.
///
/// Bounded: 1 MiB of text, 16 levels, 50 problems. The events carry marks and quoting, which the
/// document interface of libyaml loses.
func parseYaml(_ bytes: [UInt8]) -> YamlResult {
    if bytes.count > YamlReader.sizeLimit {
        let message = "\(bytes.count) bytes are too much for settings; at most \(YamlReader.sizeLimit) are read"
        return YamlResult(problems: [YamlProblem(mark: .start, message: message)])
    }
    return bytes.withUnsafeBufferPointer { buffer in
        var reader = YamlReader(buffer)
        defer { reader.close() }
        let root = reader.document()
        return YamlResult(root: root, problems: reader.problems)
    }
}

/// Reads YAML text given as a string.
func parseYaml(_ text: String) -> YamlResult { parseYaml(Array(text.utf8)) }

private struct YamlReader {
    static let sizeLimit = 1 << 20
    static let depthLimit = 16
    static let problemLimit = 50

    private let input: UnsafeBufferPointer<UInt8>
    private let parser: UnsafeMutablePointer<yaml_parser_t>
    private var isOpen: Bool
    var problems: [YamlProblem] = []

    /// The parse ends here; the problem is in `problems`.
    private struct Stop: Error {}

    private enum Event {
        case scalar(String, quoted: Bool, Mark)
        case alias(Mark)
        case listStart(Mark)
        case mapStart(Mark)
        case end
        case documentStart(Mark)
        case documentEnd
        case streamEnd
        case other
    }

    init(_ input: UnsafeBufferPointer<UInt8>) {
        self.input = input
        parser = .allocate(capacity: 1)
        parser.initialize(to: yaml_parser_t())
        isOpen = yaml_parser_initialize(parser) == 1
        if isOpen {
            // UTF-8 only: left alone, libyaml would guess UTF-16 from the first bytes.
            yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
            yaml_parser_set_input_string(parser, input.baseAddress, input.count)
        }
    }

    mutating func close() {
        if isOpen { yaml_parser_delete(parser) }
        isOpen = false
        parser.deallocate()
    }

    mutating func document() -> Node? {
        guard isOpen else {
            report(.start, "no memory for the YAML parser")
            return nil
        }
        // libyaml takes a null buffer for "no input yet".
        if input.isEmpty { return nil }
        do {
            return try oneDocument()
        } catch {
            return nil
        }
    }

    private mutating func oneDocument() throws(Stop) -> Node? {
        var root: Node?
        var seen = false
        while true {
            switch try next() {
            case .streamEnd:
                return root
            case .documentStart(let mark):
                if seen { throw stop(mark, "a second document; settings are one document: remove the ---") }
                seen = true
                root = try node(try next(), depth: 0)
            case .documentEnd, .other, .scalar, .alias, .listStart, .mapStart, .end:
                break
            }
        }
    }

    private mutating func node(_ event: Event, depth: Int) throws(Stop) -> Node {
        switch event {
        case .scalar(let text, let quoted, let mark):
            return Node(.scalar(text, quoted: quoted), at: mark)
        case .alias(let mark):
            report(mark, "aliases are not accepted; write the value itself")
            return Node(.broken, at: mark)
        case .listStart(let mark):
            if depth >= Self.depthLimit { throw stop(mark, "nested deeper than \(Self.depthLimit) levels") }
            var items: [Node] = []
            while true {
                let event = try next()
                if case .end = event { return Node(.list(items), at: mark) }
                items.append(try node(event, depth: depth + 1))
            }
        case .mapStart(let mark):
            if depth >= Self.depthLimit { throw stop(mark, "nested deeper than \(Self.depthLimit) levels") }
            return try map(at: mark, depth: depth)
        case .end, .documentStart, .documentEnd, .streamEnd, .other:
            throw stop(.start, "the parser lost its way")
        }
    }

    private mutating func map(at mark: Mark, depth: Int) throws(Stop) -> Node {
        var entries: [Node.Entry] = []
        var lines: [String: Int] = [:]
        while true {
            let event = try next()
            if case .end = event { return Node(.map(entries), at: mark) }
            let key = try node(event, depth: depth + 1)
            let value = try node(try next(), depth: depth + 1)
            guard let name = key.text else {
                report(key.mark, "a key that is not text; put quotes around text with braces or brackets")
                continue
            }
            if let first = lines[name] {
                report(key.mark, "duplicate key \(shortened(name)), first at line \(first); keep one")
                continue
            }
            lines[name] = key.mark.line
            entries.append(Node.Entry(key: name, keyMark: key.mark, value: value))
        }
    }

    private mutating func next() throws(Stop) -> Event {
        var event = yaml_event_t()
        guard yaml_parser_parse(parser, &event) == 1 else { throw syntaxError() }
        defer { yaml_event_delete(&event) }
        let mark = Mark(line: event.start_mark.line + 1, column: event.start_mark.column + 1)
        switch event.type {
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            refuse(anchor: scalar.anchor != nil, tag: scalar.tag != nil, mark)
            let bytes = UnsafeBufferPointer(start: scalar.value, count: scalar.length)
            if bytes.contains(0) { report(mark, "a NUL character; no setting can hold one") }
            let text = String(decoding: bytes, as: UTF8.self)
            return .scalar(text, quoted: scalar.style != YAML_PLAIN_SCALAR_STYLE, mark)
        case YAML_SEQUENCE_START_EVENT:
            let list = event.data.sequence_start
            refuse(anchor: list.anchor != nil, tag: list.tag != nil, mark)
            return .listStart(mark)
        case YAML_MAPPING_START_EVENT:
            let map = event.data.mapping_start
            refuse(anchor: map.anchor != nil, tag: map.tag != nil, mark)
            return .mapStart(mark)
        case YAML_ALIAS_EVENT: return .alias(mark)
        case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT: return .end
        case YAML_DOCUMENT_START_EVENT: return .documentStart(mark)
        case YAML_DOCUMENT_END_EVENT: return .documentEnd
        case YAML_STREAM_END_EVENT: return .streamEnd
        default: return .other
        }
    }

    private mutating func refuse(anchor: Bool, tag: Bool, _ mark: Mark) {
        if anchor { report(mark, "anchors are not accepted; write the value itself") }
        if tag { report(mark, "tags are not accepted; remove the !") }
    }

    private mutating func report(_ mark: Mark, _ message: String) {
        if problems.count < Self.problemLimit { problems.append(YamlProblem(mark: mark, message: message)) }
    }

    private mutating func stop(_ mark: Mark, _ message: String) -> Stop {
        report(mark, message)
        return Stop()
    }

    private mutating func syntaxError() -> Stop {
        let state = parser.pointee
        var mark = Mark(line: state.problem_mark.line + 1, column: state.problem_mark.column + 1)
        // The reader below the scanner knows an offset only.
        if state.error == YAML_READER_ERROR { mark = self.mark(ofByte: state.problem_offset) }
        var message = "not YAML"
        if let problem = state.problem { message += ": " + shortened(String(cString: problem)) }
        if let hint = hint(line: mark.line) { message += "; " + hint }
        return stop(mark, message)
    }

    private func mark(ofByte offset: Int) -> Mark {
        var mark = Mark.start
        for byte in input.prefix(offset) {
            if byte == 0x0A {
                mark = Mark(line: mark.line + 1, column: 1)
            } else if byte & 0xC0 != 0x80 {
                mark.column += 1
            }
        }
        return mark
    }

    /// The usual cause: braces or brackets of ours that YAML takes for its own.
    private func hint(line: Int) -> String? {
        let lines = input.split(separator: 0x0A, maxSplits: line, omittingEmptySubsequences: false)
        guard lines.indices.contains(line - 1) else { return nil }
        let text = String(decoding: lines[line - 1], as: UTF8.self)
        for part in ["{socket}", "{port}", "{fd}", "${", "[::"] where text.contains(part) {
            return "put quotes around text with \(part)"
        }
        if text.contains("\t") { return "indent with spaces, not tabs" }
        return nil
    }
}
