//! How connectors get certificates. Calls come through relays, which are not
//! believed: a token or a key proves who asks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lc_rs::{constant_time, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Command, Connector, ConnectorId, JoinTokenId, Rejection, TenantId, Timestamp, app::Name};
use proto::{
    enrolment::{ConnectorUri, JoinTokenText},
    v1::{self, enrolment_server::Enrolment},
};
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use runtime::tls::{uris, validity_s};
use tonic::{Code, Request, Response, Status};
use tracing::{debug, info};
use uuid::Builder;

use crate::{
    authority::Authority,
    errors::{field, rejected, unwritten},
    writer::{ChangeContext, Writer},
};

/// An expired certificate may still be renewed for this long.
const ABSENCE_MAX_S: i64 = 90 * 24 * 3600;
const CSR_BYTES_MAX: usize = 4096;

#[derive(Clone)]
pub struct Enroller {
    pub writer: Arc<Writer>,
    pub authority: Arc<Authority>,
    pub writers: BTreeMap<String, Vec<u8>>,
    pub certificate_life: Duration,
}

#[tonic::async_trait]
impl Enrolment for Enroller {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let it = request.into_inner();
        let spent = || rejected(&Rejection::TokenSpent);
        let text = JoinTokenText::parse(&it.token).map_err(|fault| {
            debug!(%fault, "a join token is refused");
            spent()
        })?;
        let snapshot = self.writer.snapshot();
        let tenant_id = TenantId::parse(&text.tenant).ok_or_else(spent)?;
        let tenant = snapshot.tenant(&tenant_id).ok_or_else(spent)?;
        let token = text.id.parse().ok().and_then(|id: JoinTokenId| tenant.join_tokens.get(&id)).ok_or_else(spent)?;
        let secret = URL_SAFE_NO_PAD.decode(&text.secret).map_err(|_| spent())?;
        let hash = digest::digest(&digest::SHA256, &secret);
        constant_time::verify_slices_are_equal(hash.as_ref(), &token.secret_hash).map_err(|_| spent())?;
        let csr = parse_csr(&it.csr)?;
        let connector = Connector {
            // The same token and key are the same connector: a lost answer can be asked for again.
            id: connector_id(token.id, csr.public_key.der_bytes()),
            name: Name::parse(&it.name).map_err(|error| field(Code::InvalidArgument, "name", &error.to_string()))?,
            group: token.group,
            public_key: csr.public_key.der_bytes().to_vec(),
            join_token: token.id,
            revoked: false,
        };
        let (id, group) = (connector.id, connector.group);
        let context = ChangeContext {
            actor: format!("connector:{id}"),
            ..ChangeContext::of_system(&tenant_id, &token.id.to_string())
        };
        let command = Command::Enrol { connector, now: self.writer.now() };
        self.writer.execute(&context, vec![command]).await.map_err(unwritten)?;
        info!(connector = %id, "enrolled");
        let now = self.writer.now();
        let signed = self.authority.connector(&csr, &tenant_id, group, id, now, self.certificate_life);
        let chain = signed.map_err(|_| unsigned())?;
        Ok(Response::new(self.answer(chain, id.to_string(), group.to_string())))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let it = request.into_inner();
        let unknown =
            || Status::permission_denied("certificate: is not one of this installation; join again with a new token");
        let (tenant_id, id, expired) = read_certificate(&it.certificate).ok_or_else(unknown)?;
        let snapshot = self.writer.snapshot();
        let tenant = snapshot.tenant(&tenant_id).ok_or_else(unknown)?;
        let connector = tenant.connectors.get(&id).ok_or_else(unknown)?;
        if connector.revoked {
            return Err(rejected(&Rejection::Revoked));
        }
        if self.writer.now() > expired.plus_seconds(ABSENCE_MAX_S) {
            return Err(Status::permission_denied("certificate: ended over 90 days ago; join again with a new token"));
        }
        let csr = parse_csr(&it.csr)?;
        // The request is signed by its key, and the key is the one that joined.
        if csr.public_key.der_bytes() != connector.public_key {
            return Err(Status::permission_denied("csr: is for another key than the one that joined"));
        }
        let now = self.writer.now();
        let signed = self.authority.connector(&csr, &tenant_id, connector.group, id, now, self.certificate_life);
        let chain = signed.map_err(|_| unsigned())?;
        Ok(Response::new(self.answer(chain, id.to_string(), connector.group.to_string())))
    }
}

impl Enroller {
    fn answer(&self, chain: Vec<Vec<u8>>, connector: String, group: String) -> v1::EnrolResponse {
        let writers = self.writers.iter().map(|(id, key)| (id.clone(), key.clone())).collect();
        v1::EnrolResponse { chain, connector, group, writers }
    }
}

fn unsigned() -> Status {
    Status::internal("the certificate cannot be signed")
}

/// Parsing checks the request's own signature.
fn parse_csr(der: &[u8]) -> Result<CertificateSigningRequestParams, Status> {
    let parsed = match der.len() <= CSR_BYTES_MAX {
        true => CertificateSigningRequestParams::from_der(&der.into()).ok(),
        false => None,
    };
    parsed.ok_or_else(|| field(Code::InvalidArgument, "csr", "is not a signed PKCS#10 request of at most 4 KiB"))
}

fn connector_id(token: JoinTokenId, key: &[u8]) -> ConnectorId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(token.0.as_bytes());
    context.update(key);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    ConnectorId(Builder::from_custom_bytes(bytes).into_uuid())
}

/// Only to find the connector; that the key is right, the request proves.
fn read_certificate(der: &[u8]) -> Option<(TenantId, ConnectorId, Timestamp)> {
    let uris = uris(der);
    let name = ConnectorUri::find(uris.iter().map(String::as_str)).ok()?;
    let expires = Timestamp::from_seconds(validity_s(der)?.1);
    Some((TenantId::parse(name.tenant)?, name.connector.parse().ok()?, expires))
}
