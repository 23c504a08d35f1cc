//  Sidecar.swift
//  What the health listener serves: /health, /ready, and the pages that others bring (CONTRACT 2, sidecar.listen).
//  Read HealthBoard.swift and Exchange.swift first.

import NIOCore
import NIOHTTP1

/// A page made on demand.
public struct Page {
    /// The status code.
    public var status: Int
    public var contentType: String
    public var body: [UInt8]

    /// Makes a page.
    public init(status: Int = 200, contentType: String, body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }
}

/// The responder of the health listener; on the loop's thread only.
public final class Sidecar: Responder {
    private let board: HealthBoard
    /// `/metrics`; nil: 404.
    public var metrics: (() -> Page)?
    /// `/` and `/live`: whoever answers judges who may see them; nil: 404.
    public var statusPage: ((Request) -> Answer)?

    /// Makes a sidecar that serves health only.
    public init(board: HealthBoard) { self.board = board }

    public func respondAtOnce(to request: QuickRequest) -> ByteBuffer? {
        let endpoint: HealthEndpoint
        if request.isFor("/health") {
            endpoint = .health
        } else if request.isFor("/ready") {
            endpoint = .ready
        } else {
            return nil
        }
        return board.answer(endpoint, method: request.isHead ? .HEAD : .GET, persistence: .keep)
    }

    public func respond(to request: Request) -> Answer {
        switch request.path {
        case "/health": return health(.health, request)
        case "/ready": return health(.ready, request)
        case "/metrics":
            guard let metrics else { return missing(request) }
            return page(request, metrics)
        case "/", "/live":
            guard let statusPage else { return missing(request) }
            return statusPage(request)
        default: return missing(request)
        }
    }

    private func health(_ endpoint: HealthEndpoint, _ request: Request) -> Answer {
        .whole(board.answer(endpoint, method: request.method, persistence: request.persistence))
    }

    private func page(_ request: Request, _ make: () -> Page) -> Answer {
        guard request.method == .GET || request.isHead else {
            return problem(request, 405, "only GET and HEAD", fields: ["Allow: GET, HEAD"])
        }
        let page = make()
        return .whole(
            AnswerText.whole(
                status: page.status, contentType: page.contentType, fields: ["Cache-Control: no-store"],
                body: page.body, headOnly: request.isHead, persistence: request.persistence))
    }

    private func missing(_ request: Request) -> Answer {
        problem(request, 404, "served here: /health, /ready, /metrics")
    }

    private func problem(_ request: Request, _ status: Int, _ detail: String, fields: [String] = []) -> Answer {
        .whole(
            AnswerText.problem(
                status: status, detail: detail, fields: fields, headOnly: request.isHead,
                persistence: request.persistence))
    }
}
