//! What happened, newest first.

use eventlog::Fact;
use model::event::Stream;
use proto::{
    Message,
    v1::{self, EventBody, SignedEvent, history_server::History},
};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{Admin, caller};
use crate::errors::field;

const SIZE: usize = 50;
const SIZE_MAX: usize = 500;
/// Events read at a time, going back.
const STEP: u64 = 512;

#[tonic::async_trait]
impl History for Admin {
    async fn list(
        &self,
        request: Request<v1::ListHistoryRequest>,
    ) -> Result<Response<v1::ListHistoryResponse>, Status> {
        let caller = caller(&request)?;
        let it = request.into_inner();
        let name = if it.stream.is_empty() { "config" } else { &it.stream };
        let stream = Stream::parse(name);
        let stream =
            stream.ok_or_else(|| field(Code::InvalidArgument, "stream", "is config, directory, risk or activity"))?;
        let size = if it.size == 0 { SIZE } else { (it.size as usize).min(SIZE_MAX) };
        let log = self.writer.journal().log();
        let away = |_| Status::unavailable("the event log does not answer");
        let head = log.head(stream).await.map_err(away)?;
        let mut before = if it.before_position == 0 { head + 1 } else { it.before_position.min(head + 1) };
        let mut entries = Vec::new();
        while before > 1 && entries.len() < size {
            let from = before.saturating_sub(STEP + 1);
            let mut step = log.read(stream, from).await.map_err(away)?;
            step.retain(|entry| entry.position < before);
            for entry in step.iter().rev() {
                let shown = show(entry, caller.tenant.as_str(), &it.subject_contains);
                entries.extend(shown);
            }
            before = from + 1;
        }
        entries.truncate(size);
        Ok(Response::new(v1::ListHistoryResponse { entries }))
    }
}

fn show(entry: &eventlog::Entry, tenant: &str, contains: &str) -> Option<v1::HistoryEntry> {
    let event = SignedEvent::decode(entry.bytes.clone()).ok()?;
    let body = EventBody::decode(event.body).ok()?;
    if body.tenant != tenant || !body.subject.contains(contains) {
        return None;
    }
    let summary = summary(&body);
    Some(v1::HistoryEntry {
        position: entry.position,
        time_ms: body.time_ms,
        actor: body.actor,
        kind: body.kind,
        subject: body.subject,
        version: body.version,
        cause: body.cause,
        id: Uuid::from_slice(&body.id).map_or(String::new(), |it| it.to_string()),
        summary,
    })
}

/// The event as JSON, without what is sealed or hashed.
fn summary(body: &EventBody) -> String {
    fn json<M: Message + Default + serde::Serialize>(payload: &[u8]) -> String {
        M::decode(payload).ok().and_then(|it| serde_json::to_string(&it).ok()).unwrap_or_default()
    }
    if Fact::decode(&body.kind, &body.payload).is_err() {
        return String::new();
    }
    let payload = body.payload.as_ref();
    match body.kind.as_str() {
        "BrandingChanged" => json::<v1::Branding>(payload),
        "TenantChanged" => json::<v1::Tenant>(payload),
        kind if kind.starts_with("App") => json::<v1::App>(payload),
        kind if kind.starts_with("ConnectorGroup") => json::<v1::ConnectorGroup>(payload),
        "ConnectorEnrolled" | "ConnectorRevoked" => json::<v1::Connector>(payload),
        "JoinTokenIssued" => json::<v1::JoinToken>(payload),
        "Assigned" | "Unassigned" => json::<v1::Assignment>(payload),
        kind if kind.starts_with("Policy") => json::<v1::Policy>(payload),
        kind if kind.starts_with("Role") => json::<v1::RoleAssignment>(payload),
        "KeyPublished" | "KeyRetired" => json::<v1::Key>(payload),
        "CertificateInstalled" | "CertificateRemoved" => json::<v1::Certificate>(payload),
        "UserRevoked" => json::<v1::UserRevocation>(payload),
        "AllSessionsEnded" => json::<v1::AllSessionsEnded>(payload),
        "TokensOutdated" => json::<v1::OutdatedTokens>(payload),
        kind if kind.starts_with("User") => json::<v1::User>(payload),
        "CredentialsChanged" => json::<v1::Credentials>(payload),
        kind if kind.starts_with("Group") => json::<v1::Group>(payload),
        kind if kind.starts_with("Member") => json::<v1::Membership>(payload),
        "SessionRevoked" => json::<v1::SessionRevocation>(payload),
        "SignInAttempted" => json::<v1::SignInAttempt>(payload),
        "Accessed" => json::<v1::Access>(payload),
        "AccessesRecorded" => json::<v1::Accesses>(payload),
        "ConnectorActed" => json::<v1::ConnectorActivity>(payload),
        "ActivityDropped" => json::<v1::ActivityGap>(payload),
        _ => String::new(),
    }
}
