//! Programs of ours and of others, stopped by process id when a test ends.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use uuid::Uuid;

/// A folder of a test's own, and what its programs find in their environment.
pub struct Folder(pub PathBuf, pub Vec<(&'static str, String)>);

impl Default for Folder {
    fn default() -> Self {
        use std::os::unix::fs::PermissionsExt;
        // Short: sockets live in it.
        let id = Uuid::now_v7().simple().to_string();
        let path = std::env::temp_dir().join(format!("pt-{}", &id[20..]));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self(path, vec![])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that was built with the tests.
pub fn binary(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let folder = deps.parent().and_then(Path::parent).unwrap();
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace first, or tests/run", path.display());
    path
}

impl Folder {
    /// One of our programs, in this environment.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.envs(self.1.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Something `tests/setup` installs.
pub fn tool(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path);
    assert!(path.exists(), "{} is missing: run tests/run once, it installs what tests need", path.display());
    path
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running program and what it has said.
pub struct Running {
    pub child: Child,
    said: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
    name: String,
}

impl Running {
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = streams.map(|stream| {
            let said = said.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line);
                }
            })
        });
        Self { child, said, readers, name: name.to_owned() }
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a line holds; shows everything if the program ends first.
    pub async fn line<T>(&mut self, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        crate::until(&format!("a line of {name}"), async || {
            if let Some(found) = self.said().iter().find_map(|line| find(line)) {
                return Some(found);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{name} ended with {status}:\n{}", self.said().join("\n"));
            }
            None
        })
        .await
    }

    pub fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// The end of the program, and of what it has to say.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let name = self.name.clone();
        let end = async || self.child.try_wait().unwrap().filter(|_| self.readers.iter().all(JoinHandle::is_finished));
        crate::until(&format!("the end of {name}"), end).await
    }

    pub fn kill(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}\n---", self.name, self.said().join("\n"));
        }
    }
}
