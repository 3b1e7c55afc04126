//! What is known of objects besides what administrators said: of a connector,
//! since when it is linked and to which relays, and what these tell of it.

use std::collections::{BTreeMap, BTreeSet};

use model::{Connector, ConnectorId, KindName, ObjectKey};
use proto::v1::LinkedConnector;
use serde_json::{Value, json};
use tonic::Status;

use super::{Admin, objects::Statuses};
use crate::{activity::Links, callers::Caller, errors::unanswered};

/// Of a connector that is online and says nothing of it, or whose relay does not.
const UNKNOWN: &str = "unknown";

impl Admin {
    pub(super) async fn status(&self, caller: &Caller, kind: KindName) -> Result<Statuses, Status> {
        if kind != KindName::Connector {
            return Ok(Statuses::new());
        }
        let links: BTreeMap<_, _> =
            self.activity.links(&caller.tenant).await.map_err(unanswered)?.into_iter().collect();
        let log = self.writer.journal().log();
        // A relay that is gone said no good-bye.
        let alive: BTreeSet<String> = log.presences("relay").into_iter().map(|it| it.id).collect();
        let mut told: BTreeMap<ConnectorId, Vec<LinkedConnector>> = BTreeMap::new();
        for linked in log.linked_connectors() {
            if let Ok(id) = linked.connector.parse() {
                told.entry(id).or_default().push(linked);
            }
        }
        let (tenant, now_ms) = (self.tenant(caller), self.writer.now().0);
        let status = |connector: &Connector| {
            let at_relays = told.get(&connector.id).map_or(&[][..], Vec::as_slice);
            let status = status(connector, links.get(&connector.id), &alive, at_relays, now_ms);
            (ObjectKey::Connector(connector.id), status)
        };
        Ok(tenant.connectors.values().map(status).collect())
    }
}

fn status(
    connector: &Connector,
    links: Option<&Links>,
    alive: &BTreeSet<String>,
    told: &[LinkedConnector],
    now_ms: i64,
) -> Value {
    let links_now = links.into_iter().flat_map(|it| &it.relays).filter(|(relay, _)| alive.contains(*relay));
    let (relays, since): (Vec<&String>, Vec<i64>) = links_now.map(|(relay, at)| (relay, at.since_ms)).unzip();
    let online = !relays.is_empty();
    let mut status = json!({
        "state": match (connector.revoked, online) {
            (true, _) => "revoked",
            (false, true) => "online",
            (false, false) => "offline",
        },
        "online": online,
        "online_since_ms": since.iter().min(),
        "last_seen_ms": if online { Some(now_ms) } else { links.map(|it| it.last_ms) },
        "relays": relays,
    });
    if online {
        status["version"] = said(told, |it| &it.version).into();
        status["address"] = said(told, |it| &it.address).into();
        status["load"] = match told.is_empty() {
            true => UNKNOWN.into(),
            false => told.iter().map(|it| u64::from(it.open_exchanges)).sum::<u64>().into(),
        };
    }
    status
}

/// What relays agree on, or each thing they say.
fn said(told: &[LinkedConnector], what: impl Fn(&LinkedConnector) -> &String) -> String {
    let said: BTreeSet<&str> = told.iter().map(|it| what(it).as_str()).filter(|it| !it.is_empty()).collect();
    match said.is_empty() {
        true => UNKNOWN.to_owned(),
        false => said.into_iter().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use model::{ConnectorGroupId, JoinTokenId, app::Name};

    use super::*;

    /// An older relay tells nothing, and a connector may come before it has said its version.
    #[test]
    fn what_nobody_says_of_a_connector_that_is_online_is_unknown() {
        let id = uuid::Uuid::nil();
        let connector = Connector {
            id: ConnectorId(id),
            name: Name::parse("c").unwrap(),
            group: ConnectorGroupId(id),
            public_key: vec![],
            join_token: JoinTokenId(id),
            revoked: false,
        };
        let mut links = Links { last_ms: 3, ..Default::default() };
        let alive = BTreeSet::from(["r".to_owned()]);
        let offline = status(&connector, Some(&links), &alive, &[], 9);
        assert_eq!(
            (&offline["state"], &offline["last_seen_ms"], &offline["version"]),
            (&json!("offline"), &json!(3), &Value::Null)
        );
        links.relays.insert("r".into(), crate::activity::AtRelay::since(2));
        let online = status(&connector, Some(&links), &alive, &[], 9);
        assert_eq!(
            (&online["state"], &online["version"], &online["load"]),
            (&json!("online"), &json!(UNKNOWN), &json!(UNKNOWN))
        );
        let at_relay = |version: &str, open_exchanges| LinkedConnector {
            version: version.into(),
            address: "10.0.0.1".into(),
            open_exchanges,
            ..Default::default()
        };
        let online = status(&connector, Some(&links), &alive, &[at_relay("1.2", 3), at_relay("", 4)], 9);
        assert_eq!(
            (&online["version"], &online["address"], &online["load"]),
            (&json!("1.2"), &json!("10.0.0.1"), &json!(7))
        );
        let revoked = status(&Connector { revoked: true, ..connector }, Some(&links), &alive, &[], 9);
        assert_eq!(revoked["state"], "revoked");
    }
}
