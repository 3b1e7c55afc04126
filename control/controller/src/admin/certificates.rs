//! Server certificates: brought and ordered.

use eventlog::wire::{self, Words};
use model::{
    CertificateId, Command,
    app::is_host,
    keys::{AcmeMethod, Certificate, Source},
};
use proto::v1::{self, certificates_server::Certificates};
use runtime::telemetry::chain;
use tonic::{Code, Request, Response, Status};

use super::Admin;
use crate::{
    certificates::Brought,
    errors::{field, invalid},
};

/// Names in one order (Let's Encrypt's limit).
const HOSTS_MAX: usize = 100;

/// What everybody may know of it.
fn public(certificate: &Certificate) -> v1::Certificate {
    v1::Certificate { sealed_private_key: vec![], key_authorization: String::new(), ..certificate.to_wire() }
}

#[tonic::async_trait]
impl Certificates for Admin {
    async fn install(
        &self,
        request: Request<v1::InstallCertificateRequest>,
    ) -> Result<Response<v1::CertificateResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let brought = Brought::read(&it.pem, self.writer.now()).map_err(invalid)?;
        let id = CertificateId(call.id_for("certificate"));
        let sealed = brought.seal(id, Source::Uploaded, &self.peers.seal_to_relays);
        let certificate = sealed.map_err(|_| Status::internal("the key cannot be sealed"))?;
        // A repeated call finds what it installed: sealing differs each time.
        let certificate = call.tenant.certificates.get(&id).cloned().unwrap_or(certificate);
        let shown = public(&certificate);
        let position = self.execute(&call, vec![Command::Put(certificate.into())]).await?;
        Ok(Response::new(v1::CertificateResponse { certificate: Some(shown), position }))
    }

    async fn order(
        &self,
        request: Request<v1::OrderCertificateRequest>,
    ) -> Result<Response<v1::CertificateResponse>, Status> {
        let (call, it) = self.open(request, |it| it.change.take())?;
        let method = wire::acme_method_from(it.method());
        let hosts: Vec<String> = it.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(field(Code::InvalidArgument, "hosts", "has 1 to 100 names"));
        }
        for host in &hosts {
            match host.strip_prefix("*.") {
                Some(_) if method != AcmeMethod::Dns01 => {
                    return Err(field(Code::InvalidArgument, "method", "is dns_01 for *.NAME: servers ask for that"));
                }
                name => {
                    if !is_host(name.unwrap_or(host)) {
                        return Err(field(Code::InvalidArgument, "hosts", "has DNS names or *.NAME"));
                    }
                }
            }
        }
        let id = CertificateId(call.id_for("certificate"));
        let ordered = self.acme.order(&call.caller.tenant, id, &hosts, method).await;
        let certificate = ordered.map_err(|error| Status::failed_precondition(chain(&error).to_string()))?;
        let position = self.writer.snapshot().config;
        Ok(Response::new(v1::CertificateResponse { certificate: Some(public(&certificate)), position }))
    }
}
