//  Shared.swift
//  A value behind a pointer: large, seldom changed, held by what is copied often.
//  Read before Probe.swift.

/// Holds a value that copies of the holder share. Of the value it asks nothing that the runtime must look for at the start.
@propertyWrapper
public struct Shared<Value: Sendable>: Sendable {
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
}

extension Shared: Equatable where Value: Equatable {
    public static func == (a: Shared, b: Shared) -> Bool { a.box === b.box || a.box.value == b.box.value }
}

extension Shared: Hashable where Value: Hashable {
    public func hash(into hasher: inout Hasher) { hasher.combine(box.value) }
}
