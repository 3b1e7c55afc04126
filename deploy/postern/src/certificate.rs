//! `postern certificate`: what browsers see.

use std::path::Path;

use anyhow::{Context as _, bail};
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use proto::v1;
use runtime::tls::pem;
use serde_json::Value;

use crate::{
    cli::{CertificateCommand, MethodName},
    commands::Context,
    objects, output,
};

const FIELDS: [&str; 5] = ["hosts", "source", "method", "expires", "id"];

pub async fn run(it: &Context, command: CertificateCommand) -> anyhow::Result<()> {
    let mut certificates = it.admin.certificates();
    match command {
        CertificateCommand::List => {
            let all: Vec<v1::Certificate> = it.admin.read_all("certificate").await?;
            let rows = all.iter().map(readable).collect::<anyhow::Result<Vec<Value>>>()?;
            output::list(it.format, &rows, &FIELDS)
        }
        CertificateCommand::Install { file, key, password_file } => {
            let pem = read(&file, key.as_deref(), password_file.as_deref())?;
            let request = v1::InstallCertificateRequest { change: it.change(), pem };
            let answer = certificates.install(request).await?.into_inner();
            output::show(it.format, &readable(&answer.certificate.unwrap_or_default())?)
        }
        CertificateCommand::Order { hosts, method } => {
            let method = match method {
                MethodName::TlsAlpn01 => v1::AcmeMethod::TlsAlpn01,
                MethodName::Http01 => v1::AcmeMethod::Http01,
                MethodName::Dns01 => v1::AcmeMethod::Dns01,
            };
            let request = v1::OrderCertificateRequest { change: it.change(), hosts, method: method.into() };
            let answer = certificates.order(request).await?.into_inner();
            output::show(it.format, &readable(&answer.certificate.unwrap_or_default())?)
        }
        CertificateCommand::Remove { id } => {
            objects::remove(it, "certificate", admin_client::lists::by_name(&id), "removed").await
        }
    }
}

/// With the end as people write dates.
fn readable(certificate: &v1::Certificate) -> anyhow::Result<Value> {
    let mut row = serde_json::to_value(certificate)?;
    let ends = jiff::Timestamp::from_millisecond(certificate.expires_ms)?;
    if let Some(row) = row.as_object_mut() {
        row.insert("expires".into(), ends.strftime("%Y-%m-%d").to_string().into());
        if certificate.source() != v1::CertificateSource::Acme {
            row.insert("method".into(), "".into());
        }
    }
    Ok(row)
}

/// One PEM text with chain and key, whatever the files are.
fn read(file: &Path, key: Option<&Path>, password_file: Option<&Path>) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    if let Ok(text) = String::from_utf8(bytes.clone())
        && text.contains("-----BEGIN ")
    {
        let key = match key {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
            None => String::new(),
        };
        return Ok(format!("{text}\n{key}"));
    }
    let password = match password_file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None => String::new(),
    };
    let password = password.trim_end_matches(['\r', '\n']);
    let store = KeyStore::from_pkcs12(&bytes, password, Pkcs12ImportPolicy::Relaxed).with_context(|| {
        format!("{} is neither PEM nor PKCS#12, or its password is another: see --password-file", file.display())
    })?;
    let Some((_, chain)) = store.private_key_chain() else { bail!("{} has no private key", file.display()) };
    let certificates: String = chain.certs().iter().map(|it| pem("CERTIFICATE", it.as_der())).collect();
    Ok(certificates + &pem("PRIVATE KEY", chain.key().as_der()))
}
