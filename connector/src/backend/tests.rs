//! Whose connections serve whom.

use std::sync::atomic::AtomicUsize;

use http_body_util::{BodyExt, Either, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// An origin that says on which of its connections it was asked.
#[derive(Default)]
struct Numbering {
    dialled: AtomicUsize,
    authenticates: bool,
    tasks: TaskTracker,
}

impl Network for Numbering {
    fn dial<'a>(&'a self, _target: &'a Target) -> Dialling<'a> {
        let number = self.dialled.fetch_add(1, Ordering::Relaxed);
        let (here, there) = duplex(64 * 1024);
        self.tasks.spawn(answer(there, number, self.authenticates));
        Box::pin(async move { Ok(Box::new(here) as Box<dyn Io>) })
    }
}

async fn answer(mut stream: DuplexStream, number: usize, authenticates: bool) {
    let offer = if authenticates { "www-authenticate: NTLM\r\n" } else { "" };
    let mut seen = Vec::new();
    loop {
        while !seen.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                return;
            }
        }
        seen.clear();
        let text = number.to_string();
        let answer = format!("HTTP/1.1 200 OK\r\n{offer}content-length: {}\r\n\r\n{text}", text.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn backend(network: Numbering) -> Arc<Backend> {
    let trust = Trust { roots: Arc::new(rustls::RootCertStore::empty()), client_certificates: None };
    let app = App { id: "a".into(), connect_timeout_ms: 1000, ..Default::default() };
    let target = Target::parse("http://one.test:80").unwrap();
    Arc::new(Backend::new(&app, target, &trust, Arc::new(network), TaskTracker::new()).unwrap())
}

/// The number of the connection that served.
async fn ask(backend: &Arc<Backend>, owner: &Owner) -> usize {
    let mut request = Request::new(Either::Right(Empty::new()));
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("one.test"));
    let Ok(OriginResponse { response, lent }) = backend.send(request, owner).await else { panic!("no answer") };
    let text = response.into_body().collect().await.unwrap().to_bytes();
    if let Some(lent) = lent {
        // hyper is ready for the next request once its task has seen the end.
        tokio::task::yield_now().await;
        lent.give_back();
        tokio::task::yield_now().await;
    }
    std::str::from_utf8(&text).unwrap().parse().unwrap()
}

fn owner(session: u64, account: &str) -> Owner {
    let account = Some(account).filter(|it| !it.is_empty()).map(Account::named);
    Owner { session, account }
}

#[tokio::test]
async fn connections_to_most_origins_are_shared() {
    let backend = backend(Numbering::default());
    for owner in [owner(1, "alice"), owner(2, "bob"), owner(0, ""), owner(1, "bob")] {
        assert_eq!(ask(&backend, &owner).await, 0);
    }
}

#[tokio::test]
async fn a_connection_of_one_account_serves_no_other_whatever_a_relay_says() {
    let backend = backend(Numbering { authenticates: true, ..Default::default() });
    let alice = ask(&backend, &owner(1, "alice")).await;
    // A relay that lies about sessions cannot lie about accounts.
    let bob = ask(&backend, &owner(1, "bob")).await;
    assert_ne!(alice, bob);
    let somebody = ask(&backend, &owner(1, "")).await;
    assert!(somebody != alice && somebody != bob, "who shows no statement gets nobody's connection");
    let other_session = ask(&backend, &owner(2, "alice")).await;
    assert!(![alice, bob, somebody].contains(&other_session), "another sign-in is another connection");
    for _ in 0..3 {
        assert_eq!(ask(&backend, &owner(1, "alice")).await, alice);
        assert_eq!(ask(&backend, &owner(1, "bob")).await, bob);
    }
    let nobody = [ask(&backend, &owner(0, "")).await, ask(&backend, &owner(0, "")).await];
    assert_ne!(nobody[0], nobody[1], "nobody's connection is used once");
}
