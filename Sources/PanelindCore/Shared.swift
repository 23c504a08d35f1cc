//  Shared.swift
//  A value behind a pointer, for values that are large, seldom change, and are held by what is copied often.
//  The machine is a value: every step would move its settings too. Read before Probe.swift.

/// Holds a value that copies of the holder share.
@propertyWrapper
public struct Shared<Value: Hashable & Sendable>: Hashable, Sendable {
    private final class Box: Sendable {
        let value: Value

        init(_ value: Value) { self.value = value }
    }

    private var box: Box

    /// Makes the first holder.
    public init(wrappedValue: Value) { box = Box(wrappedValue) }

    /// The value. Setting it gives this holder its own.
    public var wrappedValue: Value {
        get { box.value }
        set { box = Box(newValue) }
    }

    public static func == (a: Shared, b: Shared) -> Bool { a.box === b.box || a.box.value == b.box.value }
    public func hash(into hasher: inout Hasher) { hasher.combine(box.value) }
}
