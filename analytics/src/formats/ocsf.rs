//! OCSF 1.8: Authentication (3002), HTTP Activity (4002), and Base Event (0) for
//! the rest. The schema rejects unknown fields, so a field that OCSF has no place
//! for goes under `unmapped`.

use serde_json::{Map, Value as Json, json};

use crate::record::{Record, Severity, Value, What};

const VERSION: &str = "1.8.0";

/// Where a field of the table is in a class; a field that is not listed is in
/// `unmapped` under its own name. `SAID` is said by the class's own attributes.
type Places = &'static [(&'static str, &'static str)];
const SAID: &str = "";

const SIGN_IN: Places = &[
    ("user_name", "user.name"),
    ("user_id", "user.uid"),
    ("session_id", "session.uid"),
    ("app_id", "service.uid"),
    ("address", "src_endpoint.ip"),
    ("user_agent", "http_request.user_agent"),
    ("outcome", "status_code"),
    ("mfa", "is_mfa"),
];

const ACCESS: Places = &[
    ("user_id", "unmapped.user"),
    ("session_id", "unmapped.session"),
    ("app_id", "app_name"),
    ("address", "src_endpoint.ip"),
    ("user_agent", "http_request.user_agent"),
    ("request_id", "http_request.uid"),
    ("method", "http_request.http_method"),
    ("host", "http_request.url.hostname"),
    ("path", "http_request.url.path"),
    ("status", "http_response.code"),
    ("refusal", SAID),
    ("bytes_in", "traffic.bytes_in"),
    ("bytes_out", "traffic.bytes_out"),
    ("total_us", SAID),
];

const CONNECTOR: Places = &[("event", SAID)];

pub fn line(record: &Record<'_>) -> String {
    Json::Object(object(record)).to_string()
}

fn object(record: &Record<'_>) -> Map<String, Json> {
    let (places, mut line) = class(record);
    for (field, value) in record.fields() {
        let place = places.iter().find(|(name, _)| *name == field.name).map(|(_, place)| *place);
        match (place, json_of(value)) {
            (Some(SAID), _) | (_, None) => {}
            (Some(place), Some(value)) => put(&mut line, place, value),
            (None, Some(value)) => put(&mut line, &format!("unmapped.{}", field.name), value),
        }
    }
    put(&mut line, "time", record.time_ms.into());
    let product = json!({ "name": "Postern", "vendor_name": "Postern" });
    let metadata = json!({ "version": VERSION, "uid": record.id, "tenant_uid": record.tenant, "product": product });
    put(&mut line, "metadata", metadata);
    line
}

/// The attributes that follow from the kind of the record, and where fields go.
fn class(record: &Record<'_>) -> (Places, Map<String, Json>) {
    let (severity, status) = (severity_id(record), if record.what.is_success() { 1 } else { 2 });
    match record.what {
        What::SignIn(it) => {
            let mut line = of(3, 3002, 1, severity);
            put(&mut line, "status_id", status.into());
            // OpenID Connect.
            put(&mut line, "auth_protocol_id", 4.into());
            put(&mut line, "is_remote", true.into());
            put(&mut line, "service.name", "Postern".into());
            let mfa = record.fields().any(|(field, value)| field.name == "mfa" && value == Value::Flag(true));
            if !it.session.is_empty() {
                put(&mut line, "session.is_mfa", mfa.into());
            }
            (SIGN_IN, line)
        }
        What::Access(it) => {
            let mut line = of(4, 4002, http_activity(&it.method), severity);
            put(&mut line, "status_id", status.into());
            let code = if it.refusal.is_empty() { it.status.to_string() } else { it.refusal.clone() };
            put(&mut line, "status_code", code.into());
            put(&mut line, "start_time", (record.time_ms - i64::from(it.total_us / 1000)).into());
            put(&mut line, "duration", (it.total_us / 1000).into());
            put(&mut line, "http_request.url.scheme", "https".into());
            (ACCESS, line)
        }
        What::Connector(it) => (CONNECTOR, base(&format!("connector {}", it.what), severity)),
        What::Gap(_) => (&[], base("activity dropped", severity)),
    }
}

fn of(category: u32, class: u32, activity: u32, severity: u32) -> Map<String, Json> {
    let attributes = [
        ("category_uid", category),
        ("class_uid", class),
        ("activity_id", activity),
        ("type_uid", class * 100 + activity),
        ("severity_id", severity),
    ];
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn base(message: &str, severity: u32) -> Map<String, Json> {
    let mut line = of(0, 0, 99, severity);
    put(&mut line, "activity_name", message.into());
    put(&mut line, "message", message.into());
    line
}

fn severity_id(record: &Record<'_>) -> u32 {
    match record.what.severity() {
        Severity::Information => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
    }
}

/// Activities of HTTP Activity are methods; 99 is another one.
fn http_activity(method: &str) -> u32 {
    match method {
        "CONNECT" => 1,
        "DELETE" => 2,
        "GET" => 3,
        "HEAD" => 4,
        "OPTIONS" => 5,
        "POST" => 6,
        "PUT" => 7,
        "TRACE" => 8,
        _ => 99,
    }
}

fn json_of(value: Value<'_>) -> Option<Json> {
    match value {
        Value::Absent => None,
        Value::Text(it) => Some(it.into()),
        Value::Number(it) => Some(it.into()),
        Value::Flag(it) => Some(it.into()),
        Value::List(it) => Some(it.into()),
    }
}

/// Sets the attribute at a path of names with dots between.
fn put(map: &mut Map<String, Json>, path: &str, value: Json) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = map.entry(name).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Every place names a field of the table, once.
#[cfg(test)]
pub(crate) fn places() -> impl Iterator<Item = (&'static str, &'static str)> {
    [SIGN_IN, ACCESS, CONNECTOR].into_iter().flatten().copied()
}
