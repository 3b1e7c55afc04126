//! W3C trace context of a request: the user's if it is valid, else one of ours;
//! and the span of the relay in it.

use http::{HeaderMap, request::Parts};
use runtime::telemetry::{TRACE, adopt};
use tracing::{Span, debug_span, field::Empty};

/// From the first byte of a request to the last of its response. Names follow
/// OpenTelemetry's conventions for HTTP servers.
pub(crate) fn span(parts: &Parts, request_id: &str) -> Span {
    let span = debug_span!(
        target: TRACE,
        "request",
        otel.kind = "server",
        http.request.method = parts.method.as_str(),
        http.response.status_code = Empty,
        server.address = Empty,
        postern.request_id = request_id,
        postern.app = Empty,
        postern.refusal = Empty,
    );
    if let Some(given) = given(&parts.headers) {
        adopt(&span, given);
    }
    span
}

/// `00-<trace id>-<span id>-01` for the next hop. A request id is 32 hexadecimal
/// digits and unique, so where nobody traces it serves as the trace id.
pub(crate) fn traceparent(span: &Span, headers: &HeaderMap, request_id: &str) -> String {
    runtime::telemetry::traceparent(span).unwrap_or_else(|| {
        let trace = given(headers).and_then(trace_id).unwrap_or(request_id);
        let span = request_id.get(16..).unwrap_or("0000000000000001");
        format!("00-{trace}-{span}-01")
    })
}

fn given(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok()
}

fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let valid = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && trace.bytes().any(|b| b != b'0');
    valid.then_some(trace)
}
