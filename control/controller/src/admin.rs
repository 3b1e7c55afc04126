//! The admin API: each method turns wire into a command and hands it to the
//! writer, or reads the snapshot.

mod access;
mod apply;
mod apps;
mod certificates;
mod connectors;
mod history;
mod internal;
mod keys;
mod objects;
mod providers;
mod sessions;
mod status;
mod users;
mod watch;

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use model::{Command, Position, Tenant, Timestamp, keys::KeyPurpose};
use proto::v1;
use runtime::{clock::fresh_id, endings::What, hashing::Hashing, sealing::SealingKey, tls::validity_s};
use tonic::{Code, Request, Status};
use uuid::{Builder, Uuid};

use crate::{
    Peers,
    acme::Acme,
    activity::ActivityReader,
    bootstrap::{own_certificate, renewal},
    callers::{Caller, Who},
    domains::Domains,
    errors::{field, unwritten},
    permits::Permits,
    server_certificate::ServerCertificate,
    settings::Settings,
    writer::{ChangeContext, Writer},
};

/// Named among what ends, although it ends on purpose.
pub const JOIN_TOKEN: &str = "join_token";
/// Objects of a list at a time.
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

#[derive(Clone)]
pub struct Admin {
    pub(crate) writer: Arc<Writer>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) peers: Peers,
    pub(crate) acme: Acme,
    /// Opens what is sealed to controllers.
    pub(crate) sealing: Arc<SealingKey>,
    /// SHA-256 of the authority's certificate, for join tokens.
    pub(crate) authority: Vec<u8>,
    pub(crate) certificate: Arc<ServerCertificate>,
    /// Makes the secrets of tokens that may be asked for twice.
    pub(crate) token_key: Arc<Vec<u8>>,
    pub(crate) hashing: Arc<Hashing>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) activity: ActivityReader,
}

/// One call that changes something.
pub(crate) struct AdminCall {
    caller: Caller,
    change: v1::Change,
    tenant: Arc<Tenant>,
}

pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    // The gate put it there; without it nobody came through the gate.
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("no caller"))
}

impl Admin {
    pub(crate) fn tenant(&self, caller: &Caller) -> Arc<Tenant> {
        self.writer.snapshot().tenant(&caller.tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn domains<'a>(&'a self, caller: &'a Caller) -> Domains<'a> {
        Domains { settings: &self.settings.domains, authority: &self.authority, tenant: &caller.tenant }
    }

    /// A request to change something, and what it needs from around it.
    pub(crate) fn open<T>(
        &self,
        request: Request<T>,
        change: impl FnOnce(&mut T) -> Option<v1::Change>,
    ) -> Result<(AdminCall, T), Status> {
        let caller = caller(&request)?;
        let mut it = request.into_inner();
        let change = change(&mut it);
        Ok((self.call(caller, change), it))
    }

    pub(crate) fn call(&self, caller: Caller, change: Option<v1::Change>) -> AdminCall {
        let tenant = self.tenant(&caller);
        AdminCall { caller, change: change.unwrap_or_default(), tenant }
    }

    pub(crate) async fn execute(&self, call: &AdminCall, commands: Vec<Command>) -> Result<Position, Status> {
        let context = ChangeContext {
            tenant: call.caller.tenant.clone(),
            actor: call.caller.actor(),
            cause: call.change.request_id.clone(),
            expected: call.change.expected_position,
            wait_applied: call.change.wait_applied,
        };
        self.writer.execute(&context, commands).await.map_err(unwritten)
    }

    pub(crate) async fn change(
        &self,
        call: &AdminCall,
        command: Command,
    ) -> Result<tonic::Response<v1::ChangeResponse>, Status> {
        let position = self.execute(call, vec![command]).await?;
        Ok(tonic::Response::new(v1::ChangeResponse { position }))
    }

    /// What the installation itself has that ends, without what was brought or
    /// ordered, which is listed as certificates.
    fn endings(&self, tenant: &Tenant) -> Vec<v1::Ending> {
        let ending = |what: What, ends: Timestamp, renews: Timestamp| v1::Ending {
            what: what.name().to_owned(),
            ends_ms: ends.0,
            renews_ms: renews.0,
        };
        let shown = &self.certificate;
        let mut endings = vec![ending(What::ControllerCertificate, shown.expires(), shown.renews())];
        let public = own_certificate(tenant).and_then(|it| Some((it.expires, renewal(it.chain.first()?))));
        endings.extend(public.map(|(ends, renews)| ending(What::PublicCertificate, ends, renews)));
        for (_, key) in tenant.keys_for(KeyPurpose::Authority) {
            if let Some((_, end_s)) = validity_s(&key.public_key) {
                endings.push(ending(What::Authority, Timestamp::from_seconds(end_s), Timestamp(0)));
            }
        }
        // On purpose, so no metric: an alert on what ends soon would be about these.
        let now = self.writer.now();
        let spent: BTreeSet<_> = tenant.connectors.values().map(|it| it.join_token).collect();
        let open = tenant.join_tokens.values().filter(|it| it.expires > now && !spent.contains(&it.id));
        endings.extend(open.map(|it| v1::Ending { what: JOIN_TOKEN.to_owned(), ends_ms: it.expires.0, renews_ms: 0 }));
        endings
    }

    /// Passwords are hashed off the async threads, and sealed at once.
    pub(crate) async fn seal_password(&self, password: String) -> Result<Vec<u8>, Status> {
        let hash = crate::passwords::hash_on(&self.hashing, password).await.map_err(crate::errors::password)?;
        let sealed = self.peers.seal_to_identity.seal(crate::passwords::PURPOSE, hash.as_bytes());
        sealed.map_err(|_| Status::internal("sealing failed"))
    }
}

impl AdminCall {
    /// The id of what this call creates. With a request id it is the same at
    /// every repetition, so a repeated call finds its effect and changes nothing.
    pub(crate) fn id_for(&self, what: &str) -> Uuid {
        if self.change.request_id.is_empty() {
            return fresh_id();
        }
        let seed = format!("{}\n{}\n{what}\n{}", self.caller.tenant, self.caller.actor(), self.change.request_id);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(&SHA256, seed.as_bytes()).as_ref()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// An id that was given, or the one to create with.
    pub(crate) fn id_or_new(&self, given: &str, what: &str) -> Result<String, Status> {
        match given.is_empty() {
            true => Ok(self.id_for(what).to_string()),
            false => Uuid::parse_str(given)
                .map(|it| it.to_string())
                .map_err(|_| field(Code::InvalidArgument, "id", "is a UUID, or empty to have one chosen")),
        }
    }
}

#[tonic::async_trait]
impl v1::tenants_server::Tenants for Admin {
    async fn get(&self, request: Request<v1::GetTenantRequest>) -> Result<tonic::Response<v1::TenantResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = self.tenant(&caller);
        let group = tenant.connector_groups.by_name(crate::bootstrap::DEFAULT_GROUP);
        let (name, role) = match &caller.who {
            Who::Person { user, role } => (
                tenant.users.get(user).map_or(String::new(), |it| it.username.as_str().to_owned()),
                role.map_or(v1::Role::Unspecified, eventlog::wire::role_to),
            ),
            Who::Nobody | Who::Identity => (String::new(), v1::Role::Unspecified),
        };
        Ok(tonic::Response::new(v1::TenantResponse {
            domain: tenant.domain.clone(),
            position: self.writer.snapshot().config,
            default_connector_group: group.map_or(String::new(), |it| it.id.to_string()),
            caller: name,
            role: role.into(),
            public_port: self.settings.public_port.into(),
            branding: Some(eventlog::wire::Words::to_wire(&tenant.branding)),
            endings: self.endings(&tenant),
        }))
    }

    async fn check_domain(
        &self,
        request: Request<v1::CheckDomainRequest>,
    ) -> Result<tonic::Response<v1::CheckDomainResponse>, Status> {
        let caller = caller(&request)?;
        let domain = request.get_ref().domain.to_ascii_lowercase();
        if !model::app::is_host(domain.strip_prefix("*.").unwrap_or(&domain)) {
            return Err(field(Code::InvalidArgument, "domain", "is a DNS name such as example.org"));
        }
        let proofs = self.domains(&caller).proofs(&domain).await?;
        Ok(tonic::Response::new(v1::CheckDomainResponse { required: self.settings.domains.verify, proofs }))
    }
}
