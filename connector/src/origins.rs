//! What may be reached: the origins of applications the controller signed for
//! this connector's group. A relay passes them on but cannot make one up.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use proto::{
    Message,
    signed::Verifier,
    v1::{App, SignedEvent},
};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

/// A request may be faster than the definition of its application.
const DEFINITION_WAIT: Duration = Duration::from_secs(2);

/// One application as it was last defined.
#[derive(Clone, Debug)]
pub struct Definition {
    pub version: u64,
    /// `None` when it was retired or moved to another group.
    pub app: Option<Arc<App>>,
}

type Known = BTreeMap<String, Definition>;

pub struct Origins {
    group: String,
    known: watch::Sender<Known>,
    trust: std::sync::Mutex<Verifier>,
}

impl Origins {
    pub fn new(group: &str, writers: Vec<Vec<u8>>) -> Self {
        Self {
            group: group.to_owned(),
            known: watch::Sender::new(Known::new()),
            trust: std::sync::Mutex::new(Verifier::trusting(writers)),
        }
    }

    /// Takes definitions a relay passed on. Forged ones and older versions than
    /// what is known change nothing.
    pub fn learn(&self, events: &[bytes::Bytes]) {
        let mut learnt = Vec::new();
        for event in events {
            match self.verify(event) {
                Some(definition) => learnt.push(definition),
                None => warn!("a relay passed on an application that the controller did not sign"),
            }
        }
        self.known.send_if_modified(|known| {
            let mut changed = false;
            for (id, definition) in learnt {
                if known.get(&id).is_none_or(|before| before.version < definition.version) {
                    debug!(app = %id, version = definition.version, "application defined");
                    known.insert(id, definition);
                    changed = true;
                }
            }
            changed
        });
    }

    fn verify(&self, event: &[u8]) -> Option<(String, Definition)> {
        let event = SignedEvent::decode(event).ok()?;
        let (body, _) = self.trust.lock().ok()?.verify(&event).ok()?;
        let app = App::decode(body.payload.as_slice()).ok()?;
        let present = match body.kind.as_str() {
            "AppPublished" | "AppChanged" => app.connector_group == self.group,
            "AppRetired" => false,
            _ => return None,
        };
        let id = app.id.clone();
        Some((id, Definition { version: body.version, app: present.then(|| Arc::new(app)) }))
    }

    /// The application, at least as new as the relay knows it.
    pub async fn find(&self, id: &str, version: u64) -> Option<Definition> {
        if let Some(found) = self.known.borrow().get(id).filter(|it| it.version >= version) {
            return Some(found.clone());
        }
        let mut known = self.known.subscribe();
        let fresh = known.wait_for(|known| known.get(id).is_some_and(|it| it.version >= version));
        let known = timeout(DEFINITION_WAIT, fresh).await.ok()?.ok()?;
        known.get(id).cloned()
    }
}

/// Addresses no application is published from: the machine's own metadata
/// services and everything that is not one host.
pub fn is_forbidden(address: IpAddr) -> bool {
    const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(it) => {
            it.is_link_local() || it.is_multicast() || it.is_broadcast() || it.is_unspecified() || it.octets()[0] == 0
        }
        IpAddr::V6(it) => it.is_unicast_link_local() || it.is_multicast() || it.is_unspecified() || it == EC2_METADATA,
    }
}
