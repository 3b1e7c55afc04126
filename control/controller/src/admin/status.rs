//! What is known of objects besides what administrators said: of a connector,
//! since when it is linked, and to which relays.

use std::collections::BTreeSet;

use model::{ConnectorId, KindName, ObjectKey};
use serde_json::json;
use tonic::Status;

use super::{Admin, objects::Statuses};
use crate::{callers::Caller, errors::unanswered};

impl Admin {
    pub(super) async fn status(&self, caller: &Caller, kind: KindName) -> Result<Statuses, Status> {
        if kind != KindName::Connector {
            return Ok(Statuses::new());
        }
        let links = self.activity.links(&caller.tenant).await.map_err(unanswered)?;
        // A relay that is gone said no good-bye.
        let relays = self.writer.journal().log().presences("relay");
        let alive: BTreeSet<String> = relays.into_iter().map(|it| it.id).collect();
        let now_ms = self.writer.now().0;
        let status = |(connector, links): (ConnectorId, crate::activity::Links)| {
            let links_now = links.relays.iter().filter(|(relay, _)| alive.contains(*relay));
            let (relays, since): (Vec<&String>, Vec<i64>) = links_now.map(|(relay, at)| (relay, at.since_ms)).unzip();
            let status = json!({
                "online": !relays.is_empty(),
                "online_since_ms": since.iter().min(),
                "last_seen_ms": if relays.is_empty() { links.last_ms } else { now_ms },
                "relays": relays,
            });
            (ObjectKey::Connector(connector), status)
        };
        Ok(links.into_iter().map(status).collect())
    }
}
