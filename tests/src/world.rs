//! `postern up` as a newcomer starts it, and what one does with it.

use std::process::Command;

use admin_client::{Admin, Credential};
use proto::v1;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;

use crate::{
    browser::Browser,
    origin::Origin,
    processes::{Folder, Running, binary},
    until,
};

pub struct World {
    pub folder: Folder,
    pub up: Running,
    pub port: u16,
    pub password: String,
    pub admin: Admin,
    pub authority: String,
    /// `HOST:PORT` of probes and metrics.
    pub probes: String,
}

pub const PASSWORD: &str = "correct horse battery";

impl World {
    pub async fn start() -> Self {
        Self::start_in(Folder::default()).await
    }

    /// With a file of settings.
    pub async fn with_settings(settings: &str) -> Self {
        Self::with_settings_in(Folder::default(), settings).await
    }

    pub async fn with_settings_in(mut folder: Folder, settings: &str) -> Self {
        let path = folder.0.join("up.toml");
        std::fs::write(&path, settings).unwrap();
        folder.1.push(("POSTERN_UP_SETTINGS", path.display().to_string()));
        Self::start_in(folder).await
    }

    async fn start_in(folder: Folder) -> Self {
        let mut up = start_up(&folder);
        let password = up.line(|line| line.trim().strip_prefix("password").map(|it| it.trim().to_owned())).await;
        Self::ready(folder, up, password).await
    }

    /// With its data on a disk of so many MiB: one in memory, in a mount namespace
    /// of the process, which is a right that every user has.
    pub async fn on_a_disk_of(mib: usize) -> Self {
        let folder = Folder::default();
        let disk = folder.0.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let script = format!("mount -t tmpfs -o size={mib}m,mode=700 tmpfs '{}' && exec \"$@\"", disk.display());
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]).arg(binary("postern"));
        command.args(UP).arg(&disk);
        let mut up = Running::start("postern up on a small disk", &mut command);
        let inside = format!("/proc/{}/root{}", up.child.id(), disk.display());
        std::os::unix::fs::symlink(inside, folder.0.join("data")).unwrap();
        let password = up.line(|line| line.trim().strip_prefix("password").map(|it| it.trim().to_owned())).await;
        Self::ready(folder, up, password).await
    }

    /// Stops it and starts it again on the same data.
    pub async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// With something done to its folder while it is not running.
    pub async fn restart_after(mut self, meanwhile: impl FnOnce(&Folder)) -> Self {
        self.up.terminate();
        assert!(self.up.ended().await.success(), "{}", self.up.said().join("\n"));
        meanwhile(&self.folder);
        self.start_again().await
    }

    /// Starts one that has ended.
    pub async fn start_again(self) -> Self {
        let up = start_up(&self.folder);
        let Self { folder, password, .. } = self;
        Self::ready(folder, up, password).await
    }

    async fn ready(folder: Folder, mut up: Running, password: String) -> Self {
        up.line(|line| line.contains("postern publish").then_some(())).await;
        let port =
            up.line(|line| line.split("apps.postern.localhost:").nth(1)?.trim_end_matches('/').parse().ok()).await;
        let data = folder.0.join("data");
        let (_, credential) = Credential::find(Some(&data.join("owner.json"))).unwrap();
        let admin = Admin::connect(&credential).await.unwrap();
        let authority = std::fs::read_to_string(data.join("authority.pem")).unwrap();
        let probes = up.line(|line| line.split("http://").nth(1)?.strip_suffix("/readyz").map(str::to_owned)).await;
        Self { folder, up, port, password, admin, authority, probes }
    }

    pub fn url(&self, name: &str, path: &str) -> String {
        format!("https://{name}.postern.localhost:{}{path}", self.port)
    }

    pub fn browser(&self) -> Browser {
        Browser::new(&self.authority)
    }

    /// A browser in which somebody has signed in at an application.
    pub async fn signed_in(&self, app: &str, username: &str) -> Browser {
        let mut browser = self.browser();
        let answer = browser.sign_in(&self.url(app, "/"), username, PASSWORD).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        browser
    }

    pub async fn user(&self, username: &str) -> v1::User {
        create_user(&self.admin, username).await
    }

    pub async fn publish(&self, app: v1::App, principals: &[&str]) -> v1::App {
        let request = v1::PublishAppRequest { change: applied(), app: Some(app), assign_caller: false };
        let app = self.admin.applications().publish(request).await.unwrap().into_inner().app.unwrap();
        for principal in principals {
            self.assign(&app.id, principal).await;
        }
        app
    }

    /// An application with the given name, for everyone.
    pub async fn publish_origin(&self, name: &str, origin: &Origin) -> v1::App {
        self.publish(app(name, &origin.url()), &["everyone"]).await
    }

    pub async fn assign(&self, app: &str, principal: &str) {
        let assignment = json!({ "app": app, "principal": principal });
        self.admin.put(applied(), "assignment", assignment).await.unwrap();
    }

    pub async fn policy(&self, policy: v1::Policy) -> v1::Policy {
        self.admin.create(applied(), "policy", json!(policy)).await.unwrap();
        self.admin.read("policy", &policy.name).await.unwrap()
    }

    /// Ends the first session of somebody who has signed in.
    pub async fn revoke_session(&self, username: &str) {
        let sessions = until("the sign-in is recorded", async || {
            let answer = self.admin.sessions().list(v1::ListSessionsRequest { user: username.into() }).await.unwrap();
            let sessions = answer.into_inner().sessions;
            (!sessions.is_empty()).then_some(sessions)
        })
        .await;
        let request = v1::RevokeSessionRequest { change: applied(), session: sessions[0].id.clone() };
        self.admin.sessions().revoke(request).await.unwrap();
    }

    /// The command line, as the owner of this world; its output.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        self.folder
            .program("postern")
            .args(arguments)
            .arg("--credential")
            .arg(self.folder.0.join("data/owner.json"))
            .output()
            .unwrap()
    }

    pub async fn web_socket(&self, browser: &Browser, url: &str) -> WebSocket {
        web_socket(browser, url).await
    }
}

pub type WebSocket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// Opened by whoever the browser is signed in as.
pub async fn web_socket(browser: &Browser, url: &str) -> WebSocket {
    let url = url::Url::parse(url).unwrap();
    let mut request = http::Request::builder().uri(url.as_str().replacen("https", "wss", 1));
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let headers = [
        ("host", authority),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(cookies) = browser.cookie_header(&url) {
        request = request.header("cookie", cookies);
    }
    let stream = browser.connect(&url).await;
    let (socket, _) = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await.unwrap();
    socket
}

pub fn app(name: &str, origin: &str) -> v1::App {
    v1::App { name: name.into(), origin: origin.into(), ..Default::default() }
}

/// One that needs no sign-in.
pub fn open_app(name: &str, origin: &str) -> v1::App {
    v1::App { pre_authentication: v1::PreAuthentication::Passthrough.into(), ..app(name, origin) }
}

/// A user with the password `PASSWORD`.
pub async fn create_user(admin: &Admin, username: &str) -> v1::User {
    let user = v1::User { username: username.into(), ..Default::default() };
    let request = v1::CreateUserRequest { change: applied(), user: Some(user), password: PASSWORD.into() };
    admin.users().create(request).await.unwrap().into_inner().user.unwrap()
}

/// Answer when the relays serve it.
pub fn applied() -> Option<v1::Change> {
    Some(v1::Change { wait_applied: true, ..Default::default() })
}

const UP: [&str; 10] = [
    "up",
    "--listen",
    "127.0.0.1:0",
    "--admin-api",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--log",
    "info,relay=debug,connector=debug",
    "--data",
];

/// `postern up` on the data of a folder, not waited for.
pub fn start_up(folder: &Folder) -> Running {
    let mut command = folder.program("postern");
    command.args(UP).arg(folder.0.join("data"));
    Running::start("postern up", &mut command)
}
