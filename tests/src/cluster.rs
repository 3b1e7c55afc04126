//! Every role as a process of its own over a real nats-server.

use std::{fmt::Write as _, path::PathBuf, process::Command};

use admin_client::{Admin, Credential};
use proto::v1;
use serde_json::json;

use crate::{
    browser::Browser,
    processes::{Folder, Running, binary, free_port, tool},
    until,
    world::{applied, create_user},
};

pub struct Cluster {
    pub folder: Folder,
    pub nats: Running,
    pub nats_url: String,
    pub controllers: Vec<Running>,
    pub relays: Vec<Running>,
    pub identity: Running,
    pub analytics: Vec<Running>,
    pub connectors: Vec<Running>,
    pub relay_ports: Vec<u16>,
    pub admin: Admin,
    pub authority: String,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(vec![]).await
    }

    /// Two of every role that needs no token, at the same moment, on nothing.
    pub async fn start_twins() -> Twins {
        let mut twins = Twins::prepare(vec![]).await;
        twins.relays = (0..2).map(|n| twins.start_relay(n)).collect();
        twins.analytics = ["activity", "activity-1"].map(|name| twins.start_analytics(name)).into();
        twins.controllers = (0..2).map(|n| twins.start_controller(n)).collect();
        for controller in &mut twins.controllers {
            controller.line(|line| line.contains("controller listens").then_some(())).await;
        }
        for n in 0..2 {
            let owner = twins.controller_state(n).join("owner.json");
            until("the owner's credential", async || Credential::find(Some(&owner)).ok()).await;
        }
        twins
    }

    /// With more in the environment of every process.
    pub async fn start_with(environment: Vec<(&'static str, String)>) -> Self {
        let mut twins = Twins::prepare(environment).await;
        for n in 0..2 {
            let mut controller = twins.start_controller(n);
            controller.line(|line| line.contains("controller listens").then_some(())).await;
            twins.controllers.push(controller);
        }
        twins.relays = (0..2).map(|n| twins.start_relay(n)).collect();
        twins.analytics = vec![twins.start_analytics("activity")];
        twins.joined().await
    }

    pub fn url(&self, relay: usize, name: &str, path: &str) -> String {
        format!("https://{name}.postern.localhost:{}{path}", self.relay_ports[relay])
    }

    pub fn browser(&self) -> Browser {
        Browser::new(&self.authority)
    }

    pub async fn user(&self, username: &str) -> v1::User {
        create_user(&self.admin, username).await
    }

    pub async fn publish(&self, app: v1::App) -> v1::App {
        let request = v1::PublishAppRequest { change: applied(), app: Some(app), assign_caller: false };
        let app = self.admin.applications().publish(request).await.unwrap().into_inner().app.unwrap();
        let everyone = json!({ "app": app.id, "principal": "everyone" });
        self.admin.put(applied(), "assignment", everyone).await.unwrap();
        app
    }

    /// A connector that joined before, started again.
    pub fn restart_connector(&self, n: usize) -> Running {
        run_connector(&self.folder, n)
    }

    /// A controller that ran before, started again.
    pub fn restart_controller(&self, n: usize) -> Running {
        run_role(&self.folder, "controller", &format!("controller-{n}"))
    }

    /// A relay that ran before, started again.
    pub fn restart_relay(&self, n: usize) -> Running {
        run_role(&self.folder, "relay", &format!("relay-{n}"))
    }

    pub async fn restart_nats(&mut self) {
        self.nats.kill();
        self.nats = run_nats(&self.folder, &self.nats_url);
        wait_for_nats(&self.nats_url).await;
    }
}

/// Two of each over a nats-server, of those who need no token.
pub struct Twins {
    pub folder: Folder,
    nats: Running,
    nats_url: String,
    pub controllers: Vec<Running>,
    controller_ports: [u16; 2],
    relays: Vec<Running>,
    relay_ports: Vec<u16>,
    analytics: Vec<Running>,
}

impl Twins {
    /// Keys and a broker, and nobody else yet.
    async fn prepare(environment: Vec<(&'static str, String)>) -> Self {
        let mut folder = Folder::default();
        folder.1 = environment;
        let keys = folder.0.join("keys");
        assert!(postern(&["keys", "--out", text(&keys)]).success());
        let (nats_url, nats) = start_nats(&folder).await;
        let (controller_ports, relay_ports) = ([free_port(), free_port()], vec![free_port(), free_port()]);
        let (controllers, relays, analytics) = (vec![], vec![], vec![]);
        Self { folder, nats, nats_url, controllers, controller_ports, relays, relay_ports, analytics }
    }

    fn start_controller(&self, n: usize) -> Running {
        start_controller(&self.folder, &self.nats_url, n, self.controller_ports[n], &self.relay_ports)
    }

    fn start_relay(&self, n: usize) -> Running {
        let own = format!(
            "[relay]\nlisten = \"127.0.0.1:{}\"\ncontrollers = {:?}\nmirror = {:?}\ndrain_grace_s = 5\n",
            self.relay_ports[n],
            self.controller_addresses(),
            self.folder.0.join(format!("relay-{n}.db")),
        );
        start_role(&self.folder, "relay", &format!("relay-{n}"), &self.nats_url, &own)
    }

    fn start_analytics(&self, name: &str) -> Running {
        let place = |suffix: &str| self.folder.0.join(format!("{name}.{suffix}"));
        let own = format!("[analytics]\nfile = {:?}\ncursor = {:?}\n", place("jsonl"), place("cursor"));
        start_role(&self.folder, "analytics", &format!("analytics-{name}"), &self.nats_url, &own)
    }

    fn controller_addresses(&self) -> [String; 2] {
        self.controller_ports.map(|port| format!("https://127.0.0.1:{port}"))
    }

    pub fn controller_state(&self, n: usize) -> PathBuf {
        self.folder.0.join(format!("keys-controller-{n}"))
    }

    /// What each has written for its owner.
    pub fn owners(&self) -> [Credential; 2] {
        [0, 1].map(|n| Credential::find(Some(&self.controller_state(n).join("owner.json"))).unwrap().1)
    }

    pub fn restart_controller(&self, n: usize) -> Running {
        run_role(&self.folder, "controller", &format!("controller-{n}"))
    }

    /// A broker that has forgotten everything.
    pub async fn lose_nats(&mut self) {
        self.nats.kill();
        std::fs::remove_dir_all(self.folder.0.join("jetstream")).unwrap();
        self.nats = run_nats(&self.folder, &self.nats_url);
        wait_for_nats(&self.nats_url).await;
    }

    /// Starts both controllers again at the same moment.
    pub async fn restarted(mut self) -> Self {
        for controller in &mut self.controllers {
            controller.kill();
        }
        self.controllers = (0..2).map(|n| self.restart_controller(n)).collect();
        for controller in &mut self.controllers {
            controller.line(|line| line.contains("controller listens").then_some(())).await;
        }
        self
    }

    /// With identity and connectors, which join with tokens.
    pub async fn joined(self) -> Cluster {
        let addresses = self.controller_addresses();
        let Self { folder, nats, nats_url, controllers, mut relays, relay_ports, analytics, .. } = self;
        let owner = folder.0.join("keys-controller-0/owner.json");
        let credential = until("the owner's credential", async || Credential::find(Some(&owner)).ok()).await.1;
        let admin = Admin::connect(&credential).await.unwrap();
        for relay in &mut relays {
            relay.line(|line| line.contains("relay listens").then_some(())).await;
        }
        let invitation = token(&admin, "Postern").await;
        std::fs::write(folder.0.join("identity.token"), invitation).unwrap();
        let own = format!(
            "[identity]\nsocket = {:?}\ncontrollers = {addresses:?}\nconnector_state = {:?}\njoin_token_file = {:?}\n",
            folder.0.join("identity.sock"),
            folder.0.join("identity-state"),
            folder.0.join("identity.token"),
        );
        let mut identity = start_role(&folder, "identity", "identity", &nats_url, &own);
        identity.line(|line| line.contains("link up").then_some(())).await;
        let mut connectors = Vec::new();
        for n in 0..2 {
            let invitation = token(&admin, "default").await;
            connectors.push(start_connector(&folder, n, &invitation).await);
        }
        let authority = credential.authority.clone();
        Cluster {
            folder,
            nats,
            nats_url,
            controllers,
            relays,
            identity,
            analytics,
            connectors,
            relay_ports,
            admin,
            authority,
        }
    }
}

pub async fn token(admin: &Admin, group: &str) -> String {
    let request = v1::IssueTokenRequest { change: applied(), group: group.into(), ..Default::default() };
    admin.connectors().issue_token(request).await.unwrap().into_inner().token
}

fn postern(arguments: &[&str]) -> std::process::ExitStatus {
    Command::new(binary("postern")).args(arguments).stdout(std::process::Stdio::null()).status().unwrap()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

async fn start_nats(folder: &Folder) -> (String, Running) {
    let keys = folder.0.join("keys");
    let store = folder.0.join("jetstream");
    let config = Command::new(binary("postern"))
        .args(["nats-config", "--keys", text(&keys), "--store", text(&store)])
        .args(["--tls-certificate", text(&folder.0.join("nats.pem")), "--tls-key", text(&folder.0.join("nats.key"))])
        .args(["--tls-ca", text(&folder.0.join("nats-ca.pem"))])
        .output()
        .unwrap();
    assert!(config.status.success());
    std::fs::write(folder.0.join("nats-server.conf"), config.stdout).unwrap();
    nats_certificates(folder);
    let url = format!("tls://127.0.0.1:{}", free_port());
    let nats = run_nats(folder, &url);
    wait_for_nats(&url).await;
    (url, nats)
}

/// An authority of the broker's own, a certificate for it and one for its clients.
fn nats_certificates(folder: &Folder) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let write = |name: &str, pem: String| std::fs::write(folder.0.join(name), pem).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("nats-ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    for name in ["nats", "nats-client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

fn run_nats(folder: &Folder, url: &str) -> Running {
    let port = url.rsplit(':').next().unwrap();
    let mut command = Command::new(tool("py/bin/nats-server"));
    command.args(["--addr", "127.0.0.1", "--port", port, "--config"]).arg(folder.0.join("nats-server.conf"));
    Running::start("nats-server", &mut command)
}

async fn wait_for_nats(url: &str) {
    let address = url.trim_start_matches("tls://");
    until("nats-server listens", async || std::net::TcpStream::connect(address).ok()).await;
}

fn start_controller(folder: &Folder, nats: &str, n: usize, port: u16, relay_ports: &[u16]) -> Running {
    let relays: Vec<String> = relay_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    // Each machine has its own copy of the role's keys.
    let keys = folder.0.join(format!("keys-controller-{n}"));
    let copied = Command::new("cp").arg("-r").arg(folder.0.join("keys/controller")).arg(&keys).status().unwrap();
    assert!(copied.success());
    let mut own = String::new();
    write!(
        own,
        "[controller]\nlisten = \"127.0.0.1:{port}\"\nrelay_addresses = {relays:?}\n[identity]\nsocket = {:?}\n",
        folder.0.join("identity.sock")
    )
    .unwrap();
    start_with_keys(folder, "controller", &format!("controller-{n}"), nats, &own, keys)
}

pub fn start_role(folder: &Folder, role: &str, name: &str, nats: &str, own: &str) -> Running {
    start_with_keys(folder, role, name, nats, own, folder.0.join("keys").join(role))
}

fn start_with_keys(folder: &Folder, role: &str, name: &str, nats: &str, own: &str, keys: PathBuf) -> Running {
    let [ca, certificate, key] = ["nats-ca.pem", "nats-client.pem", "nats-client.key"].map(|it| folder.0.join(it));
    let settings = format!(
        "keys = {keys:?}\n[log]\nurl = {nats:?}\nca = {ca:?}\ncertificate = {certificate:?}\ncertificate_key = {key:?}\nactivity_mib_max = 64\nstate_mib_max = 64\n[telemetry]\nlevel = \"info\"\n{own}"
    );
    let path = folder.0.join(format!("{name}.toml"));
    std::fs::write(&path, settings).unwrap();
    run_role(folder, role, name)
}

fn run_role(folder: &Folder, role: &str, name: &str) -> Running {
    let mut command = folder.program("postern");
    command.args([role, "--settings"]).arg(folder.0.join(format!("{name}.toml")));
    Running::start(name, &mut command)
}

pub async fn start_connector(folder: &Folder, n: usize, token: &str) -> Running {
    use std::os::unix::fs::PermissionsExt;
    let state = folder.0.join(format!("connector-{n}"));
    let file = folder.0.join(format!("connector-{n}.token"));
    std::fs::write(&file, token).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let joined = folder
        .program("postern-connector")
        .args(["join", "--name", &format!("c{n}"), "--token-file"])
        .arg(&file)
        .arg("--state")
        .arg(&state)
        .output()
        .unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let mut connector = run_connector(folder, n);
    connector.line(|line| line.contains("link up").then_some(())).await;
    connector
}

fn run_connector(folder: &Folder, n: usize) -> Running {
    let mut command = folder.program("postern-connector");
    command.arg("run").arg("--state").arg(folder.0.join(format!("connector-{n}")));
    Running::start(&format!("connector-{n}"), &mut command)
}
