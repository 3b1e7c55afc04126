//! Activity as OCSF 1.8: Authentication (3002), HTTP Activity (4002), and Base
//! Event (0) for the rest. Unknown fields are rejected by the schema, so what
//! OCSF has no place for goes under `unmapped`.

use eventlog::Activity;
use proto::v1::{Access, EventBody, SignInAttempt};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const VERSION: &str = "1.8.0";

/// One line, or one for each access of several.
pub fn lines(body: &EventBody, activity: &Activity) -> Vec<Value> {
    let uid = Uuid::from_slice(&body.id).map_or(String::new(), |it| it.to_string());
    let one = |line: Map<String, Value>| vec![finished(line, body, &uid, body.time_ms)];
    match activity {
        Activity::SignIn(it) => one(sign_in(it)),
        Activity::Access(it) => one(access(it, body.time_ms)),
        Activity::Accesses(it) => {
            let numbered = it.accesses.iter().enumerate();
            let each =
                |(n, it): (usize, &Access)| finished(access(it, it.time_ms), body, &format!("{uid}.{n}"), it.time_ms);
            numbered.map(each).collect()
        }
        Activity::Connector(it) => one(base(
            &format!("connector {}", it.what),
            json!({ "connector": it.connector, "relay": it.relay, "detail": it.detail }),
        )),
        Activity::Gap(it) => one(base("activity dropped", json!({ "writer": it.writer, "dropped": it.dropped }))),
    }
}

/// `uid` is the same whenever the line is written again.
fn finished(mut line: Map<String, Value>, body: &EventBody, uid: &str, time_ms: i64) -> Value {
    line.insert("time".into(), time_ms.into());
    line.insert(
        "metadata".into(),
        json!({
            "version": VERSION,
            "uid": uid,
            "tenant_uid": body.tenant,
            "product": { "name": "Postern", "vendor_name": "Postern" },
        }),
    );
    Value::Object(line)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// Class 3002, activity 1 (Logon).
fn sign_in(it: &SignInAttempt) -> Map<String, Value> {
    let success = it.outcome == "success";
    let mfa = it.methods.iter().any(|method| method == "otp");
    let mut user = object(json!({ "name": it.username }));
    put(&mut user, "uid", &it.user);
    let mut line = object(json!({
        "category_uid": 3,
        "class_uid": 3002,
        "activity_id": 1,
        "type_uid": 300_201,
        // Failures are worth a look, successes are information.
        "severity_id": if success { 1 } else { 3 },
        "status_id": if success { 1 } else { 2 },
        "status_code": it.outcome,
        "auth_protocol_id": 4,
        "is_mfa": mfa,
        "is_remote": true,
        "user": user,
        "src_endpoint": { "ip": it.address },
        "service": { "name": "Postern", "uid": it.app },
        "unmapped": { "methods": it.methods, "policies": it.policies },
    }));
    if !it.session.is_empty() {
        line.insert("session".into(), json!({ "uid": it.session, "is_mfa": mfa }));
    }
    if !it.user_agent.is_empty() {
        line.insert("http_request".into(), json!({ "user_agent": it.user_agent }));
    }
    line
}

/// Class 4002; the activity is the method.
fn access(it: &Access, time_ms: i64) -> Map<String, Value> {
    let activity = match it.method.as_str() {
        "CONNECT" => 1,
        "DELETE" => 2,
        "GET" => 3,
        "HEAD" => 4,
        "OPTIONS" => 5,
        "POST" => 6,
        "PUT" => 7,
        "TRACE" => 8,
        _ => 99,
    };
    let forwarded = it.refusal.is_empty();
    let mut request = object(json!({
        "http_method": it.method,
        "uid": it.request_id,
        "url": { "hostname": it.host, "path": it.path_class, "scheme": "https" },
    }));
    put(&mut request, "user_agent", &it.user_agent);
    object(json!({
        "category_uid": 4,
        "class_uid": 4002,
        "activity_id": activity,
        "type_uid": 400_200 + activity,
        "severity_id": if forwarded { 1 } else { 2 },
        "status_id": if forwarded { 1 } else { 2 },
        "status_code": if forwarded { it.status.to_string() } else { it.refusal.clone() },
        "start_time": time_ms - i64::from(it.total_us / 1000),
        "duration": it.total_us / 1000,
        "http_request": request,
        "http_response": { "code": it.status },
        "src_endpoint": { "ip": it.address },
        "app_name": it.app,
        "traffic": { "bytes_in": it.bytes_in, "bytes_out": it.bytes_out },
        "unmapped": {
            "user": it.user,
            "session": it.session,
            "policies": it.policies,
            "report_only": it.report_only,
            "snapshot": it.snapshot,
            "connector": it.connector,
            "wait_us": it.wait_us,
            "origin_us": it.origin_us,
        },
    }))
}

fn base(message: &str, unmapped: Value) -> Map<String, Value> {
    object(json!({
        "category_uid": 0,
        "class_uid": 0,
        "activity_id": 99,
        "activity_name": message,
        "type_uid": 99,
        "severity_id": 1,
        "message": message,
        "unmapped": unmapped,
    }))
}

fn put(map: &mut Map<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        map.insert(name.to_owned(), value.into());
    }
}
