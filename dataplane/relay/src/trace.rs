//! W3C trace context: the user's if it is valid, else one of ours.

use http::HeaderMap;

/// `00-<trace id>-<span id>-01` for the next hop. A request id is 32 hexadecimal
/// digits and unique, so it serves as the trace id of a request without one.
pub(crate) fn traceparent(headers: &HeaderMap, request_id: &str) -> String {
    let given = headers.get("traceparent").and_then(|it| it.to_str().ok());
    let trace = given.and_then(trace_id).unwrap_or(request_id);
    let span = request_id.get(16..).unwrap_or("0000000000000001");
    format!("00-{trace}-{span}-01")
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
