//  Expansion.swift
//  What `${NAME}`, `${NAME:-default}`, `$$`, `{{`, `}}` and the placeholders `{socket}`, `{port}`, `{fd}` mean.
//  Every other `$` or brace is literal; nothing passes through a shell. Read after Problem.swift.

/// One argument of `worker.command`, to be filled when a worker starts.
public struct CommandArgument: Hashable, Sendable, CustomStringConvertible {
    /// A stretch of text, or what stands for a value that exists only at the start.
    public enum Piece: Hashable, Sendable {
        case text(String)
        /// The path of the private unix socket: `{socket}`.
        case socket
        /// The private loopback port: `{port}`.
        case port
        /// The number of the inherited listening socket: `{fd}`.
        case descriptor
    }

    /// Never empty stretches of text; no pieces at all for an empty argument.
    public var pieces: [Piece]

    /// Makes an argument of pieces.
    public init(_ pieces: [Piece]) { self.pieces = pieces }

    /// The argument as the worker gets it.
    public func filled(socket: String, port: Int, descriptor: Int32) -> String {
        pieces.map { piece in
            switch piece {
            case .text(let text): text
            case .socket: socket
            case .port: "\(port)"
            case .descriptor: "\(descriptor)"
            }
        }.joined()
    }

    /// With the placeholders as they are written.
    public var description: String {
        pieces.map { piece in
            switch piece {
            case .text(let text): text
            case .socket: "{socket}"
            case .port: "{port}"
            case .descriptor: "{fd}"
            }
        }.joined()
    }

    /// Its text where it has no placeholder.
    public var literal: String? {
        var text = ""
        for piece in pieces {
            guard case .text(let part) = piece else { return nil }
            text += part
        }
        return text
    }
}

/// What a name stands for.
enum Lookup {
    case text(String)
    /// Known only when a worker starts.
    case piece(CommandArgument.Piece)
    /// Not set.
    case unset
    /// Must not be used here; the clause says why and what instead.
    case refused(String)
}

/// Expands text into pieces; placeholders count only where `placeholders` says so.
///
/// By bytes: a sign that joins the brace before it to one character must not hide the brace.
func expand(
    _ text: String, placeholders: Bool, _ lookup: (String) -> Lookup
) throws(BadValue) -> CommandArgument {
    try expand(Array(text.utf8)[...], placeholders: placeholders, lookup)
}

private func expand(
    _ text: ArraySlice<UInt8>, placeholders: Bool, _ lookup: (String) -> Lookup
) throws(BadValue) -> CommandArgument {
    var pieces: [CommandArgument.Piece] = []
    var run: [UInt8] = []
    func flush() {
        if !run.isEmpty { pieces.append(.text(String(decoding: run, as: UTF8.self))) }
        run = []
    }
    var rest = text
    while let byte = rest.first {
        if byte != dollar, byte != opening, byte != closing {
            run.append(byte)
            rest = rest.dropFirst()
        } else if rest.dropFirst().first == byte {
            // `$$`, `{{`, `}}`
            run.append(byte)
            rest = rest.dropFirst(2)
        } else if let reference = Reference(rest) {
            rest = rest.dropFirst(reference.length)
            for piece in try reference.resolve(lookup) {
                if case .text(let text) = piece {
                    run += text.utf8
                } else {
                    flush()
                    pieces.append(piece)
                }
            }
        } else if placeholders, let (piece, length) = placeholder(rest) {
            flush()
            pieces.append(piece)
            rest = rest.dropFirst(length)
        } else {
            run.append(byte)
            rest = rest.dropFirst()
        }
    }
    flush()
    return CommandArgument(pieces)
}

private let dollar = UInt8(ascii: "$")
private let opening = UInt8(ascii: "{")
private let closing = UInt8(ascii: "}")

private func placeholder(_ text: ArraySlice<UInt8>) -> (CommandArgument.Piece, Int)? {
    if text.starts(with: "{socket}".utf8) { return (.socket, 8) }
    if text.starts(with: "{port}".utf8) { return (.port, 6) }
    if text.starts(with: "{fd}".utf8) { return (.descriptor, 4) }
    return nil
}

/// `${NAME}` or `${NAME:-default}` at the start of a text.
private struct Reference {
    var name: String
    var fallback: ArraySlice<UInt8>?
    /// In bytes, braces included.
    var length: Int

    init?(_ text: ArraySlice<UInt8>) {
        guard text.starts(with: [dollar, opening]) else { return nil }
        let body = text.dropFirst(2)
        let name = body.prefix(while: isNameByte)
        self.name = String(decoding: name, as: UTF8.self)
        guard isVariableName(self.name) else { return nil }
        let after = body.dropFirst(name.count)
        if after.first == closing {
            length = 2 + name.count + 1
        } else if after.starts(with: ":-".utf8), let end = Self.end(of: after.dropFirst(2)) {
            fallback = after.dropFirst(2).prefix(end)
            length = 2 + name.count + 2 + end + 1
        } else {
            return nil
        }
    }

    /// How many bytes lie before the brace that closes the default; `${…}` may nest in it.
    private static func end(of text: ArraySlice<UInt8>) -> Int? {
        var depth = 0
        var previous: UInt8 = 0
        for (index, byte) in text.enumerated() {
            if byte == closing {
                if depth == 0 { return index }
                depth -= 1
            } else if byte == opening, previous == dollar {
                depth += 1
                guard depth <= 8 else { return nil }
            }
            previous = byte
        }
        return nil
    }

    /// An empty variable takes the default, as in a shell; without one it stays empty.
    func resolve(_ lookup: (String) -> Lookup) throws(BadValue) -> [CommandArgument.Piece] {
        switch lookup(name) {
        case .text(let value) where !value.isEmpty || fallback == nil: return [.text(value)]
        case .piece(let piece): return [piece]
        case .refused(let why): throw BadValue(why)
        case .text, .unset:
            guard let fallback else {
                let name = shortened(name)
                throw BadValue("\(name) is not set; set it, or write ${\(name):-default}")
            }
            return try expand(fallback, placeholders: false, lookup).pieces
        }
    }
}
