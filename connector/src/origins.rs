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
    v1::{App, EventBody, SignedEvent, Tenant},
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

type Definitions = BTreeMap<String, Definition>;

/// Where the relays of an installation are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relays {
    pub version: u64,
    /// Of the installation: another's relays are none of ours.
    pub domain: String,
    pub addresses: Vec<String>,
}

pub struct Origins {
    group: String,
    known: watch::Sender<Definitions>,
    relays: watch::Sender<Relays>,
    trust: std::sync::Mutex<Verifier>,
}

impl Origins {
    pub fn new(group: &str, writers: Vec<Vec<u8>>) -> Self {
        Self {
            group: group.to_owned(),
            known: watch::Sender::new(Definitions::new()),
            relays: watch::Sender::default(),
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

    /// Takes what the controller signed about the installation, from a relay.
    pub fn learn_relays(&self, event: &[u8]) {
        if event.is_empty() {
            return;
        }
        let tenant = self.body(event).filter(|body| matches!(body.kind.as_str(), "tenant.put" | "TenantChanged"));
        let Some((version, tenant)) = tenant.and_then(|body| Some((body.version, Tenant::decode(body.payload).ok()?)))
        else {
            return warn!("a relay passed on addresses of relays that the controller did not sign");
        };
        self.relays.send_if_modified(|known| {
            let is_news = version > known.version;
            if is_news {
                *known = Relays { version, domain: tenant.domain, addresses: tenant.relays };
            }
            is_news
        });
    }

    /// Where relays are, as far as any of them has told.
    pub fn relays(&self) -> watch::Receiver<Relays> {
        self.relays.subscribe()
    }

    fn body(&self, event: &[u8]) -> Option<EventBody> {
        let event = SignedEvent::decode(event).ok()?;
        let (body, _) = self.trust.lock().ok()?.verify(&event).ok()?;
        Some(body)
    }

    fn verify(&self, event: &[u8]) -> Option<(String, Definition)> {
        let body = self.body(event)?;
        let app = App::decode(body.payload).ok()?;
        let present = match body.kind.as_str() {
            "app.put" | "AppPublished" | "AppChanged" => app.connector_group == self.group,
            "app.removed" | "AppRetired" => false,
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::Ed25519KeyPair;
    use proto::signed::Signer;

    use super::*;

    fn event(signer: &Signer, kind: &str, group: &str, version: u64) -> bytes::Bytes {
        let app = App { id: "a".into(), connector_group: group.into(), ..Default::default() };
        let body = EventBody { kind: kind.into(), version, payload: app.encode_to_vec().into(), ..Default::default() };
        signer.sign(vec![body.encode_to_vec()]).remove(0).encode_to_vec().into()
    }

    fn known(origins: &Origins) -> Option<(u64, bool)> {
        let found = origins.known.borrow().get("a").cloned();
        found.map(|it| (it.version, it.app.is_some()))
    }

    #[test]
    fn only_the_controller_says_what_may_be_reached() {
        let (controller, relay) =
            (Signer::new(Ed25519KeyPair::generate().unwrap()), Signer::new(Ed25519KeyPair::generate().unwrap()));
        let origins = Origins::new("berlin", vec![controller.public_key().to_vec()]);
        origins.learn(&[event(&relay, "AppPublished", "berlin", 9)]);
        assert_eq!(known(&origins), None, "a relay makes nothing up");
        origins.learn(&[event(&controller, "UserCreated", "berlin", 9)]);
        assert_eq!(known(&origins), None, "nor does it pass off another event");
        origins.learn(&[event(&controller, "AppPublished", "berlin", 2)]);
        assert_eq!(known(&origins), Some((2, true)));
        origins.learn(&[event(&controller, "AppChanged", "berlin", 1)]);
        assert_eq!(known(&origins), Some((2, true)), "an older definition is no news");
        origins.learn(&[event(&controller, "AppChanged", "munich", 3)]);
        assert_eq!(known(&origins), Some((3, false)), "it moved to another group");
        origins
            .learn(&[event(&controller, "AppPublished", "berlin", 4), event(&controller, "AppRetired", "berlin", 5)]);
        assert_eq!(known(&origins), Some((5, false)));
    }

    #[test]
    fn only_the_controller_says_where_relays_are() {
        let (controller, relay) =
            (Signer::new(Ed25519KeyPair::generate().unwrap()), Signer::new(Ed25519KeyPair::generate().unwrap()));
        let origins = Origins::new("berlin", vec![controller.public_key().to_vec()]);
        let signed = |signer: &Signer, kind: &str, version: u64, address: &str| {
            let tenant = Tenant { domain: "example.com".into(), relays: vec![address.into()], ..Default::default() };
            let payload = tenant.encode_to_vec().into();
            let body = EventBody { kind: kind.into(), version, payload, ..Default::default() };
            signer.sign(vec![body.encode_to_vec()]).remove(0).encode_to_vec()
        };
        let known = || origins.relays().borrow().addresses.clone();
        origins.learn_relays(&signed(&relay, "TenantChanged", 9, "evil:443"));
        origins.learn_relays(&signed(&controller, "BrandingChanged", 9, "evil:443"));
        origins.learn_relays(&[]);
        assert!(known().is_empty(), "a relay makes nothing up");
        origins.learn_relays(&signed(&controller, "TenantChanged", 2, "new:443"));
        origins.learn_relays(&signed(&controller, "TenantChanged", 1, "old:443"));
        assert_eq!(known(), ["new:443"], "nor does it bring back what was");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_come_before_its_definition_but_not_long() {
        let controller = Signer::new(Ed25519KeyPair::generate().unwrap());
        let origins = Arc::new(Origins::new("berlin", vec![controller.public_key().to_vec()]));
        assert!(origins.find("a", 1).await.is_none());
        origins.learn(&[event(&controller, "AppPublished", "berlin", 1)]);
        let newer = async {
            tokio::time::sleep(DEFINITION_WAIT / 2).await;
            origins.learn(&[event(&controller, "AppChanged", "berlin", 2)]);
        };
        let (found, ()) = tokio::join!(origins.find("a", 2), newer);
        assert_eq!(found.unwrap().version, 2, "never an older definition than the relay judged by");
    }

    #[test]
    fn metadata_and_what_is_not_one_host_is_forbidden() {
        let forbidden = [
            "169.254.169.254",
            "169.254.1.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ];
        for address in forbidden {
            assert!(is_forbidden(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd12::1", "8.8.8.8"] {
            assert!(!is_forbidden(address.parse().unwrap()), "{address}");
        }
    }
}
