//! What happened of late, for those who ask.

use std::{cmp::Reverse, collections::BTreeMap};

use eventlog::{Activity, EventLog, Fact};
use model::{AppId, Position, TenantId, event::Stream};
use proto::{
    Message,
    v1::{self, EventBody, SignedEvent},
};
use tonic::Status;

/// How far back in ACTIVITY anything is looked for.
const EVENTS_LOOKED_AT: Position = 100_000;

/// The newest activity of a tenant, in order, with its time in milliseconds.
pub(super) async fn recent_activity(
    log: &EventLog,
    tenant: &TenantId,
    mut each: impl FnMut(i64, Activity),
) -> Result<(), Status> {
    let away = |_| Status::unavailable("the event log does not answer");
    let head = log.head(Stream::Activity).await.map_err(away)?;
    let mut position = head.saturating_sub(EVENTS_LOOKED_AT);
    while position < head {
        let entries = log.read(Stream::Activity, position).await.map_err(away)?;
        let Some(last) = entries.last() else { break };
        position = last.position;
        for entry in &entries {
            let body = SignedEvent::decode(entry.bytes.clone()).ok().and_then(|it| EventBody::decode(it.body).ok());
            let Some(body) = body.filter(|it| it.tenant == tenant.as_str()) else { continue };
            if let Ok(Fact::Activity(activity)) = Fact::decode(&body.kind, &body.payload) {
                each(body.time_ms, activity);
            }
        }
    }
    Ok(())
}

/// What pages of `app` asked for where nothing is published (PUB-07).
pub(super) async fn missing_paths(
    log: &EventLog,
    tenant: &TenantId,
    app: AppId,
) -> Result<Vec<v1::MissingPath>, Status> {
    let app = app.to_string();
    let mut found = BTreeMap::<String, v1::MissingPath>::new();
    recent_activity(log, tenant, |_, activity| {
        let Activity::Accesses(accesses) = activity else { return };
        for it in accesses.accesses.into_iter().filter(|it| it.app == app && it.refusal == "not_published") {
            let url = format!("https://{}{}/", it.host, it.path_class.trim_end_matches('/'));
            let path = found.entry(url.clone()).or_insert(v1::MissingPath { url, ..Default::default() });
            path.requests += 1;
            path.last_ms = path.last_ms.max(it.time_ms);
        }
    })
    .await?;
    let mut paths: Vec<_> = found.into_values().collect();
    paths.sort_by_key(|it| Reverse(it.requests));
    Ok(paths)
}
