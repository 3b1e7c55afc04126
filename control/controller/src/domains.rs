//! Whose a domain is: who publishes under one sets a TXT record in it (PUB-12).
//!
//! Asked for with `controller.domains.verify`, when an application gets a host it
//! did not have. Hosts of the organisation's own domain need no proof.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use model::{Tenant, TenantId};
use proto::v1;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::errors::field;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Applications are published only under proven domains.
    pub verify: bool,
    /// The DNS server that is asked, rather than those of the machine.
    pub dns_server: Option<SocketAddr>,
}

pub(crate) struct Domains<'a> {
    pub settings: &'a Settings,
    /// What is this installation's alone, and no secret.
    pub authority: &'a [u8],
    pub tenant: &'a TenantId,
}

impl Domains<'_> {
    /// The records any of which proves a host: of its own name, and of each above
    /// that has two labels.
    pub(crate) async fn proofs(&self, host: &str) -> Result<Vec<v1::DomainProof>, Status> {
        let resolver = self.resolver().map_err(unanswered)?;
        let host = host.strip_prefix("*.").unwrap_or(host);
        let above = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        let domains = std::iter::once(host).chain(above).filter(|it| it.contains('.'));
        let checks = domains.map(async |domain| {
            let (name, value) = (format!("_postern.{domain}"), self.value(domain));
            let found = has_text(&resolver, &name, &value).await?;
            Ok(v1::DomainProof { name, value, found })
        });
        join_all(checks).await.into_iter().collect::<Result<_, NetError>>().map_err(unanswered)
    }

    /// Refuses a host that is not the tenant's own and not proven.
    pub(crate) async fn check(&self, tenant: &Tenant, host: &str) -> Result<(), Status> {
        let is_own = host.strip_suffix(&tenant.domain).is_some_and(|it| it.is_empty() || it.ends_with('.'));
        let has_it = |app: &model::App| app.addresses().any(|(external, _)| *external.host == *host);
        if !self.settings.verify || is_own || tenant.apps.values().any(has_it) {
            return Ok(());
        }
        let proofs = self.proofs(host).await?;
        if proofs.iter().any(|it| it.found) {
            return Ok(());
        }
        let records: Vec<_> = proofs.iter().map(|it| format!("{} TXT \"{}\"", it.name, it.value)).collect();
        let problem = format!(
            "{host} is not proven to be yours; set one of these records and publish again: {}",
            records.join(", or ")
        );
        Err(field(Code::FailedPrecondition, "external_url", &problem))
    }

    fn value(&self, domain: &str) -> String {
        let said = [self.authority, self.tenant.as_str().as_bytes(), &[0], domain.as_bytes()].concat();
        format!("postern-verification={}", URL_SAFE_NO_PAD.encode(&digest(&SHA256, &said).as_ref()[..24]))
    }

    /// A new one each time: what it remembers would outlive a record that was just set.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let Some(server) = self.settings.dns_server else { return Resolver::builder_tokio()?.build() };
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
        let config = ResolverConfig::from_parts(None, vec![], servers);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
    }
}

fn unanswered(error: NetError) -> Status {
    let problem = format!("the DNS server does not say whose it is ({error}); try again, or see domains.dns_server");
    field(Code::Unavailable, "external_url", &problem)
}

async fn has_text(resolver: &TokioResolver, name: &str, value: &str) -> Result<bool, NetError> {
    let found = match resolver.txt_lookup(format!("{name}.")).await {
        Ok(found) => found,
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(false),
        Err(error) => return Err(error),
    };
    // A long text comes in pieces (RFC 1035, section 3.3.14).
    let is_it = |data: &RData| matches!(data, RData::TXT(text) if text.txt_data.concat() == value.as_bytes());
    Ok(found.answers().iter().any(|it| is_it(&it.data)))
}
