//! A private RabbitMQ: own ports, own node name, own directory, own epmd.
//! Nothing of it outlives the test process, however that ends.
#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, mpsc},
    time::Duration,
};

/// How long a node may take to start, on a machine that has other things to do.
const START: Duration = Duration::from_secs(120);

/// Kills the process groups whose ids stand in a directory, and removes it,
/// when its standard input ends: that is, with the process that holds the other end.
const GUARD: &str = r#"cat >/dev/null
for group in "$1"/*.group; do [ -e "$group" ] && kill -KILL "-$(cat "$group")"; done
until rm -rf "$1" 2>/dev/null; do :; done"#;

/// A running server.
pub(crate) struct Server {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    tls_port: u16,
    epmd_port: u16,
    node: String,
    epmd: Child,
    running: Mutex<Option<Child>>,
    guard: Child,
}

impl Server {
    /// Starts a server. `None`, with a word about it, where RabbitMQ is not
    /// installed; in CI that is a failure.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(env::var("CI").as_deref() != Ok("true"), "rabbitmq-server is not installed");
            eprintln!("skipped: rabbitmq-server is not installed");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("rabbitmq-").tempdir().expect("a directory").keep();
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a guard");
        let [port, tls_port, epmd_port, distribution] = free_ports();
        let node = format!("signals{port}@localhost");
        configure(&directory, port, tls_port, distribution);
        let epmd = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("epmd, which comes with Erlang");
        fs::write(directory.join("epmd.group"), epmd.id().to_string()).expect("epmd's process group");
        let running = Mutex::new(None);
        let server = Self { programs, directory, port, tls_port, epmd_port, node, epmd, running, guard };
        server.restart();
        Some(server)
    }

    /// Starts the node again on the same ports, with what it had stored.
    pub(crate) fn restart(&self) {
        let mut node = self.command("rabbitmq-server").stdout(Stdio::piped()).spawn().expect("rabbitmq-server");
        fs::write(self.group(), node.id().to_string()).expect("the node's process group");
        let output = BufReader::new(node.stdout.take().expect("its output"));
        let (started, is_started) = mpsc::channel();
        std::thread::spawn(move || {
            // "Starting broker... completed with 0 plugins." The rest is read so that the pipe never fills.
            for line in output.lines().map_while(Result::ok) {
                if line.contains("completed with") {
                    let _ = started.send(());
                }
            }
        });
        if is_started.recv_timeout(START).is_err() {
            let log = fs::read_to_string(self.directory.join("log").join("node.log")).unwrap_or_default();
            panic!("rabbitmq-server did not start:\n{log}");
        }
        *self.running.lock().expect("the node") = Some(node);
    }

    /// `kill -9`, at once.
    pub(crate) fn kill(&self) {
        if let Some(mut node) = self.running.lock().expect("the node").take() {
            // The shell's own kill: programs of that name differ in how they take a group.
            let kill = Command::new("sh").args(["-c", &format!("kill -KILL -{}", node.id())]).status();
            assert!(kill.is_ok_and(|status| status.success()), "the node cannot be killed");
            let _ = node.wait();
            let _ = fs::remove_file(self.group());
        }
    }

    /// Sends a signal to all of the node, such as `STOP` and `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let running = self.running.lock().expect("the node");
        let group = running.as_ref().expect("a running node").id();
        let kill = Command::new("sh").args(["-c", &format!("kill -{name} -{group}")]).status();
        assert!(kill.is_ok_and(|status| status.success()), "the node cannot be signalled");
    }

    /// Runs a command of `rabbitmqctl`, which must succeed.
    pub(crate) fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command("rabbitmqctl");
        let output = command.args(["-q", "-n", &self.node]).args(arguments).output().expect("rabbitmqctl");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where `guest` comes in, at the virtual host `/`.
    pub(crate) fn url(&self) -> String {
        self.url_of("guest:guest", "%2F")
    }

    /// Where somebody else comes in, elsewhere.
    pub(crate) fn url_of(&self, credentials: &str, virtual_host: &str) -> String {
        format!("amqp://{credentials}@127.0.0.1:{}/{virtual_host}", self.port)
    }

    /// The same with TLS, by a name that the certificate bears.
    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2F", self.tls_port)
    }

    /// A file of the server's directory: `ca.pem`, `other-ca.pem`,
    /// `client.pem`, `client.key`, `stranger.pem`, `stranger.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn group(&self) -> PathBuf {
        self.directory.join("node.group")
    }

    fn command(&self, program: &str) -> Command {
        let within = |name: &str| self.directory.join(name);
        let mut command = Command::new(self.programs.join(program));
        command
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_CONF_ENV_FILE", within("no-rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", within("rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", within("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", within("data"))
            .env("RABBITMQ_LOG_BASE", within("log"))
            .env("RABBITMQ_LOGS", within("log").join("node.log"))
            .env("RABBITMQ_PID_FILE", within("node.pid"))
            .env("RABBITMQ_DIST_PORT", fs::read_to_string(within("distribution")).expect("a port"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.epmd.wait();
        if let Ok(Some(node)) = self.running.get_mut().map(Option::as_mut) {
            let _ = node.wait();
        }
    }
}

/// The directory of RabbitMQ's own scripts. Debian's wrappers in `/usr/sbin`
/// change the user and lose the environment.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = ["/usr/lib/rabbitmq/bin".into()].into_iter().chain(env::split_paths(&path));
    directories.into_iter().find(|directory| directory.join("rabbitmq-server").is_file())
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn configure(directory: &Path, port: u16, tls_port: u16, distribution: u16) {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).expect("a file of the server's");
    let within = |name: &str| directory.join(name).display().to_string();
    write("enabled_plugins", "[].\n".to_owned());
    write("distribution", distribution.to_string());
    write(
        "rabbitmq.conf",
        format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\n\
             listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\n\
             ssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = false\n\
             disk_free_limit.absolute = 1MB\n\
             log.file.level = info\n",
            within("ca.pem"),
            within("server.pem"),
            within("server.key"),
        ),
    );
    for authority in ["ca", "other-ca"] {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    write("names", "subjectAltName=DNS:localhost,IP:127.0.0.1\n".to_owned());
    for (name, authority) in [("server", "ca"), ("client", "ca"), ("stranger", "other-ca")] {
        openssl(directory, &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(
            directory,
            &format!(
                "x509 -req -days 2 -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -extfile names -out {name}.pem"
            ),
        );
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
