//! The listener: TLS with optional client certificates, the gate, the services.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use eventlog::AppendError;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::{TenantId, Timestamp, event::Stream};
use proto::v1;
use runtime::Clock;
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokens::TokenFaults;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, service::Routes};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::{
    ControllerError, Settings, Surroundings,
    acme::Acme,
    activity::ActivityReader,
    admin::Admin,
    authority::Authority,
    bootstrap,
    callers::{Caller, CallerFault, IdentityKey, PeerCertificate, RoleTable, nobody, recognise},
    enrolment::Enroller,
    server_certificate::ServerCertificate,
    writer::Writer,
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a certificate is looked at, and how soon a renewal that failed is
/// tried again; a certificate is due for a third of its life.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(600);
const CONNECTIONS_MAX: usize = 1024;
/// A call of the admin API ends, whatever it waits for. The writer gives up
/// earlier and says more; this is for the rest, reading of the log above all.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// For calls that wait for others by design: an ACME server, many domains' DNS.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(240);
const LONG_CALLS: [&str; 2] = ["/postern.v1.Certificates/Order", "/postern.v1.Objects/Apply"];
/// A request of the admin API.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// A file of 100,000 applications as one request.
const APPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A controller that is prepared: it serves the connections it is given.
pub struct Controller {
    pub writer: Arc<Writer>,
    pub authority: Arc<Authority>,
    pub certificate: Arc<ServerCertificate>,
    tls: TlsAcceptor,
    routes: Router,
    surroundings: Surroundings,
    acme: Acme,
    activity: ActivityReader,
}

#[derive(Clone)]
struct Gate {
    table: RoleTable,
    writer: Arc<Writer>,
    identity_key: Arc<IdentityKey>,
    token_faults: TokenFaults,
}

/// Opens the port of the admin API.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ControllerError> {
    TcpListener::bind(address).await.map_err(|source| ControllerError::Listen { address, source })
}

/// Prepares the installation, unless another controller has.
pub async fn prepare(
    settings: Settings,
    surroundings: Surroundings,
    identity_origin: &str,
) -> Result<Controller, ControllerError> {
    let tenant = TenantId::default_tenant();
    let Surroundings { projection, journal, clock, .. } = surroundings.clone();
    seal(&surroundings).await;
    let writer = Arc::new(Writer::new(journal, projection, clock));
    let authority = Arc::new(
        bootstrap::ensure(
            &writer,
            &surroundings,
            &tenant,
            (&settings.domain, settings.public_port, &settings.relay_addresses),
            identity_origin,
        )
        .await?,
    );
    let certificate = Arc::new(ServerCertificate::new(authority.clone(), writer.now())?);
    let tls = acceptor(&authority, certificate.clone())?;
    let acme =
        Acme { settings: Arc::new(settings.acme.clone()), writer: writer.clone(), surroundings: surroundings.clone() };
    let activity = ActivityReader::new(writer.journal().log().clone(), surroundings.peers.activity.clone());
    let shown = certificate.clone();
    let routes =
        routes(settings, &surroundings, writer.clone(), authority.clone(), shown, acme.clone(), activity.clone())
            .await?;
    Ok(Controller { writer, authority, certificate, tls, routes, surroundings, acme, activity })
}

/// Streams of before there were checkpoints get one now, not only at the next change.
async fn seal(surroundings: &Surroundings) {
    let Surroundings { projection, journal, clock, .. } = surroundings;
    for stream in Stream::STATE {
        let end = projection.snapshot().position(stream);
        let sealed = journal.seal(stream, projection.chain(), end, Timestamp(clock.now_ms())).await;
        match sealed {
            Ok(_) => {}
            // Another controller was faster.
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => warn!(stream = stream.name(), %error, "the stream has no checkpoint yet"),
        }
    }
}

fn acceptor(authority: &Authority, certificate: Arc<ServerCertificate>) -> Result<TlsAcceptor, ControllerError> {
    let roots = runtime::tls::roots([authority.certificate()])?;
    let verifier = WebPkiClientVerifier::builder(roots)
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_protocol_versions(runtime::tls::LINK_VERSIONS)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.time_provider = Arc::new(Clock::default());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn routes(
    settings: Settings,
    surroundings: &Surroundings,
    writer: Arc<Writer>,
    authority: Arc<Authority>,
    certificate: Arc<ServerCertificate>,
    acme: Acme,
    activity: ActivityReader,
) -> Result<Router, ControllerError> {
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, authority.certificate());
    let certificate_life = Duration::from_secs(settings.connector_certificate_life_s.into());
    let table = RoleTable::load()?;
    let admin = Admin {
        writer: writer.clone(),
        acme,
        settings: Arc::new(settings),
        peers: surroundings.peers.clone(),
        sealing: surroundings.sealing.clone(),
        authority: fingerprint.as_ref().to_vec(),
        certificate,
        token_key: Arc::new(surroundings.sealing.derive("join-token-secrets")),
        permits: table.permits.clone(),
        hashing: surroundings.hashing.clone(),
        activity,
    };
    let enroller =
        Enroller { writer: writer.clone(), authority, writers: surroundings.peers.writers.clone(), certificate_life };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(
            v1::applications_server::ApplicationsServer::new(admin.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(v1::connectors_server::ConnectorsServer::new(admin.clone()))
        .add_service(v1::users_server::UsersServer::new(admin.clone()))
        .add_service(v1::providers_server::ProvidersServer::new(admin.clone()))
        .add_service(v1::policies_server::PoliciesServer::new(admin.clone()))
        .add_service(v1::objects_server::ObjectsServer::new(admin.clone()).max_decoding_message_size(APPLY_BYTES_MAX))
        .add_service(v1::sessions_server::SessionsServer::new(admin.clone()))
        .add_service(v1::history_server::HistoryServer::new(admin.clone()))
        .add_service(v1::keys_server::KeysServer::new(admin.clone()))
        .add_service(v1::certificates_server::CertificatesServer::new(admin.clone()))
        .add_service(v1::tenants_server::TenantsServer::new(admin.clone()))
        .add_service(v1::internal_server::InternalServer::new(admin))
        .add_service(v1::enrolment_server::EnrolmentServer::new(enroller))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let identity_key = Arc::new(IdentityKey::new(&surroundings.peers.identity_key));
    let token_faults = surroundings.token_faults.clone();
    let gate = Gate { table, writer, identity_key, token_faults };
    Ok(routes.routes().into_axum_router().layer(from_fn_with_state(gate, gate_keeper)))
}

/// Every call passes here: who is it, and may they?
async fn gate_keeper(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<PeerCertificate>().cloned().unwrap_or_default();
    let now = gate.writer.now();
    let recognised = recognise(&gate.writer.snapshot(), &peer, request.headers(), &gate.identity_key, now);
    let caller: Caller = recognised.unwrap_or_else(|fault| {
        if let CallerFault::Token { kind, fault } = fault {
            gate.token_faults.note(kind, fault);
        } else {
            debug!(%fault, "the caller is nobody");
        }
        nobody()
    });
    match gate.table.permit(request.uri().path(), &caller) {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            let long = LONG_CALLS.contains(&request.uri().path());
            let limit = if long { LONG_CALL_TIMEOUT } else { CALL_TIMEOUT };
            match timeout(limit, next.run(request)).await {
                Ok(response) => response,
                Err(_) => late(limit).into_http::<Body>().into_response(),
            }
        }
        Err(status) => status.into_http::<Body>().into_response(),
    }
}

fn late(limit: Duration) -> Status {
    let seconds = limit.as_secs();
    Status::deadline_exceeded(format!(
        "no answer in {seconds} s; what was asked may still happen: look before you send it again, or repeat its \
         request_id"
    ))
}

impl Controller {
    /// Serves until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "controller listens");
        }
        let connections = TaskTracker::new();
        connections.spawn(self.acme.clone().renew(TenantId::default_tenant(), stop.clone()));
        connections.spawn(self.writer.clone().follow_up_always(stop.clone()));
        connections.spawn(self.activity.clone().follow(stop.clone()));
        connections.spawn(keep_certificates(
            self.writer.clone(),
            self.surroundings.clone(),
            self.authority.clone(),
            self.certificate.clone(),
            stop.clone(),
        ));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(self.serve_on(stream, stop.clone()));
                }
                Ok(_) => warn!("too many connections to the admin API"),
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }

    /// Serves one connection, from its TLS handshake to its end.
    pub fn serve_on<S>(&self, io: S, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        serve(io, self.tls.clone(), self.routes.clone(), stop)
    }
}

async fn serve<S>(io: S, tls: TlsAcceptor, routes: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = timeout(HANDSHAKE_TIMEOUT, tls.accept(io)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "no TLS"),
        Err(_) => return debug!("no TLS in time"),
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(PeerCertificate(peer.clone()));
        let answer = routes.clone().oneshot(request.map(Body::new));
        async move { answer.await.map_err(|never: Infallible| -> io::Error { match never {} }) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(100)
        .max_header_list_size(32 * 1024);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Calls are short; a watch that is not ends with the process.
            let ended = timeout(Duration::from_secs(2), connection).await;
            ended.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        debug!(%error, "a connection to the admin API ended early");
    }
}

async fn keep_certificates(
    writer: Arc<Writer>,
    surroundings: Surroundings,
    authority: Arc<Authority>,
    certificate: Arc<ServerCertificate>,
    stop: CancellationToken,
) {
    let tenant = TenantId::default_tenant();
    loop {
        let next = writer.now().plus_seconds(CERTIFICATE_CHECK_INTERVAL.as_secs() as i64);
        tokio::select! {
            () = surroundings.clock.reach_ms(next.0) => {}
            () = stop.cancelled() => return,
        }
        if certificate.renews() <= writer.now() {
            match certificate.renew(writer.now()) {
                Ok(()) => info!(expires = certificate.expires().seconds(), "certificate of the admin API renewed"),
                Err(error) => {
                    warn!(error = %runtime::telemetry::chain(&error), "the certificate of the admin API is not renewed yet")
                }
            }
        }
        if let Err(error) = bootstrap::ensure_certificate(&writer, &surroundings, &tenant, &authority).await {
            warn!(error = %runtime::telemetry::chain(&error), "the server certificate is not renewed yet");
        }
    }
}
