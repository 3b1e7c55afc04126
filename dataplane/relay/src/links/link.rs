//! The connector endpoint: links with their control streams, and the way to a
//! controller for connectors that enrol or renew.
//!
//! Who a connector is, its certificate says and nothing else. Revocation, the
//! certificate's end and a silent peer each end the link.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use eventlog::View;
use h2::RecvStream;
use http::Request;
use model::{
    ConnectorGroupId, ConnectorId, TenantId,
    activity::{ConnectorEvent, LinkEnd},
};
use proto::{
    enrolment::{CONTROLLER_NAME, ConnectorUri, ENROL, RENEW},
    v1::{EnrolRequest, LinkReport, LinkSettings, RenewRequest, enrolment_client::EnrolmentClient},
};
use runtime::{
    dial::dial_any,
    tls::{link_client, roots, uris, validity_s},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tonic::{Status, transport::Channel};
use tracing::{debug, info, warn};
use tunnel::{
    TunnelError,
    io::Wide,
    link::{self, ControlReceiver, ControlSender, FOLLOW, SERVE, ServerResponse},
};

use crate::links::{
    Links,
    audience::GroupNews,
    connectors::{Link, Parked, StreamLink},
};

/// A connection to the connector endpoint after its handshake.
pub(crate) type LinkStream = TlsStream<Wide<TcpStream>>;

/// Signed events in one control message.
const EVENTS_PER_MESSAGE: usize = 64;
const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a certificate is for one call.
const STRANGER_LIFE: Duration = Duration::from_secs(30);

/// What a connector certificate says: its [`ConnectorUri`], and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorName {
    pub tenant: TenantId,
    pub group: ConnectorGroupId,
    pub connector: ConnectorId,
    pub expires_s: i64,
}

impl ConnectorName {
    /// The chain was verified by TLS; this reads the leaf.
    pub fn read(leaf: &CertificateDer<'_>) -> Option<Self> {
        let uris = uris(leaf);
        let name = ConnectorUri::find(uris.iter().map(String::as_str)).ok()?;
        Some(Self {
            tenant: TenantId::parse(name.tenant)?,
            group: name.group.parse().ok()?,
            connector: name.connector.parse().ok()?,
            expires_s: validity_s(leaf)?.1,
        })
    }

    fn is_welcome(&self, view: &View) -> bool {
        let known = view.snapshot.tenant(&self.tenant).and_then(|tenant| tenant.connectors.get(&self.connector));
        known.is_some_and(|it| !it.revoked && it.group == self.group)
    }
}

impl Links {
    /// Serves one connection to the connector endpoint until it ends.
    pub(crate) async fn serve_link(
        self: Arc<Self>,
        stream: LinkStream,
        address: Option<IpAddr>,
        tenant: TenantId,
        thread: usize,
    ) {
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let name = leaf.and_then(ConnectorName::read).filter(|name| name.tenant == tenant);
        let connection = match link::serve(stream).await {
            Ok(connection) => connection,
            Err(error) => {
                debug!(%error, "the HTTP/2 handshake of a link failed");
                return;
            }
        };
        match name {
            Some(name) if name.is_welcome(&self.current.view()) => self.keep(connection, name, thread, address).await,
            Some(name) => debug!(connector = %name.connector, "an unknown or revoked connector is turned away"),
            None => {
                // Over when the life ends, whatever was asked.
                let _ended = timeout(STRANGER_LIFE, self.serve_stranger(connection, &tenant)).await;
            }
        }
    }

    /// A connector's connection that came another way than by the listener, its
    /// certificate read: for simulations.
    pub(crate) async fn serve_connector_on<T>(self: Arc<Self>, io: T, name: ConnectorName)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        if let Ok(connection) = link::serve(io).await
            && name.is_welcome(&self.current.view())
        {
            self.keep(connection, name, 0, None).await;
        }
    }

    async fn keep<T>(
        self: Arc<Self>,
        mut connection: link::ServerConnection<T>,
        name: ConnectorName,
        thread: usize,
        address: Option<IpAddr>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let link = Arc::new(Link::new(name.tenant.clone(), name.group, name.connector, thread, address));
        self.connectors.add(&link);
        self.recorder.metrics.links.inc();
        let ends = jiff::Timestamp::from_second(name.expires_s).map_or(String::new(), |it| it.to_string());
        self.tell(&name, ConnectorEvent::Linked, &format!("certificate ends {ends}"));
        info!(connector = %name.connector, "link up");
        let why = self.drive(&mut connection, &link, &name).await;
        self.connectors.remove(&link);
        self.recorder.metrics.links.dec();
        self.tell(&name, ConnectorEvent::Unlinked, why.as_str());
        info!(connector = %name.connector, why = why.as_str(), "link down");
    }

    async fn drive<T>(
        self: &Arc<Self>,
        connection: &mut link::ServerConnection<T>,
        link: &Arc<Link>,
        name: &ConnectorName,
    ) -> LinkEnd
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(pings) = connection.ping_pong() else { return LinkEnd::NoKeepAlive };
        let window = watch::Sender::new(0u32);
        let mut windows = window.subscribe();
        let (mut grown, measured) = (link::Windows::default(), link.clone());
        let alive = link::keep_alive(pings, move |round_trip| {
            measured.measured(round_trip);
            window.send_if_modified(|it| std::mem::replace(it, grown.measured(round_trip)) != *it);
        });
        let mut alive = std::pin::pin!(alive);
        let life = name.expires_s.saturating_sub(self.current.clock.now_ms() / 1000).max(0) as u64;
        let mut expired = std::pin::pin!(sleep(Duration::from_secs(life)));
        let mut membership = self.audience.of_connector(&name.tenant, name.connector);
        let mut draining = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.call(request, respond, link),
                    Some(Err(error)) => {
                        debug!(%error, "link broke: the HTTP/2 connection failed");
                        return LinkEnd::Broke;
                    }
                    None => return LinkEnd::Closed,
                },
                error = &mut alive => {
                    debug!(%error, "link lost: no answer to a keep-alive ping (timeout)");
                    return LinkEnd::Silent;
                }
                Ok(()) = windows.changed() => {
                    let size = *windows.borrow_and_update();
                    if connection.set_initial_window_size(size).is_err() {
                        return LinkEnd::Broke;
                    }
                }
                () = membership.ends(name.group) => {
                    connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                    return LinkEnd::Revoked;
                }
                () = link.given_up.notified() => {
                    self.recorder.metrics.links_revived.inc();
                    warn!(connector = %name.connector, "a link has no stream left; its connector is to dial again");
                    return LinkEnd::NoStreamLeft;
                }
                () = &mut expired => return LinkEnd::CertificateExpired,
                () = self.life.stop.cancelled(), if !draining => {
                    draining = true;
                    // The control stream tells the connector; its parked
                    // streams go back, busy ones end by themselves.
                    self.connectors.drain(link);
                    connection.graceful_shutdown();
                }
                () = self.life.ended.cancelled() => return LinkEnd::RelayStopped,
            }
        }
    }

    fn call(self: &Arc<Self>, request: Request<RecvStream>, respond: ServerResponse, link: &Arc<Link>) {
        match request.uri().path() {
            SERVE => {
                if let Ok(whole) = link::park(request, respond) {
                    self.connectors.park(Parked { whole, link: StreamLink::new(link.clone()) });
                }
            }
            FOLLOW => {
                let (links, link) = (self.clone(), link.clone());
                self.life.tasks.spawn(async move {
                    if let Ok((sender, receiver)) = link::followed(request, respond)
                        && let Err(error) = links.control(sender, receiver, &link).await
                    {
                        debug!(%error, "control stream ended");
                    }
                });
            }
            _ => self.refuse(respond),
        }
    }

    fn refuse(&self, mut respond: ServerResponse) {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        // The peer is gone when this fails.
        let _gone = respond.send_response(response, true);
    }

    /// Tells the connector what it may reach, now and after each change.
    async fn control(
        &self,
        mut sender: ControlSender,
        mut receiver: ControlReceiver,
        link: &Arc<Link>,
    ) -> Result<(), TunnelError> {
        let mut told = GroupNews::default();
        let mut group = self.audience.of_group(&link.tenant, link.group);
        let threads = self.threads;
        let mut first = true;
        loop {
            let news = group.borrow_and_update().clone();
            if let Some(tenant) = news.tenant_since(&told) {
                sender.send(&LinkSettings { tenant, relay_threads: threads, ..Default::default() })?;
            }
            for keys in news.keys_since(&told).chunks(EVENTS_PER_MESSAGE) {
                sender.send(&LinkSettings { keys: keys.to_vec(), relay_threads: threads, ..Default::default() })?;
            }
            for apps in news.apps_since(&told).chunks(EVENTS_PER_MESSAGE) {
                sender.send(&LinkSettings { apps: apps.to_vec(), relay_threads: threads, ..Default::default() })?;
            }
            told = news;
            if std::mem::take(&mut first) {
                let complete =
                    LinkSettings { relay_threads: threads, complete: true, acknowledge: true, ..Default::default() };
                sender.send(&complete)?;
                link.serves.store(true, Ordering::Relaxed);
            }
            tokio::select! {
                changed = group.changed() => if changed.is_err() { return Ok(()) },
                report = receiver.next::<LinkReport>() => match report? {
                    Some(LinkReport { draining: true, .. }) => self.connectors.drain(link),
                    Some(report) => {
                        link.says_version(&report.version);
                        link.acknowledges.store(report.acknowledges, Ordering::Relaxed);
                    }
                    None => return Ok(()),
                },
                () = self.life.stop.cancelled() => {
                    sender.send(&LinkSettings { drain: true, ..Default::default() })?;
                    break;
                }
            }
        }
        // Dropping the stream would reset it, and the link with it: the
        // connector ends it when its own streams are done.
        while receiver.next::<LinkReport>().await?.is_some() {}
        Ok(())
    }

    fn tell(&self, name: &ConnectorName, what: ConnectorEvent, detail: &str) {
        self.recorder.connector(&name.tenant, name.connector.to_string(), what, detail);
    }

    /// A connection without a certificate may enrol or renew, and nothing else.
    async fn serve_stranger(self: &Arc<Self>, mut connection: link::ServerConnection<LinkStream>, tenant: &TenantId) {
        while let Some(Ok((request, respond))) = connection.accept().await {
            let links = self.clone();
            match request.uri().path() {
                ENROL | RENEW => {
                    let tenant = tenant.clone();
                    self.life.tasks.spawn(async move { links.enrolment(request, respond, &tenant).await });
                }
                _ => self.refuse(respond),
            }
        }
    }

    /// Passes one call on to a controller; the controller believes none of it.
    async fn enrolment(&self, request: Request<RecvStream>, respond: ServerResponse, tenant: &TenantId) {
        let is_renewal = request.uri().path() == RENEW;
        let Ok((sender, mut receiver)) = link::followed(request, respond) else { return };
        let answer = async {
            let mut client = self.controller(tenant).await?;
            let unreadable = |_| Status::invalid_argument("an unreadable request");
            match is_renewal {
                true => {
                    let question = receiver.next::<RenewRequest>().await.map_err(unreadable)?.unwrap_or_default();
                    client.renew(question).await
                }
                false => {
                    let question = receiver.next::<EnrolRequest>().await.map_err(unreadable)?.unwrap_or_default();
                    client.enrol(question).await
                }
            }
        };
        let answered = timeout(ENROLMENT_TIMEOUT, answer).await;
        let answer = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no controller answers")));
        let _gone = match answer {
            Ok(response) => sender.answer(response.get_ref()),
            Err(status) => sender.status(status.code() as i32, status.message()),
        };
    }

    async fn controller(&self, tenant: &TenantId) -> Result<EnrolmentClient<Channel>, Status> {
        let away = || Status::unavailable("no controller can be reached; try again");
        let keys = self.current.keys();
        let authorities = keys.tenants.get(tenant).map(|it| it.authorities.clone()).unwrap_or_default();
        let tls = roots(authorities.iter().map(Vec::as_slice)).and_then(|it| link_client(it, None));
        let tls = tls.map_err(|_| away())?;
        let channel = dial_any(&self.controllers, CONTROLLER_NAME, &tls, ENROLMENT_TIMEOUT).await;
        channel.map(EnrolmentClient::new).ok_or_else(away)
    }
}
